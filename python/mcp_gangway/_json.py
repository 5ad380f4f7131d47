"""JSON for the wrapper: orjson if it is installed, and the standard library for everything that
orjson refuses or alters.

Rule: `dumps` writes every value that `loads` returns without changing it. orjson alone turns
integers over 64 bits into floats, and refuses numbers like 1E400 and lone surrogates, but a message
with one of them is valid.
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

# A text with this many digits in a row may contain an integer of more than 64 bits.
_LONG_NUMBER = re.compile(rb"[0-9]{19}")

# Python refuses to write longer integers.
_LONGEST_INTEGER = 4300


def loads(text: bytes | str) -> Any:
    """Parses the JSON document `text`. Ignores a byte order mark at its start.

    Raises:
        ValueError: `text` is not JSON, or not UTF-8.
        TypeError: `text` is neither bytes nor a string.
        RecursionError: It is nested too deeply.
    """
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else bytes(text)
    if _fast is not None and not _LONG_NUMBER.search(data):
        try:
            return _fast.loads(data)
        except ValueError:
            pass  # The standard library accepts more; if it fails too, its error is raised.
    return json.loads(data.decode("utf-8-sig"), parse_float=_number, parse_constant=_refuse)


def dumps(value: Any) -> bytes:
    """Returns `value` as JSON in UTF-8, on one line, without spaces.

    Raises:
        TypeError: It contains something that JSON cannot express, like bytes.
        ValueError: It contains itself, or a number that is not finite.
    """
    if _fast is not None:
        try:
            return bytes(_fast.dumps(value))
        except TypeError:
            pass  # orjson raises it for integers over 64 bits and for lone surrogates.
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
