"""A drop-in replacement for `mcpgateway.wrapper`: a bridge from JSON-RPC lines on stdin and stdout
to an MCP server over HTTP.

It has two uses:

- Run as a program (`python -m mcp_gangway.wrapper`), it starts the native bridge with the
  original's options, variables and defaults. The rest of this module is not used.
- Imported as a module, it provides the original's functions, for code and tests that import or
  replace them. They look each other up by name at every call, so a replacement affects all.

Rules: stdout carries only JSON-RPC, one message per line, and the log goes to stderr. Each request
gets one answer with its own id. A message that may have run is not sent again.

Variables: `MCP_SERVER_URL`, `MCP_AUTH`, `MCP_TOOL_CALL_TIMEOUT` (seconds, 60),
`MCP_WRAPPER_LOG_LEVEL` (INFO), `CONCURRENCY` (10), `FORGE_CONTENT_TYPE` (`application/json`,
`application/x-www-form-urlencoded`, or anything else to choose by content). An empty number counts
as unset.
"""

from __future__ import annotations

if __name__ == "__main__":
    # The program ends here. Importing the rest would take longer than everything that it does.
    from mcp_gangway._command import run

    run()

import asyncio
import contextlib
import contextvars
import logging
import math
import os
import queue as thread_queue
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import mcp_gangway

# The original's name, which code that replaces it looks for.
from mcp_gangway import _json as orjson
from mcp_gangway import _native
from mcp_gangway._command import OneLineParser, bridge_command
from mcp_gangway.retry import (
    ResilientHttpClient,
    RetriesExhausted,
    describe,
    httpx,
    is_unsent,
    without_secrets,
)

__all__ = [
    "CONTENT_TYPE",
    "DEFAULT_CONCURRENCY",
    "DEFAULT_CONNECT_TIMEOUT",
    "DEFAULT_RESPONSE_TIMEOUT",
    "DRAIN_TIMEOUT",
    "JSONRPC_INTERNAL_ERROR",
    "JSONRPC_INVALID_REQUEST",
    "JSONRPC_PARSE_ERROR",
    "JSONRPC_SERVER_ERROR",
    "ResilientHttpClient",
    "Settings",
    "asyncio",
    "bridge_command",
    "convert_url",
    "forward_once",
    "httpx",
    "logger",
    "main",
    "main_async",
    "make_error",
    "make_request",
    "ndjson_lines",
    "orjson",
    "parse_args",
    "send_to_stdout",
    "setup_logging",
    "shutting_down",
    "signal",
    "sse_events",
    "stdin_reader",
    "sys",
]


def _variable(name: str, default: float) -> float:
    """Returns the number in an environment variable. An invalid one must not break an import;
    `parse_args` reports it."""
    try:
        return _positive(os.environ.get(name) or default)
    except ValueError:
        return default


def _positive(text: str | float) -> float:
    number = float(text)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{text!r} is not a number above 0")
    return number


DEFAULT_CONCURRENCY: int = max(1, int(_variable("CONCURRENCY", 10)))
# Seconds, like all times here.
DEFAULT_CONNECT_TIMEOUT = 15
DEFAULT_RESPONSE_TIMEOUT: float = _variable("MCP_TOOL_CALL_TIMEOUT", 60.0)
# How long requests may go on after stdin has ended.
DRAIN_TIMEOUT = 5.0

JSONRPC_PARSE_ERROR = -32700
JSONRPC_INVALID_REQUEST = -32600
JSONRPC_INTERNAL_ERROR = -32603
JSONRPC_SERVER_ERROR = -32000

CONTENT_TYPE: str = os.environ.get("FORGE_CONTENT_TYPE", "application/json")

logger = logging.getLogger("mcpgateway.wrapper")
if not logger.handlers:
    logger.addHandler(logging.StreamHandler(sys.stderr))
logger.propagate = False
logger.disabled = True

# Set once the shutdown has begun. It outlives event loops, so do not wait for it: use `_at_shutdown`.
_shutdown = asyncio.Event()
_at_shutdown: set[Callable[[], None]] = set()


@dataclass
class Settings:
    """The settings of the bridge.

    Args:
        server_url: The URL that messages are posted to.
        auth_header: Value of the `Authorization` header, sent unchanged; no header if empty or None.
        connect_timeout: Longest time to connect, in seconds.
        response_timeout: Longest time without data from the server, in seconds.
        concurrency: Maximum number of requests in flight.
        log_level: As for `setup_logging`.
    """

    # Either may contain a secret.
    server_url: str = field(repr=False)
    auth_header: str | None = field(repr=False)
    connect_timeout: float = DEFAULT_CONNECT_TIMEOUT
    response_timeout: float = DEFAULT_RESPONSE_TIMEOUT
    concurrency: int = DEFAULT_CONCURRENCY
    log_level: str | None = None
    # Headers from the answer to `initialize`: the session and the protocol version.
    _session: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)


def main() -> None:
    """Runs the bridge until stdin ends or a signal stops it.

    Raises:
        SystemExit: With 2, after a line on stderr, if the command line is invalid.
    """
    settings = parse_args()
    setup_logging(settings.log_level)
    logger.info("bridge to %s", without_secrets(settings.server_url))
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    _install_signal_handlers(loop)
    try:
        loop.run_until_complete(main_async(settings))
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        asyncio.set_event_loop(None)
        loop.close()
        _flood.tell()
        logger.info("the bridge has ended")
    if _Blocked.count:
        # A thread waits for the client, which may never read or write again. The interpreter would wait for that
        # thread.
        sys.stderr.flush()
        os._exit(0)


async def main_async(settings: Settings) -> None:
    """Reads messages from stdin and forwards each, until stdin ends or the shutdown begins.

    Up to `settings.concurrency` requests run at the same time; notifications, pings and answers to
    the server do not count. Everything waits until `initialize` is answered. After stdin has ended,
    open requests have `DRAIN_TIMEOUT` seconds to finish. Requests without an answer then get an
    error.
    """
    loop = asyncio.get_running_loop()
    queue = _Intake()
    reader = asyncio.create_task(stdin_reader(queue))
    # A failed reader counts as the end of stdin.
    reader.add_done_callback(lambda _: queue.put_nowait(None))
    client = ResilientHttpClient(
        max_retries=5,
        base_backoff=0.25,
        max_delay=8.0,
        jitter_max=0.25,
        client_args={
            "timeout": mcp_gangway.Timeout(
                connect=settings.connect_timeout,
                read=settings.response_timeout,
                write=settings.response_timeout,
                pool=settings.response_timeout,
            ),
            "http2": True,
            "verify": _verifies_certificates(),
        },
        client_class=mcp_gangway.AsyncClient,
    )
    dispatch = _Dispatch(client, settings)
    told_to_end = asyncio.Event()

    def end() -> None:
        told_to_end.set()
        queue.put_nowait(None)

    def wake() -> None:
        loop.call_soon_threadsafe(end)

    _at_shutdown.add(wake)
    try:
        async with _written_by_a_thread() as writer:
            try:
                while not shutting_down():
                    item = await queue.get()
                    if item is None:
                        break
                    dispatch.take(item)
                if not shutting_down():
                    await dispatch.drain(told_to_end)
            finally:
                # On a requested shutdown, do not wait long for a client that does not read.
                writer.patience = 1.0 if _shutdown.is_set() else DRAIN_TIMEOUT
                _mark_shutdown()
                await dispatch.cancel()
    finally:
        _at_shutdown.discard(wake)
        reader.cancel()
        await asyncio.wait([reader])
        if not reader.cancelled() and (failure := reader.exception()):
            logger.error("stdin cannot be read: %s", failure)
        await _end_session(client, settings)
        with contextlib.suppress(Exception):
            await client.aclose()


async def make_request(
    client: ResilientHttpClient,
    settings: Settings,
    payload: str | dict[str, Any] | list[Any],
    *,
    max_retries: int = 5,
    base_delay: float = 0.25,
) -> None:
    """Forwards a payload. Retries if it failed and cannot have run. Answers with an error if all
    attempts fail.

    Args:
        client: The client. After a `ResilientHttpClient` has exhausted its retries, there are no more.
        settings: See `Settings`.
        payload: A message, a batch, or a text that is sent unchanged.
        max_retries: Maximum number of retries.
        base_delay: Seconds before the first retry. The delay doubles each time, up to 8 s.
    """
    attempt = 0
    with _owed_for(payload) as owed:
        while not shutting_down():
            try:
                await forward_once(client, settings, payload)
                return
            except Exception as error:
                if shutting_down():
                    return
                logger.warning("a message could not be forwarded: %s", describe(error))
                attempt += 1
                if isinstance(error, RetriesExhausted) or attempt > max_retries:
                    refusal = getattr(error, "status_code", None)
                    reason = f"HTTP {refusal}" if refusal else describe(error)
                    owed.fail("max retries exceeded", JSONRPC_SERVER_ERROR, reason)
                    return
                if not (is_unsent(error) or owed.may_repeat()):
                    owed.fail(
                        "the connection failed; the request may have run, so it is not sent again",
                        JSONRPC_SERVER_ERROR,
                        describe(error),
                    )
                    return
            await asyncio.sleep(min(base_delay * 2 ** (attempt - 1), 8.0))


async def forward_once(
    client: ResilientHttpClient, settings: Settings, payload: str | dict[str, Any] | list[Any]
) -> None:
    """Posts a payload and writes the messages of the response to stdout as they arrive.

    Messages from a response of `mcp_gangway.AsyncClient` are written as the original bytes, one at
    a time. Of other responses, only `status_code`, `headers.get`, `aread` and `aiter_bytes` are used.

    Raises:
        Exception: The client raised it. Errors that the server reports become JSON-RPC errors on
            stdout.
    """
    if shutting_down():
        return
    body, content_type = _encode(payload, getattr(settings, "content_type", None) or CONTENT_TYPE)
    session: dict[str, str] = getattr(settings, "_session", {})
    headers = {
        "Content-Type": content_type,
        "Accept": "application/json, application/x-ndjson, text/event-stream",
        **session,
    }
    if settings.auth_header:
        headers["Authorization"] = settings.auth_header

    with _owed_for(payload) as owed:
        url = settings.server_url
        async with client.stream("POST", url, data=body, headers=headers) as response:
            status = response.status_code
            media_type = (response.headers.get("Content-Type") or "").lower()
            logger.debug("HTTP %s %s", status, media_type)
            if shutting_down():
                return
            if not 200 <= status < 300:
                owed.fail(f"HTTP {status}", status)
                return
            if owed.is_initialize:
                _learn_session(session, response.headers)

            if isinstance(response, mcp_gangway.Response):
                try:
                    async with _closing(response.aiter_messages()) as messages:
                        async for message in messages:
                            if shutting_down():
                                break
                            await _emit_bytes(message, owed, session)
                except mcp_gangway.DecodingError as error:
                    owed.blame("Invalid JSON response", JSONRPC_PARSE_ERROR, describe(error))
            elif "event-stream" in media_type:
                async with _closing(sse_events(response)) as events:
                    async for data in events:
                        if shutting_down():
                            break
                        if data:
                            await _emit_line(data, owed, session)
            elif "application/json" in media_type and "ndjson" not in media_type:
                document = await response.aread()
                if not shutting_down() and document.strip():
                    await _emit_document(document, owed, session)
            else:
                async with _closing(ndjson_lines(response)) as lines:
                    async for line in lines:
                        if shutting_down():
                            break
                        await _emit_line(line, owed, session)
        if not shutting_down():
            owed.end()


async def sse_events(resp: Any) -> AsyncIterator[bytes]:
    """Yields the data of each event of an event stream as it arrives. `resp` needs only
    `aiter_bytes()`.

    Skips events of another type than `message`, like a server's `ping`. Like the original, and
    unlike the native bridge, it yields an event that the end of the stream left incomplete.

    Raises:
        Exception: `aiter_bytes` raised it, or the parser because an event exceeds its limit.
    """
    parser = mcp_gangway.SseParser()
    async for chunk in resp.aiter_bytes():
        if shutting_down():
            return
        for event in parser.feed(chunk):
            if event.event in ("", "message"):
                yield event.data_bytes
    for event in parser.finish(incomplete=True):
        if event.event in ("", "message"):
            yield event.data_bytes


async def ndjson_lines(resp: Any) -> AsyncIterator[bytes]:
    """Yields the non-blank lines of newline-delimited JSON, stripped, as they arrive. `resp` needs
    only `aiter_bytes()`.

    Raises:
        Exception: `aiter_bytes` raised it, or the parser because a line exceeds its limit.
    """
    parser = mcp_gangway.NdjsonParser()
    async for chunk in resp.aiter_bytes():
        if shutting_down():
            return
        for line in parser.feed(chunk):
            if line := line.strip():
                yield line
    for line in parser.finish():
        if line := line.strip():
            yield line


async def stdin_reader(queue: asyncio.Queue[Any]) -> None:
    """Parses each line of stdin and puts it on the queue. Puts None when stdin has ended.

    A line that is not JSON becomes an error object for stdout, with the line in `data`. The end of
    stdin also starts the shutdown, except on the queue of `main_async`, so that open requests can
    be answered first.
    """
    while True:
        line: Any = await asyncio.to_thread(_read_line)
        if not line:
            await queue.put(None)
            if not isinstance(queue, _Intake):
                _mark_shutdown()
            return
        line = line.strip()
        if not line:
            continue
        try:
            item = orjson.loads(line)
        except Exception:
            item = _Refusal(make_error("Invalid JSON from stdin", JSONRPC_PARSE_ERROR, _as_text(line)), id=None)
        if item is None:
            # On the queue, None means the end.
            item = _Refusal(make_error("null is not a message", JSONRPC_INVALID_REQUEST), id=None)
        await queue.put(item)


def send_to_stdout(obj: Any) -> None:
    """Writes `obj` as a line of JSON. Bytes are written unchanged, and other objects without a JSON
    form as their `str`.

    While `main_async` runs, a thread does the writing, so that a client that does not read blocks
    nothing else. If stdout cannot be written, the shutdown begins.
    """
    try:
        line = orjson.dumps(obj)
    except Exception:
        line = obj if isinstance(obj, bytes) else str(obj).encode("utf-8", "backslashreplace")
    if _writer is not None:
        _writer.put(line)
    else:
        _write_line(line)


def make_error(message: str, code: int = JSONRPC_INTERNAL_ERROR, data: Any = None) -> dict[str, Any]:
    """Returns a JSON-RPC error response with the id `"bridge"`, which the functions here replace
    with the id of the request.

    >>> make_error("too bad", code=-32600)
    {'jsonrpc': '2.0', 'id': 'bridge', 'error': {'code': -32600, 'message': 'too bad'}}
    """
    error: dict[str, Any] = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    return {"jsonrpc": "2.0", "id": "bridge", "error": error}


def convert_url(url: str) -> str:
    """Returns the MCP endpoint of a ContextForge address, exactly like the original.

    If the address ends with `/sse`, it replaces every `/sse` in it, even in the host. `python -m
    mcp_gangway.wrapper` does not use it.

    >>> convert_url("http://localhost:4444/servers/1")
    'http://localhost:4444/servers/1/mcp/'
    >>> convert_url("http://localhost:4444/servers/1/sse")
    'http://localhost:4444/servers/1/mcp/'
    """
    if url.endswith("/mcp/"):
        return url
    if url.endswith("/mcp"):
        return f"{url}/"
    if url.endswith("/sse"):
        return url.replace("/sse", "/mcp/")
    return f"{url}/mcp/"


def setup_logging(level: str | None) -> None:
    """Sets the log level: its name in any case, or one of "", None, OFF, NONE, DISABLE, FALSE, 0 to
    turn the log off.

    An unknown name counts as INFO.

    >>> setup_logging("off"); logger.disabled
    True
    """
    name = (level or "").strip().upper()
    if name in {"", "OFF", "NONE", "DISABLE", "FALSE", "0"}:
        logger.disabled = True
        return
    _flood.forget()
    # On the logger, so that it runs once for all handlers.
    logger.addFilter(_flood)
    number = getattr(logging, name, None)
    logger.setLevel(number if type(number) is int else logging.INFO)
    for handler in logger.handlers:
        handler.setFormatter(_OneLine("%(asctime)s %(name)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S"))
    logger.disabled = False


class _Flood(logging.Filter):
    """Keeps peers from filling the log. Above DEBUG, each call site logs at most `LINES` lines per
    minute, none of them twice. The rest is counted. The count is logged with the next line of that
    call site, or at the end."""

    LINES = 10
    PERIOD = 60.0

    def __init__(self) -> None:
        super().__init__()
        # The start of the period, the lines that were logged in it, and the number of suppressed ones.
        self._places: dict[tuple[str, int], tuple[float, set[str], int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno <= logging.DEBUG:
            return True
        place = (record.pathname, record.lineno)
        now = time.monotonic()
        since, said, unsaid = self._places.get(place, (now, set(), 0))
        if now - since >= self.PERIOD:
            if unsaid:
                record.msg, record.args = f"{record.getMessage()} ({unsaid} more like it before)", ()
            since, said, unsaid = now, set(), 0
        elif len(said) >= self.LINES or record.getMessage() in said:
            self._places[place] = (since, said, unsaid + 1)
            return False
        self._places[place] = (since, said | {record.getMessage()}, unsaid)
        return True

    def forget(self) -> None:
        self._places.clear()

    def tell(self) -> None:
        """Logs the number of suppressed lines."""
        count = sum(unsaid for _, _, unsaid in self._places.values())
        self.forget()
        if count:
            logger.warning("%d more lines were like those above", count)


_flood = _Flood()


class _OneLine(logging.Formatter):
    """Makes log lines safe, because they can contain text from peers: no line breaks, no terminal
    commands."""

    def format(self, record: logging.LogRecord) -> str:
        return _native.shown(super().format(record))


def shutting_down() -> bool:
    """True if the shutdown has begun."""
    return _shutdown.is_set()


def parse_args() -> Settings:
    """Returns the settings from the command line and the environment.

    Raises:
        SystemExit: With 2, after a line on stderr, if something is missing or wrong; with 0 after
            `--help`.
    """
    parser = OneLineParser(description="Connects an MCP client on stdio to an MCP server over HTTP.")
    parser.add_argument(
        "--url",
        default=os.environ.get("MCP_SERVER_URL"),
        help="address of the MCP server [$MCP_SERVER_URL]",
    )
    parser.add_argument(
        "--auth",
        default=os.environ.get("MCP_AUTH"),
        help="value of the Authorization header [$MCP_AUTH]",
    )
    parser.add_argument(
        "--timeout",
        default=os.environ.get("MCP_TOOL_CALL_TIMEOUT"),
        help="longest time without data from the server, in seconds [$MCP_TOOL_CALL_TIMEOUT] [default: 60]",
    )
    parser.add_argument(
        "--log-level",
        default=os.environ.get("MCP_WRAPPER_LOG_LEVEL", "INFO"),
        help="level of the log on stderr, or OFF [$MCP_WRAPPER_LOG_LEVEL] [default: INFO]",
    )
    given = parser.parse_args()
    if not given.url:
        parser.error("the MCP server's URL is missing; give it with --url or MCP_SERVER_URL")
    try:
        response_timeout = _positive(given.timeout) if given.timeout else DEFAULT_RESPONSE_TIMEOUT
    except ValueError:
        parser.error(f"the timeout must be a number of seconds above 0, not {given.timeout!r}")
    return Settings(
        server_url=convert_url(given.url),
        auth_header=given.auth,
        connect_timeout=DEFAULT_CONNECT_TIMEOUT,
        response_timeout=response_timeout,
        concurrency=DEFAULT_CONCURRENCY,
        log_level=given.log_level,
    )


# --- Shutdown ---


def _mark_shutdown() -> None:
    """Starts the shutdown: nothing new is sent, and `main_async` stops waiting."""
    if not _shutdown.is_set():
        _shutdown.set()
        for wake in list(_at_shutdown):
            wake()


def _install_signal_handlers(loop: asyncio.AbstractEventLoop) -> None:
    """Makes SIGINT and SIGTERM start the shutdown, if the system has them and the loop supports
    them."""
    for number in (getattr(signal, "SIGINT", None), getattr(signal, "SIGTERM", None)):
        if number is not None:
            # Only the main thread can handle signals, and not on every system.
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                loop.add_signal_handler(number, _mark_shutdown)


async def _end_session(client: ResilientHttpClient, settings: Settings) -> None:
    """Ends the session at the server, if there is one. Ignores failures."""
    session: dict[str, str] = getattr(settings, "_session", {})
    if "Mcp-Session-Id" not in session:
        return
    headers = dict(session)
    if settings.auth_header:
        headers["Authorization"] = settings.auth_header
    with contextlib.suppress(Exception):
        await asyncio.wait_for(client.delete(settings.server_url, headers=headers), 1.0)
    session.clear()


# --- Messages ---


class _Intake(asyncio.Queue[Any]):
    """The queue between `stdin_reader` and `main_async`."""


class _Refusal(dict[str, Any]):
    """An error that answers an invalid line of stdin."""

    def __init__(self, error: dict[str, Any], id: Any) -> None:
        super().__init__(error, id=id)


class _Dispatch:
    """The messages in flight, each in a task."""

    def __init__(self, client: ResilientHttpClient, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._places = asyncio.Semaphore(max(1, settings.concurrency))
        self._tasks: dict[asyncio.Task[None], _Owed] = {}
        # The last handshake message, which later messages wait for.
        self._gate: _Owed | None = None

    def take(self, item: Any) -> None:
        """Forwards a message from stdin, or answers at once if it is not a message."""
        if isinstance(item, _Refusal):
            send_to_stdout(dict(item))
            return
        if not isinstance(item, (dict, list)):
            refusal = make_error("a message must be an object", JSONRPC_INVALID_REQUEST, item)
            send_to_stdout({**refusal, "id": None})
            return
        owed = _Owed(item)
        if owed.cancels is not None and self._drop_waiting(owed.cancels):
            return
        gate = None if owed.passes_gate else self._gate
        if owed.is_handshake:
            self._gate = owed
        task = asyncio.create_task(self._forward(owed, gate))
        self._tasks[task] = owed
        task.add_done_callback(lambda task: self._tasks.pop(task, None))

    async def drain(self, told_to_end: asyncio.Event) -> None:
        """Waits until all messages are finished, `DRAIN_TIMEOUT` is over, or the event is set."""
        finishing = [task for task, owed in self._tasks.items() if owed.is_message]
        if not finishing:
            return
        ending = asyncio.ensure_future(told_to_end.wait())
        finished = asyncio.ensure_future(asyncio.wait(finishing))
        await asyncio.wait([ending, finished], timeout=DRAIN_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()
        finished.cancel()

    async def cancel(self) -> None:
        """Cancels all messages. Requests without an answer get an error."""
        under_way = dict(self._tasks)
        for task in under_way:
            task.cancel()
        if under_way:
            await asyncio.wait(under_way)
        for owed in under_way.values():
            self._give_up(owed)

    async def _forward(self, owed: _Owed, gate: _Owed | None) -> None:
        try:
            if gate is not None:
                await gate.settled.wait()
            async with self._places if owed.needs_place else contextlib.nullcontext():
                if not shutting_down():
                    owed.is_started = True
                    _current.set(owed)
                    await make_request(self._client, self._settings, owed.payload)
            if _shutdown.is_set():
                self._give_up(owed)
        except Exception as error:
            logger.exception("a message could not be forwarded")
            owed.fail("the bridge failed", JSONRPC_INTERNAL_ERROR, describe(error))
        finally:
            owed.settled.set()

    def _give_up(self, owed: _Owed) -> None:
        if owed.ids:
            what = "may have run" if owed.is_started else "was not sent"
            owed.fail(f"the bridge ended before the answer arrived; the request {what}", JSONRPC_SERVER_ERROR)

    def _drop_waiting(self, id: Any) -> bool:
        """Drops the request with this id if it was not sent yet. Then the server need not be told."""
        for task, owed in self._tasks.items():
            if not owed.is_started and owed.ids == [id]:
                owed.ids.clear()
                task.cancel()
                return True
        return False


class _Owed:
    """The answers that are still owed for a payload: one for each request in it."""

    def __init__(self, payload: Any) -> None:
        self.payload = payload
        # The ids of requests without an answer.
        self.ids: list[Any] = []
        self.is_started = False
        self.settled = asyncio.Event()
        self._was_emitted = False
        self._fault: tuple[str, int, Any] | None = None

        parts = payload if isinstance(payload, list) else [payload]
        if isinstance(payload, str):
            with contextlib.suppress(Exception):
                text = orjson.loads(payload)
                parts = text if isinstance(text, list) else [text]
        messages = [part for part in parts if isinstance(part, dict) and part.keys() & _MEMBERS]
        methods = [message.get("method") for message in messages]
        self.ids = [part["id"] for part in messages if "method" in part and "id" in part]
        self._is_harmless = all(_only_reads(method) for method in methods)
        self.is_message = bool(messages)
        self.is_initialize = methods == ["initialize"]
        # Later messages must not overtake these.
        self.is_handshake = methods in (["initialize"], ["notifications/initialized"])
        # These must not wait for the handshake, because it may be waiting for them.
        self.passes_gate = self.is_message and all(method in (None, "notifications/cancelled") for method in methods)
        self.needs_place = not self.is_message or (bool(self.ids) and methods != ["ping"])
        self.cancels = None
        if methods == ["notifications/cancelled"]:
            parameters = messages[0].get("params")
            self.cancels = parameters.get("requestId") if isinstance(parameters, dict) else None

    def may_repeat(self) -> bool:
        """True if sending the payload again can only cause answers, and none was written yet."""
        return self._is_harmless and not self._was_emitted

    def note(self, message: Any) -> bool:
        """Records a message for stdout. Returns True if a missing id was added to it."""
        self._was_emitted = True
        is_changed = False
        for part in message if isinstance(message, list) else [message]:
            if not isinstance(part, dict) or not part.keys() & {"result", "error"}:
                continue
            if "error" in part and part.get("id") is None and len(self.ids) == 1:
                # The server did not know the id of the failed request, but here only one is open.
                part["id"] = self.ids[0]
                is_changed = True
            if part.get("id") in self.ids:
                self.ids.remove(part["id"])
        self._settle()
        return is_changed

    def note_large(self) -> None:
        """Records a message that is too large to parse. Only an answer is that large."""
        self._was_emitted = True
        self.ids.clear()
        self._settle()

    def blame(self, message: str, code: int, data: Any = None) -> None:
        """Reports a fault that may not be final: requests get the error only if no answer follows."""
        if self.ids:
            self._fault = (message, code, data)
        else:
            self.fail(message, code, data)

    def end(self) -> None:
        """Handles the end of the response."""
        if self.ids:
            no_answer = ("the reply ended without an answer", JSONRPC_INTERNAL_ERROR, None)
            self.fail(*(self._fault or no_answer))

    def fail(self, message: str, code: int, data: Any = None) -> None:
        """Answers each open request with an error. A failed notification or answer is only logged."""
        error = make_error(message, code, data)
        if not self.is_message:
            send_to_stdout(error)
        elif not self.ids:
            logger.warning("%s", message)
        for id in self.ids:
            send_to_stdout({**error, "id": id})
        self.ids.clear()
        self._settle()

    def _settle(self) -> None:
        if self.is_message and not self.ids:
            self.settled.set()


_MEMBERS = {"method", "result", "error"}
_READING_METHODS = {
    "completion/complete",
    "initialize",
    "ping",
    "resources/read",
    "server/discover",
}

# The payload that this task forwards. It is passed in a context variable, because the functions keep the original's
# parameters.
_current: contextvars.ContextVar[_Owed | None] = contextvars.ContextVar("_current", default=None)


@contextlib.contextmanager
def _owed_for(payload: Any) -> Iterator[_Owed]:
    """Returns the owed answers of a payload: those of the caller, or new ones."""
    owed = _current.get()
    if owed is not None and owed.payload is payload:
        yield owed
        return
    owed = _Owed(payload)
    token = _current.set(owed)
    try:
        yield owed
    finally:
        _current.reset(token)


def _only_reads(method: Any) -> bool:
    """True if a message of this method may be sent twice. An answer may: the first one counts."""
    if not isinstance(method, str):
        return method is None
    return method in _READING_METHODS or method.endswith(("/list", "/get"))


def _encode(payload: Any, content_type: str) -> tuple[bytes, str]:
    """Returns the body of a payload, and its content type."""
    is_form = content_type == "application/x-www-form-urlencoded"
    if not is_form and content_type != "application/json":
        is_form = isinstance(payload, dict) and all(
            value is None or isinstance(value, (str, int, float)) for value in payload.values()
        )
    if is_form:
        text = urlencode(payload) if isinstance(payload, dict) else str(payload)
        return text.encode(), "application/x-www-form-urlencoded"
    body = payload.encode() if isinstance(payload, str) else orjson.dumps(payload)
    return body, "application/json; charset=utf-8"


def _learn_session(session: dict[str, str], headers: Any) -> None:
    session.clear()
    if identity := headers.get("Mcp-Session-Id"):
        session["Mcp-Session-Id"] = identity


def _note(message: Any, owed: _Owed, session: dict[str, str]) -> bool:
    if owed.is_initialize and isinstance(message, dict):
        result = message.get("result")
        if isinstance(result, dict) and isinstance(version := result.get("protocolVersion"), str):
            session["MCP-Protocol-Version"] = version
    return owed.note(message)


async def _emit_line(line: bytes, owed: _Owed, session: dict[str, str]) -> None:
    if shutting_down():
        return
    try:
        message = orjson.loads(line)
    except Exception:
        logger.warning("the server sent %d bytes that are not JSON", len(line))
        owed.blame("Invalid JSON from server", JSONRPC_PARSE_ERROR, _excerpt(line))
        return
    _note(message, owed, session)
    send_to_stdout(message)
    await _room()


async def _emit_document(document: bytes, owed: _Owed, session: dict[str, str]) -> None:
    try:
        message = orjson.loads(document)
    except Exception:
        owed.blame("Invalid JSON response", JSONRPC_PARSE_ERROR, _excerpt(document))
        return
    _note(message, owed, session)
    send_to_stdout(message)
    await _room()


# A larger message is not parsed: its objects would take several times its size.
_LARGE = 1 << 20
_LINE_BREAKS = bytes.maketrans(b"\r\n", b"  ")


async def _emit_bytes(message: bytes, owed: _Owed, session: dict[str, str]) -> None:
    # JSON has line breaks only between tokens, where a space means the same.
    line = message.translate(_LINE_BREAKS) if b"\n" in message or b"\r" in message else message
    if len(line) > _LARGE:
        owed.note_large()
        send_to_stdout(line)
    else:
        try:
            parsed = orjson.loads(line)
        except Exception:
            owed.blame("Invalid JSON from server", JSONRPC_PARSE_ERROR, _excerpt(line))
            return
        is_changed = _note(parsed, owed, session)
        send_to_stdout(parsed if is_changed else line)
    await _room()


@contextlib.asynccontextmanager
async def _closing(items: AsyncIterator[bytes]) -> AsyncIterator[AsyncIterator[bytes]]:
    """Closes an iterator at the end of the block, not when it is garbage-collected."""
    try:
        yield items
    finally:
        if close := getattr(items, "aclose", None):
            await close()


def _as_text(line: Any) -> str:
    try:
        return str(line.decode("utf-8", errors="replace"))
    except Exception:
        return str(line)


def _excerpt(data: bytes) -> str:
    """Returns the beginning of the server's data."""
    return data[:512].decode("utf-8", "replace")


def _verifies_certificates() -> bool:
    """True if certificates are checked: always, unless the gateway's own settings turn it off."""
    try:
        from mcpgateway.config import settings as gateway  # type: ignore

        return not gateway.skip_ssl_verify
    except (Exception, SystemExit):
        # It is not installed, or it refuses to be imported, as it does without its secrets.
        return True


# --- stdin and stdout ---


class _Blocked:
    """Counts the threads that are blocked on stdin or stdout."""

    count = 0
    _lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            _Blocked.count += 1

    def __exit__(self, *exc_info: object) -> None:
        with self._lock:
            _Blocked.count -= 1


def _read_line() -> Any:
    with _Blocked():
        if hasattr(sys.stdin, "buffer"):
            return sys.stdin.buffer.readline()
        return sys.stdin.readline().encode("utf-8", "surrogateescape")


def _write_line(line: bytes) -> None:
    try:
        with _Blocked():
            if hasattr(sys.stdout, "buffer"):
                sys.stdout.buffer.write(line + b"\n")
                sys.stdout.buffer.flush()
            else:
                sys.stdout.write(line.decode("utf-8", "replace") + "\n")
                sys.stdout.flush()
    except OSError as error:
        logger.error("stdout cannot be written: %s", error)
        _mark_shutdown()


class _Writer:
    """A thread that writes lines to stdout, in the order of the calls of `put`.

    Up to `_MOST_WAITING` bytes, and one line, may wait. Call `room` after `put` to keep that limit.
    """

    _MOST_WAITING = 1 << 20

    def __init__(self) -> None:
        self.patience = DRAIN_TIMEOUT
        self._loop = asyncio.get_running_loop()
        self._lines: thread_queue.SimpleQueue[bytes | None] = thread_queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waiting = 0
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._thread = threading.Thread(target=self._run, name="mcp-gangway stdout", daemon=True)
        self._is_running = False

    def put(self, line: bytes) -> None:
        if not self._is_running:
            self._is_running = True
            self._thread.start()
        with self._lock:
            self._waiting += len(line)
            if self._waiting > self._MOST_WAITING:
                self._has_room.clear()
        self._lines.put(line)

    async def room(self) -> None:
        await self._has_room.wait()

    async def close(self) -> None:
        """Waits until everything is written, at most `patience` seconds."""
        if self._is_running:
            self._lines.put(None)
            await self._loop.run_in_executor(None, self._thread.join, self.patience)

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            _write_line(line)
            with self._lock:
                was_full = self._waiting > self._MOST_WAITING
                self._waiting -= len(line)
                has_room = self._waiting <= self._MOST_WAITING
            if was_full and has_room:
                # The loop may be closed already.
                with contextlib.suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(self._has_room.set)


_writer: _Writer | None = None


@contextlib.asynccontextmanager
async def _written_by_a_thread() -> AsyncIterator[_Writer]:
    """Writes lines in a thread until the end of the block, and waits for it there."""
    global _writer
    _writer = writer = _Writer()
    try:
        yield writer
    finally:
        await writer.close()
        _writer = None


async def _room() -> None:
    """Waits until the client has read enough of the output."""
    if _writer is not None:
        await _writer.room()
