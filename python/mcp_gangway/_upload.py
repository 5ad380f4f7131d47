"""The body of a request from an iterator, made while it is sent: in a task beside it, or in the thread that sends.

Rule: the iterator is asked for a piece when there is room for it, and not any more once its request has ended.
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

#: How often a thread that waits for room looks whether its request has ended, in seconds.
_LOOK = 0.05


class UploadTask:
    """Iterates beside the request that :attr:`native` is the body of.

    Args:
        pieces: What the body is made of.
        limit: The longest that the server may take nothing, in seconds. None for no limit.

    Raises:
        StreamConsumed: A generator that was iterated before.
    """

    def __init__(self, pieces: AsyncIterable[bytes], limit: float | None) -> None:
        if inspect.isasyncgen(pieces) and pieces.ag_frame is None:
            raise StreamConsumed(_SENT)
        self.native = Upload()
        self._task = running_loop().create_task(self._write(pieces, limit))

    async def beside(self, sending: Coroutine[Any, Any, T]) -> T:
        """Waits for the response to the request. If the body fails, so does the request at once, whatever it is at.

        Raises:
            BaseException: What the iterator raised.
            WriteTimeout: The server took nothing for too long.
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
        """Where a request has failed: raises why, if that was its body."""
        if self._task.done() and not self._task.cancelled():
            self._task.result()

    def stop(self) -> None:
        """The request has ended: what is left of the body is of no use."""
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
    """Iterates in this thread, until all is sent or ``request``, whose body ``native`` is, has ended.

    Raises:
        BaseException: What the iterator raised.
        StreamConsumed: A generator that was iterated before.
        WriteTimeout: The server took nothing for too long.
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


_SENT = "The request's body was sent already: a generator makes it only once."


def _checked(piece: object) -> bytes:
    if not isinstance(piece, (bytes, bytearray, memoryview)):
        raise TypeError(f"an iterator of content gives bytes, not {type(piece).__name__}")
    return bytes(piece)
