"""Sends one message to an MCP endpoint, or runs the whole bridge inside a program.

Rule: both behave like the command ``mcp-gangway``, with its defaults. Settings have Python names and types.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ._client import AsyncClient
from ._exceptions import HTTPStatusError, RequestError
from ._loop import complete
from ._models import Headers, HeaderTypes, Limits, Request, Timeout, TimeoutTypes
from ._native import Bridge as _NativeBridge
from ._native import loads, message_headers
from ._tls import CertTypes, VerifyTypes, identity, trust

if TYPE_CHECKING:
    from ._response import Response

T = TypeVar("T")

#: The most bytes of client input to read at once.
_READ_SIZE = 64 << 10
#: How often to check how much a slow writer has accepted, and the least time that it gets at the end, in seconds.
_LOOK = 0.25
#: The timeouts of the command, in seconds.
DEFAULT_TIMEOUT = Timeout(connect=15.0, read=300.0, write=300.0, pool=None)


def forward_request(
    url: str,
    payload: Mapping[str, Any] | Sequence[Any] | bytes | bytearray | memoryview | str,
    *,
    headers: HeaderTypes = None,
    auth: str | None = None,
    timeout: TimeoutTypes = DEFAULT_TIMEOUT,
    client: AsyncClient | None = None,
) -> ForwardedRequest:
    """Posts one JSON-RPC message to an MCP endpoint.

    Await the result, or open it with ``async with``, which frees the connection at the end of the block. Both give a
    :class:`Response` whose :meth:`~Response.aiter_messages` streams the server's messages, with any content type.
    The result is a coroutine, for ``asyncio.gather`` or a ``TaskGroup``.

    Args:
        url: The endpoint.
        payload: The message, as an object or as JSON. Bytes are sent unchanged.
        headers: Extra headers, such as ``Mcp-Session-Id`` and ``MCP-Protocol-Version`` of a session. The headers that
            MCP requires are added, including those that a message of 2026-07-28 or later repeats from its content.
        auth: Value of the Authorization header, sent unchanged, like ``Bearer TOKEN``.
        timeout: Seconds, or a :class:`Timeout`. The read timeout is 300 s by default.
        client: The client whose connections are used. By default all calls of this function share connections.

    Raises:
        ValueError: The payload is not a JSON-RPC message.
        HTTPStatusError: The server refused the message, or redirects. The exception says what the server said, and its
            ``response`` has been read, unless it is longer than 64 KiB.
        InvalidMessage: The server accepted a request, but its response has no message. If that shows only at the end of
            a stream, the iterator raises it.
        RequestError: No response arrived.
    """
    if isinstance(payload, (bytes, bytearray, memoryview)):
        content = bytes(payload)
    else:
        content = (payload if isinstance(payload, str) else json.dumps(payload, separators=(",", ":"))).encode()
    sent = Headers(message_headers(content))
    sent.update(headers)
    if auth is not None:
        sent["Authorization"] = auth
    request = Request("POST", url, headers=sent, content=content)
    return ForwardedRequest(client, request, Timeout(timeout), _is_request(loads(content)))


def _is_request(message: Any) -> bool:
    """True if a message, or one of a batch, wants a response."""
    if isinstance(message, list):
        return any(map(_is_request, message))
    return "method" in message and message.get("id") is not None


class ForwardedRequest(Coroutine[Any, Any, "Response"]):
    """A request of :func:`forward_request`. Await or open it once."""

    def __init__(self, client: AsyncClient | None, request: Request, timeout: Timeout, expects_message: bool) -> None:
        self._client = client
        self._request = request
        self._timeout = timeout
        self._expects_message = expects_message
        self._running: Coroutine[Any, Any, Response] | None = None

    def __await__(self) -> Generator[Any, Any, Response]:
        return self._started().__await__()

    def send(self, value: Any, /) -> Any:
        """As for every coroutine."""
        return self._started().send(value)

    def throw(self, *error: Any) -> Any:
        """As for every coroutine."""
        return self._started().throw(*error)

    def close(self) -> None:
        """As for every coroutine."""
        if self._running is not None:
            self._running.close()

    def _started(self) -> Coroutine[Any, Any, Response]:
        if self._running is None:
            self._running = self._send()
        return self._running

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
        self._request.extensions["timeout"] = self._timeout.as_dict()
        response = await client.send(self._request, stream=True)
        try:
            await self._check(response)
        except BaseException:
            response.close()
            raise
        return response

    async def _check(self, response: Response) -> None:
        """Raises the exception of a response that cannot have the answer."""
        try:
            response.raise_for_status()
        except HTTPStatusError as error:
            with suppress(RequestError):
                await response._aread_short(_LONGEST_REFUSAL)
            said = response.said()
            text = f"{error}; the server says: {said}" if said else str(error)
            raise HTTPStatusError(text, request=response.request, response=response) from None
        response._expects_message = self._expects_message
        is_empty = response.status_code in (202, 204) or response.headers.get("content-length") == "0"
        if is_empty and self._expects_message:
            raise response._without_message()


#: The longest body of a refusal that is read, in bytes.
_LONGEST_REFUSAL = 64 << 10

_clients: dict[int, AsyncClient] = {}


def _shared_client() -> AsyncClient:
    """Returns the shared client of this process. A fork gets a new one."""
    process = os.getpid()
    if process not in _clients:
        _clients.clear()
        _clients[process] = AsyncClient(limits=Limits(keepalive_expiry=50.0))
    return _clients[process]


class ByteReader(Protocol):
    """The source of the client's lines, like ``asyncio.StreamReader``."""

    async def read(self, n: int, /) -> bytes:
        """Returns at most ``n`` bytes, none at the end."""


class ByteWriter(Protocol):
    """The destination of the answers, like ``asyncio.StreamWriter``."""

    def write(self, data: bytes, /) -> Any:
        """Accepts bytes."""

    async def drain(self) -> None:
        """Waits until more can be accepted."""


@dataclass(frozen=True)
class SignIn:
    """Settings for sign-in (OAuth 2.1) at a server that requires it. None selects the server's value or the default.

    Args:
        grant: ``browser``, ``device`` (a code for another device) or ``client_credentials`` (without a user).
        open_browser: Whether to open a browser. The URL to sign in at is always written to stderr.
        client_id: ID of a client registered at the authorization server.
        client_secret: The client's secret.
        client_private_key: The client's PEM key (RSA, P-256 or P-384), for ``client_credentials``.
        issuer: Issuer of the only authorization server to use.
        client_metadata_url: ``https`` URL of a client ID metadata document.
        scopes: Scopes to request, instead of those that the server asks for.
        resource: Resource that the token is for; ``none`` omits it.
        parameters: Extra parameters for the authorization request.
        callback_port: Port of the callback URL on this machine.
        callback_host: Host of the callback URL: ``localhost`` or a loopback address, as registered for the client.
        callback_path: Path of the callback URL. Default: ``/callback``.
        login_wait: How many seconds a request waits for the user to sign in. Default: 20.
        keychain: Whether to store sign-ins in the system's keychain, if there is one.
        state_folder: Folder for everything that is not stored in a keychain.
    """

    grant: str = "browser"
    open_browser: bool = True
    client_id: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    client_private_key: str | None = field(default=None, repr=False)
    # The URLs may have a password or a query.
    issuer: str | None = field(default=None, repr=False)
    client_metadata_url: str | None = field(default=None, repr=False)
    scopes: Sequence[str] = ()
    resource: str | None = field(default=None, repr=False)
    parameters: Mapping[str, str] = field(default_factory=dict, repr=False)
    callback_port: int | None = None
    callback_host: str | None = None
    callback_path: str | None = None
    login_wait: float | None = None
    keychain: bool = True
    state_folder: str | os.PathLike[str] | None = None


@dataclass(frozen=True)
class BridgeSettings:
    """Settings of a bridge. Times are in seconds, sizes in bytes. None selects the command's default.

    Args:
        url: Address of the MCP server: ``https://…``, or ``unix:/path/of/socket:/mcp``.
        auth: Value of the Authorization header, sent unchanged, like ``Bearer TOKEN``.
        auth_command: Command that prints that value; run without a shell, at start and when the server refuses it.
        headers: Extra headers for every request, sent unchanged.
        header_file: File with one header per line (``Name: Value``); ``${NAME}`` is replaced from the environment.
            It is read again when the server refuses the headers.
        transport: ``auto``, ``http`` (Streamable HTTP), ``sse`` (HTTP+SSE) or ``sse-first``.
        era: Protocol for a client that supports both eras of MCP: ``auto`` (as the server), ``modern`` (2026-07-28) or
            ``legacy``.
        allow_tools, deny_tools: Names, with ``*`` and ``?``, of the tools that the client can see and call, and of
            those that it cannot.
        timeout: Longest time without data from the server during a request. Default: 300.
        max_time: Longest total time of a request, even while data arrives. Default: no limit.
        connect_timeout: Longest time to connect. Default: 15.
        drain_timeout: Longest time for open requests after the client's end, and for a client that stops reading.
            Default: 5.
        concurrency: Maximum number of requests in flight to the server. Default: 64.
        max_message_size: Largest message from the server. Default: 4 GiB.
        max_request_size: Largest message from the client, held in memory. Default: 64 MiB.
        verify, cert, proxy: As for :class:`AsyncClient`. Without a proxy, the system's is used.
        unix_socket: Unix socket of the server, instead of the URL's host and port.
        http2: Whether to use only HTTP/2, even without TLS.
        pool_size: Maximum number of idle connections to keep. Default: no limit.
        pool_idle: How long to keep idle connections. Default: 50.
        sign_in: Settings for sign-in. None turns sign-in off.
        log_level: ``off``, ``error``, ``warn``, ``info``, ``debug`` or ``trace``. Default: ``warn``.
        log_file: File to append the log to, instead of stderr.
        log_format: ``text`` or ``json`` (one object per line).

    The log belongs to the process: the first bridge sets it up.
    """

    url: str = field(repr=False)
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
    """A bridge: ``await bridge.run()`` runs it, ``bridge.stop()`` ends it.

    Raises:
        ValueError: A setting cannot be used. The error names it.
        TypeError: A setting has the wrong type.
    """

    def __init__(self, settings: BridgeSettings) -> None:
        self.settings = settings
        trusted, authorities = _read("verify", partial(trust, settings.verify))
        identified = _read("cert", partial(identity, settings.cert))
        self._native = _NativeBridge(settings, (not trusted, authorities, identified))
        #: The number of bytes that the client's writer has accepted.
        self._written = 0

    async def run(self, reader: ByteReader | None = None, writer: ByteWriter | None = None) -> int:
        """Connects a client to the server until the client's stream ends or the bridge is stopped.

        JSON-RPC lines are read from ``reader`` and written to ``writer``, by default this process's stdin and stdout.

        After the client's end, pending output is written while the writer accepts some of it within each
        ``drain_timeout``. If it does not, the rest is lost, and a line on stderr says so.

        Returns:
            0, or 1 if output was lost or stdin cannot be read.

        Raises:
            ValueError: Only one of the two streams is given, or the log file cannot be written.
            RuntimeError: The bridge has run already.
            asyncio.CancelledError: The task was cancelled. Pending requests get error answers in the background.
        """
        if (reader is None) != (writer is None):
            raise ValueError("give both a reader and a writer, or none of them")
        running = asyncio.create_task(complete(partial(self._native.start, on_stdio=reader is None)))
        pumps: list[asyncio.Task[None]] = []
        try:
            if reader is not None and writer is not None:
                pumps = [asyncio.create_task(self._pump_in(reader)), asyncio.create_task(self._pump_out(writer))]
                # Of the two pumps, only the writing one ends with the bridge or on a failed write.
                await asyncio.wait([running, pumps[1]], return_when=asyncio.FIRST_COMPLETED)
                if pumps[1].done():
                    pumps[1].result()
            status, line = await running
            if pumps and not await self._is_written(pumps[1]) and not status:
                status, line = 1, "the writer accepted nothing in time; the rest of the output is lost"
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
        """Stops the bridge. Pending requests are answered, with errors if need be. Can be called from any thread."""
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
        """Writes a chunk, and reports meanwhile how much the writer has accepted, of this chunk or earlier ones."""
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
        """Waits until everything is written. Returns False if nothing was written within the drain timeout."""
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
    """Returns the number of bytes buffered in the writer, if it reports that like asyncio's writers."""
    transport = getattr(writer, "transport", None)
    size: int = transport.get_write_buffer_size() if transport is not None else 0
    return size


def _read(name: str, read: Callable[[], T]) -> T:
    """Returns the content of a setting's files.

    Raises:
        ValueError: A file cannot be read.
        TypeError: The setting has the wrong type.
    """
    try:
        return read()
    except OSError as error:
        raise ValueError(f"{name}: {error}") from error
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from error
