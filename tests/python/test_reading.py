"""Reading a response: what it must be, sizes, lines, charsets."""

from __future__ import annotations

import gzip
import itertools
import zlib
from typing import Any

import brotli
import mcp_gangway
import pytest
from http_server import Answer, chunked, raw, serving, whole
from mcp_gangway import MessageParser, MessageTooLarge, NdjsonParser, SseParser

pytestmark = pytest.mark.asyncio

EVENT = b"data: a\n\n"


async def read(answer: Answer, how: str, **options: Any) -> list[Any]:
    """Reads a response in this way, once while it arrives and once from a whole response."""
    async with serving(answer) as server, mcp_gangway.AsyncClient() as client:
        async with client.stream("GET", server.url) as response:
            items = [item async for item in getattr(response, how)(**options)]
        response = await client.get(server.url)
        assert [item async for item in getattr(response, how)(**options)] == items
    return items


# Event streams


@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "text/html; charset=utf-8",
        "text/event-streams",
        "text/event-stream_",
        "xtext/event-stream",
        "application/json; x=text/event-stream",
        "text/event-stream, text/html",
    ],
)
@pytest.mark.parametrize("status", [200, 401, 500])
async def test_a_response_that_is_no_event_stream_is_refused(kind: str, status: int) -> None:
    async with serving(whole(EVENT, status=status, content_type=kind)) as server:
        async with mcp_gangway.AsyncClient() as client:
            async with client.stream("GET", server.url) as response:
                with pytest.raises(mcp_gangway.DecodingError) as caught:
                    [event async for event in response.aiter_sse()]
                assert f"HTTP {status}" in str(caught.value)
                assert kind in str(caught.value)
                assert caught.value.request is response.request
                # It can still be read in another way.
                assert await response.aread() == EVENT


@pytest.mark.parametrize("status", [202, 204, 401, 404, 503])
async def test_a_response_without_a_content_type_is_an_event_stream_only_if_it_is_a_success(status: int) -> None:
    with pytest.raises(mcp_gangway.DecodingError, match=f"HTTP {status} without a content type"):
        await read(whole(status=status), "aiter_sse")
    assert [event.data for event in await read(whole(EVENT), "aiter_sse")] == ["a"]


@pytest.mark.parametrize("kind", ["text/event-stream", "Text/Event-Stream;charset=utf-8", " text/event-stream ;"])
async def test_event_streams_are_recognized(kind: str) -> None:
    assert [event.data for event in await read(whole(EVENT, content_type=kind), "aiter_sse")] == ["a"]


async def test_the_content_type_cannot_forge_a_line_of_the_exception() -> None:
    answer = raw(b"HTTP/1.1 200 OK\r\nContent-Type: a\x9b\x85\xe2\x80\xa8b\r\nContent-Length: 0\r\n\r\n")
    with pytest.raises(mcp_gangway.DecodingError) as caught:
        await read(answer, "aiter_sse")
    assert str(caught.value).isprintable()


# Sizes


@pytest.mark.parametrize("size", [0, -1, -(1 << 70)])
@pytest.mark.parametrize(
    ("how", "name"),
    [
        ("aiter_bytes", "chunk_size"),
        ("aiter_raw", "chunk_size"),
        ("aiter_text", "chunk_size"),
        ("aiter_lines", "max_line_bytes"),
        ("aiter_ndjson", "max_line_bytes"),
        ("aiter_sse", "max_event_bytes"),
        ("aiter_messages", "max_message_bytes"),
        ("aiter_json", "max_message_bytes"),
    ],
)
async def test_sizes_below_1_are_refused(how: str, name: str, size: int) -> None:
    with pytest.raises(ValueError, match="1 or more"):
        await read(whole(EVENT), how, **{name: size})
    with pytest.raises(TypeError):
        await read(whole(EVENT), how, **{name: 1.5})


async def test_a_limit_of_0_is_refused_by_the_parsers() -> None:
    with pytest.raises(ValueError, match="1 or more"):
        SseParser(max_event_bytes=0)
    with pytest.raises(ValueError, match="1 or more"):
        NdjsonParser(max_line_bytes=0)
    with pytest.raises(ValueError, match="1 or more"):
        MessageParser(None, max_message_bytes=0)


# Lines


def lines_of(body: str) -> list[str]:
    """The lines, read in the simplest way."""
    lines = body.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


@pytest.mark.parametrize(
    "body",
    ["a\r\nb\r\n", "a\r\n", "\r\n", "\n\r", "\r\r\n\n", "a\n\rb", "a\r\n\r\n", "ż\r\nż", "\x0ba\x1c\u2028b\n", "a"],
)
async def test_lines_at_every_cut(body: str) -> None:
    whole_body = body.encode()
    for first, second in itertools.combinations_with_replacement(range(len(whole_body) + 1), 2):
        stage = lines_stage()
        pieces = [whole_body[:first], whole_body[first:second], whole_body[second:]]
        found = [line for piece in pieces if piece for line in stage.feed(piece)]
        assert [*found, *stage.finish()] == lines_of(body), pieces


def lines_stage(limit: int = 1 << 30) -> Any:
    from mcp_gangway._stages import Lines

    return Lines("utf-8", limit)


@pytest.mark.parametrize("pieces", [[b"a\r", b"\n"], [b"a\r", b"\n", b"\r", b"\n"], [b"a", b"\r", b"\n"]])
async def test_a_line_break_in_two_chunks_makes_no_line_of_its_own(pieces: list[bytes]) -> None:
    assert await read(chunked(*pieces), "aiter_lines") == lines_of(b"".join(pieces).decode())


async def test_lines_have_a_limit() -> None:
    body = b"1234\n\xc5\xbc\xc5\xbc\n12345\n5\n"
    seen = []
    async with serving(whole(body)) as server, mcp_gangway.AsyncClient() as client:
        async with client.stream("GET", server.url) as response:
            with pytest.raises(MessageTooLarge, match="max_line_bytes") as caught:
                async for line in response.aiter_lines(max_line_bytes=4):
                    seen.append(line)
    assert seen == ["1234", "żż", "5"]
    assert caught.value.request.url == server.url


async def test_an_endless_line_is_refused_when_it_is_too_long() -> None:
    stage = lines_stage(100)
    for _ in range(10):
        assert list(stage.feed(b"0123456789")) == []
    with pytest.raises(MessageTooLarge):
        stage.feed(b"0")


# Charsets


@pytest.mark.parametrize(
    "charset",
    [
        "unheard-of",
        "hex",
        "base64",
        "rot13",
        "zlib",
        "bz2",
        "quopri",
        "uu",
        "idna",
        "undefined",
        "utf-8\\0",
        "",
        "a" * 5000,
        "..",
        "ü",
    ],
)
async def test_unknown_charsets_are_read_as_utf_8(charset: str) -> None:
    answer = whole("ż\n".encode(), headers=[("Content-Type", f"text/plain; charset={charset}")])
    assert await read(answer, "aiter_text") == ["ż\n"]
    assert await read(answer, "aiter_lines") == ["ż"]
    async with serving(answer) as server, mcp_gangway.AsyncClient() as client:
        response = await client.get(server.url)
    assert (response.text, response.encoding) == ("ż\n", "utf-8")


@pytest.mark.parametrize("charset", ["utf-16", "UTF-16LE", "shift_jis", "iso-2022-jp", "utf-7", "utf-8-sig", "latin1"])
async def test_known_charsets_are_used(charset: str) -> None:
    text = "aé" if charset == "latin1" else "a\u3042\n"
    answer = whole(text.encode(charset), headers=[("Content-Type", f"text/plain; charset={charset}")])
    assert "".join(await read(answer, "aiter_text")) == text


async def test_utf_16_may_lack_a_byte_order_mark() -> None:
    body = "aé\n".encode("utf-16-le")
    answer = chunked(*[bytes([byte]) for byte in body], headers=[("Content-Type", "text/plain; charset=utf-16")])
    assert "".join(await read(answer, "aiter_text", chunk_size=1)) == "aé\n"


# Codings and headers


def bare(text: bytes) -> bytes:
    encoder = zlib.compressobj(wbits=-15)
    return encoder.compress(text) + encoder.flush()


TEXT = b"an event, and an event, and another one"


@pytest.mark.parametrize(
    ("codings", "body"),
    [
        (["deflate"], bare(TEXT)),
        (["deflate"], zlib.compress(TEXT)),
        (["gzip, br"], brotli.compress(gzip.compress(TEXT))),
        (["br,gzip"], gzip.compress(brotli.compress(TEXT))),
        (["gzip", "deflate"], bare(gzip.compress(TEXT))),
        (["gzip, identity", "identity", "BR"], brotli.compress(gzip.compress(TEXT))),
        (["identity"], TEXT),
        ([""], TEXT),
        ([" , gzip ,"], gzip.compress(TEXT)),
        (["x-gzip"], gzip.compress(TEXT)),
    ],
    ids=str,
)
async def test_codings(codings: list[str], body: bytes) -> None:
    answer = whole(body, headers=[("Content-Encoding", coding) for coding in codings])
    assert b"".join(await read(answer, "aiter_bytes")) == TEXT
    async with serving(answer) as server, mcp_gangway.AsyncClient() as client:
        async with client.stream("GET", server.url) as response:
            assert b"".join([piece async for piece in response.aiter_raw()]) == body


@pytest.mark.parametrize("coding", ["compress", "foo", "gzip, foo", "foo, gzip", "utf-8", "gzip, gzip, gzip, gzip"])
async def test_a_body_with_an_unknown_coding_is_refused(coding: str) -> None:
    answer = whole(b"body", headers=[("Content-Encoding", coding)])
    async with serving(answer) as server, mcp_gangway.AsyncClient() as client:
        with pytest.raises(mcp_gangway.DecodingError, match="coding"):
            await client.get(server.url)
        async with client.stream("GET", server.url) as response:
            with pytest.raises(mcp_gangway.DecodingError, match="coding"):
                await response.aread()
        async with client.stream("GET", server.url) as response:
            assert b"".join([piece async for piece in response.aiter_raw()]) == b"body"
        # Nothing to decode.
        assert (await client.request("HEAD", server.url)).content == b""


async def test_an_unknown_coding_of_an_empty_body_is_no_error() -> None:
    async with serving(whole(headers=[("Content-Encoding", "foo")])) as server, mcp_gangway.AsyncClient() as client:
        assert (await client.get(server.url)).content == b""


async def test_a_folded_header_is_one_value() -> None:
    head = b"HTTP/1.1 200 OK\r\nX-A: a\r\n b\r\n\tc\r\nX-B:\r\n d\r\nContent-Length: 1\r\n\r\nx"
    async with serving(raw(head)) as server, mcp_gangway.AsyncClient() as client:
        headers = (await client.get(server.url)).headers
    assert (headers["x-a"].split(), headers["x-b"]) == (["a", "b", "c"], "d")


@pytest.mark.parametrize("count", [101, 200, 250])
async def test_more_than_100_headers_are_read(count: int) -> None:
    async with serving(whole(b"x", headers=[(f"X-{n}", str(n)) for n in range(count)])) as server:
        async with mcp_gangway.AsyncClient() as client:
            assert (await client.get(server.url)).headers[f"x-{count - 1}"] == str(count - 1)


@pytest.mark.parametrize("headers", [[("X", "a")] * 300, [("X", "a" * 2_000_000)]], ids=["many", "long"])
async def test_too_many_headers_are_named_as_the_cause(headers: list[tuple[str, str]]) -> None:
    async with serving(whole(b"x", headers=headers)) as server, mcp_gangway.AsyncClient() as client:
        with pytest.raises(mcp_gangway.RemoteProtocolError, match="256 headers or 64 KiB") as caught:
            await client.get(server.url)
    assert "port" not in str(caught.value)
