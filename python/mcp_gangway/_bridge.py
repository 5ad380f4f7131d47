"""One message to an MCP endpoint, and the whole bridge inside a program.

Rule: both do what the command ``mcp-gangway`` does, with its defaults; settings have names and types of their own.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ._client import AsyncClient, CertTypes, VerifyTypes, _identity, _trust
from ._loop import complete
from ._models import UNSET, Headers, HeaderTypes, Limits, Request, Timeout, TimeoutTypes
from ._native import Bridge as _NativeBridge
from ._native import message_headers

if TYPE_CHECKING:
    from ._response import Response

T = TypeVar("T")

#: What is read of the client's lines at once, in bytes.
_READ_SIZE = 64 << 10
#: How often a writer that is waited for is asked what it has taken, in seconds; and the least that it gets at the end.
_LOOK = 0.25
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
class SignIn:
    """How to sign in at a server that asks for it (OAuth 2.1). What is None is the server's own or the usual.

    Args:
        grant: ``browser``, ``device`` (a code for another device) or ``client_credentials`` (without a user).
        open_browser: Whether a browser is opened. The URL to sign in at is on stderr in any case.
        client_id: A client that the authorization server knows.
        client_secret: What it proves to be that client by.
        client_private_key: The same as a key in PEM (RSA, P-256 or P-384), for ``client_credentials``.
        issuer: The authorization server that may be used, as it names itself.
        client_metadata_url: ``https`` URL of a document that says who the client is.
        scopes: What to ask for, in the place of what the server asks for.
        resource: What the token is for; ``none`` leaves that out.
        parameters: More of them for the authorization request.
        callback_port: The port of this machine that the browser comes back to.
        callback_host: The host that it comes back to, ``localhost`` or a loopback address, as the client is registered.
        callback_path: The path: ``/callback``.
        login_wait: How many seconds a request waits for the user: 20.
        keychain: Whether sign-ins are kept in the system's keychain, if there is one.
        state_folder: For what no keychain keeps.
    """

    grant: str = "browser"
    open_browser: bool = True
    client_id: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    client_private_key: str | None = field(default=None, repr=False)
    issuer: str | None = None
    client_metadata_url: str | None = None
    scopes: Sequence[str] = ()
    resource: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    callback_port: int | None = None
    callback_host: str | None = None
    callback_path: str | None = None
    login_wait: float | None = None
    keychain: bool = True
    state_folder: str | os.PathLike[str] | None = None


@dataclass(frozen=True)
class BridgeSettings:
    """What a bridge is told. Times are in seconds, sizes in bytes; what is None is as the command has it.

    Args:
        url: Address of the MCP server: ``https://…``, or ``unix:/path/of/socket:/mcp``.
        auth: Value of the Authorization header, sent as it is, like ``Bearer TOKEN``.
        auth_command: A command that prints it; run without a shell, at the start and when the server refuses it.
        headers: Others for every request, sent as they are.
        header_file: A file with a header a line (``Name: Value``), where ``${NAME}`` is a variable of the environment;
            read again when the server refuses them.
        transport: ``auto``, ``http`` (Streamable HTTP), ``sse`` (HTTP+SSE) or ``sse-first``.
        era: What a client speaks that knows both eras of MCP: ``auto`` (as the server), ``modern`` (2026-07-28) or
            ``legacy``.
        allow_tools, deny_tools: Names, with ``*`` and ``?``, of the tools that the client may see and call, and of
            those that it may not.
        timeout: The longest silence of the server during a request: 300.
        max_time: The longest life of a request, however busy: no limit.
        connect_timeout: The longest time to connect: 15.
        drain_timeout: The longest time for open requests after the client's end, and for a client that takes nothing of
            what there is for it: 5.
        concurrency: Requests that may be open at the server at once: 64.
        max_message_size: The largest message from the server: 4 GiB.
        max_request_size: The largest message from the client, which is in memory: 64 MiB.
        verify, cert, proxy: As for :class:`AsyncClient`. Without a proxy the system's counts.
        unix_socket: A Unix socket that the server listens on, in the place of the URL's host and port.
        http2: Whether only HTTP/2 is spoken, also without TLS.
        pool_size: Connections that are kept while nobody uses them: no limit.
        pool_idle: How long they are kept: 50.
        sign_in: How to sign in where the server asks for it. None to leave that.
        log_level: ``off``, ``error``, ``warn``, ``info``, ``debug`` or ``trace``: ``warn``.
        log_file: A file to append the log to, in the place of stderr.
        log_format: ``text`` or ``json``, an object a line.

    The log is the process's: the first bridge decides on it.
    """

    url: str
    auth: str | None = field(default=None, repr=False)
    _: KW_ONLY
    auth_command: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    header_file: str | os.PathLike[str] | None = None
    transport: str = "auto"
    era: str = "auto"
    allow_tools: Sequence[str] = ()
    deny_tools: Sequence[str] = ()
    timeout: float | None = None
    max_time: float | None = None
    connect_timeout: float | None = None
    drain_timeout: float | None = None
    concurrency: int | None = None
    max_message_size: int | None = None
    max_request_size: int | None = None
    verify: VerifyTypes = True
    cert: CertTypes = None
    proxy: str | None = field(default=None, repr=False)
    unix_socket: str | os.PathLike[str] | None = None
    http2: bool = False
    pool_size: int | None = None
    pool_idle: float | None = None
    sign_in: SignIn | None = field(default_factory=SignIn)
    log_level: str | None = None
    log_file: str | os.PathLike[str] | None = None
    log_format: str = "text"


class Bridge:
    """The whole bridge, as an object: ``await bridge.run()``, and ``bridge.stop()`` from elsewhere.

    Raises:
        ValueError: A setting that cannot be used, by its name.
        TypeError: One that is of another type.
    """

    def __init__(self, settings: BridgeSettings) -> None:
        self.settings = settings
        trusted, authorities = _read("verify", partial(_trust, settings.verify))
        identity = _read("cert", partial(_identity, settings.cert))
        self._native = _NativeBridge(settings, (not trusted, authorities, identity))
        #: Bytes that the client's writer has taken.
        self._written = 0

    async def run(self, reader: ByteReader | None = None, writer: ByteWriter | None = None) -> int:
        """Connects a client, which writes JSON-RPC lines to ``reader`` and gets them from ``writer``, to the server,
        until the client's stream ends or the bridge is told to stop. Without the two, the client is on this process's
        stdin and stdout.

        After the client's end, what there is for it is written for as long as it takes something of that within
        ``drain_timeout``. If it does not, the rest is lost, and that is a line on stderr.

        Returns:
            0, or 1 if something was lost or stdin cannot be read.

        Raises:
            ValueError: One of the two streams without the other, or a file for the log that cannot be written.
            RuntimeError: It has run already.
            asyncio.CancelledError: The task was cancelled. What is pending is answered with errors in the background.
        """
        if (reader is None) != (writer is None):
            raise ValueError("give both a reader and a writer, or none of them")
        running = asyncio.create_task(complete(partial(self._native.start, on_stdio=reader is None)))
        pumps: list[asyncio.Task[None]] = []
        try:
            if reader is not None and writer is not None:
                pumps = [asyncio.create_task(self._pump_in(reader)), asyncio.create_task(self._pump_out(writer))]
                # Of the two, only the writing one ends with the bridge, or because it failed.
                await asyncio.wait([running, pumps[1]], return_when=asyncio.FIRST_COMPLETED)
                if pumps[1].done():
                    pumps[1].result()
            status, line = await running
            if pumps and not await self._is_written(pumps[1]) and not status:
                status, line = 1, "the writer took nothing in time; what it was to be given last is lost"
        except BaseException:
            self.stop()
            raise
        finally:
            for task in (running, *pumps):
                task.cancel()
        if pumps and pumps[0].done():
            pumps[0].result()
        if line is not None:
            print(f"mcp-gangway: {line}", file=sys.stderr)
        return int(status)

    def stop(self) -> None:
        """Tells it to end: what is pending is answered, with errors where need be. From any thread."""
        self._native.stop()

    async def _pump_in(self, reader: ByteReader) -> None:
        try:
            while chunk := await reader.read(_READ_SIZE):
                await complete(partial(self._native.write, bytes=chunk))
        finally:
            self._native.close_input()

    async def _pump_out(self, writer: ByteWriter) -> None:
        while (chunks := self._native.take()) is not None:
            if not chunks:
                await complete(self._native.wait)
            for chunk in chunks:
                await self._put(writer, chunk)

    async def _put(self, writer: ByteWriter, chunk: bytes) -> None:
        """Writes a chunk. What the writer takes of it, or of what it had before, is told while it takes it."""
        writer.write(chunk)
        left, waiting = len(chunk), _waiting(writer)
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle

        def look() -> None:
            nonlocal left, waiting, timer
            waiting, before = _waiting(writer), waiting
            taken = max(0, min(left, before - waiting))
            self._tell_written(taken)
            left -= taken
            timer = loop.call_later(_LOOK, look)

        timer = loop.call_later(_LOOK, look)
        try:
            await writer.drain()
        finally:
            timer.cancel()
        self._tell_written(left)

    def _tell_written(self, count: int) -> None:
        if count:
            self._written += count
            self._native.written(count)

    async def _is_written(self, pump: asyncio.Task[None]) -> bool:
        """Waits until all is written, for as long as something is within the time for that."""
        while not pump.done():
            before = self._written
            await asyncio.wait({pump}, timeout=max(self._native.drain_time, _LOOK * 2))
            if self._written == before and not pump.done():
                return False
        pump.result()
        return True


async def run(settings: BridgeSettings, reader: ByteReader | None = None, writer: ByteWriter | None = None) -> int:
    """Runs a bridge: see :meth:`Bridge.run`."""
    return await Bridge(settings).run(reader, writer)


def _waiting(writer: ByteWriter) -> int:
    """Bytes that the writer has and its client has not, if it says so as those of asyncio do."""
    transport = getattr(writer, "transport", None)
    size: int = transport.get_write_buffer_size() if transport is not None else 0
    return size


def _read(name: str, read: Callable[[], T]) -> T:
    """What is in the files of a setting.

    Raises:
        ValueError: One cannot be read.
        TypeError: The setting is of another type.
    """
    try:
        return read()
    except OSError as error:
        raise ValueError(f"{name}: {error}") from error
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from error
