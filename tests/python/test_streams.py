"""Streams that httpx does not have: events, lines and messages, with limits, compression and little memory."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from typing import Any

import brotli
import mcp_gangway
import pytest
import zstandard
from conftest import Run
from http_server import HANG, chunked, event, serving, whole
from mcp_gangway import InvalidMessage, MessageTooLarge, RemoteProtocolError, StreamConsumed

pytestmark = pytest.mark.asyncio

SSE = "text/event-stream"
NDJSON = "application/x-ndjson"
JSON = "application/json"


def cuts(data: bytes) -> list[list[bytes]]:
    """Returns ways to cut a body: whole, in bytes, and in two at some places."""
    halves = [[data[:at], data[at:]] for at in range(1, len(data), max(1, len(data) // 7))]
    return [[data], [data[at : at + 1] for at in range(len(data))], *halves]


async def read(pieces: list[bytes], content_type: str | None, how: str, **limits: int) -> list[Any]:
    """Returns the items of an iterator over a body that is sent in these pieces."""
    answer = chunked(*filter(None, pieces), content_type=content_type)
    async with serving(answer) as server, mcp_gangway.AsyncClient() as client:
        async with client.stream("POST", server.url, content=b"{}") as response:
            return [item async for item in getattr(response, how)(**limits)]


def message(number: int, **members: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": number, **members}, separators=(",", ":")).encode()


ONE, TWO = message(1, result={"text": "zażółć"}), message(2, result={})


async def test_events_at_every_cut() -> None:
    body = b'event: a\nid: 1\nretry: 50\ndata: za\xc5\xbc\n\n: comment\n\ndata: {"x":1}\n\ndata: unfinished'
    for pieces in cuts(body):
        [first, second] = await read(pieces, SSE, "aiter_sse")
        assert (first.event, first.id, first.retry, first.data) == ("a", "1", 50, "zaż")
        assert (second.event, second.id, second.json()) == ("message", "1", {"x": 1})


async def test_lines_at_every_cut() -> None:
    for pieces in cuts(b'{"a":"\xc5\xbc"}\r\n\n  \n{"b":2}\n{"c":3}'):
        assert await read(pieces, NDJSON, "aiter_ndjson") == ['{"a":"ż"}'.encode(), b'{"b":2}', b'{"c":3}']


@pytest.mark.parametrize(
    ("content_type", "body", "expected"),
    [
        (SSE, event(ONE) + b": ping\n\nevent: message\n" + event(TWO), [ONE, TWO]),
        # An event of another type is not a message, unless it contains an answer.
        (SSE, event(ONE) + b"event: other\n" + event(b'{"jsonrpc":"2.0","method":"x"}'), [ONE]),
        (SSE, event(ONE) + b"event: other\n" + event(TWO), [ONE, TWO]),
        ("TEXT/Event-Stream; charset=utf-8", event(ONE), [ONE]),
        (NDJSON, ONE + b"\n\n" + TWO, [ONE, TWO]),
        ("application/jsonl", ONE + b"\r\n" + TWO + b"\r\n", [ONE, TWO]),
        (JSON, ONE, [ONE]),
        ("application/json; charset=utf-8", b" \n" + ONE + b"\n", [ONE]),
        (JSON, b"[" + ONE + b",\n" + TWO + b"]", [ONE, TWO]),
        (JSON, ONE + b"\n" + TWO, [ONE, TWO]),
        (None, ONE, [ONE]),
        (JSON, b"", []),
        (SSE, b"", []),
    ],
)
async def test_messages_of_every_content_type(content_type: str | None, body: bytes, expected: list[bytes]) -> None:
    for pieces in cuts(body):
        assert await read(pieces, content_type, "aiter_messages") == expected


async def test_messages_of_a_body_that_was_already_read() -> None:
    async with serving(whole(b"[" + ONE + b"," + TWO + b"]", content_type=JSON)) as server:
        async with mcp_gangway.AsyncClient() as client:
            response = await client.post(server.url, content=b"{}")
            assert [item async for item in response.aiter_messages()] == [ONE, TWO]
            assert [item async for item in response.aiter_messages()] == [ONE, TWO]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/html", b"<html><body>Bad gateway</body></html>"),
        (JSON, b'{"detail":"Not Found"}'),
        (JSON, b'{"jsonrpc":'),
        (JSON, b"[1, 2]"),
        (JSON, b"\xff\xfe"),
    ],
)
async def test_a_body_that_is_not_a_message_raises_invalid_message(content_type: str, body: bytes) -> None:
    async with serving(chunked(body, content_type=content_type)) as server, mcp_gangway.AsyncClient() as client:
        async with client.stream("POST", server.url, content=b"{}") as response:
            with pytest.raises(InvalidMessage) as caught:
                [item async for item in response.aiter_messages()]
            assert response.is_closed
    assert str(caught.value)
    assert caught.value.request.url == server.url


@pytest.mark.parametrize(
    ("how", "limit", "content_type", "body", "expected"),
    [
        ("aiter_sse", "max_event_bytes", SSE, b"data: 1234\n\ndata: 12345\n\ndata: 5\n\n", ["1234", "5"]),
        ("aiter_ndjson", "max_line_bytes", NDJSON, b"1234\n12345\n5\n", [b"1234", b"5"]),
    ],
)
async def test_limits(how: str, limit: str, content_type: str, body: bytes, expected: list[Any]) -> None:
    async with serving(whole(body, content_type=content_type)) as server, mcp_gangway.AsyncClient() as client:
        async with client.stream("GET", server.url) as response:
            seen = []
            with pytest.raises(MessageTooLarge) as caught:
                async for item in getattr(response, how)(**{limit: 4}):
                    seen.append(item if isinstance(item, bytes) else item.data)
    assert seen == expected
    assert caught.value.request.url == server.url


async def test_the_limit_of_messages() -> None:
    async with serving(whole(event(ONE) + event(TWO), content_type=SSE)) as server:
        async with mcp_gangway.AsyncClient() as client:
            async with client.stream("GET", server.url) as response:
                seen = []
                with pytest.raises(MessageTooLarge):
                    async for item in response.aiter_messages(max_message_bytes=len(TWO)):
                        seen.append(item)
    assert seen == [TWO]
    for content_type in (JSON, NDJSON):
        with pytest.raises(MessageTooLarge):
            await read([ONE], content_type, "aiter_messages", max_message_bytes=10)


async def test_an_item_is_delivered_before_the_next_is_sent() -> None:
    for content_type, one, two in ((SSE, event(ONE), event(TWO)), (NDJSON, ONE + b"\n", TWO + b"\n")):
        more = asyncio.Event()
        async with serving(chunked(one, more, two, content_type=content_type)) as server:
            async with mcp_gangway.AsyncClient() as client:
                async with client.stream("GET", server.url) as response:
                    seen = []
                    async for item in response.aiter_messages():
                        seen.append(item)
                        more.set()
        assert seen == [ONE, TWO]


async def test_messages_before_a_broken_connection_are_delivered() -> None:
    answer = chunked(event(ONE), b"data: half", content_type=SSE)
    answer = type(answer)(answer.steps[:-1], keeps_alive=False)
    async with serving(answer) as server, mcp_gangway.AsyncClient() as client:
        async with client.stream("GET", server.url) as response:
            seen = []
            with pytest.raises(RemoteProtocolError):
                async for item in response.aiter_messages():
                    seen.append(item)
    assert seen == [ONE]


@pytest.mark.parametrize("how", ["aiter_sse", "aiter_ndjson", "aiter_messages", "aiter_text", "aiter_lines"])
async def test_leaving_a_stream_of_items_frees_the_connection(how: str) -> None:
    answer = chunked(event(ONE) + ONE + b"\n", HANG, content_type=SSE)
    async with serving(answer) as server, mcp_gangway.AsyncClient() as client:
        async with client.stream("GET", server.url) as response:
            async for _ in getattr(response, how)():
                break
            # The same for an iterator that is kept.
            with pytest.raises(StreamConsumed):
                [item async for item in getattr(response, how)()]
        await server.until(lambda server: server.open_connections == 0)


def brotlied(data: bytes) -> bytes:
    packed: bytes = brotli.compress(data)
    return packed


PACKERS = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotlied,
    "zstd": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("coding", PACKERS)
async def test_compressed_streams(coding: str) -> None:
    events = b"".join(event({"jsonrpc": "2.0", "id": number, "result": "ż" * number}) for number in range(200))
    packed = PACKERS[coding](events)
    for size in (1, 100, len(packed)):
        pieces = [packed[at : at + size] for at in range(0, len(packed), size)]
        answer = chunked(*pieces, content_type=SSE, headers=[("Content-Encoding", coding)])
        async with serving(answer) as server, mcp_gangway.AsyncClient() as client:
            async with client.stream("GET", server.url) as response:
                items = [json.loads(item)["id"] async for item in response.aiter_messages()]
            assert items == list(range(200))
            async with client.stream("GET", server.url) as response:
                assert b"".join([part async for part in response.aiter_raw()]) == packed
            assert (await client.get(server.url)).content == events


async def test_a_compressed_event_is_delivered_before_the_next_is_sent() -> None:
    packer = zlib.compressobj(wbits=31)
    first = packer.compress(event(ONE)) + packer.flush(zlib.Z_SYNC_FLUSH)
    rest = packer.compress(event(TWO)) + packer.flush()
    more = asyncio.Event()
    answer = chunked(first, more, rest, content_type=SSE, headers=[("Content-Encoding", "gzip")])
    async with serving(answer) as server, mcp_gangway.AsyncClient() as client:
        async with client.stream("GET", server.url) as response:
            seen = []
            async for item in response.aiter_messages():
                seen.append(item)
                more.set()
    assert seen == [ONE, TWO]


async def test_a_truncated_compressed_body_raises_decoding_error() -> None:
    packed = gzip.compress(b"x" * 10_000)
    async with serving(whole(packed[:-9], headers=[("Content-Encoding", "gzip")])) as server:
        async with mcp_gangway.AsyncClient() as client:
            with pytest.raises(mcp_gangway.DecodingError):
                await client.get(server.url)


async def test_a_highly_compressed_body_is_read_with_little_memory(run_python: Run) -> None:
    done = await asyncio.to_thread(run_python, MEMORY, input=None)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


#: Reads 256 MiB in every way, and a gzip body of the same size, and checks that the process's memory does not grow.
MEMORY = """
import asyncio, gzip, resource, zlib
import mcp_gangway
from http_server import Answer, Request, event, serving

MIB = 1 << 20
SIZE = 256

def answer(request):
    path = request.target
    if path == "/gzip":
        packer = zlib.compressobj(1, wbits=31)
        block = bytes(MIB)
        body = b"".join(packer.compress(block) for _ in range(SIZE)) + packer.flush()
        head = b"HTTP/1.1 200 OK\\r\\nContent-Encoding: gzip\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body)
        return Answer([head, body])
    item = {
        "/bytes": bytes(MIB),
        "/events": b"data: " + b"x" * (MIB // 4 - 8) + b"\\n\\n",
        "/lines": b"x" * (MIB // 4 - 1) + b"\\n",
    }[path]
    head = b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % (SIZE * MIB)
    return Answer([head] + [item] * (SIZE * MIB // len(item)))

def memory():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

async def main():
    async with serving(answer) as server, mcp_gangway.AsyncClient(timeout=None) as client:
        base = server.url.removesuffix("/mcp")
        for path, how in (
            ("/bytes", "aiter_bytes"), ("/bytes", "aiter_raw"), ("/events", "aiter_sse"), ("/lines", "aiter_ndjson"),
            ("/lines", "aiter_lines"), ("/gzip", "aiter_bytes"),
        ):
            before, most, total = memory(), 0, 0
            async with client.stream("GET", base + path) as response:
                async for item in getattr(response, how)():
                    total += len(item.data_bytes if how == "aiter_sse" else item)
                    most = max(most, memory())
            assert total > (SIZE - 1) * MIB, (path, how, total)
            grown = (most - before) // MIB
            assert grown < 32, f"{path} by {how} took {grown} MiB"

asyncio.run(main())
"""


async def test_a_slow_reader_slows_the_server_down() -> None:
    size, sent = 64 << 20, 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        try:
            while sent < size:
                writer.write(bytes(65536))
                await writer.drain()
                sent += 65536
        finally:
            writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with mcp_gangway.AsyncClient() as client:
        async with client.stream("GET", f"http://127.0.0.1:{port}/") as response:
            parts = response.aiter_bytes()
            received = len(await anext(parts))
            before = -1
            while sent > before:
                before = sent
                await asyncio.sleep(0.2)
            # The buffers at both ends of the connection, and a little more.
            assert sent < 24 << 20
            received += sum([len(part) async for part in parts])
    listener.close()
    assert (received, sent) == (size, size)
