"""A response: its head, and its body as bytes, text, lines, events or JSON-RPC messages while they arrive.

Rule: a body arrives once, and nothing of it is kept that was not asked for. Whoever leaves the block that opened the
response, by whatever way, frees its connection at once.
"""

from __future__ import annotations

import codecs
import json as _json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

from ._exceptions import (
    DecodingError,
    HTTPStatusError,
    RequestError,
    ResponseNotRead,
    StreamClosed,
    StreamConsumed,
)
from ._loop import complete
from ._models import URL, Headers, Request
from ._native import Event, HttpResponse, MessageParser, NdjsonParser, SseParser

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import timedelta
    from typing import Protocol

    from ._upload import UploadTask

    T = TypeVar("T")

    class _Parser(Protocol[T]):
        def feed(self, chunk: bytes, /) -> list[T]: ...


class Response:
    """A response of :class:`AsyncClient`. Programs do not make it themselves."""

    def __init__(
        self, native: HttpResponse, request: Request, elapsed: timedelta, upload: UploadTask | None = None
    ) -> None:
        self._native = native
        self._upload = upload
        self._content = native.content
        self._is_consumed = self._content is not None
        self._is_closed = self._is_consumed
        #: The request that it answers.
        self.request = request
        #: The URL that was asked.
        self.url: URL = request.url
        #: The HTTP status.
        self.status_code: int = native.status
        #: ``HTTP/1.1`` or ``HTTP/2``.
        self.http_version: str = native.http_version
        #: The headers. They say how the body was compressed, though what is read is not.
        self.headers = Headers(native.headers)
        #: From the request to the head of the response.
        self.elapsed: timedelta = elapsed

    @property
    def reason_phrase(self) -> str:
        """The status in words, as the standard has them."""
        try:
            return HTTPStatus(self.status_code).phrase
        except ValueError:
            return ""

    @property
    def is_informational(self) -> bool:
        """Whether the status is 1xx."""
        return 100 <= self.status_code < 200

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status_code < 300

    @property
    def is_redirect(self) -> bool:
        """Whether the status is 3xx."""
        return 300 <= self.status_code < 400

    @property
    def has_redirect_location(self) -> bool:
        """Whether the response says where to go instead."""
        return self.status_code in (301, 302, 303, 307, 308) and "location" in self.headers

    @property
    def is_client_error(self) -> bool:
        """Whether the status is 4xx."""
        return 400 <= self.status_code < 500

    @property
    def is_server_error(self) -> bool:
        """Whether the status is 5xx."""
        return 500 <= self.status_code < 600

    @property
    def is_error(self) -> bool:
        """Whether the status is 4xx or 5xx."""
        return 400 <= self.status_code < 600

    @property
    def is_closed(self) -> bool:
        """Whether nothing more can be read, and the connection is free."""
        return self._is_closed

    @property
    def is_stream_consumed(self) -> bool:
        """Whether the body was read, or is being read."""
        return self._is_consumed

    def raise_for_status(self) -> Response:
        """Gives the response itself.

        Raises:
            HTTPStatusError: Its status is no success.
        """
        if self.is_success:
            return self
        kind = "Redirect response" if self.is_redirect else "Error"
        if self.is_client_error:
            kind = "Client error"
        elif self.is_server_error:
            kind = "Server error"
        message = f"{kind} '{self.status_code} {self.reason_phrase}' for url '{self.url.sent()}'"
        if self.has_redirect_location:
            message += f"\nRedirect location: {self.headers['location']!r}"
        raise HTTPStatusError(message, request=self.request, response=self)

    async def aread(self) -> bytes:
        """The whole body, decompressed. Later calls give the same.

        Raises:
            StreamConsumed: It was read in another way.
            StreamClosed: The response was closed before.
            RequestError: It did not arrive.
        """
        if self._content is None:
            self._content = b"".join([chunk async for chunk in self.aiter_bytes()])
        return self._content

    @property
    def content(self) -> bytes:
        """The whole body.

        Raises:
            ResponseNotRead: Nobody read it yet.
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
        """The charset by which the body is read: UTF-8 if the server names none that is known."""
        try:
            return codecs.lookup(self.charset_encoding or "utf-8").name
        except LookupError:
            return "utf-8"

    @property
    def text(self) -> str:
        """The whole body as text, with U+FFFD for what cannot be decoded.

        Raises:
            ResponseNotRead: Nobody read it yet.
        """
        return self.content.decode(self.encoding, errors="replace")

    def json(self, **kwargs: Any) -> Any:
        """The whole body as JSON; ``kwargs`` are those of ``json.loads``.

        Raises:
            ResponseNotRead: Nobody read it yet.
            json.JSONDecodeError: It is no JSON.
        """
        return _json.loads(self.content, **kwargs)

    def aiter_raw(self, chunk_size: int | None = None) -> AsyncIterator[bytes]:
        """The body as it arrives, compressed if it is; ``chunk_size`` bytes at a time, if that is said."""
        return _sized(self._chunks(raw=True), chunk_size)

    def aiter_bytes(self, chunk_size: int | None = None) -> AsyncIterator[bytes]:
        """The body as it arrives, decompressed; ``chunk_size`` bytes at a time, if that is said."""
        return _sized(self._chunks(raw=False), chunk_size)

    async def aiter_text(self, chunk_size: int | None = None) -> AsyncIterator[str]:
        """The body as text; ``chunk_size`` characters at a time, if that is said. Characters are never cut."""
        decoder = codecs.getincrementaldecoder(self.encoding)(errors="replace")
        held = ""
        async for chunk in self.aiter_bytes():
            text = decoder.decode(chunk)
            if chunk_size is None:
                if text:
                    yield text
                continue
            held += text
            whole = len(held) // chunk_size * chunk_size
            for at in range(0, whole, chunk_size):
                yield held[at : at + chunk_size]
            held = held[whole:]
        held += decoder.decode(b"", final=True)
        if held:
            yield held

    async def aiter_lines(self) -> AsyncIterator[str]:
        """The lines of the body, without their ends (LF, CRLF or CR).

        Raises:
            MessageTooLarge: A line is over 4 GiB.
        """
        pieces: list[str] = []
        after_cr = False
        async for text in self.aiter_text():
            if after_cr and text.startswith("\n"):
                text = text[1:]
            after_cr = text.endswith("\r")
            lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
            if len(lines) == 1:
                pieces.append(text)
                continue
            yield "".join((*pieces, lines[0]))
            for line in lines[1:-1]:
                yield line
            pieces = [lines[-1]] if lines[-1] else []
        if pieces:
            yield "".join(pieces)

    def aiter_sse(self, *, max_event_bytes: int = 4 << 30) -> AsyncIterator[Event]:
        """The body's Server-Sent Events, by the WHATWG rules.

        Raises:
            MessageTooLarge: The data of an event is over ``max_event_bytes``.
        """
        parser = SseParser(max_event_bytes=max_event_bytes)
        return self._parsed(parser, parser.finish)

    def aiter_ndjson(self, *, max_line_bytes: int = 4 << 30) -> AsyncIterator[bytes]:
        """The lines of an NDJSON body as bytes, without those that are blank.

        Raises:
            MessageTooLarge: A line is over ``max_line_bytes``.
        """
        parser = NdjsonParser(max_line_bytes=max_line_bytes)
        return self._parsed(parser, parser.finish)

    def aiter_messages(self, *, max_message_bytes: int = 4 << 30) -> AsyncIterator[bytes]:
        """The body's JSON-RPC messages as bytes, in whatever content type they come: Server-Sent Events, NDJSON, or
        JSON with one message, several, or a batch. Other content is passed over.

        Raises:
            InvalidMessage: There is other content, and no message.
            MessageTooLarge: A message is over ``max_message_bytes``.
        """
        parser = MessageParser(self.headers.get("content-type"), max_message_bytes=max_message_bytes)
        return self._parsed(parser, parser.finish)

    async def aclose(self) -> None:
        """Frees the connection; what was not read is lost."""
        self.close()

    def close(self) -> None:
        """The same, for where nothing can be awaited."""
        self._is_closed = True
        if self._upload is not None:
            self._upload.stop()
        self._native.close()

    def __repr__(self) -> str:
        return f"<Response [{self.status_code} {self.reason_phrase}]>"

    async def _parsed(self, parser: _Parser[T], finish: Any) -> AsyncIterator[T]:
        try:
            async for chunk in self.aiter_bytes():
                for item in parser.feed(chunk):
                    yield item
            for item in finish():
                yield item
        except DecodingError as error:
            for item in getattr(error, "complete", ()):
                yield item
            error.request = self.request
            raise

    async def _chunks(self, *, raw: bool) -> AsyncIterator[bytes]:
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
                    await complete(native.wait)
                for chunk in chunks:
                    yield chunk
        except RequestError as error:
            error.request = self.request
            if self._upload is not None:
                self._upload.check()
            raise
        finally:
            # Also for whoever stops in between.
            self.close()


async def _sized(chunks: AsyncIterator[bytes], size: int | None) -> AsyncIterator[bytes]:
    if size is None:
        async for chunk in chunks:
            yield chunk
        return
    held = bytearray()
    async for chunk in chunks:
        held += chunk
        at = 0
        while len(held) - at >= size:
            yield bytes(held[at : at + size])
            at += size
        del held[:at]
    if held:
        yield bytes(held)
