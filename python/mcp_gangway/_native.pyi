"""The native module. It is private to this package, except for the names that ``mcp_gangway`` exports."""

import asyncio
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal, final, overload

from typing_extensions import Buffer, TypeVar

if TYPE_CHECKING:
    from ._bridge import BridgeSettings

__all__ = [
    "VERSION",
    "Bridge",
    "Call",
    "Completions",
    "Event",
    "HttpClient",
    "HttpResponse",
    "MessageParser",
    "NdjsonParser",
    "Operation",
    "SseParser",
    "Upload",
    "loads",
    "message_headers",
    "normalized_url",
    "shown",
]

VERSION: str

def message_headers(message: bytes) -> list[tuple[bytes, bytes]]: ...
def normalized_url(url: str, base: str | None = None) -> str: ...
def shown(text: str) -> str: ...
def loads(document: bytes) -> Any: ...

@final
class Completions:
    """The finished operations of one event loop."""

    def __new__(cls, beside: Completions | None = None) -> Completions: ...
    def fileno(self) -> int: ...
    def take_signal(self) -> None: ...
    def has_complete(self) -> bool: ...
    def deliver(self) -> None: ...

@final
class Call:
    """An operation that one thread waits for."""

    def __new__(cls) -> Call: ...
    def wait(self, limit: float | None) -> bool: ...
    def result(self) -> Any: ...

@final
class Operation:
    """An operation in the background."""

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
        unix_socket: str | os.PathLike[str] | None,
    ) -> HttpClient: ...
    def send(
        self,
        waiter: Completions | Call,
        future: asyncio.Future[Any] | None,
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
    """A request body that is produced while it is sent."""

    def __new__(cls) -> Upload: ...
    def write(
        self, waiter: Completions | Call, future: asyncio.Future[Any] | None, piece: bytes | None, limit: float | None
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
    def take_content(self) -> bytes | None: ...
    def start(self, raw: bool) -> None: ...
    def take(self) -> list[bytes] | None: ...
    def wait(self, waiter: Completions | Call, future: asyncio.Future[Any] | None) -> Operation: ...
    def close(self) -> None: ...

@final
class Bridge:
    def __new__(
        cls,
        settings: BridgeSettings,
        certificates: tuple[bool, Sequence[bytes], tuple[bytes, bytes] | None],
    ) -> Bridge: ...
    @property
    def drain_time(self) -> float: ...
    def start(self, waiter: Completions | Call, future: asyncio.Future[Any] | None, on_stdio: bool) -> Operation: ...
    def write(self, waiter: Completions | Call, future: asyncio.Future[Any] | None, bytes: bytes) -> Operation: ...
    def close_input(self) -> None: ...
    def take(self) -> list[bytes] | None: ...
    def written(self, length: int) -> None: ...
    def wait(self, waiter: Completions | Call, future: asyncio.Future[Any] | None) -> Operation: ...
    def stop(self) -> None: ...

@final
class Event:
    """A Server-Sent Event."""

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
        """The type: ``message`` unless the stream names one."""
    @property
    def data(self) -> str:
        """The data, with U+FFFD for invalid UTF-8."""
    @property
    def data_bytes(self) -> bytes:
        """The data as received."""
    @property
    def id(self) -> str:
        """The last id of the stream so far; empty if there was none."""
    @property
    def retry(self) -> int | None:
        """The delay before a reconnection, in milliseconds, if received since the previous event."""
    def json(self) -> Any:
        """Parses the data, like ``json.loads``.

        Raises:
            json.JSONDecodeError: It is not JSON.
            RecursionError: It is nested too deeply.
        """
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

_E = TypeVar("_E", default=Event)
_L = TypeVar("_L", default=bytes)

@final
class SseParser(Generic[_E]):
    """Parses Server-Sent Events by the WHATWG rules, from chunks that may be split anywhere.

    Args:
        max_event_bytes: The limit of the data of one event. Default: 4 GiB.
        parsed: Whether to return the data as objects, like those of ``json.loads``, instead of events. Events without
            data are omitted.
    """

    @overload
    def __new__(cls, *, max_event_bytes: int = ..., parsed: Literal[False] = False) -> SseParser[Event]: ...
    @overload
    def __new__(cls, *, max_event_bytes: int = ..., parsed: bool) -> SseParser[Any]: ...
    def feed(self, chunk: Buffer) -> list[_E]:
        """Returns the events that the chunk completes.

        Raises:
            MessageTooLarge: The data of one exceeds the limit. It is skipped; the others are in ``complete``.
            json.JSONDecodeError, RecursionError: The data of one cannot be parsed; the others are in ``complete``.
        """
    def finish(self, *, incomplete: bool = False) -> list[_E]:
        """Ends the stream. The rules drop an event without its end, because it may be cut off; with ``incomplete`` it
        is returned.
        """

@final
class NdjsonParser(Generic[_L]):
    """Parses lines from chunks that may be split anywhere. Omits line breaks and blank lines.

    Args:
        max_line_bytes: The limit of one line. Default: 4 GiB.
        parsed: Whether to return objects, like those of ``json.loads``, instead of bytes.
    """

    @overload
    def __new__(cls, *, max_line_bytes: int = ..., parsed: Literal[False] = False) -> NdjsonParser[bytes]: ...
    @overload
    def __new__(cls, *, max_line_bytes: int = ..., parsed: bool) -> NdjsonParser[Any]: ...
    def feed(self, chunk: Buffer) -> list[_L]:
        """Returns the lines that the chunk completes.

        Raises:
            MessageTooLarge: One exceeds the limit. It is skipped; the others are in ``complete``.
            json.JSONDecodeError, RecursionError: One cannot be parsed; the others are in ``complete``.
        """
    def finish(self) -> list[_L]:
        """Ends the stream. Returns the last line, if it had no line break."""

@final
class MessageParser:
    """Parses JSON-RPC messages from the chunks of a body, which may be split anywhere.

    Args:
        content_type: The content type of the body: Server-Sent Events, NDJSON, or JSON with one message, several, or a
            batch. Other content is skipped.
        max_message_bytes: The limit of one message. Default: 4 GiB.
        parsed: Whether to return objects, like those of ``json.loads``, instead of bytes.
    """

    def __new__(
        cls, content_type: str | None, *, max_message_bytes: int = ..., parsed: bool = False
    ) -> MessageParser: ...
    def feed(self, chunk: Buffer) -> list[Any]:
        """Returns the messages that the chunk completes.

        Raises:
            MessageTooLarge: One exceeds the limit. It is skipped; the others are in ``complete``.
            RecursionError: One is nested too deeply for objects; the others are in ``complete``.
        """
    def finish(self) -> list[Any]:
        """Ends the body. Returns the messages that its end completes.

        Raises:
            InvalidMessage: There was other content, and no message.
        """
