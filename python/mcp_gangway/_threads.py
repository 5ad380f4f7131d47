"""Waits in a thread for background operations, for programs without an event loop.

Rule: waiting releases the interpreter lock and can be interrupted by Ctrl-C. An interrupted wait cancels its operation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._native import Call

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._native import Operation


class Pending:
    """A started operation. ``begin`` gets the place for its outcome."""

    def __init__(self, begin: Callable[[Call, None], Operation]) -> None:
        self._call = Call()
        self._operation = begin(self._call, None)

    def is_complete(self, seconds: float = 0.0) -> bool:
        """Waits at most this many seconds. Returns True if it is complete."""
        return self._call.wait(seconds)

    def result(self) -> Any:
        """Waits for the result. If the wait is interrupted, the operation is cancelled."""
        try:
            self._call.wait(None)
            return self._call.result()
        except BaseException:
            self.cancel()
            raise

    def cancel(self) -> None:
        """Cancels the operation."""
        self._operation.cancel()


def complete(begin: Callable[[Call, None], Operation]) -> Any:
    """Starts an operation, and waits for its result."""
    return Pending(begin).result()
