"""The native module: only for this package, but for what ``mcp_gangway`` gives on."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, final

from typing_extensions import Buffer

__all__ = [
    "VERSION",
    "Bridge",
    "Completions",
    "Event",
    "HttpClient",
    "HttpResponse",
    "MessageParser",
    "NdjsonParser",
    "Operation",
    "SseParser",
    "Upload",
    "message_headers",
    "shown",
]

VERSION: str

def message_headers(message: bytes) -> list[tuple[bytes, bytes]]: ...
def shown(text: str) -> str: ...

@final
class Completions:
    """What is complete for one event loop."""

    def __new__(cls) -> Completions: ...
    def fileno(self) -> int: ...
    def take_signal(self) -> None: ...
    def deliver(self) -> None: ...

@final
class Operation:
    """Something in the background whose end a future waits for."""

    def cancel(self) -> None: ...

@final
class HttpClient:
    def __new__(
        cls,
        *,
        verify: bool,
        authorities: Sequence[bytes],
        identity: tuple[bytes, bytes] | None,
        proxy: str | None,
        trust_env: bool,
        http1: bool,
        http2: bool,
        keepalive_connections: int | None,
        keepalive_expiry: float | None,
        connections: int | None,
    ) -> HttpClient: ...
    def send(
        self,
        completions: Completions,
        future: asyncio.Future[Any],
        method: str,
        url: str,
        headers: Sequence[tuple[bytes, bytes]],
        body: bytes | Upload | None,
        timeout: tuple[float | None, float | None, float | None],
        whole: bool,
    ) -> Operation: ...
    def close(self) -> None: ...

@final
class Upload:
    """The body of a request while it is made."""

    def __new__(cls) -> Upload: ...
    def write(
        self, completions: Completions, future: asyncio.Future[Any], piece: bytes | None, limit: float | None
    ) -> Operation: ...
    def close(self) -> None: ...

@final
class HttpResponse:
    @property
    def status(self) -> int: ...
    @property
    def http_version(self) -> str: ...
    @property
    def headers(self) -> list[tuple[bytes, bytes]]: ...
    @property
    def content(self) -> bytes | None: ...
    def start(self, raw: bool) -> None: ...
    def take(self) -> list[bytes] | None: ...
    def wait(self, completions: Completions, future: asyncio.Future[Any]) -> Operation: ...
    def close(self) -> None: ...

@final
class Bridge:
    def __new__(cls) -> Bridge: ...
    def start(
        self,
        completions: Completions,
        future: asyncio.Future[Any],
        options: Sequence[str],
        environment: Mapping[str, str],
        on_stdio: bool,
    ) -> Operation: ...
    def write(self, completions: Completions, future: asyncio.Future[Any], bytes: bytes) -> Operation: ...
    def close_input(self) -> None: ...
    def take(self) -> list[bytes] | None: ...
    def wait(self, completions: Completions, future: asyncio.Future[Any]) -> Operation: ...
    def stop(self) -> None: ...

@final
class Event:
    """One of the Server-Sent Events."""

    def __new__(
        cls,
        *,
        event: str | None = None,
        data: str | None = None,
        id: str | None = None,
        retry: int | None = None,
    ) -> Event: ...
    @property
    def event(self) -> str:
        """Its type: ``message`` where the stream names none."""
    @property
    def data(self) -> str:
        """Its data, with U+FFFD for what is not UTF-8."""
    @property
    def data_bytes(self) -> bytes:
        """The same as it came."""
    @property
    def id(self) -> str:
        """The last id of the stream up to here; empty if there was none."""
    @property
    def retry(self) -> int | None:
        """The time to wait before a reconnection, in milliseconds, if it came since the event before."""
    def json(self) -> Any:
        """The data as JSON.

        Raises:
            json.JSONDecodeError: It is no JSON.
        """
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class SseParser:
    """Server-Sent Events out of chunks that are cut anywhere, by the WHATWG rules.

    Args:
        max_event_bytes: The most that the data of one event may hold (4 GiB).
    """

    def __new__(cls, *, max_event_bytes: int = ...) -> SseParser: ...
    def feed(self, chunk: Buffer) -> list[Event]:
        """The events that the chunk completes.

        Raises:
            MessageTooLarge: The data of one is over the limit. It is passed over; the others are in ``complete``.
        """
    def finish(self, *, incomplete: bool = False) -> list[Event]:
        """The stream is over. The rules drop the event that it ended in, as it may be cut short; ``incomplete`` gives
        it all the same.
        """

@final
class NdjsonParser:
    """Lines out of chunks that are cut anywhere, without their ends and without those that are blank.

    Args:
        max_line_bytes: The most that one line may hold (4 GiB).
    """

    def __new__(cls, *, max_line_bytes: int = ...) -> NdjsonParser: ...
    def feed(self, chunk: Buffer) -> list[bytes]:
        """The lines that the chunk completes.

        Raises:
            MessageTooLarge: One is over the limit. It is passed over; the others are in ``complete``.
        """
    def finish(self) -> list[bytes]:
        """The stream is over: its last line, if that had no end."""

@final
class MessageParser:
    def __new__(cls, content_type: str | None, *, max_message_bytes: int = ...) -> MessageParser: ...
    def feed(self, chunk: Buffer) -> list[bytes]: ...
    def finish(self) -> list[bytes]: ...
