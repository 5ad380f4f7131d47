"""A response: its head, and its body as a stream of bytes, text, lines, events or JSON-RPC messages.

Rule: a body can be read only once, and is not stored unless requested. Leaving the block that opened the response
always frees its connection at once.
"""

from __future__ import annotations

import asyncio
import json as _json
import time
from collections.abc import AsyncIterable, Callable, Iterable
from contextlib import aclosing, closing
from functools import lru_cache
from http import HTTPStatus
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from . import _loop, _threads
from ._exceptions import (
    DecodingError,
    HTTPStatusError,
    InvalidMessage,
    NetworkError,
    RemoteProtocolError,
    RequestError,
    ResponseNotRead,
    StreamClosed,
    StreamConsumed,
    TimeoutException,
)
from ._models import Headers, HeaderTypes, Request
from ._native import Event, HttpResponse, MessageParser, NdjsonParser, SseParser, loads, shown
from ._stages import Expected, Lines, Pieces, Stage, Text, checked_size
from ._urls import URL, utf8

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping
    from datetime import timedelta

    from ._cookies import Cookies
    from ._upload import UploadTask

    ResponseContent = bytes | str | Iterable[bytes] | AsyncIterable[bytes]

#: Marks that there is no item yet.
_NOTHING: Final = object()


class Response:
    """A response of :class:`AsyncClient` or :class:`Client`, or one made by hand, for tests and transports.

    Methods that wait have two names: with the prefix ``a`` for an ``AsyncClient``, without it for a ``Client``.

    Args:
        status_code: The HTTP status.
        headers: The headers.
        content: The body: bytes, text, or an iterable of bytes (async or not), which is read as a stream.
        stream: The same for iterables only. Its ``aclose`` or ``close`` is called when the response is closed.
        text, html, json: A body with its content type.
        request: The request. A client sets it.
        extensions: More about the response, such as ``{"http_version": b"HTTP/1.1"}``.
        history: The redirects that led here.
        default_encoding: The charset of a body without one, or a function that finds it in the body.
    """

    #: A body made by hand that is read as a stream.
    _pieces: Iterable[bytes] | AsyncIterable[bytes] | None
    #: The redirects that led here, the first one first.
    history: list[Response]
    _default_encoding: str | Callable[[bytes], str]

    def __init__(
        self,
        status_code: int,
        *,
        headers: HeaderTypes = None,
        content: ResponseContent | None = None,
        stream: Iterable[bytes] | AsyncIterable[bytes] | None = None,
        text: str | None = None,
        html: str | None = None,
        json: Any = None,
        request: Request | None = None,
        extensions: Mapping[str, Any] | None = None,
        history: list[Response] | None = None,
        default_encoding: str | Callable[[bytes], str] = "utf-8",
    ) -> None:
        given = Headers(headers)
        pieces: Iterable[bytes] | AsyncIterable[bytes] | None = None
        kind: str | None = None
        if text is not None:
            content, kind = text, "text/plain; charset=utf-8"
        elif html is not None:
            content, kind = html, "text/html; charset=utf-8"
        elif json is not None:
            content, kind = _json.dumps(json, ensure_ascii=False, separators=(",", ":")), "application/json"
        if kind is not None:
            given.setdefault("Content-Type", kind)
        if stream is not None:
            content = stream
        if isinstance(content, str):
            content = utf8(content, "content")
        if content is None or isinstance(content, (bytes, bytearray, memoryview)):
            content = bytes(content or b"")
            if content or kind is not None:
                given.setdefault("Content-Length", str(len(content)))
        else:
            pieces, content = content, None
        self._set(status_code, given, request, extensions, content)
        self._pieces = pieces
        self._default_encoding = default_encoding
        self.history = list(history or ())

    @classmethod
    def _received(
        cls, native: HttpResponse, request: Request, upload: UploadTask | None = None, *, is_async: bool = True
    ) -> Response:
        """Creates the response that the native core has received."""
        response = cls.__new__(cls)
        version = native.http_version.encode("ascii")
        content = native.take_content()
        response._set(native.status, Headers(native.headers), request, {"http_version": version}, content)
        response._native = native
        response._upload = upload
        response._is_async = is_async
        return response

    def _set(
        self,
        status_code: int,
        headers: Headers,
        request: Request | None,
        extensions: Mapping[str, Any] | None,
        content: bytes | None,
    ) -> None:
        self._native: HttpResponse | None = None
        self._pieces = None
        self._upload: UploadTask | None = None
        #: Whether it belongs to an ``AsyncClient``. None if both can read it.
        self._is_async: bool | None = None
        #: True if a body without a JSON-RPC message is an error.
        self._expects_message = False
        #: Sends a request again, for streams that reconnect. A client sets it.
        self._send_again: Callable[[Request], Any] | None = None
        self._content = content
        self._is_consumed = content is not None
        self._is_closed = self._is_consumed
        self._request = request
        self._elapsed: timedelta | None = None
        self._encoding: str | None = None
        self._default_encoding = "utf-8"
        #: The HTTP status.
        self.status_code: int = status_code
        #: The headers. They still name the compression of the body, although reading decompresses it.
        self.headers = headers
        #: More about the response: ``http_version``, as bytes.
        self.extensions = dict(extensions or {})
        self.history = []
        #: The request of a redirect that was not followed.
        self.next_request: Request | None = None

    @property
    def request(self) -> Request:
        """The request.

        Raises:
            RuntimeError: The response was made by hand, without one.
        """
        if self._request is None:
            raise RuntimeError("The request instance has not been set on this response.")
        return self._request

    @request.setter
    def request(self, request: Request) -> None:
        self._request = request

    @property
    def url(self) -> URL:
        """The URL of the request."""
        return self.request.url

    @property
    def elapsed(self) -> timedelta:
        """The time from the request to the head of the response.

        Raises:
            RuntimeError: The response was made by hand.
        """
        if self._elapsed is None:
            raise RuntimeError("'.elapsed' is known for responses of a client only")
        return self._elapsed

    @elapsed.setter
    def elapsed(self, elapsed: timedelta) -> None:
        self._elapsed = elapsed

    @property
    def http_version(self) -> str:
        """``HTTP/1.1`` or ``HTTP/2``."""
        version: bytes = self.extensions.get("http_version", b"HTTP/1.1")
        return version.decode("ascii", "replace")

    @property
    def cookies(self) -> Cookies:
        """The cookies that this response sets."""
        from ._cookies import Cookies

        cookies = Cookies()
        cookies.extract_cookies(self)
        return cookies

    @property
    def reason_phrase(self) -> str:
        """The standard phrase for the status."""
        try:
            return HTTPStatus(self.status_code).phrase
        except ValueError:
            return ""

    @property
    def is_informational(self) -> bool:
        """True if the status is 1xx."""
        return 100 <= self.status_code < 200

    @property
    def is_success(self) -> bool:
        """True if the status is 2xx."""
        return 200 <= self.status_code < 300

    @property
    def is_redirect(self) -> bool:
        """True if the status is 3xx."""
        return 300 <= self.status_code < 400

    @property
    def has_redirect_location(self) -> bool:
        """True if the response is a redirect with a location."""
        return self.status_code in (301, 302, 303, 307, 308) and "location" in self.headers

    @property
    def is_client_error(self) -> bool:
        """True if the status is 4xx."""
        return 400 <= self.status_code < 500

    @property
    def is_server_error(self) -> bool:
        """True if the status is 5xx."""
        return 500 <= self.status_code < 600

    @property
    def is_error(self) -> bool:
        """True if the status is 4xx or 5xx."""
        return 400 <= self.status_code < 600

    @property
    def is_closed(self) -> bool:
        """True if nothing more can be read, and the connection is free."""
        return self._is_closed

    @property
    def is_stream_consumed(self) -> bool:
        """True if the body was read, or is being read."""
        return self._is_consumed

    def raise_for_status(self) -> Response:
        """Returns the response itself.

        Raises:
            HTTPStatusError: The status is not a success.
        """
        if self.is_success:
            return self
        kind = "Redirect response" if self.is_redirect else "Error"
        if self.is_client_error:
            kind = "Client error"
        elif self.is_server_error:
            kind = "Server error"
        message = f"{kind} '{self.status_code} {self.reason_phrase}' for url '{self.url.shown()}'"
        if self.has_redirect_location:
            message += f"\nRedirect location: {_shown_location(self.headers['location'])!r}"
        raise HTTPStatusError(message, request=self.request, response=self)

    async def aread(self) -> bytes:
        """Reads the whole body, decompressed. Later calls return the same.

        Raises:
            StreamConsumed: It was read in another way.
            StreamClosed: The response was closed before.
            RequestError: It did not arrive completely.
        """
        if self._content is None:
            # Its buffer becomes the result, without a copy.
            whole = BytesIO()
            async for chunk in self.aiter_bytes():
                whole.write(chunk)
            self._content = whole.getvalue()
        return self._content

    def read(self) -> bytes:
        """Like :meth:`aread`, for a ``Client``."""
        if self._content is None:
            whole = BytesIO()
            for chunk in self.iter_bytes():
                whole.write(chunk)
            self._content = whole.getvalue()
        return self._content

    @property
    def content(self) -> bytes:
        """The whole body.

        Raises:
            ResponseNotRead: It was not read yet.
        """
        if self._content is None:
            raise ResponseNotRead
        return self._content

    @property
    def charset_encoding(self) -> str | None:
        """The charset of the content type, if it names one."""
        for part in self.headers.get("content-type", "").split(";")[1:]:
            name, _, value = part.partition("=")
            if name.strip().lower() == "charset":
                return value.strip().strip("\"'")
        return None

    @property
    def encoding(self) -> str:
        """The charset for decoding the body: UTF-8 unless the server names a known one, or the program sets one."""
        if self._encoding is None:
            charset = self.charset_encoding
            known = None if charset is None else _known_encoding(charset)
            default = self._default_encoding
            if known is None and not isinstance(default, str):
                if self._content is None:
                    return "utf-8"
                default = default(self._content)
            self._encoding = known or _known_encoding(str(default)) or "utf-8"
        return self._encoding

    @encoding.setter
    def encoding(self, encoding: str) -> None:
        self._encoding = _known_encoding(encoding) or "utf-8"

    @property
    def text(self) -> str:
        """The whole body as text, with U+FFFD for bytes that cannot be decoded.

        Raises:
            ResponseNotRead: It was not read yet.
        """
        return self.content.decode(self.encoding, errors="replace")

    def json(self, **kwargs: Any) -> Any:
        """Parses the whole body as JSON. ``kwargs`` are passed to ``json.loads``.

        Raises:
            ResponseNotRead: It was not read yet.
            json.JSONDecodeError: It is not JSON.
        """
        return _json.loads(self.content, **kwargs) if kwargs else loads(self.content)

    def aiter_raw(self, chunk_size: int | None = None) -> AsyncIterator[bytes]:
        """Streams the body without decompressing it, in pieces of ``chunk_size`` bytes if given."""
        return self._aiter(Pieces(chunk_size), raw=True)

    def iter_raw(self, chunk_size: int | None = None) -> Iterator[bytes]:
        """Like :meth:`aiter_raw`, for a ``Client``."""
        return self._iter(Pieces(chunk_size), raw=True)

    def aiter_bytes(self, chunk_size: int | None = None) -> AsyncIterator[bytes]:
        """Streams the decompressed body, in pieces of ``chunk_size`` bytes if given."""
        return self._aiter(Pieces(chunk_size))

    def iter_bytes(self, chunk_size: int | None = None) -> Iterator[bytes]:
        """Like :meth:`aiter_bytes`, for a ``Client``."""
        return self._iter(Pieces(chunk_size))

    def aiter_text(self, chunk_size: int | None = None) -> AsyncIterator[str]:
        """Streams the body as text, in pieces of ``chunk_size`` characters if given. Characters are never split."""
        return self._aiter(Text(self.encoding, chunk_size))

    def iter_text(self, chunk_size: int | None = None) -> Iterator[str]:
        """Like :meth:`aiter_text`, for a ``Client``."""
        return self._iter(Text(self.encoding, chunk_size))

    def aiter_lines(self, *, max_line_bytes: int = 4 << 30) -> AsyncIterator[str]:
        """Streams the lines of the body, without line breaks (LF, CRLF or CR).

        Raises:
            MessageTooLarge: A line exceeds ``max_line_bytes``.
        """
        return self._aiter(Lines(self.encoding, max_line_bytes))

    def iter_lines(self, *, max_line_bytes: int = 4 << 30) -> Iterator[str]:
        """Like :meth:`aiter_lines`, for a ``Client``."""
        return self._iter(Lines(self.encoding, max_line_bytes))

    def aiter_sse(self, *, max_event_bytes: int = 4 << 30, reconnect: bool = False) -> AsyncIterator[Event]:
        """Streams the body's Server-Sent Events, parsed by the WHATWG rules.

        Args:
            max_event_bytes: The limit of an event's data.
            reconnect: Whether to open the stream again when it ends or breaks, by a GET with ``Last-Event-ID``, after
                the time that the server has set with ``retry`` (3 s by default). The status 204 ends it. After five
                failures in a row the last one is raised. The response must be of a client's ``stream`` or ``send``.

        Raises:
            DecodingError: The response is not an event stream. A response of status 200 without a content type counts
                as one.
            MessageTooLarge: The data of an event exceeds ``max_event_bytes``.
        """
        events = self._aiter(self._events(max_event_bytes))
        return self._areconnecting(events, max_event_bytes) if reconnect else events

    def iter_sse(self, *, max_event_bytes: int = 4 << 30, reconnect: bool = False) -> Iterator[Event]:
        """Like :meth:`aiter_sse`, for a ``Client``."""
        events = self._iter(self._events(max_event_bytes))
        return self._reconnecting(events, max_event_bytes) if reconnect else events

    def aiter_ndjson(self, *, max_line_bytes: int = 4 << 30) -> AsyncIterator[bytes]:
        """Streams the lines of an NDJSON body as bytes, without blank lines.

        Raises:
            MessageTooLarge: A line exceeds ``max_line_bytes``.
        """
        return self._aiter(NdjsonParser(max_line_bytes=checked_size("max_line_bytes", max_line_bytes)))

    def iter_ndjson(self, *, max_line_bytes: int = 4 << 30) -> Iterator[bytes]:
        """Like :meth:`aiter_ndjson`, for a ``Client``."""
        return self._iter(NdjsonParser(max_line_bytes=checked_size("max_line_bytes", max_line_bytes)))

    def aiter_messages(self, *, max_message_bytes: int = 4 << 30) -> AsyncIterator[bytes]:
        """Streams the body's JSON-RPC messages as bytes, from any content type: Server-Sent Events, NDJSON, or JSON
        with one message, several, or a batch. Other content is skipped.

        Raises:
            InvalidMessage: There is other content, and no message.
            MessageTooLarge: A message exceeds ``max_message_bytes``.
        """
        return self._aiter(self._messages(max_message_bytes, parsed=False))

    def iter_messages(self, *, max_message_bytes: int = 4 << 30) -> Iterator[bytes]:
        """Like :meth:`aiter_messages`, for a ``Client``."""
        return self._iter(self._messages(max_message_bytes, parsed=False))

    def aiter_json(self, *, max_message_bytes: int = 4 << 30) -> AsyncIterator[Any]:
        """Streams the body's JSON-RPC messages as objects, like those of ``json.loads``.

        Raises:
            RecursionError: A message is nested too deeply. The other messages of the same chunk are yielded first, as
                for every message that cannot be parsed.
        """
        return self._aiter(self._messages(max_message_bytes, parsed=True))

    def iter_json(self, *, max_message_bytes: int = 4 << 30) -> Iterator[Any]:
        """Like :meth:`aiter_json`, for a ``Client``."""
        return self._iter(self._messages(max_message_bytes, parsed=True))

    async def aclose(self) -> None:
        """Frees the connection. The unread rest is lost."""
        self.close()

    def close(self) -> None:
        """Like :meth:`aclose`, for a ``Client`` or code that cannot await. Can be called from any thread; a reader in
        another thread gets a :class:`StreamClosed`.
        """
        self._is_closed = True
        if self._upload is not None:
            self._upload.stop()
        if self._native is not None:
            self._native.close()

    def __getstate__(self) -> dict[str, Any]:
        # A body that was not read stays behind, with its connection.
        kept = {name: value for name, value in self.__dict__.items() if name not in _NOT_COPIED}
        return kept | dict.fromkeys(_NOT_COPIED) | {"_is_closed": True}

    def __repr__(self) -> str:
        return f"<Response [{self.status_code} {self.reason_phrase}]>"

    async def _aread_short(self, limit: int) -> None:
        """Reads the body if it is short. Otherwise closes the response, whose body stays unread."""
        content = bytearray()
        async for piece in self.aiter_bytes():
            content += piece
            if len(content) > limit:
                self.close()
                return
        self._content = bytes(content)

    def said(self) -> str:
        """Returns what the server says in a body that was read: the message of JSON, or the first line of plain text.
        Nothing of other bodies.
        """
        if not self._content:
            return ""
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        try:
            found = _message_of(loads(self._content))
        except (ValueError, RecursionError):
            found = self.text.strip().partition("\n")[0].strip() if kind in ("", "text/plain") else ""
        return shown(found[:_LONGEST_SAID])

    async def _areconnecting(self, events: AsyncIterator[Event], limit: int) -> AsyncIterator[Event]:
        state = _Reconnection(self)
        while True:
            try:
                async with aclosing(events) as open_events:  # type: ignore[type-var]
                    async for event in open_events:
                        state.note(event)
                        yield event
            except _INTERRUPTIONS as error:
                state.fail(error)
            response = None
            while response is None:
                await asyncio.sleep(state.wait)
                try:
                    response = await state.send(state.request())
                except _INTERRUPTIONS as error:
                    state.fail(error)
            if response.status_code == HTTPStatus.NO_CONTENT:
                response.close()
                return
            events = response._aiter(state.stage(response, limit))

    def _reconnecting(self, events: Iterator[Event], limit: int) -> Iterator[Event]:
        state = _Reconnection(self)
        while True:
            try:
                with closing(events) as open_events:  # type: ignore[type-var]
                    for event in open_events:
                        state.note(event)
                        yield event
            except _INTERRUPTIONS as error:
                state.fail(error)
            response = None
            while response is None:
                time.sleep(state.wait)
                try:
                    response = state.send(state.request())
                except _INTERRUPTIONS as error:
                    state.fail(error)
            if response.status_code == HTTPStatus.NO_CONTENT:
                response.close()
                return
            events = response._iter(state.stage(response, limit))

    def _events(self, limit: int) -> Stage:
        parser = SseParser(max_event_bytes=checked_size("max_event_bytes", limit))
        kind = self.headers.get("content-type", "")
        essence = kind.partition(";")[0].strip().lower()
        if essence != "text/event-stream" and (essence or self.status_code != HTTPStatus.OK):
            about = f"with the content type {shown(kind)}" if kind else "without a content type"
            raise DecodingError(
                f"the response is not an event stream: HTTP {self.status_code} {about}", request=self._request
            )
        return parser

    def _messages(self, limit: int, *, parsed: bool) -> Stage:
        limit = checked_size("max_message_bytes", limit)
        parser = MessageParser(self.headers.get("content-type"), max_message_bytes=limit, parsed=parsed)
        return Expected(parser, self._without_message) if self._expects_message else parser

    def _without_message(self) -> InvalidMessage:
        return InvalidMessage(
            f"the server answered a request with HTTP {self.status_code} and no message", request=self._request
        )

    async def _aiter(self, stage: Stage, *, raw: bool = False) -> AsyncIterator[Any]:
        self._check_kind(is_async=True)
        if isinstance(self._pieces, AsyncIterable):
            self._begin()
            async with aclosing(_own(self._pieces, self.close)) as pieces:
                async for piece in pieces:
                    for item in self._noted(stage.feed, piece):
                        yield item
            for item in self._noted(stage.finish):
                yield item
            return
        with closing(self._items(stage, raw)) as items:
            for item in items:
                if item is _NOTHING and self._native is not None:
                    await _loop.complete(self._native.wait)
                else:
                    yield item

    def _iter(self, stage: Stage, *, raw: bool = False) -> Iterator[Any]:
        self._check_kind(is_async=False)
        with closing(self._items(stage, raw)) as items:
            for item in items:
                if item is _NOTHING and self._native is not None:
                    _threads.complete(self._native.wait)
                else:
                    yield item

    def _check_kind(self, *, is_async: bool) -> None:
        own = self._is_async
        if self._pieces is not None:
            # A list of pieces can be read by both.
            own = True if isinstance(self._pieces, AsyncIterable) else None
        if self._content is None and own not in (None, is_async):
            whose, other = ("AsyncClient", "aiter_…") if own else ("Client", "iter_…")
            raise RuntimeError(f"this is a response of {whose}: read it with {other}")

    def _items(self, stage: Stage, raw: bool) -> Generator[Any, None, None]:
        """Yields the stage's items of the body, or ``_NOTHING`` when the caller must wait for more."""
        with closing(self._chunks(raw)) as chunks:
            for chunk in chunks:
                if chunk is _NOTHING:
                    yield chunk
                else:
                    yield from self._noted(stage.feed, chunk)
        yield from self._noted(stage.finish)

    def _noted(self, step: Callable[..., Iterable[Any]], *chunk: bytes) -> Iterator[Any]:
        """Yields the items of a stage's step. If one fails, yields the others first."""
        try:
            yield from step(*chunk)
        except (DecodingError, RecursionError, ValueError) as error:
            yield from getattr(error, "complete", ())
            if isinstance(error, DecodingError) and self._request is not None:
                error.request = self._request
            raise

    def _begin(self) -> None:
        """Begins to read, which is possible once.

        Raises:
            StreamConsumed: It was read already.
            StreamClosed: The response was closed.
        """
        if self._is_consumed:
            raise StreamConsumed
        if self._is_closed:
            raise StreamClosed
        self._is_consumed = True

    def _given_pieces(self) -> Iterator[bytes]:
        pieces: Any = self._pieces
        try:
            yield from pieces
        finally:
            if hasattr(pieces, "close"):
                pieces.close()

    def _chunks(self, raw: bool) -> Generator[Any, None, None]:
        if self._content is not None and (not raw or self._native is None):
            if self._content:
                yield self._content
            return
        self._begin()
        native = self._native
        try:
            if native is None:
                yield from self._given_pieces()
                return
            native.start(raw)
            while (chunks := native.take()) is not None:
                if not chunks:
                    yield _NOTHING
                yield from chunks
        except RequestError as error:
            if self._is_closed:
                raise StreamClosed("The response was closed while it was read.") from None
            if self._request is not None:
                error.request = self._request
            if self._upload is not None:
                self._upload.check()
            raise
        finally:
            # Also if the reader stops early.
            self.close()


#: The failures after which a stream of events is opened again.
_INTERRUPTIONS = (NetworkError, TimeoutException, RemoteProtocolError)
#: The most failures in a row.
_MOST_FAILURES = 5
#: The seconds before a stream is opened again, unless the server sets another time.
_DEFAULT_WAIT = 3.0
#: Headers of a request with a body, which the GET that opens the stream again has not.
_OF_BODIES = ("content-length", "content-type", "content-encoding", "transfer-encoding", "last-event-id")


class _Reconnection:
    """What is needed to open a stream of events again (WHATWG HTML, 9.2.3)."""

    def __init__(self, response: Response) -> None:
        if response._send_again is None:
            raise RuntimeError("only a response of a client's stream or send can reconnect")
        self.send = response._send_again
        self.wait = _DEFAULT_WAIT
        self._request = response.request
        self._last_id = ""
        self._failures = 0

    def note(self, event: Event) -> None:
        """Takes what an event says about the stream."""
        self._last_id = event.id
        self._failures = 0
        if event.retry is not None:
            self.wait = event.retry / 1000

    def fail(self, error: RequestError) -> None:
        """Counts a failure, and raises it if it was one too many."""
        self._failures += 1
        if self._failures >= _MOST_FAILURES:
            raise error

    def request(self) -> Request:
        """Returns the request that opens the stream again."""
        old = self._request
        headers = old.headers.copy()
        for name in _OF_BODIES:
            headers.pop(name, None)
        if self._last_id:
            headers["Last-Event-ID"] = self._last_id
        return Request("GET", old.url, headers=headers, extensions=old.extensions)

    def stage(self, response: Response, limit: int) -> Stage:
        """Returns the parser for the stream that was opened again."""
        try:
            stage = response._events(limit)
        except DecodingError:
            response.close()
            raise
        # The id stays until the server sets another.
        stage.feed(f"id: {self._last_id}\n\n".encode())
        return stage


#: The attributes that are neither pickled nor copied.
_NOT_COPIED = ("_native", "_pieces", "_upload", "_is_async", "_send_again")


async def _own(pieces: AsyncIterable[bytes], close: Callable[[], None]) -> AsyncGenerator[bytes, None]:
    """Yields the pieces, and closes the response at the end, or if the reader stops early."""
    try:
        async for piece in pieces:
            yield piece
    finally:
        close()
        if hasattr(pieces, "aclose"):
            await pieces.aclose()


#: The most characters of a server's text in an exception.
_LONGEST_SAID = 512


def _message_of(document: Any) -> str:
    """Returns the message of a JSON error: of JSON-RPC, OAuth, problem details (RFC 9457) or another usual form."""
    if isinstance(document, str):
        return document
    if isinstance(document, dict):
        for name in ("error_description", "error", "message", "detail", "title"):
            if found := _message_of(document.get(name)):
                return found
    return ""


@lru_cache(maxsize=64)
def _known_encoding(charset: str) -> str | None:
    """Returns the charset. None if it has no decoder that can decode any bytes as text."""
    try:
        b"a\xff".decode(charset, errors="replace")
        Text(charset).feed(b"a\xff")
    except (LookupError, ValueError, TypeError, AttributeError, AssertionError):
        return None
    return charset


def _shown_location(location: str) -> str:
    """Returns a location without user, password and query, as far as it is a URL."""
    path, mark, _ = location.partition("#")[0].partition("?")
    scheme, separator, rest = path.partition("//")
    authority, slash, target = rest.partition("/")
    shown = f"{scheme}{separator}{authority.rpartition('@')[2]}{slash}{target}" if separator else path
    return shown + ("?…" if mark else "")
