"""`mcp_gangway.wrapper`: the behaviour that code for `mcpgateway.wrapper` relies on, and the faults of the original.

First the functions, with stand-ins for the parts that such code replaces. Then whole processes against a real server:
the loop in Python, and the program, which is the native bridge.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import io
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import httpx
import mcp_gangway
import pytest
from http_server import CUT, HANG, Answer, Pause, Request, chunked, event, serving, whole
from mcp_gangway import retry, wrapper

JSON = "application/json"
NDJSON = "application/x-ndjson"
SSE = "text/event-stream"


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Each test begins and ends with a bridge that is not shutting down, and without a log."""
    wrapper._shutdown.clear()
    yield
    wrapper._shutdown.clear()
    wrapper.setup_logging(None)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The arguments of `send_to_stdout`."""
    objects: list[Any] = []
    monkeypatch.setattr(wrapper, "send_to_stdout", objects.append)
    return objects


class Reply:
    """A response with only the members that the original uses."""

    __slots__ = ("_chunks", "_headers", "status_code")

    def __init__(self, content_type: str | None, *chunks: bytes, status: int = 200) -> None:
        self.status_code = status
        self._headers = {"Content-Type": content_type} if content_type else {}
        self._chunks = chunks

    @property
    def headers(self) -> dict[str, str]:
        return self._headers

    async def aread(self) -> bytes:
        return b"".join(self._chunks)

    async def aiter_bytes(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk


class Client:
    """A client that returns this reply, or raises it, and records its calls."""

    def __init__(self, reply: Reply | Exception) -> None:
        self._reply = reply
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    @contextlib.asynccontextmanager
    async def stream(self, *args: Any, **kwargs: Any) -> AsyncIterator[Reply]:
        self.calls.append((args, kwargs))
        if isinstance(self._reply, Exception):
            raise self._reply
        yield self._reply


SETTINGS = wrapper.Settings("http://localhost/mcp/", "Bearer t")


def call(number: Any = 1, method: str = "tools/call", **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


def result(number: Any = 1, **members: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "result": members}


def notification(method: str = "notifications/message", **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "params": params}


async def forward(reply: Reply, payload: Any = None) -> dict[str, Any]:
    """Forwards a payload. Returns the keyword arguments of the request."""
    client = Client(reply)
    await wrapper.forward_once(cast(Any, client), SETTINGS, {"a": 1} if payload is None else payload)
    return client.calls[0][1]


def ids_and_codes(objects: list[Any]) -> list[tuple[Any, int]]:
    return [(item["id"], item["error"]["code"]) for item in objects]


# --- Names ---


def test_the_names_and_constants() -> None:
    assert wrapper.DEFAULT_CONNECT_TIMEOUT == 15
    assert wrapper.JSONRPC_PARSE_ERROR == -32700
    assert wrapper.JSONRPC_INTERNAL_ERROR == -32603
    assert wrapper.JSONRPC_SERVER_ERROR == -32000
    assert isinstance(wrapper._shutdown, asyncio.Event)
    assert wrapper.ResilientHttpClient is retry.ResilientHttpClient
    modules = (wrapper.asyncio, wrapper.signal, wrapper.sys, wrapper.httpx)
    assert modules == (asyncio, signal, sys, httpx)
    assert wrapper.orjson.dumps({"a": [1]}) == b'{"a":[1]}'
    assert wrapper.orjson.loads(b'{"a":[1]}') == {"a": [1]}


def test_the_logger_has_the_name_of_the_original() -> None:
    assert wrapper.logger is logging.getLogger("mcpgateway.wrapper")
    assert wrapper.logger.disabled
    assert not wrapper.logger.propagate
    assert logging.StreamHandler in [type(handler) for handler in wrapper.logger.handlers]


IMPORTED = "import json, mcp_gangway.wrapper as w; print(json.dumps(%s))"


def imported(expression: str, **variables: str) -> Any:
    """Returns the value of an expression after an import in this environment."""
    command = [sys.executable, "-c", IMPORTED % expression]
    done = subprocess.run(command, env=environment(**variables), capture_output=True, check=True)
    return json.loads(done.stdout)


def environment(**variables: str) -> dict[str, str]:
    """Returns this process's environment without the bridge's variables, plus the given ones."""
    ours = ("MCP_", "CONCURRENCY", "FORGE_", "LOG_LEVEL", "TLS_", "INSECURE", "HTTP")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | variables


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, [10, 60.0, JSON]),
        (
            {"CONCURRENCY": "3", "MCP_TOOL_CALL_TIMEOUT": "7.5", "FORGE_CONTENT_TYPE": "auto"},
            [3, 7.5, "auto"],
        ),
        ({"CONCURRENCY": "", "MCP_TOOL_CALL_TIMEOUT": ""}, [10, 60.0, JSON]),
        ({"CONCURRENCY": "many", "MCP_TOOL_CALL_TIMEOUT": "-1"}, [10, 60.0, JSON]),
    ],
)
def test_environment_variables_are_read_at_import(variables: dict[str, str], expected: list[Any]) -> None:
    names = "[w.DEFAULT_CONCURRENCY, w.DEFAULT_RESPONSE_TIMEOUT, w.CONTENT_TYPE]"
    assert imported(names, **variables) == expected


def test_an_import_takes_nothing_from_the_gateway_package() -> None:
    names = "[name for name in __import__('sys').modules if name.startswith('mcpgateway')]"
    assert imported(names) == []


def test_settings_keep_the_original_argument_order_and_accept_attributes() -> None:
    settings = wrapper.Settings("u", "a", 1, 2, 3, "INFO")
    fields = (
        "server_url",
        "auth_header",
        "connect_timeout",
        "response_timeout",
        "concurrency",
        "log_level",
    )
    assert [getattr(settings, name) for name in fields] == ["u", "a", 1, 2, 3, "INFO"]
    defaults = wrapper.Settings("u", None)
    assert (defaults.connect_timeout, defaults.response_timeout, defaults.log_level) == (
        15,
        60.0,
        None,
    )
    settings.content_type = "auto"  # type: ignore[attr-defined]
    assert wrapper.Settings("u", None) == defaults
    assert "session" not in repr(defaults)


# --- Small functions ---


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("http://h/servers/1", "http://h/servers/1/mcp/"),
        ("http://h/servers/1/", "http://h/servers/1//mcp/"),
        ("http://h/servers/1/mcp", "http://h/servers/1/mcp/"),
        ("http://h/servers/1/mcp/", "http://h/servers/1/mcp/"),
        ("http://h/servers/1/sse", "http://h/servers/1/mcp/"),
    ],
)
def test_convert_url(given: str, expected: str) -> None:
    assert wrapper.convert_url(given) == expected


def test_make_error() -> None:
    error = {"code": -32603, "message": "m"}
    assert wrapper.make_error("m") == {"jsonrpc": "2.0", "id": "bridge", "error": error}
    assert wrapper.make_error("m", 5, [1])["error"] == {"code": 5, "message": "m", "data": [1]}
    assert wrapper.make_error("m", data=0)["error"]["data"] == 0


@pytest.mark.parametrize("level", ["", None, "OFF", "none", "Disable", "FALSE", "0", "  off "])
def test_the_log_can_be_off(level: str | None) -> None:
    wrapper.setup_logging("DEBUG")
    wrapper.setup_logging(level)
    assert wrapper.logger.disabled


@pytest.mark.parametrize(
    ("level", "number"),
    [
        ("debug", 10),
        ("WARNING", 30),
        ("nonsense", 20),
        ("BASIC_FORMAT", 20),
        ("raiseExceptions", 20),
    ],
)
def test_the_log_level_is_set_and_an_unknown_one_means_info(level: str, number: int) -> None:
    wrapper.setup_logging(level)
    assert (wrapper.logger.disabled, wrapper.logger.level) == (False, number)


def test_control_characters_and_floods_are_kept_out_of_the_log() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    wrapper.logger.addHandler(handler)
    try:
        wrapper.setup_logging("INFO")
        for number in range(10_000):
            wrapper.logger.warning("the same \x1b[2J\x9b\u202e\nforged")
            wrapper.logger.warning("another %d", number)
        wrapper.logger.error("and what is new")
        wrapper._flood.tell()
    finally:
        wrapper.logger.removeHandler(handler)
    log = stream.getvalue()
    lines = log.splitlines()
    assert len(lines) == 1 + wrapper._Flood.LINES + 1 + 1, lines
    assert not set(log) & set("\x1b\x9b\u202e") and not any(line.startswith("forged") for line in lines)
    assert "and what is new" in lines[-2]
    assert f"{9_999 + 10_000 - wrapper._Flood.LINES} more lines" in lines[-1]


def test_the_shutdown_may_be_marked_twice_and_cleared() -> None:
    assert not wrapper.shutting_down()
    wrapper._mark_shutdown()
    wrapper._mark_shutdown()
    assert wrapper.shutting_down()
    wrapper._shutdown.clear()
    assert not wrapper.shutting_down()


# --- stdout ---


class Bytes(io.BytesIO):
    """The buffer of a stdout, which counts its flushes."""

    flushes = 0

    def flush(self) -> None:
        self.flushes += 1


class WithBuffer:
    def __init__(self, buffer: Any) -> None:
        self.buffer = buffer


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ({"b": 1, "a": "é"}, '{"b":1,"a":"é"}'),
        ([1, None], "[1,null]"),
        ("text", '"text"'),
        (b"raw", "raw"),
        ({1}, "{1}"),
        (2**80, str(2**80)),
        ({"s": "\ud800"}, '{"s":"\\ud800"}'),
    ],
)
def test_a_line_is_compact_json_and_flushed(value: Any, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = Bytes()
    monkeypatch.setattr(sys, "stdout", WithBuffer(buffer))
    wrapper.send_to_stdout(value)
    assert buffer.getvalue() == line.encode() + b"\n"
    assert buffer.flushes == 1


def test_a_stdout_without_a_buffer_is_written_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stdout)
    wrapper.send_to_stdout({"a": 1})
    assert stdout.getvalue() == '{"a":1}\n'


def test_if_orjson_fails_bytes_are_written_raw_and_other_values_as_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Broken:
        @staticmethod
        def dumps(_: Any) -> bytes:
            raise TypeError

    buffer = Bytes()
    monkeypatch.setattr(sys, "stdout", WithBuffer(buffer))
    monkeypatch.setattr(wrapper, "orjson", Broken)
    wrapper.send_to_stdout(b"\x00raw")
    wrapper.send_to_stdout({"a": 1})
    assert buffer.getvalue() == b"\x00raw\n{'a': 1}\n"


@pytest.mark.parametrize("error", [BrokenPipeError, OSError])
def test_a_failing_stdout_starts_the_shutdown(error: type[OSError], monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(Bytes):
        def write(self, _: Any) -> int:
            raise error

    monkeypatch.setattr(sys, "stdout", WithBuffer(Failing()))
    wrapper.send_to_stdout({})
    assert wrapper.shutting_down()


# --- stdin ---


async def read(monkeypatch: pytest.MonkeyPatch, stdin: Any) -> list[Any]:
    """Returns everything that the reader puts on a queue."""
    monkeypatch.setattr(sys, "stdin", stdin)
    queue: asyncio.Queue[Any] = asyncio.Queue()
    await asyncio.wait_for(wrapper.stdin_reader(queue), 5)
    return [queue.get_nowait() for _ in range(queue.qsize())]


@pytest.mark.asyncio
async def test_lines_become_values_and_the_end_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = b'{"a":1}\n\n   \n [1] \r\n"text"\n12345678901234567890123\n{"last":1}'
    items = await read(monkeypatch, WithBuffer(io.BytesIO(lines)))
    assert items == [{"a": 1}, [1], "text", 12345678901234567890123, {"last": 1}, None]
    assert wrapper.shutting_down()


@pytest.mark.asyncio
async def test_a_bad_line_becomes_an_error_with_the_line_as_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    items = await read(monkeypatch, WithBuffer(io.BytesIO(b"{bad\n\xff\n{}\n")))
    assert [item["error"]["code"] for item in items[:2]] == [-32700, -32700]
    assert [item["error"]["data"] for item in items[:2]] == ["{bad", "\ufffd"]
    assert [item["id"] for item in items[:2]] == [None, None]
    assert items[2:] == [{}, None]


@pytest.mark.asyncio
async def test_a_null_line_does_not_end_the_input(monkeypatch: pytest.MonkeyPatch) -> None:
    items = await read(monkeypatch, WithBuffer(io.BytesIO(b'null\n{"a":1}\n')))
    assert items[0]["error"]["code"] == -32600
    assert items[1:] == [{"a": 1}, None]


@pytest.mark.asyncio
async def test_a_stdin_without_a_buffer_is_read_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await read(monkeypatch, io.StringIO('{"ä":1}\nx\n')) == [
        {"ä": 1},
        {**wrapper.make_error("Invalid JSON from stdin", -32700, "x"), "id": None},
        None,
    ]


@pytest.mark.asyncio
async def test_a_line_may_be_any_object_that_can_be_stripped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Line:
        def strip(self) -> Line:
            return self

        def decode(self, *_: Any, **__: Any) -> str:
            raise UnicodeError

        def __str__(self) -> str:
            return "a line"

    class Buffer:
        lines = iter([Line(), b""])

        def readline(self) -> Any:
            return next(self.lines)

    items = await read(monkeypatch, WithBuffer(Buffer()))
    assert items[0]["error"]["data"] == "a line"
    assert items[1] is None


@pytest.mark.asyncio
async def test_reading_goes_through_to_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    async def inline(function: Callable[..., Any], *args: Any) -> Any:
        nonlocal calls
        calls += 1
        return function(*args)

    monkeypatch.setattr(asyncio, "to_thread", inline)
    assert await read(monkeypatch, WithBuffer(io.BytesIO(b"{}\n"))) == [{}, None]
    assert calls == 2


# --- Parsers ---


class Chunks:
    """A response that has only `aiter_bytes`; None triggers the shutdown."""

    def __init__(self, *chunks: bytes | None) -> None:
        self._chunks = chunks

    async def aiter_bytes(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            if chunk is None:
                wrapper._mark_shutdown()
            else:
                yield chunk


async def parsed(parser: Callable[[Any], AsyncIterator[bytes]], *chunks: bytes | None) -> list[bytes]:
    return [item async for item in parser(Chunks(*chunks))]


SSE_CASES: list[tuple[list[bytes | None], list[bytes]]] = [
    ([b"data: a\n\n", b"data: b\n\n"], [b"a", b"b"]),
    ([b"data: a\ndata: b\n\n"], [b"a\nb"]),
    ([b"", b": note\n\n", b"data\n\n", b"data: tail"], [b"", b"tail"]),
    ([b"event: message\ndata:a\n\n", b"data"], [b"a", b""]),
    ([b"data: a\n\n: note"], [b"a"]),
    ([b"data: a\n\nevent: message"], [b"a"]),
    ([b"id: 1\nretry: 5\nunknown: x\ndata: a\r\n\r\n"], [b"a"]),
    ([b"data: a\r", b"\n\r\ndata: b\r\n", b"\r\n"], [b"a", b"b"]),
    ([b"data: a\r\rdata: b\r\r"], [b"a", b"b"]),
    ([b"\xef\xbb\xbfdata: a\n\n"], [b"a"]),
    ([b"event: ping\ndata: x\n\ndata: a\n\n"], [b"a"]),
    ([b"data: \xc3", b"\xa9\n", b"\n"], ["é".encode()]),
    ([b"data: a\n\n", None, b"data: b\n\n"], [b"a"]),
    ([b"data: a\n\ndata: cut", None, b"off\n\n"], [b"a"]),
]


@pytest.mark.asyncio
@pytest.mark.parametrize(("chunks", "events"), SSE_CASES)
async def test_sse_events(chunks: list[bytes | None], events: list[bytes]) -> None:
    assert await parsed(wrapper.sse_events, *chunks) == events


@pytest.mark.asyncio
@pytest.mark.parametrize(("chunks", "events"), [case for case in SSE_CASES if None not in case[0]])
async def test_sse_events_do_not_depend_on_the_chunks(chunks: list[bytes | None], events: list[bytes]) -> None:
    text = b"".join(chunk for chunk in chunks if chunk)
    for cut in range(len(text) + 1):
        assert await parsed(wrapper.sse_events, text[:cut], text[cut:]) == events, cut
    one_by_one = [text[at : at + 1] for at in range(len(text))]
    assert await parsed(wrapper.sse_events, *one_by_one) == events


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("chunks", "lines"),
    [
        ([b'{"a":1}\n{"b":2}\n', b'{"c":3}'], [b'{"a":1}', b'{"b":2}', b'{"c":3}']),
        ([b"", b"1\n\n  \r\n2\r\n"], [b"1", b"2"]),
        ([b"1", b"2", b"\n", b"3"], [b"12", b"3"]),
        ([b" \t1 \n"], [b"1"]),
        ([b'"\xe2\x80', b'\xa8"\n'], ['"\u2028"'.encode()]),
        ([b"1\n", None, b"2\n"], [b"1"]),
        ([b"1\n2", None, b"2\n"], [b"1"]),
        ([], []),
    ],
)
async def test_ndjson_lines(chunks: list[bytes | None], lines: list[bytes]) -> None:
    assert await parsed(wrapper.ndjson_lines, *chunks) == lines


@pytest.mark.asyncio
@pytest.mark.parametrize("parser", [wrapper.sse_events, wrapper.ndjson_lines])
async def test_a_large_item_in_small_chunks_takes_linear_time(
    parser: Callable[[Any], AsyncIterator[bytes]],
) -> None:
    async def seconds(kibibytes: int) -> float:
        chunks = [b"data: ", *[b"x" * 1024] * kibibytes, b"\n\n"]
        began = time.perf_counter()
        (item,) = await parsed(parser, *chunks)
        assert len(item) >= kibibytes * 1024
        return time.perf_counter() - began

    small, large = await seconds(4 * 1024), await seconds(32 * 1024)
    # A quadratic parser takes 64 times as long.
    assert large < 24 * small + 0.5


# --- forward_once ---


@pytest.mark.asyncio
async def test_forward_once_calls_the_client_with_the_expected_arguments(sent: list[Any]) -> None:
    client = Client(Reply(JSON, b"{}"))
    await wrapper.forward_once(cast(Any, client), SETTINGS, {"a": "é"})
    ((args, kwargs),) = client.calls
    assert args == ("POST", "http://localhost/mcp/")
    assert set(kwargs) == {"data", "headers"}
    assert kwargs["data"] == '{"a":"é"}'.encode()
    headers = kwargs["headers"]
    assert headers["Authorization"] == "Bearer t"
    assert headers["Content-Type"] == "application/json; charset=utf-8"
    for kind in (JSON, NDJSON, SSE):
        assert kind in headers["Accept"]
    await wrapper.forward_once(cast(Any, client), wrapper.Settings("u", None), {})
    assert "Authorization" not in client.calls[1][1]["headers"]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("content_type", "payload", "body", "is_form"),
    [
        (JSON, {"a": 1}, b'{"a":1}', False),
        (JSON, '{"as": "it is"}', b'{"as": "it is"}', False),
        (JSON, [1, {"a": None}], b'[1,{"a":null}]', False),
        (JSON, {"n": 2**70}, b'{"n":%d}' % 2**70, False),
        ("application/x-www-form-urlencoded", {"a": "b c", "d": 1}, b"a=b+c&d=1", True),
        ("application/x-www-form-urlencoded", "a=b", b"a=b", True),
        ("auto", {"a": "b", "c": 1, "d": None, "e": True}, b"a=b&c=1&d=None&e=True", True),
        ("auto", {"a": {"b": 1}}, b'{"a":{"b":1}}', False),
        ("auto", [1], b"[1]", False),
    ],
)
async def test_the_body_and_its_type(
    content_type: str, payload: Any, body: bytes, is_form: bool, sent: list[Any]
) -> None:
    client = Client(Reply(JSON, b"{}"))
    settings = wrapper.Settings("u", None)
    settings.content_type = content_type  # type: ignore[attr-defined]
    await wrapper.forward_once(cast(Any, client), settings, payload)
    sent_kind = client.calls[0][1]["headers"]["Content-Type"]
    assert client.calls[0][1]["data"] == body
    assert sent_kind.startswith("application/x-www-form-urlencoded" if is_form else JSON)


@pytest.mark.asyncio
async def test_content_type_is_read_at_each_request(sent: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wrapper, "CONTENT_TYPE", "application/x-www-form-urlencoded")
    assert (await forward(Reply(JSON, b"{}")))["data"] == b"a=1"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(JSON, b' {"ok": 1} '), [{"ok": 1}]),
        (Reply("Application/JSON; charset=utf-8", b"[1, 2]"), [[1, 2]]),
        (Reply(JSON, b"\xef\xbb\xbf{}"), [{}]),
        (Reply(JSON, b"  "), []),
        (Reply(JSON, b"", status=202), []),
        (Reply(NDJSON, b'{"a":1}\n{"b"', b":2}\n"), [{"a": 1}, {"b": 2}]),
        (Reply("application/ndjson", b'{"a":1}'), [{"a": 1}]),
        (Reply(SSE, b'data: {"a":\ndata: 1}\n\ndata:\n\n', b"data: 2\n\n"), [{"a": 1}, 2]),
        (Reply("text/plain", b'{"a":1}\n{"b":2}'), [{"a": 1}, {"b": 2}]),
        (Reply(None, b'{"a":1}'), [{"a": 1}]),
        (Reply(None, b""), []),
        (Reply(JSON, b'{"n":%d,"x":1E400}' % 2**70), [{"n": 2**70, "x": 10**400}]),
        (Reply(NDJSON, b'{"s":"\\ud800"}'), [{"s": "\ud800"}]),
    ],
)
async def test_replies_of_all_types_arrive_as_parsed_objects(
    reply: Reply, expected: list[Any], sent: list[Any]
) -> None:
    await forward(reply)
    assert sent == expected


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (Reply(JSON, b"{}", status=500), 500),
        (Reply(JSON, b"{}", status=404), 404),
        (Reply(None, status=302), 302),
        (Reply(JSON, b"no"), -32700),
        (Reply(SSE, b"data: no\n\n"), -32700),
        (Reply(NDJSON, b"no\n"), -32700),
    ],
)
async def test_errors_have_the_requests_id_or_the_default_id_bridge(reply: Reply, code: int, sent: list[Any]) -> None:
    await forward(reply)
    await forward(reply, call("x"))
    await forward(reply, json.dumps(call("text")))
    await forward(reply, [call(7), notification(), call(8)])
    assert ids_and_codes(sent) == [
        ("bridge", code),
        ("x", code),
        ("text", code),
        (7, code),
        (8, code),
    ]
    del sent[:]
    # These messages get no answer.
    await forward(reply, notification())
    await forward(reply, result())
    assert sent == []


@pytest.mark.asyncio
async def test_a_request_gets_one_answer_whatever_else_the_reply_contains(sent: list[Any]) -> None:
    await forward(Reply(NDJSON, b"no\n" + json.dumps(result()).encode()), call())
    assert sent == [result()]
    del sent[:]
    await forward(Reply(SSE, event(notification()) + event(call("s", "ping"))), call())
    assert sent[:2] == [notification(), call("s", "ping")]
    assert ids_and_codes(sent[2:]) == [(1, -32603)]
    del sent[:]
    await forward(Reply(JSON, b'{"jsonrpc":"2.0","id":null,"error":{"code":5,"message":"m"}}'), call())
    assert ids_and_codes(sent) == [(1, 5)]


@pytest.mark.asyncio
async def test_nothing_is_sent_during_the_shutdown(sent: list[Any]) -> None:
    wrapper._mark_shutdown()
    client = Client(Reply(JSON, b"{}"))
    await wrapper.forward_once(cast(Any, client), SETTINGS, call())
    assert (client.calls, sent) == ([], [])


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("true_at", "numbers"),
    [
        (range(2, 9), []),
        (range(3, 9), []),
        (range(4, 9), []),
        (range(5, 9), [1]),
        (range(6, 9), [1]),
        (range(7, 9), [1, 2]),
        ([4], [2]),
    ],
)
async def test_the_shutdown_is_checked_before_each_step_of_a_reply(
    true_at: Sequence[int], numbers: list[int], sent: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the start, after the headers, for each item in the loop, and again before the item is sent."""
    count = iter(range(1, 9))
    monkeypatch.setattr(wrapper, "shutting_down", lambda: next(count) in true_at)

    async def lines(_: Any) -> AsyncIterator[bytes]:
        yield b'{"n":1}'
        yield b'{"n":2}'

    monkeypatch.setattr(wrapper, "ndjson_lines", lines)
    await forward(Reply(NDJSON))
    assert [item["n"] for item in sent] == numbers


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", [NDJSON, SSE, "text/plain"])
async def test_a_shutdown_stops_a_reply_after_the_message(
    kind: str, sent: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def send(item: Any) -> None:
        sent.append(item)
        wrapper._mark_shutdown()

    monkeypatch.setattr(wrapper, "send_to_stdout", send)
    body = event({"n": 1}) + event({"n": 2}) if kind == SSE else b'{"n":1}\n{"n":2}\n'
    await forward(Reply(kind, body), call())
    assert sent == [{"n": 1}]


@pytest.mark.asyncio
async def test_a_shutdown_while_a_json_reply_is_read_drops_it(sent: list[Any]) -> None:
    class Late(Reply):
        async def aread(self) -> bytes:
            wrapper._mark_shutdown()
            return await super().aread()

    await forward(Late(JSON, b"{}"), call())
    assert sent == []


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "answer",
    [
        whole(b'{"id": 1, "result": {\n  "n": 12345678901234567890123}\n}', content_type=JSON),
        chunked(
            b'data: {"id": 1, "result": {\ndata:   "n": 12345678901234567890123}}\n\n',
            content_type=SSE,
        ),
        whole(b'{"id": 1, "result": {   "n": 12345678901234567890123}}\n', content_type=NDJSON),
    ],
)
async def test_messages_of_our_own_client_keep_their_bytes(answer: Answer, sent: list[Any]) -> None:
    async with serving(answer) as server, mcp_gangway.AsyncClient() as client:
        await wrapper.forward_once(cast(Any, client), wrapper.Settings(server.url, None), call())
    assert len(sent) == 1
    assert isinstance(sent[0], bytes)
    assert b"\n" not in sent[0]
    assert sent[0].replace(b" ", b"") == b'{"id":1,"result":{"n":12345678901234567890123}}'
    assert b'"id": 1' in sent[0]


@pytest.mark.asyncio
async def test_messages_of_our_own_client_count_as_answers(sent: list[Any]) -> None:
    large = json.dumps(result(1, text="x" * (2 << 20))).encode()
    without_id = b'{"jsonrpc":"2.0","id":null,"error":{"code":5,"message":"m"}}'
    answers = [large, without_id, json.dumps(result(2)).encode(), b"no"]
    async with (
        serving([whole(body, content_type=JSON) for body in answers]) as server,
        mcp_gangway.AsyncClient() as client,
    ):
        for _ in answers:
            settings = wrapper.Settings(server.url, None)
            await wrapper.forward_once(cast(Any, client), settings, call())
    assert sent[0] == large
    assert ids_and_codes(sent[1:2]) == [(1, 5)]
    # The answer to another request does not count.
    assert json.loads(sent[2]) == result(2)
    assert ids_and_codes(sent[3:]) == [(1, -32603), (1, -32700)]


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", [NDJSON, SSE, "ours"])
async def test_a_blocked_stdout_pauses_reading_of_the_reply(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stuck(Bytes):
        is_read = threading.Event()

        def write(self, data: Any) -> int:
            self.is_read.wait(10)
            return super().write(data)

    class Counted(Reply):
        taken = 0

        async def aiter_bytes(self) -> AsyncIterator[bytes]:
            async for chunk in super().aiter_bytes():
                Counted.taken += 1
                yield chunk

    messages = [notification(n=number, text="x" * 100_000) for number in range(200)]
    lines = [json.dumps(message, separators=(",", ":")).encode() + b"\n" for message in messages]
    stdout = Stuck()
    monkeypatch.setattr(sys, "stdout", WithBuffer(stdout))
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(wrapper._written_by_a_thread())
        if kind == "ours":
            server = await stack.enter_async_context(serving(chunked(*lines, content_type=NDJSON)))
            client = await stack.enter_async_context(mcp_gangway.AsyncClient())
            settings = wrapper.Settings(server.url, None)
            forwarding = asyncio.create_task(wrapper.forward_once(cast(Any, client), settings, {"a": 1}))
        else:
            chunks = map(event, messages) if kind == SSE else lines
            forwarding = asyncio.create_task(cast(Any, forward(Counted(kind, *chunks))))
        await asyncio.sleep(0.3)
        assert not forwarding.done()
        assert Counted.taken < 20
        stdout.is_read.set()
        await asyncio.wait_for(forwarding, 10)
    assert stdout.getvalue() == b"".join(lines)


# --- make_request ---


def failing(*failures: Exception) -> Callable[..., Any]:
    """Returns a `forward_once` that fails like this, then succeeds. `.count` is its number of runs."""

    async def forward_once(*_: Any) -> None:
        forward_once.count += 1  # type: ignore[attr-defined]
        if forward_once.count <= len(failures):  # type: ignore[attr-defined]
            raise failures[forward_once.count - 1]  # type: ignore[attr-defined]

    forward_once.count = 0  # type: ignore[attr-defined]
    return forward_once


async def request(monkeypatch: pytest.MonkeyPatch, payload: Any, *failures: Exception, retries: int = 2) -> int:
    """Makes a request whose attempts fail like this. Returns the number of attempts."""
    forward_once = failing(*failures)
    monkeypatch.setattr(wrapper, "forward_once", forward_once)
    await wrapper.make_request(cast(Any, None), SETTINGS, payload, max_retries=retries, base_delay=0.001)
    return int(forward_once.count)  # type: ignore[attr-defined]


BOOM = RuntimeError("boom")
READ_TIMEOUT = httpx.ReadTimeout("late")
UNSENT = [
    httpx.ConnectError("x"),
    httpx.ConnectTimeout("x"),
    httpx.PoolTimeout("x"),
    mcp_gangway.ConnectError("x"),
    mcp_gangway.ConnectTimeout("x"),
]


@pytest.mark.asyncio
async def test_a_successful_request_sends_no_error(sent: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert await request(monkeypatch, call()) == 1
    assert sent == []


@pytest.mark.asyncio
async def test_one_error_is_sent_after_all_retries(sent: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert await request(monkeypatch, {"a": 1}, *[BOOM] * 9) == 3
    assert ids_and_codes(sent) == [("bridge", -32000)]
    assert sent[0]["error"]["message"] == "max retries exceeded"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("payload", "numbers"),
    [
        (call(), [1]),
        (json.dumps(call()), [1]),
        ([call(1, "tools/list"), call(2)], [1, 2]),
        (call(1, "tasks/cancel"), [1]),
        (call(1, "logging/setLevel"), [1]),
        (call(1, cast(Any, ["no", "text"])), [1]),
        (notification("notifications/message"), []),
    ],
)
async def test_a_request_that_may_have_run_is_not_repeated(
    payload: Any, numbers: list[int], sent: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await request(monkeypatch, payload, READ_TIMEOUT) == 1
    assert ids_and_codes(sent) == [(number, -32000) for number in numbers]
    assert all("may have run" in item["error"]["message"] for item in sent)


@pytest.mark.asyncio
@pytest.mark.parametrize("error", UNSENT, ids=repr)
async def test_a_request_that_was_not_sent_is_repeated(
    error: Exception, sent: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await request(monkeypatch, call(), error, error) == 3
    assert sent == []
    assert await request(monkeypatch, call(), *[error] * 9) == 3
    assert ids_and_codes(sent) == [(1, -32000)]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "payload",
    [
        call(1, "tools/list"),
        call(1, "prompts/get"),
        call(1, "resources/templates/list"),
        call(1, "resources/read"),
        call(1, "initialize"),
        call(1, "ping"),
        result(),
    ],
)
async def test_a_read_only_request_is_repeated(payload: Any, sent: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert await request(monkeypatch, payload, READ_TIMEOUT, READ_TIMEOUT) == 3
    assert sent == []


@pytest.mark.asyncio
async def test_no_request_is_retried_after_the_http_client_gave_up(
    sent: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = retry.RetriesExhausted("x", 503)
    assert await request(monkeypatch, call(1, "tools/list"), refused) == 1
    assert ids_and_codes(sent) == [(1, -32000)]
    assert "503" in sent[0]["error"]["data"]


@pytest.mark.asyncio
async def test_a_request_that_fails_during_the_shutdown_sends_no_error(
    sent: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> None:
        wrapper._mark_shutdown()
        raise BOOM

    monkeypatch.setattr(wrapper, "forward_once", fail)
    await wrapper.make_request(cast(Any, None), SETTINGS, call(), max_retries=5, base_delay=0.001)
    assert sent == []
    assert await request(monkeypatch, call()) == 0


@pytest.mark.asyncio
async def test_delivered_events_are_not_repeated_after_a_broken_connection(sent: list[Any]) -> None:
    answer = chunked(event(notification()), Pause(0.1), CUT, content_type=SSE)
    for method in ("tools/list", "tools/call"):
        async with serving(answer) as server, retry.ResilientHttpClient() as client:
            settings = wrapper.Settings(server.url, None)
            await wrapper.make_request(client, settings, call(5, method), base_delay=0.001)
        assert len(server.requests) == 1
        assert sent[0] == notification()
        assert ids_and_codes(sent[1:]) == [(5, -32000)]
        del sent[:]


@pytest.mark.asyncio
async def test_an_answer_before_a_broken_connection_is_not_followed_by_an_error(sent: list[Any]) -> None:
    answer = chunked(event(result(5)), Pause(0.1), CUT, content_type=SSE)
    async with serving(answer) as server, retry.ResilientHttpClient() as client:
        settings = wrapper.Settings(server.url, None)
        await wrapper.make_request(client, settings, call(5), base_delay=0.001)
    assert len(server.requests) == 1
    assert sent == [result(5)]


# --- main_async and main, with stand-ins ---


class Idle:
    """A client that only records its arguments; the latest one is `made`."""

    made: Idle

    def __init__(self, *_: Any, **arguments: Any) -> None:
        self.arguments = arguments
        self.is_closed = False
        Idle.made = self

    async def aclose(self) -> None:
        self.is_closed = True


@pytest.fixture
def intake(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The reader's items for the queue: payloads, or events to wait for; then the end."""
    items: list[Any] = []

    async def reader(queue: asyncio.Queue[Any]) -> None:
        for item in items:
            if isinstance(item, asyncio.Event):
                await asyncio.wait_for(item.wait(), 5)
            else:
                await queue.put(item)
                await asyncio.sleep(0)
        await queue.put(None)

    monkeypatch.setattr(wrapper, "stdin_reader", reader)
    monkeypatch.setattr(wrapper, "ResilientHttpClient", Idle)
    return items


@pytest.mark.asyncio
async def test_each_payload_becomes_a_request(intake: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    async def make_request(client: Any, settings: Any, payload: Any) -> None:
        assert client is Idle.made
        made.append(payload)

    monkeypatch.setattr(wrapper, "make_request", make_request)
    intake += [{"foo": "bar"}, call(1), notification(), [call(2)]]
    await wrapper.main_async(SETTINGS)
    assert made == [{"foo": "bar"}, call(1), notification(), [call(2)]]
    assert wrapper.shutting_down()
    assert Idle.made.is_closed


@pytest.mark.asyncio
async def test_at_the_end_of_stdin_only_valid_messages_are_awaited(
    intake: list[Any], sent: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    finished: list[Any] = []

    async def make_request(_client: Any, _settings: Any, payload: Any) -> None:
        await (asyncio.sleep(0.1) if "method" in payload else asyncio.Event().wait())
        finished.append(payload)

    monkeypatch.setattr(wrapper, "make_request", make_request)
    intake += [{"foo": "bar"}, call(1), notification()]
    began = time.monotonic()
    await wrapper.main_async(SETTINGS)
    assert finished == [call(1), notification()]
    assert time.monotonic() - began < 2
    assert sent == []


@pytest.mark.asyncio
async def test_the_wait_at_the_end_has_a_limit_and_the_request_gets_an_error(
    intake: list[Any], sent: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def make_request(*_: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(wrapper, "make_request", make_request)
    monkeypatch.setattr(wrapper, "DRAIN_TIMEOUT", 0.2)
    intake.append(call("x"))
    began = time.monotonic()
    await wrapper.main_async(SETTINGS)
    assert 0.2 <= time.monotonic() - began < 2
    assert ids_and_codes(sent) == [("x", -32000)]


@pytest.mark.asyncio
async def test_a_shutdown_ends_the_wait_for_stdin_at_once(
    intake: list[Any], sent: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def make_request(*_: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(wrapper, "make_request", make_request)
    intake += [call("x"), asyncio.Event()]
    asyncio.get_running_loop().call_later(0.1, wrapper._mark_shutdown)
    began = time.monotonic()
    await wrapper.main_async(SETTINGS)
    assert time.monotonic() - began < 2
    assert ids_and_codes(sent) == [("x", -32000)]


@pytest.mark.asyncio
async def test_open_and_waiting_requests_get_errors_at_the_shutdown(
    intake: list[Any], sent: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def make_request(*_: Any) -> None:
        await asyncio.sleep(0.05)
        wrapper._mark_shutdown()

    monkeypatch.setattr(wrapper, "make_request", make_request)
    intake += [call("x"), call("y"), asyncio.Event()]
    await asyncio.wait_for(wrapper.main_async(wrapper.Settings("u", None, concurrency=1)), 5)
    assert ids_and_codes(sent) == [("x", -32000), ("y", -32000)]
    assert [item["error"]["message"].split()[-1] for item in sent] == ["run", "sent"]


@pytest.mark.asyncio
async def test_a_failing_stdin_reader_ends_the_wrapper(intake: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    async def reader(_: Any) -> None:
        raise OSError("stdin is closed")

    monkeypatch.setattr(wrapper, "stdin_reader", reader)
    await asyncio.wait_for(wrapper.main_async(SETTINGS), 5)
    assert Idle.made.is_closed


@pytest.mark.asyncio
async def test_json_that_is_not_a_message_gets_an_error_and_is_not_sent(
    intake: list[Any], sent: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def make_request(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(wrapper, "make_request", make_request)
    intake += [5, "text", True]
    await wrapper.main_async(SETTINGS)
    assert ids_and_codes(sent) == [(None, -32600)] * 3


@pytest.mark.asyncio
@pytest.mark.parametrize(("true_at", "loops", "requests"), [([1], 1, 0), ([3, 4, 5, 6], 2, 0), ([9], 2, 1)])
async def test_the_worker_checks_for_the_shutdown_before_each_request(
    true_at: list[int],
    loops: int,
    requests: int,
    intake: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Any] = []
    count = 0

    def shutting_down() -> bool:
        nonlocal count
        count += 1
        return count in true_at

    async def make_request(*_: Any) -> None:
        made.append(count)

    monkeypatch.setattr(wrapper, "shutting_down", shutting_down)
    monkeypatch.setattr(wrapper, "make_request", make_request)
    intake.append({"foo": "bar"})
    await wrapper.main_async(SETTINGS)
    assert made == [loops + 1] * requests


@pytest.mark.asyncio
async def test_the_client_gets_the_configured_timeouts_and_verification(
    intake: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    await wrapper.main_async(wrapper.Settings("u", None, 3, 4))
    arguments = Idle.made.arguments["client_args"]
    assert arguments["verify"] is True
    timeout = arguments["timeout"]
    assert (timeout.connect, timeout.read, timeout.write, timeout.pool) == (3, 4, 4, 4)

    real = builtins.__import__
    gateway: Any = type(sys)("mcpgateway.config")

    def fake(name: str, *args: Any, **kwargs: Any) -> Any:
        if name != "mcpgateway.config":
            return real(name, *args, **kwargs)
        if not hasattr(gateway, "settings"):
            raise RuntimeError("the secrets are not set")
        return gateway

    async def verify() -> Any:
        wrapper._shutdown.clear()
        with monkeypatch.context() as patch:
            patch.setattr(builtins, "__import__", fake)
            await wrapper.main_async(SETTINGS)
        return Idle.made.arguments["client_args"]["verify"]

    assert await verify() is True
    gateway.settings = SimpleNamespace(skip_ssl_verify=True)
    assert await verify() is False
    gateway.settings.skip_ssl_verify = False
    assert await verify() is True


@pytest.mark.asyncio
async def test_the_stdin_reader_task_may_be_a_finished_future(
    intake: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def create_task(coroutine: Any) -> asyncio.Future[None]:
        coroutine.close()
        future = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future

    wrapper._mark_shutdown()
    monkeypatch.setattr(asyncio, "create_task", create_task)
    await asyncio.wait_for(wrapper.main_async(SETTINGS), 5)
    assert Idle.made.is_closed


@pytest.mark.asyncio
async def test_slow_calls_delay_only_other_calls(intake: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    release, all_urgent = asyncio.Event(), asyncio.Event()

    async def make_request(_client: Any, _settings: Any, payload: Any) -> None:
        started.append(payload)
        if payload == result("q"):
            all_urgent.set()
        if payload.get("method") == "tools/call":
            await release.wait()

    monkeypatch.setattr(wrapper, "make_request", make_request)
    cancellation = notification("notifications/cancelled", requestId=1)
    intake += [call(1), call(2), call(3), call(4, "ping"), cancellation, result("q"), all_urgent]
    running = asyncio.create_task(wrapper.main_async(wrapper.Settings("u", None, concurrency=2)))
    await asyncio.wait_for(all_urgent.wait(), 5)
    assert started == [call(1), call(2), call(4, "ping"), cancellation, result("q")]
    release.set()
    await asyncio.wait_for(running, 5)
    assert started[5:] == [call(3)]


@pytest.mark.asyncio
async def test_a_request_that_is_cancelled_before_its_turn_is_never_sent(
    intake: list[Any], sent: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []

    async def make_request(_client: Any, _settings: Any, payload: Any) -> None:
        started.append(payload)
        await asyncio.sleep(0.05)

    monkeypatch.setattr(wrapper, "make_request", make_request)
    intake += [call(1), call(2), notification("notifications/cancelled", requestId=2), call(3)]
    await wrapper.main_async(wrapper.Settings("u", None, concurrency=1))
    assert started == [call(1), call(3)]
    assert sent == []


@pytest.mark.asyncio
async def test_the_handshake_is_not_overtaken(intake: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[Any] = []

    async def make_request(_client: Any, _settings: Any, payload: Any) -> None:
        log.append(payload["method"])
        await asyncio.sleep(0.05)
        log.append(f"{payload['method']} is done")

    monkeypatch.setattr(wrapper, "make_request", make_request)
    intake += [call(1, "initialize"), notification("notifications/initialized"), call(2), call(3)]
    await wrapper.main_async(SETTINGS)
    handshake = ["initialize", "notifications/initialized"]
    assert log[:4] == [text for name in handshake for text in (name, f"{name} is done")]
    assert log[4:] == ["tools/call"] * 2 + ["tools/call is done"] * 2


def test_signal_handlers_are_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    class Loop:
        def __init__(self) -> None:
            self.numbers: list[Any] = []

        def add_signal_handler(self, number: Any, handler: Any) -> None:
            self.numbers.append(number)
            assert handler is wrapper._mark_shutdown
            raise NotImplementedError

    loop = Loop()
    wrapper._install_signal_handlers(cast(Any, loop))
    assert loop.numbers == [signal.SIGINT, signal.SIGTERM]
    monkeypatch.setattr(signal, "SIGINT", None)
    monkeypatch.setattr(signal, "SIGTERM", None)
    wrapper._install_signal_handlers(cast(Any, loop))
    assert len(loop.numbers) == 2


def test_main_can_run_several_times(monkeypatch: pytest.MonkeyPatch) -> None:
    loops: list[Any] = []
    ran: list[Any] = []
    monkeypatch.setattr(wrapper, "parse_args", lambda: SETTINGS)
    monkeypatch.setattr(wrapper, "_install_signal_handlers", loops.append)
    monkeypatch.setattr(asyncio, "set_event_loop", lambda _: None)

    async def main_async(settings: Any) -> None:
        ran.append((settings, asyncio.get_running_loop()))

    monkeypatch.setattr(wrapper, "main_async", main_async)
    wrapper.main()
    wrapper.main()
    assert ran == [(SETTINGS, loop) for loop in loops]
    assert loops[0] is not loops[1]
    assert all(loop.is_closed() for loop in loops)


# --- The command line ---


def arguments(monkeypatch: pytest.MonkeyPatch, *typed: str, **variables: str) -> wrapper.Settings:
    monkeypatch.setattr(sys, "argv", ["wrapper", *typed])
    for name in list(os.environ):
        if name.startswith("MCP_"):
            monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return wrapper.parse_args()


def test_flags_win_over_variables_and_both_over_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = arguments(monkeypatch, "--url", "http://h/servers/1")
    assert settings == wrapper.Settings(
        "http://h/servers/1/mcp/", None, 15, wrapper.DEFAULT_RESPONSE_TIMEOUT, log_level="INFO"
    )
    variables = {
        "MCP_SERVER_URL": "http://v/mcp/",
        "MCP_AUTH": "Bearer v",
        "MCP_TOOL_CALL_TIMEOUT": "9",
        "MCP_WRAPPER_LOG_LEVEL": "",
    }
    settings = arguments(monkeypatch, **variables)
    assert (settings.server_url, settings.auth_header) == ("http://v/mcp/", "Bearer v")
    assert (settings.response_timeout, settings.log_level) == (9.0, "")
    typed = ["--url=http://t/mcp/", "--auth", "Basic t", "--timeout", "2.5", "--log-level", "debug"]
    settings = arguments(monkeypatch, *typed, **variables)
    assert (settings.server_url, settings.auth_header) == ("http://t/mcp/", "Basic t")
    assert (settings.response_timeout, settings.log_level) == (2.5, "debug")


@pytest.mark.parametrize(
    "typed",
    [
        [],
        ["--url", ""],
        ["--url", "u", "--timeout", "soon"],
        ["--url", "u", "--timeout", "-1"],
        ["--url"],
    ],
)
def test_wrong_arguments_cause_one_error_line_and_status_2(
    typed: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        arguments(monkeypatch, *typed)
    assert end.value.code == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)


@pytest.mark.parametrize(
    ("typed", "variables", "expected", "changed"),
    [
        # Defaults of the original, unless something else is given.
        (["--url", "http://h/mcp"], {}, ["--url=http://h/mcp"], {}),
        (
            [],
            {"MCP_SERVER_URL": "http://h/mcp", "MCP_TOOL_CALL_TIMEOUT": "5", "CONCURRENCY": "3"},
            [],
            {"MCP_TOOL_CALL_TIMEOUT": "5", "CONCURRENCY": "3"},
        ),
        ([], {"MCP_TOOL_CALL_TIMEOUT": "", "CONCURRENCY": ""}, [], {}),
        (["--timeout", "7"], {}, ["--timeout=7"], {}),
        (["--timeout", ""], {}, [], {}),
        (["--log-level", "debug"], {}, ["--log-level=debug"], {"MCP_WRAPPER_LOG_LEVEL": None}),
        (["--log", "x"], {}, ["--log-level=x"], {"MCP_WRAPPER_LOG_LEVEL": None}),
        ([], {"MCP_WRAPPER_LOG_LEVEL": ""}, ["--log-level=off"], {"MCP_WRAPPER_LOG_LEVEL": ""}),
        ([], {"LOG_LEVEL": "debug"}, [], {"LOG_LEVEL": "debug", "MCP_WRAPPER_LOG_LEVEL": None}),
        (["--auth", "Bearer x"], {"MCP_AUTH": "v"}, ["--auth=Bearer x"], {"MCP_AUTH": "v"}),
        (["--auth", ""], {"MCP_AUTH": "v"}, [], {"MCP_AUTH": None}),
        # Options of the native command only.
        (
            ["--header", "A: b", "--auth=x", "--insecure", "--max-time=5", "http://p/"],
            {},
            ["--auth=x", "--header", "A: b", "--insecure", "--max-time=5", "http://p/"],
            {},
        ),
        (["--help"], {}, ["--help"], {}),
    ],
)
def test_the_originals_command_line_becomes_the_native_one(
    typed: list[str],
    variables: dict[str, str],
    expected: list[str],
    changed: dict[str, str | None],
) -> None:
    given, environ = wrapper.bridge_command(typed, {"PATH": "p", **variables})
    assert given == expected
    defaults = {"MCP_TOOL_CALL_TIMEOUT": "60", "CONCURRENCY": "10", "MCP_WRAPPER_LOG_LEVEL": "INFO"}
    whole_environment = {"PATH": "p", **variables, **defaults, **changed}
    assert environ == {name: text for name, text in whole_environment.items() if text is not None}


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("http://h:4444", "http://h:4444/mcp/"),
        ("http://h/servers/1", "http://h/servers/1/mcp/"),
        ("http://h/servers/1/?a=b", "http://h/servers/1/mcp/?a=b"),
        ("http://h/mcp", "http://h/mcp"),
        ("http://h/mcp/", "http://h/mcp/"),
        ("http://sse.example.com/sse", "http://sse.example.com/sse"),
        ("http://mcp", "http://mcp/mcp/"),
        ("not a url", "not a url"),
        ("http://[", "http://["),
    ],
)
def test_the_program_completes_the_url_path_and_keeps_the_host(given: str, used: str) -> None:
    assert wrapper.bridge_command(["--url", given], {})[0] == [f"--url={used}"]
    assert wrapper.bridge_command([], {"MCP_SERVER_URL": given})[1]["MCP_SERVER_URL"] == used
    for typed, variables in ((["--transport", "sse"], {}), ([], {"MCP_TRANSPORT": "sse"})):
        given_again, _ = wrapper.bridge_command(["--url", given, *typed], variables)
        assert given_again[0] == f"--url={given}"


# --- Whole processes: main() as a library, and the program ---


class Bridge:
    """A bridge in another process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin and process.stdout and process.stderr
        self.process = process
        self.stdin = process.stdin
        self.stdout = process.stdout
        self._stderr = asyncio.ensure_future(process.stderr.read())

    def say(self, *messages: Any) -> None:
        for message in messages:
            line = message if isinstance(message, bytes) else json.dumps(message).encode()
            self.stdin.write(line + b"\n")

    async def hear(self, seconds: float = 5.0) -> Any:
        line = await asyncio.wait_for(self.stdout.readline(), seconds)
        assert line.endswith(b"\n"), (line, await self.log())
        return json.loads(line)

    async def rest(self, seconds: float = 10.0) -> list[Any]:
        """Returns everything until the end of stdout. The process must end successfully."""
        self.stdin.close()
        text = await asyncio.wait_for(self.stdout.read(), seconds)
        assert await asyncio.wait_for(self.process.wait(), seconds) == 0, await self.log()
        return [json.loads(line) for line in text.splitlines()]

    async def log(self) -> str:
        return (await self._stderr).decode()


LIBRARY = ["-c", "from mcp_gangway.wrapper import main; main()"]
PROGRAM = ["-m", "mcp_gangway.wrapper"]


@contextlib.asynccontextmanager
async def bridge(how: list[str], url: str, *typed: str, **variables: str) -> AsyncIterator[Bridge]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *how,
        *typed,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(MCP_SERVER_URL=url, **variables),
        limit=1 << 26,
    )
    try:
        yield Bridge(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def answering(request: Request) -> Answer:
    """Answers as a small server, by the name of the called tool."""
    if not request.body:
        return whole(status=200)
    message = request.json()
    if not isinstance(message, dict) or "id" not in message or "method" not in message:
        return whole(status=202)
    tool = message["params"].get("name")
    answer = result(message["id"], tool=tool)
    if tool == "slow":
        return chunked(Pause(0.5), event(answer), content_type=SSE)
    if tool == "never":
        return chunked(HANG, content_type=SSE)
    if tool == "fail":
        return whole(status=500)
    return whole(json.dumps(answer).encode(), content_type=JSON)


both = pytest.mark.parametrize("how", [LIBRARY, PROGRAM], ids=["library", "program"])


@pytest.mark.asyncio
@both
async def test_the_end_of_stdin_lets_requests_finish(how: list[str]) -> None:
    async with serving(answering) as server, bridge(how, server.url) as it:
        it.say(call(1, name="slow"), call(2, name="slow"), call(3, name="fast"))
        answers = await it.rest()
    assert sorted(answer["id"] for answer in answers) == [1, 2, 3]
    assert all("result" in answer for answer in answers)


@pytest.mark.asyncio
@both
async def test_an_error_has_the_id_of_its_request_and_the_call_was_made_once(
    how: list[str],
) -> None:
    async with serving(answering) as server, bridge(how, server.url) as it:
        it.say(call("a", name="fail"))
        answer = await it.hear()
        assert await it.rest() == []
    assert (answer["id"], "error" in answer) == ("a", True)
    assert len([message for message in server.messages() if "id" in message]) == 1


@pytest.mark.asyncio
@both
async def test_a_call_is_not_repeated_after_a_broken_connection(how: list[str]) -> None:
    async with serving(Answer([Pause(0.05), CUT])) as server, bridge(how, server.url) as it:
        it.say(call("a"))
        answer = await it.hear()
        assert await it.rest() == []
    assert (answer["id"], "error" in answer) == ("a", True)
    assert [message["id"] for message in server.messages()] == ["a"]


@pytest.mark.asyncio
@both
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_bridge_at_once(how: list[str], number: signal.Signals) -> None:
    async with serving(answering) as server, bridge(how, server.url) as it:
        it.say(call("a", name="never"))
        await server.until(lambda server: len(server.requests) == 1)
        began = time.monotonic()
        it.process.send_signal(number)
        answer = await it.hear()
        assert await asyncio.wait_for(it.process.wait(), 5) == 0
        assert time.monotonic() - began < 3
    assert (answer["id"], "error" in answer) == ("a", True)


@pytest.mark.asyncio
@both
async def test_a_bad_line_is_answered_and_not_posted(how: list[str]) -> None:
    async with serving(answering) as server, bridge(how, server.url) as it:
        it.say(b"{bad json", call(1, name="fast"))
        answers = await it.rest()
    codes = {answer["id"]: answer.get("error", {}).get("code") for answer in answers}
    assert codes == {None: -32700, 1: None}
    assert server.messages() == [call(1, name="fast")]


@pytest.mark.asyncio
@both
async def test_numbers_and_texts_arrive_unchanged(how: list[str]) -> None:
    values = b'{"a":12345678901234567890123,"b":"\\ud800","c":"\xc3\xa9"}'

    def echo(request: Request) -> Answer:
        assert request.json()["params"] == json.loads(values)
        reply = b'{"jsonrpc":"2.0","id":1,"result":' + values + b"}"
        return whole(reply, content_type=JSON)

    async with serving(echo) as server, bridge(how, server.url) as it:
        it.say(b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":' + values + b"}")
        line = await asyncio.wait_for(it.stdout.readline(), 5)
        await it.rest()
    assert line == b'{"jsonrpc":"2.0","id":1,"result":' + values + b"}\n"


@pytest.mark.asyncio
@both
async def test_session_and_version_are_sent_once_they_are_known(how: list[str]) -> None:
    def answer(request: Request) -> Answer:
        if request.method == "GET":
            return whole(status=405)
        if request.method == "POST" and request.json()["method"] == "initialize":
            body = json.dumps(result(1, protocolVersion="2025-06-18", capabilities={})).encode()
            return whole(body, content_type=JSON, headers=[("Mcp-Session-Id", "s1")])
        return answering(request)

    async with serving(answer) as server, bridge(how, server.url) as it:
        parameters = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {}}
        it.say(call(1, "initialize", **parameters), notification("notifications/initialized"))
        it.say(call(2, name="fast"))
        assert sorted(answer["id"] for answer in await it.rest()) == [1, 2]
    first, *others = [request for request in server.requests if request.method == "POST"]
    assert "mcp-session-id" not in first.headers
    assert len(others) == 2
    for request in others:
        assert request.headers["mcp-session-id"] == "s1"
        assert request.headers["mcp-protocol-version"] == "2025-06-18"
    assert [request.method for request in server.requests][-1] == "DELETE"


@pytest.mark.asyncio
@both
async def test_a_client_that_does_not_read_does_not_block_requests(how: list[str]) -> None:
    large = json.dumps(result(1, text="x" * (8 << 20))).encode()

    def answer(request: Request) -> Answer:
        if request.json()["id"] == 1:
            return whole(large, content_type=JSON)
        return answering(request)

    async with serving(answer) as server, bridge(how, server.url) as it:
        it.stdout._transport.pause_reading()  # type: ignore[attr-defined]
        it.say(call(1))
        await server.until(lambda server: len(server.requests) == 1)
        await asyncio.sleep(0.5)
        it.say(call(2, name="fast"))
        await server.until(lambda server: len(server.requests) == 2)
        it.stdout._transport.resume_reading()  # type: ignore[attr-defined]
        answers = await it.rest()
    assert [len(answers[0]["result"]["text"]), answers[1]["id"]] == [8 << 20, 2]


@pytest.mark.asyncio
@both
async def test_the_authorization_is_sent_verbatim_and_not_logged(how: list[str]) -> None:
    async with serving(answering) as server:
        secret = "Custom hunter2=="
        url = f"{server.url}?key=hunter2"
        async with bridge(how, url, "--log-level", "debug", MCP_AUTH=secret) as it:
            it.say(call(1, name="fast"))
            assert (await it.hear())["id"] == 1
            await it.rest()
        log = await it.log()
    assert server.requests[0].headers["authorization"] == secret
    assert log
    assert "hunter2" not in log


@pytest.mark.asyncio
@both
async def test_a_missing_url_causes_one_error_line_and_status_2(how: list[str]) -> None:
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, *how],
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr.count(b"\n") == 1


@pytest.mark.asyncio
async def test_the_program_reads_the_originals_flags() -> None:
    async with serving(answering) as server:
        base = server.url.removesuffix("/mcp")
        typed = ["--url", base, "--auth", "Bearer t", "--timeout", "0.3", "--log-level", "OFF"]
        async with bridge(PROGRAM, "http://127.0.0.1:1/", *typed) as it:
            it.say(call(1, name="fast"), call(2, name="never"))
            answers = {answer["id"]: answer for answer in [await it.hear(), await it.hear()]}
            await it.rest()
        assert await it.log() == ""
    assert server.requests[0].target == "/mcp/"
    assert server.requests[0].headers["authorization"] == "Bearer t"
    assert "result" in answers[1]
    assert "error" in answers[2]
