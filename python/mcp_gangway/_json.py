"""JSON for the wrapper: orjson where it is installed, the standard library for everything that
orjson refuses or alters.

Rule: what `loads` has read, `dumps` writes with the same value. orjson alone makes floats of
integers over 64 bits and refuses numbers like 1E400 and lone surrogates; a message with one of them
is still a message.
"""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal
from types import ModuleType
from typing import Any

_fast: ModuleType | None
try:
    import orjson

    _fast = orjson
except ImportError:
    _fast = None

# Whatever holds a run of this length may hold an integer that takes more than 64 bits.
_LONG_NUMBER = re.compile(rb"[0-9]{19}")

# Python itself refuses to write longer integers.
_LONGEST_INTEGER = 4300


def loads(text: bytes | str) -> Any:
    """The value that the JSON document `text` stands for; a byte order mark before it is passed
    over.

    Raises:
        ValueError: `text` is not JSON, or not UTF-8.
        TypeError: `text` is neither bytes nor a string.
        RecursionError: it is nested too deeply.
    """
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else bytes(text)
    if _fast is not None and not _LONG_NUMBER.search(data):
        try:
            return _fast.loads(data)
        except ValueError:
            pass  # The standard library reads more; if it fails too, its error counts.
    return json.loads(data.decode("utf-8-sig"), parse_float=_number, parse_constant=_refuse)


def dumps(value: Any) -> bytes:
    """`value` as JSON on one line, without spaces, in UTF-8.

    Raises:
        TypeError: it holds something that JSON has no form for, like bytes.
        ValueError: it holds itself, or a number that is not finite.
    """
    if _fast is not None:
        try:
            return bytes(_fast.dumps(value))
        except TypeError:
            pass  # An integer over 64 bits and a lone surrogate are such errors to it.
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return text.encode("utf-8")
    except UnicodeEncodeError:
        # A lone surrogate can only be written as an escape.
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")


def _number(text: str) -> float | int:
    value = float(text)
    if not math.isinf(value):
        return value
    exact = Decimal(text)
    if exact.adjusted() >= _LONGEST_INTEGER:
        raise ValueError(f"a number over 1e{_LONGEST_INTEGER}")
    return int(exact)


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")
