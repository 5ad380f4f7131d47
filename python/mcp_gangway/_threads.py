"""A thread's side of what runs in the background, for programs without an event loop.

Rule: a wait gives the interpreter lock away and can be interrupted by Ctrl-C. What nobody waits for any more is ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._native import Call

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._native import Operation


class Pending:
    """An operation that was begun: a function gets where its outcome is to be put."""

    def __init__(self, begin: Callable[[Call, None], Operation]) -> None:
        self._call = Call()
        self._operation = begin(self._call, None)

    def is_complete(self, seconds: float = 0.0) -> bool:
        """Whether it is complete, after so many seconds at the latest."""
        return self._call.wait(seconds)

    def result(self) -> Any:
        """Waits for its result. If the wait is interrupted, the operation is cancelled."""
        try:
            self._call.wait(None)
            return self._call.result()
        except BaseException:
            self.cancel()
            raise

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        self._operation.cancel()


def complete(begin: Callable[[Call, None], Operation]) -> Any:
    """Begins an operation, and waits for its result."""
    return Pending(begin).result()
