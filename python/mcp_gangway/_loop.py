"""Waits in an event loop for background operations.

Rule: a result is delivered on the thread of the loop that waits for it. The background only makes a pipe readable,
which the loop watches like any socket.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from ._native import Completions

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._native import Operation

_completions: WeakKeyDictionary[asyncio.AbstractEventLoop, Completions] = WeakKeyDictionary()


async def complete(
    begin: Callable[[Completions, asyncio.Future[Any]], Operation],
) -> Any:
    """Starts an operation, and waits for its result. If the wait is cancelled, the operation is cancelled.

    Raises:
        RuntimeError: There is no asyncio event loop.
    """
    loop = running_loop()
    completions = _completions.get(loop) or _watch(loop)
    future = loop.create_future()
    operation = begin(completions, future)
    try:
        return await future
    except BaseException:
        operation.cancel()
        raise


def running_loop() -> asyncio.AbstractEventLoop:
    """Returns the running event loop.

    Raises:
        RuntimeError: There is none, or it is not asyncio's.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "mcp_gangway needs a running asyncio event loop: call it inside asyncio.run(), uvloop.run() or "
            "anyio.run(..., backend='asyncio'); trio is not supported"
        ) from None


def _watch(loop: asyncio.AbstractEventLoop) -> Completions:
    completions = Completions()

    def take_and_deliver() -> None:
        completions.take_signal()
        completions.deliver()

    try:
        loop.add_reader(completions.fileno(), take_and_deliver)
    except NotImplementedError:
        # The default loop on Windows cannot watch pipes.
        threading.Thread(target=_wait, args=(loop, completions), daemon=True).start()
    _completions[loop] = completions
    return completions


def _wait(loop: asyncio.AbstractEventLoop, completions: Completions) -> None:
    while True:
        completions.take_signal()
        try:
            loop.call_soon_threadsafe(completions.deliver)
        except RuntimeError:
            return  # The loop is closed.
