"""Waits in an event loop for background operations.

Rule: a result is delivered on the thread of the loop that waits for it. The background only makes a pipe readable,
which the loop watches like any socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
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
    # Loops on Windows cannot watch pipes.
    completions = None if sys.platform == "win32" else _watched_by_itself(loop)
    if completions is None:
        completions = _watched_by_a_thread(loop)
    _completions[loop] = completions
    return completions


def _watched_by_itself(loop: asyncio.AbstractEventLoop) -> Completions | None:
    """Returns None if the loop cannot do that."""
    completions = Completions()

    def take_and_deliver() -> None:
        completions.take_signal()
        completions.deliver()

    try:
        loop.add_reader(completions.fileno(), take_and_deliver)
    except NotImplementedError:
        return None
    return completions


#: The loops that one thread watches, the signal that it waits for, and the process that the thread belongs to.
_threaded: WeakKeyDictionary[asyncio.AbstractEventLoop, Completions] = WeakKeyDictionary()
_signal: Completions | None = None
_process = 0
_lock = threading.Lock()


def _watched_by_a_thread(loop: asyncio.AbstractEventLoop) -> Completions:
    """Adds the loop to those that the process's one thread watches. So no loop leaves a thread or a pipe behind."""
    global _signal, _process
    with _lock:
        if _signal is None or _process != os.getpid():
            _signal, _process = Completions(), os.getpid()
            _threaded.clear()
            threading.Thread(target=_deliver, args=(_signal,), name="mcp_gangway", daemon=True).start()
        completions = Completions(_signal)
        _threaded[loop] = completions
    return completions


def _deliver(signal: Completions) -> None:
    while True:
        signal.take_signal()
        # In a function of its own: while it waits, the thread must keep no loop.
        _wake()


def _wake() -> None:
    with _lock:
        ready = [item for item in _threaded.items() if item[1].has_complete()]
    for loop, completions in ready:
        # It may be closed.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(completions.deliver)
