"""The native module: only for this package, but for what ``mcp_gangway`` gives on."""

import asyncio
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
    "shown",
]

VERSION: str

def message_headers(message: bytes) -> list[tuple[bytes, bytes]]: ...
def shown(text: str) -> str: ...
def loads(document: bytes) -> Any: ...

@final
class Completions:
    """What is complete for one event loop."""

    def __new__(cls) -> Completions: ...
    def fileno(self) -> int: ...
    def take_signal(self) -> None: ...
    def deliver(self) -> None: ...

@final
class Call:
    """What one thread waits for."""

    def __new__(cls) -> Call: ...
    def wait(self, limit: float | None) -> bool: ...
    def result(self) -> Any: ...

@final
class Operation:
    """Something in the background whose end somebody waits for."""

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
    """The body of a request while it is made."""

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
    @property
    def content(self) -> bytes | None: ...
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
        """The data as objects, as ``json.loads`` makes them.

        Raises:
            json.JSONDecodeError: It is no JSON.
            RecursionError: It is nested too deeply.
        """
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

_E = TypeVar("_E", default=Event)
_L = TypeVar("_L", default=bytes)

@final
class SseParser(Generic[_E]):
    """Server-Sent Events out of chunks that are cut anywhere, by the WHATWG rules.

    Args:
        max_event_bytes: The most that the data of one event may hold (4 GiB).
        parsed: Whether no events are given but their data as objects, as ``json.loads`` makes them; those without data
            are left out.
    """

    @overload
    def __new__(cls, *, max_event_bytes: int = ..., parsed: Literal[False] = False) -> SseParser[Event]: ...
    @overload
    def __new__(cls, *, max_event_bytes: int = ..., parsed: bool) -> SseParser[Any]: ...
    def feed(self, chunk: Buffer) -> list[_E]:
        """The events that the chunk completes.

        Raises:
            MessageTooLarge: The data of one is over the limit. It is passed over; the others are in ``complete``.
            json.JSONDecodeError, RecursionError: The data of one is no JSON; the same goes for the others.
        """
    def finish(self, *, incomplete: bool = False) -> list[_E]:
        """The stream is over. The rules drop the event that it ended in, as it may be cut short; ``incomplete`` gives
        it all the same.
        """

@final
class NdjsonParser(Generic[_L]):
    """Lines out of chunks that are cut anywhere, without their ends and without those that are blank.

    Args:
        max_line_bytes: The most that one line may hold (4 GiB).
        parsed: Whether they are given as objects, as ``json.loads`` makes them, and not as bytes.
    """

    @overload
    def __new__(cls, *, max_line_bytes: int = ..., parsed: Literal[False] = False) -> NdjsonParser[bytes]: ...
    @overload
    def __new__(cls, *, max_line_bytes: int = ..., parsed: bool) -> NdjsonParser[Any]: ...
    def feed(self, chunk: Buffer) -> list[_L]:
        """The lines that the chunk completes.

        Raises:
            MessageTooLarge: One is over the limit. It is passed over; the others are in ``complete``.
            json.JSONDecodeError, RecursionError: One is no JSON; the same goes for the others.
        """
    def finish(self) -> list[_L]:
        """The stream is over: its last line, if that had no end."""

@final
class MessageParser:
    """JSON-RPC messages out of the chunks of a body that are cut anywhere.

    Args:
        content_type: That of the body: Server-Sent Events, NDJSON, or JSON with one message, several, or a batch. What
            is no message is passed over.
        max_message_bytes: The most that one message may hold (4 GiB).
        parsed: Whether they are given as objects, as ``json.loads`` makes them, and not as bytes.
    """

    def __new__(
        cls, content_type: str | None, *, max_message_bytes: int = ..., parsed: bool = False
    ) -> MessageParser: ...
    def feed(self, chunk: Buffer) -> list[Any]:
        """The messages that the chunk completes.

        Raises:
            MessageTooLarge: One is over the limit. It is passed over; the others are in ``complete``.
            RecursionError: One is nested too deeply to be made objects; the same goes for the others.
        """
    def finish(self) -> list[Any]:
        """The body is over: the messages that its end completes.

        Raises:
            InvalidMessage: There was other content, and no message.
        """
