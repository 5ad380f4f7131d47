"""The parsers on their own: the core's test vectors, cut at each byte, and further inputs."""

from __future__ import annotations

import array
import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY
from mcp_gangway import DecodingError, Event, InvalidMessage, MessageTooLarge, NdjsonParser, SseParser, _native

VECTORS = REPOSITORY / "tests" / "vectors"


def vectors(kind: str) -> list[Any]:
    """Returns the cases of one kind: each input and its expected output."""
    inputs = sorted((VECTORS / kind).glob("*.in"))
    assert inputs
    return [
        pytest.param(path.read_bytes(), json.loads(path.with_suffix(".out").read_text("utf-8")), id=path.stem)
        for path in inputs
    ]


def events(pieces: Iterable[bytes]) -> list[str]:
    """Returns the events of a stream in the form of the vectors."""
    parser = SseParser()
    found = [event for piece in pieces for event in parser.feed(piece)] + parser.finish()
    return [f"{event.event}|{event.data}" for event in found]


def lines(pieces: Iterable[bytes]) -> list[str]:
    """Returns the lines of a stream in the form of the vectors."""
    parser = NdjsonParser()
    found = [line for piece in pieces for line in parser.feed(piece)] + parser.finish()
    return [line.decode("utf-8", "replace") for line in found]


def assert_at_every_cut(parse: Callable[[Iterable[bytes]], list[str]], data: bytes, expected: list[str]) -> None:
    assert parse([data]) == expected
    assert parse([data[at : at + 1] for at in range(len(data))]) == expected
    for cut in range(len(data) + 1):
        assert parse([data[:cut], b"", data[cut:]]) == expected, f"cut at byte {cut}"


@pytest.mark.parametrize(("data", "expected"), vectors("sse"))
def test_the_vectors_of_events(data: bytes, expected: list[str]) -> None:
    # The vectors have an empty type where the event has none; here the type is "message".
    expected = [f"message{item}" if item.startswith("|") else item for item in expected]
    assert_at_every_cut(events, data, expected)


@pytest.mark.parametrize(("data", "expected"), vectors("lines"))
def test_the_vectors_of_lines(data: bytes, expected: list[str]) -> None:
    # The vectors also contain the blank lines.
    expected = [item for item in expected if item.strip()]
    assert_at_every_cut(lines, data, expected)


def test_all_fields_of_an_event_are_read() -> None:
    [first, second] = SseParser().feed(b"event: a\nid: 7\nretry: 250\ndata: {\ndata: }\n\ndata: x\n\n")
    assert (first.event, first.id, first.retry, first.data, first.data_bytes) == ("a", "7", 250, "{\n}", b"{\n}")
    assert first.json() == {}
    # The id persists, the other fields do not.
    assert (second.event, second.id, second.retry, second.data) == ("message", "7", None, "x")
    with pytest.raises(json.JSONDecodeError):
        second.json()


def test_events_are_values() -> None:
    [event] = SseParser().feed(b"event: a\nid: 7\nretry: 250\ndata: x\n\n")
    same = Event(event="a", id="7", retry=250, data="x")
    assert event == same
    assert hash(event) == hash(same)
    assert event != Event(event="a", id="7", retry=250, data="y")
    assert event != "x"
    assert repr(event) == "Event(event='a', data='x', id='7', retry=250)"
    assert repr(Event()) == "Event(event='message', data='', id='', retry=None)"
    assert Event(event="message") == Event()


def test_an_unfinished_event_is_dropped_unless_requested() -> None:
    for incomplete, expected in ((False, []), (True, ["cut"])):
        parser = SseParser()
        assert parser.feed(b"data: cut") == []
        assert [event.data for event in parser.finish(incomplete=incomplete)] == expected


@pytest.mark.parametrize(
    "chunk",
    [
        b"data: x\n\n",
        bytearray(b"data: x\n\n"),
        memoryview(b"data: x\n\n"),
        memoryview(b"d_a_t_a_:_ _x_\n_\n_")[::2],
        array.array("B", b"data: x\n\n"),
    ],
    ids=["bytes", "bytearray", "memoryview", "every other byte", "array"],
)
def test_any_bytes_like_object(chunk: Any) -> None:
    assert [event.data for event in SseParser().feed(chunk)] == ["x"]
    assert NdjsonParser().feed(chunk) == [b"data: x"]


def test_a_fed_buffer_may_be_changed_later() -> None:
    buffer = bytearray(b"data: first")
    parser = SseParser()
    parser.feed(buffer)
    buffer[6:] = b"OTHER"
    assert [event.data for event in parser.feed(b"\n\n")] == ["first"]


@pytest.mark.parametrize("chunk", ["text", 1, None, [1], object()])
@pytest.mark.parametrize("parser", [SseParser, NdjsonParser])
def test_a_chunk_that_is_not_bytes_raises_type_error(parser: Any, chunk: Any) -> None:
    with pytest.raises(TypeError, match=f"a bytes-like object is required, not '{type(chunk).__name__}'"):
        parser().feed(chunk)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SseParser(max_event_bytes=-1), "negative"),
        (lambda: SseParser(max_event_bytes="1"), "max_event_bytes|integer"),
        (lambda: NdjsonParser(max_line_bytes=1.5), "max_line_bytes|integer"),
        (lambda: SseParser(1), "positional"),
        (lambda: NdjsonParser(limit=1), "limit"),
        (lambda: Event(data=b"x"), "data|str"),
    ],
)
def test_wrong_arguments_raise_an_error(make: Callable[[], Any], message: str) -> None:
    with pytest.raises((TypeError, OverflowError), match=message):
        make()


def test_invalid_utf_8_is_replaced_in_text_and_kept_in_bytes() -> None:
    [event] = SseParser().feed(b"event: \xff\nid: \xc5\ndata: a\xffb\xf0\x9f\n\n")
    assert (event.event, event.id) == ("\ufffd", "\ufffd")
    assert event.data == "a\ufffdb\ufffd"
    assert event.data_bytes == b"a\xffb\xf0\x9f"
    assert NdjsonParser().feed(b"\xff\n") == [b"\xff"]


def test_a_line_separator_of_unicode_is_no_line_end() -> None:
    text = "a\u2028b\u2029c\x85d\x0be\x0cf"
    [event] = SseParser().feed(f"data: {text}\n\n".encode())
    assert event.data == text
    assert NdjsonParser().feed(f"{text}\n".encode()) == [text.encode()]


def test_events_over_the_limit_are_skipped() -> None:
    parser = SseParser(max_event_bytes=4)
    with pytest.raises(MessageTooLarge) as caught:
        parser.feed(b"data: 1234\n\ndata: 12345\n\ndata: 6\n\n")
    assert [event.data for event in caught.value.complete] == ["1234", "6"]
    assert isinstance(caught.value, DecodingError)
    assert [event.data for event in parser.feed(b"data: 7\n\n")] == ["7"]
    # The parser reports the error before the event is complete, and only once.
    with pytest.raises(MessageTooLarge) as caught:
        for _ in range(10):
            parser.feed(b"data: 1\n")
    assert caught.value.complete == []
    assert [event.data for event in parser.feed(b"data: 1\n\ndata: 8\n\n")] == ["8"]


def test_lines_over_the_limit_are_skipped() -> None:
    parser = NdjsonParser(max_line_bytes=4)
    with pytest.raises(MessageTooLarge) as caught:
        parser.feed(b"1234\n12345\n6\n")
    assert caught.value.complete == [b"1234", b"6"]
    assert parser.feed(b"7\n") == [b"7"]
    with pytest.raises(MessageTooLarge) as caught:
        parser.feed(b"123456")
    assert caught.value.complete == []
    assert parser.feed(b"789\n8\n") == [b"8"]


@pytest.mark.parametrize("size", [1 << 10, 64 << 10])
def test_an_event_of_16_mib(size: int) -> None:
    data = random.Random(7).randbytes(12 << 20).hex()[: 16 << 20].encode()
    parser, text = SseParser(), b"data: " + data + b"\n\n"
    found = [event for at in range(0, len(text), size) for event in parser.feed(text[at : at + size])]
    assert [event.data_bytes == data for event in found] == [True]
    liner, text = NdjsonParser(), data + b"\n"
    found_lines = [line for at in range(0, len(text), size) for line in liner.feed(text[at : at + size])]
    assert [line == data for line in found_lines] == [True]


def test_many_events_in_one_chunk() -> None:
    text = b"".join(b"id: %d\ndata: event %d\n\n" % (number, number) for number in range(20_000))
    found = SseParser().feed(text)
    assert [event.data for event in found] == [f"event {number}" for number in range(20_000)]
    assert [event.id for event in found] == [str(number) for number in range(20_000)]


def test_the_result_for_random_bytes_does_not_depend_on_the_chunks() -> None:
    generator = random.Random(11)
    pieces = [b"data", b":", b" ", b"\n", b"\r", b"\r\n", b"\xef\xbb\xbf", b"event: a", b"id: 1", b"\xff", b"x", b"\0"]
    for _ in range(500):
        data = b"".join(generator.choices(pieces, k=30))
        cut = generator.randrange(len(data) + 1)
        assert events([data]) == events([data[:cut], data[cut:]]), data
        assert lines([data]) == lines([data[:cut], data[cut:]]), data


def test_the_test_vectors_exist() -> None:
    assert {path.name for path in VECTORS.iterdir()} >= {"sse", "lines"}
    assert isinstance(VECTORS, Path)


DEEP = ["[" * 1_000_000, "[" * 5000 + "]" * 5000, '{"a":' * 200_000, "[[]," * 250_000]


@pytest.mark.parametrize("content_type", ["application/x-ndjson", "text/event-stream"])
@pytest.mark.parametrize("text", DEEP)
def test_a_deeply_nested_message_does_not_end_the_stream(content_type: str, text: str) -> None:
    answer = '{"jsonrpc":"2.0","id":1,"result":{}}'
    body = f"data: {text}\n\ndata: {answer}\n\n" if content_type == "text/event-stream" else f"{text}\n{answer}\n"
    parser = _native.MessageParser(content_type)
    assert [bytes(message) for message in [*parser.feed(body.encode()), *parser.finish()]] == [answer.encode()]


@pytest.mark.parametrize("text", DEEP)
def test_a_body_that_is_too_deep_is_an_error(text: str) -> None:
    parser = _native.MessageParser("application/json")
    with pytest.raises(InvalidMessage) as caught:
        messages = [*parser.feed(text.encode()), *parser.finish()]
        assert not messages
    assert len(str(caught.value)) < 1000
