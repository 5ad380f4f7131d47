"""Converts the chunks of a body, one class for each form of items.

Rule: nothing here waits. A stage gets chunks as they arrive and returns the items that they complete. At the end it
returns the rest.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from typing import Any, Protocol


class Stage(Protocol):
    """Converts chunks to items, like the parsers of the native module."""

    def feed(self, chunk: bytes, /) -> Iterable[Any]:
        """Returns the items that the chunk completes."""

    def finish(self) -> Iterable[Any]:
        """Returns the items that the end completes."""


class Pieces:
    """Bytes in pieces of ``size``, or as they arrive if it is None."""

    def __init__(self, size: int | None) -> None:
        self._size = size
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
        self._decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
        self._size = size
        self._held = ""

    def feed(self, chunk: bytes) -> Iterable[str]:
        text = self._decoder.decode(chunk)
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


class Lines:
    """Lines of text, without line breaks (LF, CRLF or CR)."""

    def __init__(self, encoding: str) -> None:
        self._text = Text(encoding)
        self._pieces: list[str] = []
        self._after_cr = False

    def feed(self, chunk: bytes) -> Iterable[str]:
        return [line for text in self._text.feed(chunk) for line in self._lines(text)]

    def finish(self) -> Iterable[str]:
        lines = [line for text in self._text.finish() for line in self._lines(text)]
        return [*lines, "".join(self._pieces)] if self._pieces else lines

    def _lines(self, text: str) -> list[str]:
        if self._after_cr and text.startswith("\n"):
            text = text[1:]
        self._after_cr = text.endswith("\r")
        lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        if len(lines) == 1:
            self._pieces.append(text)
            return []
        lines[0] = "".join((*self._pieces, lines[0]))
        last = lines.pop()
        self._pieces = [last] if last else []
        return lines
