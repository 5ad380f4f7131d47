"""One message to an MCP endpoint, and the whole bridge inside a program."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import anyio
import mcp_gangway
import pytest
from conftest import PACKAGE, Authority, Run
from http_server import CUT, HANG, Answer, Pause, Request, chunked, event, raw, serving, whole
from mcp_gangway import Bridge, BridgeSettings, SignIn, forward_request, run

pytestmark = pytest.mark.asyncio

JSON = "application/json"
SSE = "text/event-stream"
MODERN = "2026-07-28"


def message(number: int | None, method: str, **params: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
    if number is None:
        del found["id"]
    return found


def answered(request: Request) -> Answer:
    """Answers like a server of the older era: each result names its method."""
    if request.method != "POST":
        return whole(status=405)
    asked = request.json()
    if "id" not in asked:
        return whole(status=202)
    result: dict[str, Any] = {"method": asked["method"]}
    if asked["method"] == "initialize":
        result = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "s", "version": "1"}}
    reply = {"jsonrpc": "2.0", "id": asked["id"], "result": result}
    if asked["method"] == "server/discover":
        error = {"code": -32601, "message": "Method not found"}
        reply = {"jsonrpc": "2.0", "id": asked["id"], "error": error}
    if asked["method"] == "tools/call":
        progress = message(None, "notifications/progress", progress=1)
        return chunked(event(progress), Pause(0.02), event(reply), content_type=SSE)
    return whole(json.dumps(reply).encode(), content_type=JSON)


# forward_request


@pytest.mark.parametrize("form", [dict, str, bytes])
async def test_a_message_may_be_a_dict_or_str_or_bytes(form: type) -> None:
    payload: Any = message(1, "ping")
    if form is not dict:
        payload = json.dumps(payload) if form is str else json.dumps(payload).encode()
    async with serving(answered) as server:
        response = await forward_request(server.url, payload)
        assert [json.loads(item)["result"] async for item in response.aiter_messages()] == [{"method": "ping"}]
    [request] = server.requests
    assert (request.method, request.json()) == ("POST", message(1, "ping"))
    if form is not dict:
        assert request.body == (payload.encode() if form is str else payload)
    assert request.headers["content-type"] == JSON
    assert set(request.headers["accept"].replace(" ", "").split(",")) == {JSON, SSE}


async def test_leaving_the_block_closes_the_connection() -> None:
    answer = chunked(event(message(None, "notifications/progress")), HANG, content_type=SSE)
    async with serving(answer) as server, mcp_gangway.AsyncClient() as client:
        for _ in range(3):
            async with forward_request(server.url, message(1, "tools/call"), client=client) as response:
                async for item in response.aiter_messages():
                    assert json.loads(item)["method"] == "notifications/progress"
                    break
            await server.until(lambda server: server.open_connections == 0)


async def test_all_messages_of_a_call_stream_are_delivered() -> None:
    async with serving(answered) as server:
        async with forward_request(server.url, message(1, "tools/call", name="t")) as response:
            items = [json.loads(item) async for item in response.aiter_messages()]
    assert [item.get("method", "answer") for item in items] == ["notifications/progress", "answer"]


async def test_a_modern_message_gets_its_mcp_headers() -> None:
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": {"name": "c", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    async with serving(answered) as server:
        await (await forward_request(server.url, message(1, "tools/call", name="add", _meta=meta))).aread()
        await (await forward_request(server.url, message(2, "tools/call", name="add"))).aread()
    modern, legacy = (request.headers for request in server.requests)
    assert modern["mcp-protocol-version"] == MODERN
    assert (modern["mcp-method"], modern["mcp-name"]) == ("tools/call", "add")
    assert not [name for name in legacy if name.startswith("mcp-")]


async def test_given_headers_and_client_are_used() -> None:
    async with serving(answered) as server:
        async with mcp_gangway.AsyncClient(headers=[("X-Both", "1"), ("X-Both", "2"), ("Accept", "a/b")]) as client:
            response = await forward_request(
                server.url,
                message(1, "ping"),
                headers={"Mcp-Session-Id": "s", "X-Mine": "m"},
                auth="Bearer token",
                client=client,
            )
            await response.aread()
            response = await forward_request(server.url, message(1, "ping"), client=client)
            await response.aread()
        assert server.connections == 1
    first, second = (request.headers for request in server.requests)
    assert (first["mcp-session-id"], first["x-mine"], first["authorization"]) == ("s", "m", "Bearer token")
    assert first["x-both"] == "1, 2"
    assert SSE in first["accept"]
    assert "authorization" not in second


REFUSALS: list[tuple[int, bytes, str | None, str]] = [
    (503, b'{"detail":"not now"}', JSON, "503 Service Unavailable.*; the server says: not now$"),
    (
        404,
        b'{"jsonrpc":"2.0","id":1,"error":{"code":-32001,"message":"no such session"}}',
        JSON,
        "says: no such session",
    ),
    (401, b'{"error":"invalid_token","error_description":"it expired"}', JSON, "401.*says: it expired"),
    (400, b"Bad header\nmore", "text/plain", "400.*says: Bad header$"),
    (502, b"<html><h1>Bad Gateway</h1></html>", "text/html", "502 Bad Gateway' for url '[^;]*$"),
    (500, b"", None, "500"),
    (500, b'{"message": 1}', JSON, "500"),
    (500, b"x" * 100_000, "text/plain", "500"),
]


@pytest.mark.parametrize(("status", "body", "content_type", "text"), REFUSALS, ids=[str(case[0]) for case in REFUSALS])
async def test_a_refusal_is_an_exception_with_what_the_server_said(
    status: int, body: bytes, content_type: str | None, text: str
) -> None:
    async with serving(whole(body, status=status, content_type=content_type)) as server:
        with pytest.raises(mcp_gangway.HTTPStatusError, match=text) as caught:
            await forward_request(server.url, message(1, "ping"))
        assert caught.value.response.status_code == status
        if len(body) < 65536:
            assert caught.value.response.content == body
        with pytest.raises(mcp_gangway.HTTPStatusError):
            async with forward_request(server.url, message(1, "ping")):
                raise AssertionError


async def test_a_redirect_is_an_exception_without_the_query() -> None:
    for status in (301, 302, 303, 307, 308):
        answer = whole(status=status, headers=[("Location", "https://u:hunter2@h/mcp?key=hunter2")])
        async with serving(answer) as server:
            with pytest.raises(mcp_gangway.HTTPStatusError, match="https://h/mcp") as caught:
                await forward_request(server.url, message(1, "ping"))
        assert "hunter2" not in str(caught.value)


async def test_a_refusal_that_breaks_off_is_an_exception() -> None:
    async with serving(chunked(b"half", CUT, status=500)) as server:
        with pytest.raises(mcp_gangway.HTTPStatusError, match="500"):
            await forward_request(server.url, message(1, "ping"))


@pytest.mark.parametrize("status", [200, 202, 204])
async def test_an_empty_success_is_an_exception_for_a_request_only(status: int) -> None:
    notice = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    async with serving(whole(status=status)) as server:
        for payload in (message(1, "ping"), [notice, message("a", "ping")], message(0, "ping")):
            with pytest.raises(mcp_gangway.InvalidMessage, match=f"HTTP {status} and no message"):
                await forward_request(server.url, payload)
        for payload in (notice, {"jsonrpc": "2.0", "id": 1, "result": {}}):
            async with forward_request(server.url, payload) as response:
                assert [item async for item in response.aiter_messages()] == []


@pytest.mark.parametrize("how", ["aiter_messages", "aiter_json"])
async def test_a_stream_without_a_message_is_an_exception_at_its_end(how: str) -> None:
    async with serving(chunked(b": nothing\n\n", content_type=SSE)) as server:
        async with forward_request(server.url, message(1, "ping")) as response:
            with pytest.raises(mcp_gangway.InvalidMessage, match="HTTP 200 and no message"):
                [item async for item in getattr(response, how)()]


async def test_requests_are_awaited_in_every_way() -> None:
    answer = whole(b'{"jsonrpc":"2.0","id":1,"result":{}}', content_type=JSON)

    def request() -> Any:
        return forward_request(server.url, message(1, "ping"))

    async with serving(answer) as server:
        tasks = [asyncio.create_task(request()), asyncio.ensure_future(request())]
        responses = [
            await request(),
            await asyncio.wait_for(request(), 5),
            *await asyncio.gather(request(), request(), *tasks),
        ]
        if sys.version_info >= (3, 11):
            async with asyncio.TaskGroup() as group:
                task = group.create_task(request())
            responses.append(task.result())
        async with anyio.create_task_group() as anyio_group:
            anyio_group.start_soon(request)
        for response in responses:
            assert [item["id"] async for item in response.aiter_json()] == [1]
        request().close()  # It was never started, and nothing is said about it.
        task = asyncio.create_task(request())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_silent_server_raises_read_timeout() -> None:
    async with serving(raw(HANG)) as server:
        with pytest.raises(mcp_gangway.ReadTimeout):
            await forward_request(server.url, message(1, "ping"), timeout=0.1)


@pytest.mark.parametrize(
    "payload", [b"", b"x", "{", {}, [], {"jsonrpc": "2.0"}, b'{"jsonrpc":"2.0","id":1}', b"\xff", "1"]
)
async def test_a_payload_that_is_not_a_message_is_refused(payload: Any) -> None:
    with pytest.raises(ValueError, match="JSON"):
        await forward_request("http://127.0.0.1:9/", payload)


@pytest.mark.parametrize("payload", [1, None, object(), {1, 2}])
async def test_a_payload_of_the_wrong_type_is_refused(payload: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="JSON"):
        await forward_request("http://127.0.0.1:9/", payload)


# The bridge


class Pipe:
    """A client of the bridge, which is both the bridge's reader and its writer."""

    def __init__(self, *messages: Any, stays: bool = False) -> None:
        self.reader = asyncio.StreamReader()
        for item in messages:
            self.send(item)
        if not stays:
            self.reader.feed_eof()
        self._received = bytearray()
        self._changed = asyncio.Event()

    def send(self, item: Any) -> None:
        self.reader.feed_data(json.dumps(item).encode() + b"\n")

    def write(self, data: bytes) -> None:
        self._received += data
        self._changed.set()

    async def drain(self) -> None:
        await asyncio.sleep(0)

    def messages(self) -> list[Any]:
        return [json.loads(line) for line in bytes(self._received).split(b"\n")[:-1]]

    async def until(self, count: int) -> list[Any]:
        while len(self.messages()) < count:
            self._changed.clear()
            await asyncio.wait_for(self._changed.wait(), 10)
        return self.messages()


INITIALIZE = message(
    0, "initialize", protocolVersion="2025-11-25", capabilities={}, clientInfo={"name": "c", "version": "1"}
)
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}


async def test_a_session_over_a_reader_and_a_writer() -> None:
    pipe = Pipe(INITIALIZE, INITIALIZED, message(1, "tools/list"), message(2, "tools/call", name="t"))
    async with serving(answered) as server:
        assert await run(BridgeSettings(server.url), pipe.reader, pipe) == 0
    answers = {item["id"]: item for item in pipe.messages() if "id" in item}
    assert answers[1]["result"] == {"method": "tools/list"}
    assert answers[2]["result"] == {"method": "tools/call"}
    assert [item["method"] for item in pipe.messages() if "id" not in item] == ["notifications/progress"]


async def test_the_settings_are_applied_without_expanding_variables() -> None:
    pipe = Pipe(message(1, "tools/list"))
    async with serving(answered) as server:
        settings = BridgeSettings(
            server.url,
            auth="Bearer ${NOT_EXPANDED}",
            headers={"X-A": "b: c ${d}"},
            timeout=5.0,
            concurrency=3,
            log_level="ERROR",
        )
        assert await run(settings, pipe.reader, pipe) == 0
    posts = [request for request in server.requests if request.method == "POST"]
    assert {request.headers["authorization"] for request in posts} == {"Bearer ${NOT_EXPANDED}"}
    assert {request.headers["x-a"] for request in posts} == {"b: c ${d}"}
    assert "NOT_EXPANDED" not in repr(settings)
    assert "b: c" not in repr(settings)


async def test_responses_arrive_while_the_client_stays_connected() -> None:
    pipe = Pipe(stays=True)
    async with serving(answered) as server:
        bridge = Bridge(BridgeSettings(server.url))
        running = asyncio.create_task(bridge.run(pipe.reader, pipe))
        pipe.send(INITIALIZE)
        assert (await pipe.until(1))[0]["id"] == 0
        pipe.send(INITIALIZED)
        pipe.send(message(1, "tools/list"))
        assert (await pipe.until(2))[1]["result"] == {"method": "tools/list"}
        bridge.stop()
        assert await asyncio.wait_for(running, 10) == 0
        await server.until(lambda server: server.open_connections == 0)


async def test_pending_requests_get_an_error_when_the_bridge_is_stopped() -> None:
    def hangs(request: Request) -> Answer:
        is_call = request.method == "POST" and request.json().get("method") == "tools/call"
        return raw(HANG) if is_call else answered(request)

    pipe = Pipe(INITIALIZE, INITIALIZED, message(7, "tools/call", name="t"), stays=True)
    async with serving(hangs) as server:
        bridge = Bridge(BridgeSettings(server.url))
        running = asyncio.create_task(bridge.run(pipe.reader, pipe))
        await server.until(lambda server: any(b"tools/call" in request.body for request in server.requests))
        bridge.stop()
        assert await asyncio.wait_for(running, 10) == 0
    assert "error" in next(item for item in pipe.messages() if item["id"] == 7)


async def test_a_cancelled_task_ends_the_bridge() -> None:
    pipe = Pipe(INITIALIZE, INITIALIZED, message(7, "tools/call", name="t"), stays=True)
    answer: Any = lambda request: raw(HANG) if b"tools/call" in request.body else answered(request)  # noqa: E731
    async with serving(answer) as server:
        running = asyncio.create_task(run(BridgeSettings(server.url), pipe.reader, pipe))
        await server.until(lambda server: any(b"tools/call" in request.body for request in server.requests))
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await server.until(lambda server: server.open_connections == 0)
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.sleep(0.05)
    assert not {task for task in tasks if not task.done()}


#: For each setting, invalid values.
WRONG: dict[str, list[Any]] = {
    "auth": ["Bearer", "Bearer a\nb", 5],
    "auth_command": ["", "'open", ["echo"]],
    "headers": [
        {"a b": "c"},
        {"X-A": "b\nc"},
        {"Mcp-Session-Id": "1"},
        {"X-A": 5},
        ["X-A: b"],
        {"Authorization": "Bearer"},
    ],
    "header_file": ["/does/not/exist", 5],
    "transport": ["stdio", "", None],
    "era": ["2026-07-28", None],
    "allow_tools": [5, [5]],
    "deny_tools": [5, [5]],
    "unix_socket": [5],
    "timeout": [-1.0, 0, float("nan"), float("inf"), 1e12, "5"],
    "max_time": [0, -2, "x"],
    "connect_timeout": [0, 1e10],
    "drain_timeout": [-0.5, "x"],
    "concurrency": [0, -1, 65537, 1.5, 10**40],
    "max_message_size": [0, 64, -1, 2**41, "4G"],
    "max_request_size": [1023, 1.5],
    "verify": ["/does/not/exist.pem", 5],
    "cert": ["/does/not/exist.pem", ("/does/not/exist.pem", "key"), 5],
    "proxy": ["ftp://user:hunter2@proxy", 5],
    "http2": ["yes", None],
    "pool_size": [-1, 70000, "x"],
    "pool_idle": [-1, "x"],
    "sign_in": [5],
    "log_level": ["loud", 5],
    "log_file": [5],
    "log_format": ["xml", None],
}
WRONG_SIGN_IN: dict[str, list[Any]] = {
    "grant": ["password", "client_credentials", None],
    "open_browser": ["no"],
    "client_secret": [5],
    "client_private_key": [5, "PEM"],
    "issuer": ["login.example.com", "https://a/?b", 5],
    "client_metadata_url": ["http://a/b", "https://a", 5],
    "scopes": [5, [5]],
    "resource": ["x", 5],
    "parameters": [{"state": "x"}, {"": "x"}, {"a": 5}, "a=b"],
    "callback_port": [0, 65536, -1, "x"],
    "callback_host": ["example.com", "0.0.0.0", 5],
    "callback_path": ["callback", "//a/b", 5],
    "login_wait": [0, "x"],
    "keychain": ["no"],
    "state_folder": [5],
}


def told(settings: BridgeSettings) -> str:
    """Returns the message of a settings error. Checks that the error comes before anything runs."""
    with pytest.raises((ValueError, TypeError)) as caught:
        Bridge(settings)
    line = str(caught.value)
    assert "--" not in line
    assert "hunter2" not in line
    assert "\n" not in line
    return line


@pytest.mark.parametrize("name", ["url", *WRONG])
async def test_the_error_names_the_invalid_setting(name: str) -> None:
    if name == "url":
        for url in ("not a url", "ftp://example.com/", "", 5):
            assert told(BridgeSettings(url)).startswith("url: ")  # type: ignore[arg-type]
        return
    for value in WRONG[name]:
        line = told(BridgeSettings("http://127.0.0.1:9/", **{name: value}))
        assert line.startswith((f"{name}: ", f"{name}.")), line


@pytest.mark.parametrize("name", WRONG_SIGN_IN)
async def test_the_error_names_the_invalid_sign_in_setting(name: str) -> None:
    for value in WRONG_SIGN_IN[name]:
        line = told(BridgeSettings("http://127.0.0.1:9/", sign_in=SignIn(**{name: value})))
        assert line.startswith(f"sign_in.{name}: "), line
    line = told(BridgeSettings("http://127.0.0.1:9/", sign_in=SignIn(client_secret="hunter2")))
    assert line.startswith("sign_in.client_id: ")


async def test_settings_that_exclude_each_other_are_refused() -> None:
    line = told(BridgeSettings("http://127.0.0.1:9/", auth="Bearer a", auth_command="echo"))
    assert line.startswith("auth_command: ")
    line = told(BridgeSettings("http://127.0.0.1:9/", sign_in=SignIn(client_secret="a", client_private_key="b")))
    assert line.startswith("sign_in.client_private_key: ")


async def test_invalid_values_are_tested_for_every_setting() -> None:
    assert {field.name for field in fields(BridgeSettings)} == {"url", *WRONG}
    assert {field.name for field in fields(SignIn)} == {"client_id", *WRONG_SIGN_IN}


async def test_unusable_certificate_files_are_errors(tmp_path: Path, authority: Authority) -> None:
    nothing = tmp_path / "nothing.pem"
    nothing.write_text("nothing")
    for name in ("verify", "cert"):
        assert told(BridgeSettings("https://127.0.0.1:9/", **{name: nothing})).startswith(f"{name}: ")
    pair = (authority.client_certificate, nothing)
    assert told(BridgeSettings("https://127.0.0.1:9/", cert=pair)).startswith("cert: ")


async def test_an_unwritable_log_file_is_an_error(run_python: Run) -> None:
    program = """
import asyncio, mcp_gangway
try:
    asyncio.run(mcp_gangway.run(mcp_gangway.BridgeSettings("http://127.0.0.1:9/", log_file="/does/not/exist")))
except ValueError as error:
    print(error)
"""
    done = await asyncio.to_thread(run_python, program, "-W", "error", input="")
    assert done.stdout.startswith("log_file: ")


async def test_environment_variables_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "MCP_AUTH": "Bearer x",
        "CONCURRENCY": "none",
        "MCP_HEADERS": "X-A: b",
        "INSECURE": "?",
    }.items():
        monkeypatch.setenv(name, value)
    pipe = Pipe(message(1, "tools/list"))
    async with serving(answered) as server:
        assert await run(BridgeSettings(server.url), pipe.reader, pipe) == 0
    assert not {"authorization", "x-a"} & set(server.requests[0].headers)


async def test_headers_are_read_from_a_file_and_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN_OF_THE_TEST", "t")
    file = tmp_path / "headers"
    file.write_text("# comment\nX-A: file ${TOKEN_OF_THE_TEST}\nX-B: file\n")
    settings = {"header_file": file, "headers": {"X-B": "given"}, "auth_command": "echo token"}
    pipe = Pipe(message(1, "tools/list"))
    async with serving(answered) as server:
        assert await run(BridgeSettings(server.url, **settings), pipe.reader, pipe) == 0  # type: ignore[arg-type]
    headers = server.requests[0].headers
    assert (headers["x-a"], headers["x-b"], headers["authorization"]) == ("file t", "given", "Bearer token")


# Slow clients


class Slow(Pipe):
    """Reads slowly: `rate` bytes a second, and at most `most` bytes."""

    def __init__(self, *messages: Any, rate: int, most: int = 1 << 40, **options: Any) -> None:
        super().__init__(*messages, **options)
        self._rate, self._most = rate, most

    async def drain(self) -> None:
        if len(self._received) > self._most:
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep(len(self._received[-(16 << 10) :]) / self._rate)


def large(request: Request) -> Answer:
    """Answers each call with 400 KB."""
    if request.method == "POST" and request.json().get("method") == "tools/call":
        reply = {"jsonrpc": "2.0", "id": request.json()["id"], "result": {"text": "x" * 400_000}}
        return whole(json.dumps(reply).encode(), content_type=JSON)
    return answered(request)


CALLS = [message(number, "tools/call", name="t") for number in range(1, 5)]


async def test_a_slow_writer_loses_nothing() -> None:
    pipe = Slow(INITIALIZE, INITIALIZED, *CALLS, rate=400_000)
    async with serving(large) as server:
        # Longer than the drain timeout in total, and shorter for each piece.
        assert await run(BridgeSettings(server.url, drain_timeout=1), pipe.reader, pipe) == 0
    assert {item["id"] for item in pipe.messages()} == {0, 1, 2, 3, 4}


async def test_a_stalled_writer_ends_the_bridge_with_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    pipe = Slow(INITIALIZE, INITIALIZED, *CALLS, rate=1 << 30, most=500_000)
    async with serving(large) as server:
        settings = BridgeSettings(server.url, drain_timeout=0.5)
        assert await asyncio.wait_for(run(settings, pipe.reader, pipe), 20) == 1
    assert "are lost" in capsys.readouterr().err


async def test_a_writer_that_stalls_at_the_last_message_ends_with_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    pipe = Slow(INITIALIZE, INITIALIZED, rate=1 << 30, most=10)
    async with serving(large) as server:
        settings = BridgeSettings(server.url, drain_timeout=0.5)
        assert await asyncio.wait_for(run(settings, pipe.reader, pipe), 20) == 1
    assert "is lost" in capsys.readouterr().err


async def test_a_slow_client_behind_a_socket_loses_nothing() -> None:
    """Bytes keep moving, although a single drain takes longer than the drain timeout."""
    statuses: list[int] = []
    received = bytearray()
    async with serving(large) as server:

        async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            statuses.append(await run(BridgeSettings(server.url, drain_timeout=1), reader, writer))
            writer.close()

        listener = await asyncio.start_server(client, "127.0.0.1", 0)
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await asyncio.to_thread(connection.connect, listener.sockets[0].getsockname())
        lines = b"".join(json.dumps(item).encode() + b"\n" for item in (INITIALIZE, INITIALIZED, *CALLS[:1]))
        connection.sendall(lines)
        connection.shutdown(socket.SHUT_WR)
        while piece := await asyncio.to_thread(connection.recv, 2048):
            received += piece
            await asyncio.sleep(0.03)
        connection.close()
        listener.close()
    assert statuses == [0]
    assert [json.loads(line)["id"] for line in received.splitlines()] == [0, 1]


async def test_a_reader_without_a_writer_is_refused() -> None:
    pipe = Pipe()
    for streams in ({"reader": pipe.reader}, {"writer": pipe}):
        with pytest.raises(ValueError, match="both a reader and a writer"):
            await run(BridgeSettings("http://127.0.0.1:9/"), **streams)  # type: ignore[arg-type]


async def test_a_bridge_can_run_only_once() -> None:
    async with serving(answered) as server:
        bridge, pipe = Bridge(BridgeSettings(server.url)), Pipe(message(1, "ping"))
        assert await bridge.run(pipe.reader, pipe) == 0
        with pytest.raises(RuntimeError, match="make another"):
            await bridge.run(pipe.reader, Pipe())


async def test_an_exception_of_the_writer_is_raised() -> None:
    class Broken(Pipe):
        def write(self, data: bytes) -> None:
            raise BrokenPipeError("the client left")

    pipe = Broken(message(1, "tools/list"), stays=True)
    async with serving(answered) as server:
        with pytest.raises(BrokenPipeError, match="the client left"):
            await asyncio.wait_for(run(BridgeSettings(server.url), pipe.reader, pipe), 10)
        await server.until(lambda server: server.open_connections == 0)


async def test_an_exception_of_the_reader_is_raised() -> None:
    pipe = Pipe(message(1, "tools/list"), stays=True)
    async with serving(answered) as server:
        running = asyncio.create_task(run(BridgeSettings(server.url), pipe.reader, pipe))
        await pipe.until(1)
        pipe.reader.set_exception(ConnectionResetError("the client was reset"))
        with pytest.raises(ConnectionResetError, match="the client was reset"):
            await asyncio.wait_for(running, 10)


ON_STDIO = """
import asyncio, sys
import mcp_gangway
sys.exit(asyncio.run(mcp_gangway.run(mcp_gangway.BridgeSettings("URL"))))
"""


async def test_a_bridge_runs_on_stdin_and_stdout(run_python: Run) -> None:
    async with serving(answered) as server:
        program = ON_STDIO.replace("URL", server.url)
        lines = "".join(json.dumps(item) + "\n" for item in (INITIALIZE, INITIALIZED, message(1, "tools/list")))
        done = await asyncio.to_thread(run_python, program, "-W", "error", input=lines)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [item["id"] for item in answers] == [0, 1]
    assert answers[1]["result"] == {"method": "tools/list"}


async def test_an_invalid_setting_on_stdio_raises_value_error(run_python: Run) -> None:
    done = await asyncio.to_thread(run_python, ON_STDIO, "-W", "error", input="")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith("ValueError: url: ")


def on_stdio(program: Path, seconds: float | None) -> tuple[bytes, bytes, int]:
    """Runs a bridge on its own stdio. Its client pauses between reads, or reads only after the bridge has ended."""
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    lines = b"".join(json.dumps(item).encode() + b"\n" for item in (INITIALIZE, INITIALIZED, *CALLS))
    with subprocess.Popen(
        [sys.executable, str(program)], stdin=-1, stdout=-1, stderr=-1, env=environment, bufsize=0
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(lines)
        process.stdin.close()
        if seconds is None:
            process.wait(20)
        received = bytearray()
        while piece := process.stdout.read(64 << 10):
            received += piece
            time.sleep(seconds or 0)
        return bytes(received), process.stderr.read(), process.wait(20)


@pytest.mark.parametrize(("seconds", "status"), [(0.1, 0), (None, 1)], ids=["slow", "not at all"])
async def test_a_slow_reader_of_stdout_loses_nothing_before_the_drain_timeout(
    tmp_path: Path, seconds: float | None, status: int
) -> None:
    async with serving(large) as server:
        program = tmp_path / "bridge.py"
        program.write_text(ON_STDIO.replace('"URL"', f'"{server.url}", drain_timeout=3'))
        output, errors, found = await asyncio.to_thread(on_stdio, program, seconds)
    assert found == status, errors
    if status:
        assert b"are lost" in errors
    else:
        assert {json.loads(line)["id"] for line in output.splitlines()} == {0, 1, 2, 3, 4}
