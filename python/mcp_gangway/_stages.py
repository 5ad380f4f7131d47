"""Converts the chunks of a body, one class for each form of items.

Rule: nothing here waits. A stage gets chunks as they arrive and returns the items that they complete. At the end it
returns the rest.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from ._exceptions import MessageTooLarge


class Stage(Protocol):
    """Converts chunks to items, like the parsers of the native module."""

    def feed(self, chunk: bytes, /) -> Iterable[Any]:
        """Returns the items that the chunk completes."""

    def finish(self) -> Iterable[Any]:
        """Returns the items that the end completes."""


class Pieces:
    """Bytes in pieces of ``size``, or as they arrive if it is None."""

    def __init__(self, size: int | None) -> None:
        self._size = None if size is None else checked_size("chunk_size", size)
        self._held = bytearray()

    def feed(self, chunk: bytes) -> Iterable[bytes]:
        if self._size is None:
            return (chunk,)
        self._held += chunk
        whole = len(self._held) // self._size * self._size
        pieces = [bytes(self._held[at : at + self._size]) for at in range(0, whole, self._size)]
        del self._held[:whole]
        return pieces

    def finish(self) -> Iterable[bytes]:
        return (bytes(self._held),) if self._held else ()


class Text:
    """Text in pieces of ``size`` characters, or as it arrives if it is None. Characters are never split."""

    def __init__(self, encoding: str, size: int | None = None) -> None:
        self._encoding = encoding
        self._decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
        self._size = None if size is None else checked_size("chunk_size", size)
        self._held = ""

    def feed(self, chunk: bytes) -> Iterable[str]:
        text = self._decoded(chunk)
        if self._size is None:
            return (text,) if text else ()
        self._held += text
        whole = len(self._held) // self._size * self._size
        pieces = [self._held[at : at + self._size] for at in range(0, whole, self._size)]
        self._held = self._held[whole:]
        return pieces

    def finish(self) -> Iterable[str]:
        rest = self._held + self._decoder.decode(b"", final=True)
        return (rest,) if rest else ()

    def _decoded(self, chunk: bytes) -> str:
        held = self._decoder.getstate()[0]
        try:
            return self._decoder.decode(chunk)
        except UnicodeError:
            # UTF-16 or UTF-32 without a byte order mark.
            self._decoder = codecs.getincrementaldecoder(f"{self._encoding}-le")(errors="replace")
            return self._decoder.decode(held + chunk)


class Lines:
    """Lines of text, without line breaks (LF, CRLF or CR), each of at most ``limit`` bytes in UTF-8."""

    def __init__(self, encoding: str, limit: int) -> None:
        self._text = Text(encoding)
        self._limit = checked_size("max_line_bytes", limit)
        #: The beginning of a line, in pieces, and its length in characters.
        self._pieces: list[str] = []
        self._held = 0
        self._after_cr = False

    def feed(self, chunk: bytes) -> Iterable[str]:
        return self._checked([line for text in self._text.feed(chunk) for line in self._lines(text)])

    def finish(self) -> Iterable[str]:
        lines = [line for text in self._text.finish() for line in self._lines(text)]
        return self._checked([*lines, "".join(self._pieces)] if self._pieces else lines)

    def _lines(self, text: str) -> list[str]:
        if self._after_cr and text.startswith("\n"):
            text = text[1:]
        self._after_cr = text.endswith("\r")
        lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        last = lines.pop()
        if lines:
            lines[0] = "".join((*self._pieces, lines[0]))
            self._pieces, self._held = [], 0
        if last:
            self._pieces.append(last)
            self._held += len(last)
        return lines

    def _checked(self, lines: list[str]) -> list[str]:
        """Returns the lines.

        Raises:
            MessageTooLarge: One is too long, or will be. It carries the others.
        """
        complete = [line for line in lines if not self._is_too_long(line)]
        if len(complete) == len(lines) and self._held <= self._limit:
            return lines
        error = MessageTooLarge(f"a line exceeds the limit of {self._limit} bytes; max_line_bytes sets this limit")
        error.complete = complete
        raise error

    def _is_too_long(self, line: str) -> bool:
        # A character has at most four bytes.
        return len(line) * 4 > self._limit and len(line.encode("utf-8", "surrogatepass")) > self._limit


class Expected:
    """A stage that must yield at least one item. Otherwise ``missing`` makes the exception."""

    def __init__(self, stage: Stage, missing: Callable[[], Exception]) -> None:
        self._stage = stage
        self._missing = missing
        self._is_empty = True

    def feed(self, chunk: bytes) -> Iterable[Any]:
        return self._noted(self._stage.feed(chunk))

    def finish(self) -> Iterable[Any]:
        items = self._noted(self._stage.finish())
        if self._is_empty:
            raise self._missing()
        return items

    def _noted(self, items: Iterable[Any]) -> Iterable[Any]:
        self._is_empty = self._is_empty and not items
        return items


def checked_size(name: str, size: int) -> int:
    """Returns a size that must be 1 or more.

    Raises:
        ValueError: It is less.
        TypeError: It is no whole number.
    """
    if isinstance(size, bool) or not isinstance(size, int):
        raise TypeError(f"{name} is a whole number, not {type(size).__name__}")
    if size < 1:
        raise ValueError(f"{name} must be 1 or more, not {size}")
    return size
