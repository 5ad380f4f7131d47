"""A response: its head, and its body as a stream of bytes, text, lines, events or JSON-RPC messages.

Rule: a body can be read only once, and is not stored unless requested. Leaving the block that opened the response
always frees its connection at once.
"""

from __future__ import annotations

import codecs
import json as _json
from contextlib import closing
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from . import _loop, _threads
from ._exceptions import (
    DecodingError,
    HTTPStatusError,
    InvalidMessage,
    RequestError,
    ResponseNotRead,
    StreamClosed,
    StreamConsumed,
)
from ._models import Headers, Request
from ._native import Event, HttpResponse, MessageParser, NdjsonParser, SseParser, loads, shown
from ._stages import Expected, Lines, Pieces, Stage, Text, checked_size
from ._urls import URL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator
    from datetime import timedelta

    from ._upload import UploadTask

#: Marks that there is no item yet.
_NOTHING: Final = object()


class Response:
    """A response of :class:`AsyncClient` or :class:`Client`. Programs do not create it themselves.

    Methods that wait have two names: with the prefix ``a`` for an ``AsyncClient``, without it for a ``Client``.
    """

    def __init__(
        self,
        native: HttpResponse,
        request: Request,
        elapsed: timedelta,
        upload: UploadTask | None = None,
        *,
        is_async: bool = True,
    ) -> None:
        self._native = native
        self._upload = upload
        self._is_async = is_async
        #: True if a body without a JSON-RPC message is an error.
        self._expects_message = False
        self._content = native.content
        self._is_consumed = self._content is not None
        self._is_closed = self._is_consumed
        #: The request.
        self.request = request
        #: The URL of the request.
        self.url: URL = request.url
        #: The HTTP status.
        self.status_code: int = native.status
        #: ``HTTP/1.1`` or ``HTTP/2``.
        self.http_version: str = native.http_version
        #: The headers. They still name the compression of the body, although reading decompresses it.
        self.headers = Headers(native.headers)
        #: The time from the request to the head of the response.
        self.elapsed: timedelta = elapsed

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
            self._content = b"".join([chunk async for chunk in self.aiter_bytes()])
        return self._content

    def read(self) -> bytes:
        """Like :meth:`aread`, for a ``Client``."""
        if self._content is None:
            self._content = b"".join(self.iter_bytes())
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
        """The charset for decoding the body: UTF-8 unless the server names a known one."""
        charset = self.charset_encoding
        return "utf-8" if charset is None else _known_encoding(charset)

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

    def aiter_sse(self, *, max_event_bytes: int = 4 << 30) -> AsyncIterator[Event]:
        """Streams the body's Server-Sent Events, parsed by the WHATWG rules.

        Raises:
            DecodingError: The response is not an event stream. A response of status 200 without a content type counts
                as one.
            MessageTooLarge: The data of an event exceeds ``max_event_bytes``.
        """
        return self._aiter(self._events(max_event_bytes))

    def iter_sse(self, *, max_event_bytes: int = 4 << 30) -> Iterator[Event]:
        """Like :meth:`aiter_sse`, for a ``Client``."""
        return self._iter(self._events(max_event_bytes))

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
        self._native.close()

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

    def _events(self, limit: int) -> Stage:
        parser = SseParser(max_event_bytes=checked_size("max_event_bytes", limit))
        kind = self.headers.get("content-type", "")
        essence = kind.partition(";")[0].strip().lower()
        if essence != "text/event-stream" and (essence or self.status_code != HTTPStatus.OK):
            about = f"with the content type {shown(kind)}" if kind else "without a content type"
            raise DecodingError(
                f"the response is not an event stream: HTTP {self.status_code} {about}", request=self.request
            )
        return parser

    def _messages(self, limit: int, *, parsed: bool) -> Stage:
        limit = checked_size("max_message_bytes", limit)
        parser = MessageParser(self.headers.get("content-type"), max_message_bytes=limit, parsed=parsed)
        return Expected(parser, self._without_message) if self._expects_message else parser

    def _without_message(self) -> InvalidMessage:
        return InvalidMessage(
            f"the server answered a request with HTTP {self.status_code} and no message", request=self.request
        )

    async def _aiter(self, stage: Stage, *, raw: bool = False) -> AsyncIterator[Any]:
        self._check_kind(is_async=True)
        with closing(self._items(stage, raw)) as items:
            for item in items:
                if item is _NOTHING:
                    await _loop.complete(self._native.wait)
                else:
                    yield item

    def _iter(self, stage: Stage, *, raw: bool = False) -> Iterator[Any]:
        self._check_kind(is_async=False)
        with closing(self._items(stage, raw)) as items:
            for item in items:
                if item is _NOTHING:
                    _threads.complete(self._native.wait)
                else:
                    yield item

    def _check_kind(self, *, is_async: bool) -> None:
        if self._content is None and self._is_async is not is_async:
            own, other = ("AsyncClient", "aiter_…") if self._is_async else ("Client", "iter_…")
            raise RuntimeError(f"this is a response of {own}: read it with {other}")

    def _items(self, stage: Stage, raw: bool) -> Generator[Any, None, None]:
        """Yields the stage's items of the body, or ``_NOTHING`` when the caller must wait for more."""
        try:
            with closing(self._chunks(raw)) as chunks:
                for chunk in chunks:
                    if chunk is _NOTHING:
                        yield chunk
                        continue
                    yield from stage.feed(chunk)
            yield from stage.finish()
        except (DecodingError, RecursionError, ValueError) as error:
            # One item failed; yield the others first.
            yield from getattr(error, "complete", ())
            if isinstance(error, DecodingError):
                error.request = self.request
            raise

    def _chunks(self, raw: bool) -> Generator[Any, None, None]:
        if self._content is not None and not raw:
            if self._content:
                yield self._content
            return
        if self._is_consumed:
            raise StreamConsumed
        if self._is_closed:
            raise StreamClosed
        self._is_consumed = True
        native = self._native
        native.start(raw)
        try:
            while (chunks := native.take()) is not None:
                if not chunks:
                    yield _NOTHING
                yield from chunks
        except RequestError as error:
            if self._is_closed:
                raise StreamClosed("The response was closed while it was read.") from None
            error.request = self.request
            if self._upload is not None:
                self._upload.check()
            raise
        finally:
            # Also if the reader stops early.
            self.close()


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
def _known_encoding(charset: str) -> str:
    """Returns the name of a charset's decoder, or UTF-8 if there is none that can decode any bytes as text."""
    try:
        name = codecs.lookup(charset).name
        b"a\xff".decode(name, errors="replace")
        Text(name).feed(b"a\xff")
    except (LookupError, ValueError, TypeError, AttributeError, AssertionError):
        return "utf-8"
    return name


def _shown_location(location: str) -> str:
    """Returns a location without user, password and query, as far as it is a URL."""
    path, mark, _ = location.partition("#")[0].partition("?")
    scheme, separator, rest = path.partition("//")
    authority, slash, target = rest.partition("/")
    shown = f"{scheme}{separator}{authority.rpartition('@')[2]}{slash}{target}" if separator else path
    return shown + ("?…" if mark else "")
