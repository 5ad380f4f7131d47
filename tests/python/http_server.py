"""A scripted HTTP/1.1 server on a real socket that records its requests.

    async with serving(whole(b'{"ok":true}', content_type="application/json")) as server:
        ...                                   # talk to server.url
    assert server.requests[0].method == "POST"

`serving` takes the answers in the order of the requests, or a function that returns the answer to a request. An answer
is a list of steps: bytes are sent unchanged, and between them the server pauses, waits for an event of the test, hangs
until the client leaves, or cuts the connection.

Rule: a failure of this server fails the test. A request without an answer, or an exception in the function, is raised
at the end of the `async with` block.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from http import HTTPStatus
from typing import Any

__all__ = [
    "CUT",
    "HANG",
    "Answer",
    "Pause",
    "Request",
    "Server",
    "chunked",
    "event",
    "raw",
    "serving",
    "whole",
]


@dataclass(frozen=True)
class Request:
    """A request from a client.

    Header names are in lower case. The values of a repeated header are joined by ", ".
    """

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Returns the parsed JSON body."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Pause:
    """A step that waits for this many seconds."""

    seconds: float


class Special(Enum):
    """Steps that end an answer early."""

    CUT = "the connection is reset"
    HANG = "nothing more is sent until the client leaves"


CUT = Special.CUT
HANG = Special.HANG

Step = bytes | Pause | asyncio.Event | Special


@dataclass(frozen=True)
class Answer:
    """The steps of an answer, and whether its connection can carry another request afterwards."""

    steps: Sequence[Step]
    keeps_alive: bool = True


Answers = Answer | Sequence[Answer] | Callable[[Request], Answer | Awaitable[Answer]]


def whole(
    body: bytes = b"",
    *,
    status: int = 200,
    content_type: str | None = None,
    headers: Sequence[tuple[str, str]] = (),
) -> Answer:
    """Returns an answer of known length, in one piece."""
    fields = [("Content-Length", str(len(body))), *headers]
    return Answer([_head(status, content_type, fields) + body])


def chunked(
    *steps: Step,
    status: int = 200,
    content_type: str | None = None,
    headers: Sequence[tuple[str, str]] = (),
) -> Answer:
    """Returns an answer in chunked encoding: each step of bytes is a chunk, which is sent at once.

    With CUT or HANG the answer has no end.
    """
    framed: list[Step] = [_head(status, content_type, [("Transfer-Encoding", "chunked"), *headers])]
    for step in steps:
        framed.append(b"%x\r\n%b\r\n" % (len(step), step) if isinstance(step, bytes) else step)
    framed.append(b"0\r\n\r\n")
    return Answer(framed)


def raw(*steps: Step) -> Answer:
    """Returns an answer of exactly these steps, after which the connection closes."""
    return Answer(steps, keeps_alive=False)


def event(message: Any) -> bytes:
    """Returns a message as an event of an event stream. Bytes and text are used as the data unchanged."""
    if isinstance(message, str):
        message = message.encode()
    data = message if isinstance(message, bytes) else json.dumps(message).encode()
    return b"data: " + data + b"\n\n"


@dataclass
class Server:
    """A running server."""

    url: str
    requests: list[Request] = field(default_factory=list)
    # Connections that are open now, and all that were ever opened.
    open_connections: int = 0
    connections: int = 0
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _answers: Answers = ()
    _failures: list[BaseException] = field(default_factory=list)

    async def until(self, condition: Callable[[Server], bool], seconds: float = 5.0) -> None:
        """Waits until the condition holds.

        Raises:
            TimeoutError: the condition did not hold in time.
        """

        async def wait() -> None:
            async with self._changed:
                await self._changed.wait_for(lambda: condition(self))

        await asyncio.wait_for(wait(), seconds)

    def messages(self) -> list[Any]:
        """Returns the JSON bodies of all requests that have a body."""
        return [request.json() for request in self.requests if request.body]

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open_connections += 1
        self.connections += 1
        await self._notify()
        try:
            # The client may leave at any time; the test judges that.
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while (request := await _read(reader)) is not None:
                    self.requests.append(request)
                    await self._notify()
                    answer = await self._answer_to(request)
                    if not await _play(answer, reader, writer) or not answer.keeps_alive:
                        break
        except asyncio.CancelledError:
            pass  # The test is over.
        except BaseException as failure:
            self._failures.append(failure)
        finally:
            writer.close()
            self.open_connections -= 1
            await self._notify()

    async def _answer_to(self, request: Request) -> Answer:
        if callable(self._answers):
            answer = self._answers(request)
            return await answer if inspect.isawaitable(answer) else answer
        if isinstance(self._answers, Answer):
            return self._answers
        number = len(self.requests)
        assert number <= len(self._answers), f"no answer is meant for request {number}: {request}"
        return self._answers[number - 1]


@contextlib.asynccontextmanager
async def serving(answers: Answers, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """Runs a server on a free port of 127.0.0.1.

    `answers` is one answer for all requests, one for each, or a function.

    Raises:
        BaseException: the first failure in the server.
    """
    server = Server("", _answers=answers)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        await server._serve(reader, writer)
        tasks.discard(task)

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    host, port = listener.sockets[0].getsockname()
    server.url = f"http{'s' if tls else ''}://{host}:{port}/mcp"
    try:
        yield server
    finally:
        listener.close()
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
    if server._failures:
        raise server._failures[0]


async def _read(reader: asyncio.StreamReader) -> Request | None:
    """Reads the next request. Returns None if the client has closed the connection between two requests."""
    line = await reader.readline()
    if not line:
        return None
    method, target, _ = line.decode("latin-1").split(" ", 2)
    headers: dict[str, str] = {}
    while (line := await reader.readline()) not in (b"\r\n", b""):
        name, _, value = line.decode("latin-1").partition(":")
        name, value = name.lower(), value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = b""
        while size := int((await reader.readuntil(b"\n")).split(b";")[0], 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    else:
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(method, target, headers, body)


async def _play(answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Executes the steps of an answer. Returns True if all of them were executed."""
    for step in answer.steps:
        if isinstance(step, bytes):
            writer.write(step)
            await writer.drain()
        elif step is CUT:
            # With a linger time of zero, closing is a reset.
            connection = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return False
        elif not await _wait(step, reader):
            return False
    return True


async def _wait(step: Pause | asyncio.Event | Special, reader: asyncio.StreamReader) -> bool:
    """Waits for a step. Returns True if the client stays connected. It must not send anything meanwhile."""
    left = asyncio.ensure_future(reader.read(1))
    passed: asyncio.Future[Any]
    if isinstance(step, Pause):
        passed = asyncio.ensure_future(asyncio.sleep(step.seconds))
    elif isinstance(step, asyncio.Event):
        passed = asyncio.ensure_future(step.wait())
    else:
        passed = asyncio.get_running_loop().create_future()
    try:
        await asyncio.wait([left, passed], return_when=asyncio.FIRST_COMPLETED)
        return passed.done()
    finally:
        left.cancel()
        passed.cancel()
        await asyncio.wait([left, passed])


def _head(status: int, content_type: str | None, fields: Sequence[tuple[str, str]]) -> bytes:
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    if content_type is not None:
        lines.append(f"Content-Type: {content_type}")
    lines += [f"{name}: {value}" for name, value in fields]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
