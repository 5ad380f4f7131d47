"""The native core as a transport of httpx, of its successor httpx2, and so of the official MCP SDK."""

from __future__ import annotations

import asyncio
import gzip
import importlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import mcp_gangway
import pytest
from conftest import Authority
from http_server import CUT, HANG, Answer, Request, chunked, raw, serving, whole
from mcp_gangway import AsyncHTTPTransport

pytestmark = pytest.mark.asyncio


@pytest.fixture(params=["httpx", "httpx2"])
def package(request: pytest.FixtureRequest) -> ModuleType:
    """The package whose client uses the transport."""
    return importlib.import_module(request.param)


def client(package: ModuleType, **arguments: Any) -> Any:
    return package.AsyncClient(transport=AsyncHTTPTransport(), **arguments)


def echo(request: Request) -> Answer:
    seen = {"method": request.method, "target": request.target, "headers": request.headers}
    return whole(json.dumps({**seen, "body": request.body.decode()}).encode(), content_type="application/json")


async def test_a_request_and_its_response(package: ModuleType) -> None:
    async with serving(echo) as server, client(package, headers={"x-a": "b"}) as http:
        response = await http.post(server.url + "?q=a%20b", json={"a": "ż"}, params={"c": "d"}, auth=("user", "pass"))
        seen = response.json()
        async with http.stream("GET", server.url) as streamed:
            assert json.loads(await streamed.aread())["method"] == "GET"
    assert (response.status_code, response.http_version, response.reason_phrase) == (200, "HTTP/1.1", "OK")
    assert (seen["method"], seen["body"]) == ("POST", '{"a":"ż"}')
    assert seen["target"].endswith("c=d")
    assert seen["headers"]["host"] == server.url.split("/")[2]
    assert (seen["headers"]["x-a"], seen["headers"]["content-length"]) == ("b", "10")
    assert seen["headers"]["authorization"].startswith("Basic ")
    assert package.__name__ in seen["headers"]["user-agent"]
    assert server.connections == 1


async def test_a_given_host_header_is_sent(package: ModuleType) -> None:
    async with serving(echo) as server, client(package) as http:
        seen = (await http.get(server.url, headers={"Host": "elsewhere.example"})).json()
    assert seen["headers"]["host"] == "elsewhere.example"


async def test_a_generated_request_body_is_sent_in_chunks(package: ModuleType) -> None:
    async def parts() -> Any:
        yield b"a"
        yield b"b"

    async with serving(echo) as server, client(package) as http:
        seen = (await http.post(server.url, content=parts())).json()
        assert (seen["body"], seen["headers"]["transfer-encoding"]) == ("ab", "chunked")
        seen = (await http.post(server.url, files={"f": b"file"})).json()
        assert "file" in seen["body"] and seen["headers"]["content-length"] == str(len(seen["body"]))
        with pytest.raises(RuntimeError, match="sync request"):
            await http.post(server.url, content=iter([b"a"]))


async def test_a_stream_arrives_piece_by_piece(package: ModuleType) -> None:
    more = asyncio.Event()
    async with serving(chunked(b"one\n", more, b"two\n")) as server, client(package) as http:
        async with http.stream("GET", server.url) as response:
            lines = []
            async for line in response.aiter_lines():
                lines.append(line)
                more.set()
        assert lines == ["one", "two"]
        assert response.is_closed


async def test_compressed_bodies(package: ModuleType) -> None:
    packed = gzip.compress(b"text" * 1000)
    async with serving(whole(packed, headers=[("Content-Encoding", "gzip")])) as server, client(package) as http:
        assert (await http.get(server.url)).content == b"text" * 1000
        async with http.stream("GET", server.url) as response:
            assert b"".join([part async for part in response.aiter_raw()]) == packed


async def test_redirects_and_cookies_are_those_of_the_package(package: ModuleType) -> None:
    def answer(request: Request) -> Answer:
        if request.target == "/mcp":
            return whole(status=307, headers=[("Location", "/there"), ("Set-Cookie", "a=b")])
        return echo(request)

    async with serving(answer) as server, client(package, follow_redirects=True) as http:
        response = await http.post(server.url, content=b"x")
    seen = response.json()
    assert (seen["target"], seen["body"], seen["headers"]["cookie"]) == ("/there", "x", "a=b")
    assert [before.status_code for before in response.history] == [307]


@pytest.mark.parametrize(
    ("answer", "name", "arguments"),
    [
        (raw(), "RemoteProtocolError", {}),
        (raw(HANG), "ReadTimeout", {"timeout": 0.1}),
        (raw(b"nonsense\r\n\r\n"), "RemoteProtocolError", {}),
        (raw(CUT), "ReadError", {}),
        (chunked(b"a", CUT), "ReadError", {}),
        (chunked(b"a", HANG), "ReadTimeout", {"timeout": 0.1}),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"), "RemoteProtocolError", {}),
    ],
)
async def test_exceptions_are_those_of_the_package(
    package: ModuleType, answer: Answer, name: str, arguments: dict[str, Any]
) -> None:
    async with serving(answer) as server, client(package, **arguments) as http:
        with pytest.raises(getattr(package, name)) as caught:
            await http.get(server.url)
    assert type(caught.value).__module__.partition(".")[0] == package.__name__
    assert caught.value.request.url == server.url
    assert isinstance(caught.value.__cause__, getattr(mcp_gangway, name))


async def test_exceptions_before_anything_is_sent(package: ModuleType) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    async with client(package) as http:
        with pytest.raises(package.ConnectError):
            await http.get(f"http://127.0.0.1:{port}/")
        with pytest.raises(package.LocalProtocolError):
            await http.get(f"http://127.0.0.1:{port}/", headers={"x": "a\nb"})
        with pytest.raises(package.UnsupportedProtocol):
            await http.get("ftp://127.0.0.1/")


async def test_limits_objects_of_the_package_are_accepted(package: ModuleType) -> None:
    transport = AsyncHTTPTransport(limits=package.Limits(max_connections=1))
    async with serving(chunked(b"a", HANG)) as server:
        async with package.AsyncClient(transport=transport, timeout=package.Timeout(5.0, pool=0.1)) as http:
            async with http.stream("GET", server.url):
                with pytest.raises(package.PoolTimeout):
                    await http.get(server.url)
            await server.until(lambda server: server.open_connections == 0)


async def test_tls(package: ModuleType, authority: Authority) -> None:
    async with serving(echo, tls=authority.server()) as server:
        async with package.AsyncClient(transport=AsyncHTTPTransport(verify=authority.path)) as http:
            assert (await http.get(server.url)).status_code == 200
        async with client(package) as http:
            with pytest.raises(package.ConnectError):
                await http.get(server.url)


async def test_a_closed_transport_refuses_requests(package: ModuleType) -> None:
    transport = AsyncHTTPTransport()
    async with package.AsyncClient(transport=transport):
        pass
    async with serving(echo) as server:
        with pytest.raises(RuntimeError, match="closed"):
            await package.AsyncClient(transport=transport).get(server.url)


# The official SDK


SDK_SERVER = '''
import sys
try:
    from mcp.server.mcpserver import Context, MCPServer as Server
except ImportError:
    from mcp.server.fastmcp import Context, FastMCP as Server
import uvicorn

server = Server("sdk")

@server.tool()
async def add(a: int, b: int) -> int:
    """Adds."""
    return a + b

@server.tool()
async def count(ctx: Context) -> str:
    """Counts to three."""
    for number in (1, 2, 3):
        await ctx.report_progress(number, 3, f"step {number}")
    return "counted"

app = server.streamable_http_app()
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
'''


@pytest.fixture(scope="module")
def sdk_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server of the official SDK in another process."""
    program: Path = tmp_path_factory.mktemp("sdk") / "server.py"
    program.write_text(SDK_SERVER)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(program), str(port)], env=dict(os.environ))
    try:
        for _ in range(300):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, "the server has ended"
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.terminate()
        process.wait(10)


async def test_the_official_sdk_works_with_the_transport(sdk_server: str) -> None:
    from mcp import ClientSession
    from mcp.client import streamable_http

    asked: list[str] = []

    class Counting(AsyncHTTPTransport):
        async def handle_async_request(self, request: Any) -> Any:
            asked.append(request.method)
            return await super().handle_async_request(request)

    # The SDK's version 1 uses httpx, and its version 2 httpx2.
    package = getattr(streamable_http, "httpx2", None) or streamable_http.httpx
    progress: list[float] = []

    async def on_progress(done: float, total: float | None, message: str | None) -> None:
        progress.append(done)

    async with package.AsyncClient(transport=Counting(), timeout=30) as http:
        async with streamable_http.streamable_http_client(sdk_server, http_client=http) as streams:
            async with ClientSession(*streams[:2]) as session:
                await session.initialize()
                tools = (await session.list_tools()).tools
                added = await session.call_tool("add", {"a": 2, "b": 3})
                counted = await session.call_tool("count", {}, progress_callback=on_progress)
    assert sorted(tool.name for tool in tools) == ["add", "count"]
    assert added.content[0].text == "5"
    assert counted.content[0].text == "counted"
    assert progress == [1, 2, 3]
    assert asked.count("POST") >= 4


async def test_the_synchronous_transport(package: ModuleType) -> None:
    def work(url: str) -> list[Any]:
        def pieces() -> Any:
            yield b"a"
            yield b"b"

        with package.Client(transport=mcp_gangway.HTTPTransport()) as client:
            whole_one = client.post(url, content=pieces(), headers={"X-A": "1"})
            with client.stream("GET", url) as response:
                parts = list(response.iter_bytes())
            with pytest.raises(package.ConnectError):
                client.get("http://127.0.0.1:9/")
            return [whole_one.status_code, whole_one.http_version, whole_one.content, b"".join(parts)]

    async with serving(chunked(b"one, ", b"two")) as server:
        assert await asyncio.to_thread(work, server.url) == [200, "HTTP/1.1", b"one, two", b"one, two"]
    assert [(request.method, request.body) for request in server.requests] == [("POST", b"ab"), ("GET", b"")]
