"""One message to an MCP endpoint, and the whole bridge inside a program.

Rule: both do what the command ``mcp-gangway`` does, with its options and defaults.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from ._client import AsyncClient
from ._loop import complete
from ._models import UNSET, Headers, HeaderTypes, Limits, Request, Timeout, TimeoutTypes
from ._native import Bridge as _NativeBridge
from ._native import message_headers

if TYPE_CHECKING:
    from ._native import Completions, Operation
    from ._response import Response

#: What is read of the client's lines at once, in bytes.
_READ_SIZE = 64 << 10
#: Those of the command, in seconds.
DEFAULT_TIMEOUT = Timeout(connect=15.0, read=300.0, write=300.0, pool=None)


def forward_request(
    url: str,
    payload: Mapping[str, Any] | Sequence[Any] | bytes | str,
    *,
    headers: HeaderTypes = None,
    auth: str | None = None,
    timeout: TimeoutTypes = DEFAULT_TIMEOUT,
    client: AsyncClient | None = None,
) -> ForwardedRequest:
    """Posts one JSON-RPC message to an MCP endpoint.

    To be awaited, or to be opened with ``async with``, which frees the connection at the end of the block. Both give a
    :class:`Response` whose :meth:`~Response.aiter_messages` streams what the server answers, in whatever content type.

    Args:
        url: The endpoint.
        payload: The message, as an object or in JSON. Bytes are sent as they are.
        headers: Beside those that MCP asks for: ``Mcp-Session-Id`` and ``MCP-Protocol-Version`` of a session, for one.
            What a message of 2026-07-28 or later says of itself in headers is added.
        auth: Value of the Authorization header, sent as it is, like ``Bearer TOKEN``.
        timeout: Seconds, or a :class:`Timeout`. The reading time is the longest silence of the server: 300 s.
        client: Whose connections are used. Without it, they are kept for all calls of this function.

    Raises:
        ValueError: The payload is no JSON-RPC message.
        RequestError: No response came. Whatever its status, a response is no error.
    """
    body = payload if isinstance(payload, (bytes, str)) else json.dumps(payload, separators=(",", ":"))
    content = body.encode() if isinstance(body, str) else body
    sent = Headers(message_headers(content))
    sent.update(headers)
    if auth is not None:
        sent["Authorization"] = auth
    return ForwardedRequest(client, Request("POST", url, headers=sent, content=content), Timeout(timeout))


class ForwardedRequest:
    """A request of :func:`forward_request`, to be awaited or opened once."""

    def __init__(self, client: AsyncClient | None, request: Request, timeout: Timeout) -> None:
        self._client = client
        self._request = request
        self._timeout = timeout

    def __await__(self) -> Generator[Any, None, Response]:
        return self._send().__await__()

    async def __aenter__(self) -> Response:
        self._response = await self._send()
        return self._response

    async def __aexit__(self, *error: object) -> None:
        self._response.close()

    async def _send(self) -> Response:
        client = self._client or _shared_client()
        headers = client.headers.copy()
        headers.update(self._request.headers)
        self._request.headers = headers
        return await client._send(self._request, UNSET, self._timeout, whole=False)


_clients: dict[int, AsyncClient] = {}


def _shared_client() -> AsyncClient:
    """The connections of this process, which a fork does not have."""
    process = os.getpid()
    if process not in _clients:
        _clients.clear()
        _clients[process] = AsyncClient(limits=Limits(keepalive_expiry=50.0))
    return _clients[process]


class ByteReader(Protocol):
    """Where the bridge reads its client's lines, like ``asyncio.StreamReader``."""

    async def read(self, n: int, /) -> bytes:
        """At most ``n`` bytes; none at the end."""


class ByteWriter(Protocol):
    """Where the bridge writes the answers, like ``asyncio.StreamWriter``."""

    def write(self, data: bytes, /) -> Any:
        """Takes bytes."""

    async def drain(self) -> None:
        """Waits until more can be taken."""


@dataclass(frozen=True)
class BridgeSettings:
    """What the bridge is told. Names and meaning are those of the command's options (``mcp-gangway --help``).

    Args:
        url: Address of the MCP server.
        auth: Value of the Authorization header, sent as it is, like ``Bearer TOKEN``.
        headers: Others for every request.
        options: Further options of the command, like ``("--transport", "sse")``.
        environment: Where its variables are looked up; the process's own if None.
    """

    url: str
    auth: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float | None = None
    concurrency: int | None = None
    log_level: str | None = None
    options: tuple[str, ...] = ()
    environment: Mapping[str, str] | None = field(default=None, repr=False)

    def command(self) -> tuple[list[str], dict[str, str]]:
        """The command line, without the command's name, and the environment that say the same."""
        environment = dict(os.environ if self.environment is None else self.environment)
        values = {"--timeout": self.timeout, "--concurrency": self.concurrency, "--log-level": self.log_level}
        options = [text for name, value in values.items() if value is not None for text in (name, str(value))]
        headers = dict(self.headers)
        if self.auth is not None:
            headers["Authorization"] = self.auth
        for number, (name, value) in enumerate(headers.items()):
            # A value is taken from the environment as it is, whatever it holds.
            environment[f"_MCP_GANGWAY_HEADER_{number}"] = value
            options += ["--header", f"{name}: ${{_MCP_GANGWAY_HEADER_{number}}}"]
        return [*options, *self.options, "--url", self.url], environment


class Bridge:
    """The whole bridge, as an object: ``await bridge.run()``, and ``bridge.stop()`` from elsewhere."""

    def __init__(self, settings: BridgeSettings) -> None:
        self.settings = settings
        self._native = _NativeBridge()

    async def run(self, reader: ByteReader | None = None, writer: ByteWriter | None = None) -> int:
        """Connects a client, which writes JSON-RPC lines to ``reader`` and gets them from ``writer``, to the server,
        until the client's stream ends or the bridge is told to stop. Without the two, the client is on this process's
        stdin and stdout. What the command would say of a mistake in the settings is a line on stderr.

        Returns:
            The exit status of the command: 0, 2 for a mistake in the settings, 1 for any other failure.

        Raises:
            ValueError: One of the two streams without the other.
            RuntimeError: It has run already.
            asyncio.CancelledError: The task was cancelled. What is pending is answered with errors in the background.
        """
        if (reader is None) != (writer is None):
            raise ValueError("give both a reader and a writer, or none of them")
        pumps: list[asyncio.Task[None]] = []
        if reader is not None and writer is not None:
            pumps = [asyncio.create_task(self._pump_in(reader)), asyncio.create_task(self._pump_out(writer))]
        try:
            # Of the two, only the writing one ends with the bridge.
            (status, line), *_ = await asyncio.gather(complete(partial(self._start, reader is None)), *pumps[1:])
        except BaseException:
            self.stop()
            raise
        finally:
            for pump in pumps:
                pump.cancel()
        if pumps and pumps[0].done():
            pumps[0].result()
        if line is not None:
            print(f"mcp-gangway: {line}", file=sys.stderr)
        return int(status)

    def stop(self) -> None:
        """Tells it to end: what is pending is answered, with errors where need be. From any thread."""
        self._native.stop()

    def _start(self, on_stdio: bool, completions: Completions, future: asyncio.Future[Any]) -> Operation:
        options, environment = self.settings.command()
        return self._native.start(completions, future, options, environment, on_stdio)

    async def _pump_in(self, reader: ByteReader) -> None:
        try:
            while chunk := await reader.read(_READ_SIZE):
                await complete(partial(self._write, chunk))
        finally:
            self._native.close_input()

    def _write(self, chunk: bytes, completions: Completions, future: asyncio.Future[Any]) -> Operation:
        return self._native.write(completions, future, chunk)

    async def _pump_out(self, writer: ByteWriter) -> None:
        while (chunks := self._native.take()) is not None:
            if not chunks:
                await complete(self._native.wait)
                continue
            for chunk in chunks:
                writer.write(chunk)
            await writer.drain()


async def run(settings: BridgeSettings, reader: ByteReader | None = None, writer: ByteWriter | None = None) -> int:
    """Runs a bridge: see :meth:`Bridge.run`."""
    return await Bridge(settings).run(reader, writer)
