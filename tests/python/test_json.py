"""JSON as objects. Rule: every parser returns the same values as ``json.loads``, and fails like it."""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Callable
from typing import Any

import pytest
from conftest import Run
from mcp_gangway import Event, InvalidMessage, MessageParser, MessageTooLarge, NdjsonParser, SseParser, _native

#: Each returns the value of a document.
WAYS: dict[str, Callable[[bytes], Any]] = {
    "loads": _native.loads,
    "event of a stream": lambda text: (
        SseParser().feed(b"data: " + text.replace(b"\n", b"\ndata: ") + b"\n\n")[0].json()
    ),
    "event of a text": lambda text: Event(data=text.decode("utf-8", "surrogatepass")).json(),
}

VALUES = [
    b"{}",
    b"[]",
    b" [ 1 , 2 ] ",
    b'""',
    b"null",
    b"true",
    b"false",
    b"0",
    b"-0",
    b"-0.0",
    b"1.0",
    b"1e5",
    b"1E-5",
    b"0.1",
    b"123456789012345678901234567890",
    b"-123456789012345678901234567890",
    b"9223372036854775807",
    b"9223372036854775808",
    b"-9223372036854775808",
    b"-9223372036854775809",
    b"18446744073709551616",
    b"1" * 4300,
    b"2.2250738585072011e-308",
    b"5e-324",
    b"1e-400",
    b"1e400",
    b"-1e400",
    b"1e999999999999",
    b"179769313486231580793728971405301e277",
    b"0.30000000000000004",
    b"123456789.12345678901234567890",
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"[NaN,Infinity,-Infinity]",
    b'{"a":1,"a":2}',
    b'{"a":1,"b":2,"a":{"a":3}}',
    b'{"":{"":[]}}',
    '"é\u2028😀"'.encode(),
    b'"\\u00e9\\ud83d\\ude00\\/\\b\\f\\n\\r\\t\\"\\\\"',
    b'"\\ud800"',
    b'"\\udc00 \\ud800x\\udc00\\ud83d\\ude00"',
    b'{"\\ud800":1}',
    b'"\\u0000"',
    b'"\x7f"',
    b"[" * 150 + b"]" * 150,
    b"[" * 300 + b"]" * 300,
    b'{"a":' * 300 + b"1" + b"}" * 300,
]
ERRORS = [
    b"",
    b" ",
    b"x",
    b"nul",
    b"truex",
    b"nan",
    b"-NaN",
    b"+1",
    b"01",
    b"-",
    b"1.",
    b".5",
    b"1e",
    b"1 2",
    b"[1,]",
    b"[1 2]",
    b"[",
    b"{",
    b"]",
    b'{"a"}',
    b'{"a":}',
    b'{"a":1,}',
    b"{a:1}",
    b"{1:2}",
    b'{"a":1 "b":2}',
    b"'a'",
    b'"a',
    b'"\\x"',
    b'"\\u12"',
    b'"\\',
    b'"\t"',
    b"[1]\n[2]",
    b"\xef\xbb\xbf[]" * 2,
    b"1" * 4301,
    b"// a\n1",
    b"\x0b1",
    b"\xc2\xa01",
]


def same(one: Any, other: Any) -> bool:
    """True if both are equal, of the same types, with the same sign, and in the same order."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return (math.isnan(one) and math.isnan(other)) or (
            one == other and math.copysign(1, one) == math.copysign(1, other)
        )
    return bool(one == other)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("text", VALUES, ids=lambda text: ascii(text[:30]))
def test_json_values_equal_those_of_the_json_module(way: str, text: bytes) -> None:
    assert same(WAYS[way](text), json.loads(text))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("text", ERRORS, ids=lambda text: ascii(text[:30]))
def test_json_errors_equal_those_of_the_json_module(way: str, text: bytes) -> None:
    with pytest.raises(ValueError) as expected:
        json.loads(text if way == "loads" else text.decode())
    with pytest.raises(ValueError) as caught:
        WAYS[way](text)
    assert type(caught.value) is type(expected.value)
    assert str(caught.value) == str(expected.value)
    if isinstance(caught.value, json.JSONDecodeError):
        assert (caught.value.pos, caught.value.lineno) == (expected.value.pos, expected.value.lineno)  # type: ignore[attr-defined]


def test_other_encodings() -> None:
    text = '{"a": "é😀"}'
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"):
        assert _native.loads(text.encode(encoding)) == json.loads(text)
    assert _native.loads(b'"\xed\xa0\x80"') == "\ud800"
    with pytest.raises(UnicodeDecodeError):
        _native.loads(b'"\xff"')
    [event] = SseParser().feed(b'data: "\xff"\n\n')
    assert event.json() == "\ufffd"


@pytest.mark.skipif(not hasattr(sys, "set_int_max_str_digits"), reason="Python has no such limit")
def test_longer_integers_where_they_are_allowed() -> None:
    before = sys.get_int_max_str_digits()
    try:
        sys.set_int_max_str_digits(10_000)
        assert _native.loads(b"1" * 5000) == int("1" * 5000)
    finally:
        sys.set_int_max_str_digits(before)


def test_random_documents() -> None:
    generator = random.Random(3)
    pieces = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        '"a"',
        '"',
        "\\",
        "u00e9",
        "ud800",
        "1",
        "-",
        ".",
        "e",
        "0",
        "NaN",
        "null",
        " ",
        "\n",
    ]

    def value(depth: int) -> Any:
        kind = generator.randrange(7 if depth < 4 else 5)
        if kind == 0:
            return generator.choice([None, True, False])
        if kind == 1:
            return generator.randrange(-(10 ** generator.randrange(1, 40)), 10 ** generator.randrange(1, 40))
        if kind == 2:
            return generator.uniform(-1, 1) * 10.0 ** generator.randrange(-300, 300)
        if kind <= 4:
            return "".join(chr(generator.choice([65, 34, 92, 10, 233, 0x2028, 0x1F600, 0xD800])) for _ in range(5))
        if kind == 5:
            return [value(depth + 1) for _ in range(generator.randrange(4))]
        return {f"k{generator.randrange(5)}": value(depth + 1) for _ in range(generator.randrange(4))}

    for _ in range(3000):
        text = json.dumps(value(0), ensure_ascii=generator.random() < 0.5).encode("utf-8", "surrogatepass")
        assert same(_native.loads(text), json.loads(text)), text
    for _ in range(20_000):
        text = "".join(generator.choices(pieces, k=generator.randrange(1, 8))).encode()
        try:
            expected = json.loads(text)
        except ValueError as error:
            with pytest.raises(type(error)):
                _native.loads(text)
        else:
            assert same(_native.loads(text), expected), text


def test_names_of_any_length_and_number() -> None:
    # Names that begin, end and are in the middle alike, and those of a JSON-RPC message with values of any type.
    names = ["", "a", "aa", "aba", "é", "é" * 40, "n" * 63, "n" * 64, "n" * 65, "n" * 1000, "\ud800", "\0"]
    names += [f"a{i}b{i}c" for i in range(2000)]
    for name in names * 2:
        text = json.dumps({name: 1, "x": {name: {name: name}}, f"{name}x": 2}).encode()
        assert same(_native.loads(text), json.loads(text)), name
    # Texts that are alike only as they are written.
    words = [
        "jsonrpc",
        "method",
        "2.0",
        "",
        "a\\b",
        "a\b",
        'a"b',
        'a\\"b',
        "a\nb",
        "\\u0061",
        "é",
        "\\u00e9",
        "\ud800",
        "x" * 100,
    ]
    for name in words:
        for value in [*words, 1, None, True, ["2.0"], {"method": "x"}]:
            for text in (json.dumps({"method": value, name: value, "x": {"jsonrpc": name}}), json.dumps({name: name})):
                assert same(_native.loads(text.encode()), json.loads(text)), text


def test_finalizers_that_parse_json_during_parsing(run_python: Run) -> None:
    # CPython 3.10 and 3.11 collect garbage, and so run finalizers, while a parser makes objects.
    program = """
import gc, json
from mcp_gangway import _native
class Garbage:
    def __del__(self):
        self.me = None
        found.append(_native.loads(b'{"name":{"name":[1]}}'))
found = []
gc.set_threshold(1)
text = json.dumps([{"name": {f"name{i}": [i]}} for i in range(100)]).encode()
for _ in range(100):
    garbage = Garbage()
    garbage.me = garbage
    del garbage
    assert _native.loads(text) == json.loads(text)
gc.collect()
assert found == [{"name": {"name": [1]}}] * 100, found
print("equal")
"""
    done = run_python(program)
    assert (done.stdout, done.returncode) == ("equal\n", 0), done


@pytest.mark.parametrize("text", ["[" * 1_000_000, "[" * 500_000 + "]" * 500_000, '{"a":' * 200_000])
def test_deep_nesting_raises_and_does_not_crash_the_interpreter(text: str) -> None:
    for way in WAYS.values():
        with pytest.raises((RecursionError, ValueError)):
            way(text.encode())


def test_deep_nesting_in_a_thread_with_a_small_stack(run_python: Run) -> None:
    program = """
import threading, mcp_gangway
def work():
    for text in ("[" * 1_000_000, "[" * 190 + "]" * 190):
        try:
            mcp_gangway.Event(data=text).json()
        except (RecursionError, ValueError):
            print("refused")
        else:
            print("read")
threading.stack_size(512 << 10)
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""
    done = run_python(program)
    assert (done.stdout, done.returncode) == ("refused\nread\n", 0)


# Messages


RESULT = {"jsonrpc": "2.0", "id": 1, "result": {"big": 2**80, "float": 0.1, "text": "é"}}
NOTICE = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progress": 1}}


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", json.dumps([RESULT, NOTICE])),
        ("application/x-ndjson", f"{json.dumps(RESULT)}\noops\n{json.dumps(NOTICE)}"),
        ("text/event-stream", f"data: {json.dumps(RESULT)}\n\ndata: oops\n\ndata: {json.dumps(NOTICE)}\n\n"),
    ],
)
def test_messages_as_objects(content_type: str, body: str) -> None:
    for step in (1, 7, len(body)):
        data = body.encode()
        parser = MessageParser(content_type, parsed=True)
        found = [item for at in range(0, len(data), step) for item in parser.feed(data[at : at + step])]
        assert same([*found, *parser.finish()], [RESULT, NOTICE])


def test_the_data_of_events_and_the_lines_as_objects() -> None:
    parser = SseParser(parsed=True)
    stream = f"id: 1\n\ndata:\n\ndata: {json.dumps(RESULT)}\n\ndata: {{\ndata: }}\n\ndata: [1"
    assert same(parser.feed(stream.encode()), [RESULT, {}])
    assert parser.finish() == []
    assert parser.feed(b"]") == []
    assert parser.finish(incomplete=True) == [[1]]
    with pytest.raises(json.JSONDecodeError) as caught:
        parser.feed(b"data: 1\n\ndata: oops\n\ndata: 2\n\n")
    assert caught.value.complete == [1, 2]  # type: ignore[attr-defined]
    lines = NdjsonParser(parsed=True)
    assert same(lines.feed(f"{json.dumps(RESULT)}\r\n\n[1]\n[2".encode()), [RESULT, [1]])
    with pytest.raises(json.JSONDecodeError):
        lines.finish()
    long = b"data: " + json.dumps("x" * 100_000).encode() + b"\n\n"
    assert SseParser(parsed=True).feed(long) == ["x" * 100_000]


def test_one_message_that_cannot_be_parsed_loses_no_other() -> None:
    deep = json.dumps({**RESULT, "result": 1}).replace('"result": 1', f'"result": {"[" * 120}1{"]" * 120}')
    parser = MessageParser("text/event-stream", parsed=True)
    long = json.dumps({**RESULT, "result": {"n": 0}}).replace('"n": 0', f'"n": {"1" * 5000}')
    stream = f"data: {json.dumps(NOTICE)}\n\ndata: {long}\n\ndata: {deep}\n\n"
    with pytest.raises(ValueError, match="4300") as caught:
        parser.feed(stream.encode())
    assert caught.value.complete == [NOTICE, json.loads(deep)]  # type: ignore[attr-defined]
    assert parser.feed(f"data: {json.dumps(RESULT)}\n\n".encode()) == [RESULT]


def test_limits_and_other_content() -> None:
    parser = MessageParser("text/event-stream", parsed=True, max_message_bytes=200)
    large = json.dumps({**RESULT, "result": "x" * 300})
    with pytest.raises(MessageTooLarge) as caught:
        parser.feed(f"data: {json.dumps(NOTICE)}\n\ndata: {large}\n\n".encode())
    assert caught.value.complete == [NOTICE]
    parser = MessageParser("text/html", parsed=True)
    with pytest.raises(InvalidMessage):
        assert parser.feed(b"<html>") == parser.finish()


def test_repeated_member_names_share_one_string_object() -> None:
    one, other = (SseParser().feed(b'data: {"jsonrpc": "2.0"}\n\n')[0].json() for _ in range(2))
    assert next(iter(one)) is next(iter(other))


def test_an_event_does_not_keep_its_large_chunk_alive() -> None:
    chunk = b"data: small\n\n" + b": " + b"x" * (1 << 20) + b"\n"
    before = sys.getrefcount(chunk)
    parser = SseParser()
    [event] = parser.feed(chunk)
    parser.feed(b"\n")
    del parser
    assert sys.getrefcount(chunk) == before
    assert event.data_bytes == b"small"
