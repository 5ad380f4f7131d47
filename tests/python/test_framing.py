"""Where requests end, and which host they are for: what the program's own headers say must be true."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import mcp_gangway
import pytest
from conftest import Authority
from http_server import serving, whole
from test_client import echo, hypercorn_serving

pytestmark = pytest.mark.asyncio

Headers = list[tuple[str, str]]


async def streamed(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


#: Headers that contradict a body of five bytes.
CONTRADICTIONS: list[Headers] = [
    [("Content-Length", "3")],
    [("Content-Length", "9")],
    [("content-length", "0")],
    [("Content-Length", "+5")],
    [("Content-Length", "-5")],
    [("Content-Length", "5.0")],
    [("Content-Length", "0x5")],
    [("Content-Length", "")],
    [("Content-Length", "5, 5")],
    [("Content-Length", "5"), ("Content-Length", "5")],
    [("Content-Length", "18446744073709551621")],
    [("Content-Length", "5"), ("Transfer-Encoding", "chunked")],
    [("Transfer-Encoding", "identity")],
    [("Transfer-Encoding", "gzip, chunked")],
    [("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "chunked")],
    [("Host", "a"), ("Host", "b")],
    [("Host", "a b")],
    [("Host", "user@a")],
    [("Host", "a/b")],
]


@pytest.mark.parametrize("headers", CONTRADICTIONS, ids=str)
@pytest.mark.parametrize("kind", ["known", "streamed", "httpx"])
async def test_headers_that_contradict_the_body_are_refused(kind: str, headers: Headers) -> None:
    content: Any = b"abcde" if kind == "known" else streamed(b"ab", b"", b"cde")
    async with serving(echo) as server, mcp_gangway.AsyncClient() as client:
        if kind == "httpx":
            async with httpx.AsyncClient(transport=mcp_gangway.AsyncHTTPTransport()) as other:
                with pytest.raises(httpx.LocalProtocolError):
                    await other.post(server.url, content=content, headers=headers)
        else:
            with pytest.raises(mcp_gangway.LocalProtocolError) as caught:
                await client.post(server.url, content=content, headers=headers)
            assert caught.value.request.url == server.url
        # The next request arrives as it was sent.
        assert (await client.post(server.url, content=b"next")).json()["body"] == "next"
    assert [request.body for request in server.requests] == [b"next"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS", "POST"])
async def test_a_length_without_a_body_is_refused(method: str) -> None:
    async with serving(whole()) as server, mcp_gangway.AsyncClient() as client:
        with pytest.raises(mcp_gangway.LocalProtocolError, match="Content-Length is 5, but the body has 0 bytes"):
            await client.request(method, server.url, headers={"Content-Length": "5"})
        await client.request(method, server.url, headers={"Content-Length": "0"})
    assert len(server.requests) == 1


async def test_a_body_is_complete_only_if_it_has_the_declared_length() -> None:
    """A longer body is noticed even if its beginning, which fills the length, was sent long before."""

    async def slow() -> AsyncIterator[bytes]:
        yield b"abcde"
        await asyncio.sleep(0.1)
        yield b"f"

    async with serving(whole(b"ok")) as server, mcp_gangway.AsyncClient() as client:
        for content in (slow(), streamed(b"abcd"), streamed()):
            with pytest.raises(mcp_gangway.LocalProtocolError, match="than its Content-Length says"):
                await client.post(server.url, content=content, headers={"Content-Length": "5"})
        assert server.requests == []


async def test_the_length_of_a_synchronous_iterable_is_checked() -> None:
    def pieces() -> Iterator[bytes]:
        yield from (b"ab", b"cde")

    def work(url: str) -> None:
        with mcp_gangway.Client() as client:
            for length in ("4", "6"):
                with pytest.raises(mcp_gangway.LocalProtocolError, match="than its Content-Length says"):
                    client.post(url, content=pieces(), headers={"Content-Length": length})
            client.post(url, content=pieces(), headers={"Content-Length": "5"})

    async with serving(whole(b"ok")) as server:
        await asyncio.to_thread(work, server.url)
    assert [request.body for request in server.requests] == [b"abcde"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "POST"])
async def test_a_streamed_body_is_sent_with_any_method(method: str) -> None:
    async with serving(whole()) as server, mcp_gangway.AsyncClient() as client:
        await client.request(method, server.url, content=streamed(b"ab", b"c"))
        await client.request(method, server.url, content=b"abc", headers={"Transfer-Encoding": "chunked"})
        await client.request(method, server.url, content=streamed(b"abc"), headers={"Content-Length": " 3 "})
    assert [request.body for request in server.requests] == [b"abc"] * 3


async def test_spaces_around_header_values_are_not_sent() -> None:
    async with serving(echo) as server, mcp_gangway.AsyncClient() as client:
        for value in (" a b ", "\ta b", "a b \t"):
            assert (await client.get(server.url, headers={"X-A": value})).json()["headers"]["x-a"] == "a b"
    lines: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (line := await reader.readline()) != b"\r\n":
            lines.append(line)
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        writer.close()

    listener = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with mcp_gangway.AsyncClient() as client:
        port = listener.sockets[0].getsockname()[1]
        await client.get(f"http://127.0.0.1:{port}/", headers={"X-A": " \t a \t "})
    listener.close()
    assert b"x-a: a\r\n" in lines


async def test_connect_is_refused() -> None:
    async with mcp_gangway.AsyncClient() as client:
        with pytest.raises(mcp_gangway.LocalProtocolError, match="CONNECT"):
            await client.request("CONNECT", "http://127.0.0.1:9/")


@pytest.mark.parametrize("through", ["gangway", "httpx"])
async def test_connection_close_is_honoured(through: str) -> None:
    transport = mcp_gangway.AsyncHTTPTransport()
    client: Any = mcp_gangway.AsyncClient() if through == "gangway" else httpx.AsyncClient(transport=transport)
    async with serving(echo) as server, client:
        seen = (await client.get(server.url, headers={"Connection": "close"})).json()["headers"]
        assert seen["connection"] == "close"
        await server.until(lambda server: server.open_connections == 0)
        await client.get(server.url)
    assert server.connections == 2


@pytest.mark.parametrize("through", ["gangway", "httpx"])
async def test_the_own_host_is_the_authority_over_http_2(authority: Authority, through: str) -> None:
    client: Any = mcp_gangway.AsyncClient(verify=authority.client(), http2=True)
    if through == "httpx":
        transport = mcp_gangway.AsyncHTTPTransport(verify=authority.client(), http2=True)
        client = httpx.AsyncClient(transport=transport)
    async with hypercorn_serving(authority) as url, client:
        for host in ("elsewhere.example", "elsewhere.example:8443", "[::1]:1"):
            response = await client.get(url, headers={"Host": host})
            # Hypercorn shows `:authority` as the host.
            assert (response.http_version, response.json()["headers"]["host"]) == ("HTTP/2", host)
        response = await client.get(url)
        assert response.json()["headers"]["host"] == url.split("/")[2]
