"""Sends a request body from an iterator: in a separate task, or in the thread that sends the request.

Rule: the iterator is advanced only when there is room for a piece, and never after its request has ended.
"""

from __future__ import annotations

import inspect
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

from ._exceptions import StreamConsumed
from ._loop import complete, running_loop
from ._native import Upload
from ._threads import Pending

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterable, Coroutine, Iterable

T = TypeVar("T")

#: How often a thread that waits for room checks whether its request has ended, in seconds.
_LOOK = 0.05


class UploadTask:
    """A task that iterates a body while its request is sent. :attr:`native` is the body.

    Args:
        pieces: The pieces of the body.
        limit: The write timeout, in seconds. None means no limit.

    Raises:
        StreamConsumed: A generator was iterated already.
    """

    def __init__(self, pieces: AsyncIterable[bytes], limit: float | None) -> None:
        if inspect.isasyncgen(pieces) and pieces.ag_frame is None:
            raise StreamConsumed(_SENT)
        self.native = Upload()
        self._task = running_loop().create_task(self._write(pieces, limit))

    async def beside(self, sending: Coroutine[Any, Any, T]) -> T:
        """Waits for the response to the request. If the body fails, the request fails at once.

        Raises:
            BaseException: The iterator raised it.
            WriteTimeout: The server accepted nothing for too long.
        """
        request = running_loop().create_task(sending)

        def end_with(body: asyncio.Task[None]) -> None:
            if not body.cancelled() and body.exception() is not None:
                request.cancel()

        self._task.add_done_callback(end_with)
        try:
            return await request
        except BaseException:
            self.stop()
            self.check()
            raise

    def check(self) -> None:
        """Raises the error of the body, if it failed."""
        if self._task.done() and not self._task.cancelled():
            self._task.result()

    def stop(self) -> None:
        """Stops the iteration, because the request has ended."""
        self._task.cancel()

    async def _write(self, pieces: AsyncIterable[bytes], limit: float | None) -> None:
        try:
            async for piece in pieces:
                if not await complete(partial(self.native.write, piece=_checked(piece), limit=limit)):
                    return
            await complete(partial(self.native.write, piece=None, limit=limit))
        finally:
            self.native.close()


def upload(native: Upload, pieces: Iterable[bytes], limit: float | None, request: Pending) -> None:
    """Iterates in this thread until everything is sent or ``request`` has ended. ``native`` is its body.

    Raises:
        BaseException: The iterator raised it.
        StreamConsumed: A generator was iterated already.
        WriteTimeout: The server accepted nothing for too long.
    """
    if inspect.isgenerator(pieces) and pieces.gi_frame is None:
        raise StreamConsumed(_SENT)
    try:
        for piece in chain(map(_checked, pieces), [None]):
            writing = Pending(partial(native.write, piece=piece, limit=limit))
            while not writing.is_complete(_LOOK):
                if request.is_complete():
                    writing.cancel()
                    return
            if not writing.result():
                return
    finally:
        native.close()


_SENT = "The request's body was sent already: a generator can be iterated only once."


def _checked(piece: object) -> bytes:
    if not isinstance(piece, (bytes, bytearray, memoryview)):
        raise TypeError(f"an iterator of content must yield bytes, not {type(piece).__name__}")
    return bytes(piece)
