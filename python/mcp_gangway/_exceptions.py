"""The exceptions, with the names and the hierarchy of httpx.

Rule: every exception says in one line what failed. ``__cause__`` is the error from the system, the network or the peer.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._models import Request
    from ._response import Response

__all__ = [
    "CloseError",
    "ConnectError",
    "ConnectTimeout",
    "DecodingError",
    "HTTPError",
    "HTTPStatusError",
    "InvalidMessage",
    "InvalidURL",
    "LocalProtocolError",
    "MessageTooLarge",
    "NetworkError",
    "PoolTimeout",
    "ProtocolError",
    "ProxyError",
    "ReadError",
    "ReadTimeout",
    "RemoteProtocolError",
    "RequestError",
    "ResponseNotRead",
    "StreamClosed",
    "StreamConsumed",
    "StreamError",
    "TimeoutException",
    "TooManyRedirects",
    "TransportError",
    "UnsupportedProtocol",
    "WriteError",
    "WriteTimeout",
]


def _reduced(exception: Exception) -> Any:
    """Lets an exception be pickled and copied, whatever arguments it is made of."""
    return _restored, (type(exception), exception.args, exception.__dict__)


def _restored(kind: type[Exception], arguments: tuple[Any, ...], attributes: dict[str, Any]) -> Exception:
    exception = kind.__new__(kind, *arguments)
    exception.args = arguments
    exception.__dict__.update(attributes)
    return exception


class HTTPError(Exception):
    """A failed request, or a response with a status other than success."""

    def __init__(self, message: str, *, request: Request | None = None) -> None:
        super().__init__(message)
        self._request = request

    __reduce__ = _reduced

    @property
    def request(self) -> Request:
        """The request that failed.

        Raises:
            RuntimeError: The exception belongs to no request.
        """
        if self._request is None:
            raise RuntimeError("The .request property has not been set.")
        return self._request

    @request.setter
    def request(self, request: Request) -> None:
        self._request = request


class RequestError(HTTPError):
    """No response arrived, or only a part."""


class TransportError(RequestError):
    """The connection to the server failed."""


class TimeoutException(TransportError):
    """A timeout expired."""


class ConnectTimeout(TimeoutException):
    """Connecting took too long: DNS, TCP, proxy and TLS together."""


class ReadTimeout(TimeoutException):
    """The server sent nothing for too long."""


class WriteTimeout(TimeoutException):
    """The server accepted nothing of the request for too long."""


class PoolTimeout(TimeoutException):
    """All connections were in use, and none became free in time."""


class NetworkError(TransportError):
    """The network failed."""


class ConnectError(NetworkError):
    """The server could not be reached: no address, no connection, or no TLS. Nothing was sent."""


class ReadError(NetworkError):
    """The connection broke while waiting for the response or reading it."""


class WriteError(NetworkError):
    """The connection broke while writing the request."""


class CloseError(NetworkError):
    """The connection could not be closed."""


class ProxyError(TransportError):
    """The proxy requires credentials, or refused those given."""


class UnsupportedProtocol(TransportError):
    """The URL's scheme is neither http nor https."""


class ProtocolError(TransportError):
    """The HTTP protocol was violated."""


class LocalProtocolError(ProtocolError):
    """The request cannot be sent over HTTP."""


class RemoteProtocolError(ProtocolError):
    """The server violated HTTP, or ended its response too early."""


class DecodingError(RequestError):
    """The response cannot be decoded."""


class InvalidMessage(DecodingError):
    """The response contains other content, and no JSON-RPC message."""


class MessageTooLarge(DecodingError):
    """An event, line or message exceeds the limit. It was skipped; reading can continue."""

    #: The complete items of the same chunk, which no other result contains.
    complete: list[Any]


class TooManyRedirects(RequestError):
    """There were too many redirects."""


class HTTPStatusError(HTTPError):
    """The response has a status other than success."""

    def __init__(self, message: str, *, request: Request, response: Response) -> None:
        super().__init__(message, request=request)
        #: The response, whose body can still be read.
        self.response = response


class InvalidURL(Exception):
    """The text is not a URL."""


class StreamError(RuntimeError):
    """The program reads a response in an invalid way."""

    __reduce__ = _reduced


class StreamConsumed(StreamError):
    """A body that can be read only once was read already, or is being read."""

    def __init__(self, message: str = "The response's body was read already: it can be read only once.") -> None:
        super().__init__(message)


class StreamClosed(StreamError):
    """The response was closed before its body was read to the end."""

    def __init__(
        self, message: str = "The response was closed: read its body inside the block that opened it."
    ) -> None:
        super().__init__(message)


class ResponseNotRead(StreamError):
    """The body was requested, but was not read before."""

    def __init__(self) -> None:
        super().__init__("The response's body was not read: call response.read() first, or await response.aread().")


#: Exception classes by kind. The native module uses the kinds of the bridge's errors.
_CLASSES: dict[str, type[RequestError]] = {
    "connect_timeout": ConnectTimeout,
    "read_timeout": ReadTimeout,
    "write_timeout": WriteTimeout,
    "pool_timeout": PoolTimeout,
    "dns": ConnectError,
    "forbidden_address": ConnectError,
    "connect": ConnectError,
    "tls": ConnectError,
    "proxy": ProxyError,
    "connection_lost": RemoteProtocolError,
    "invalid_request": LocalProtocolError,
    "invalid_answer": RemoteProtocolError,
    "not_decoded": DecodingError,
    "no_message": InvalidMessage,
    "too_large": MessageTooLarge,
    "closed": ReadError,
}

_TIMEOUTS: dict[type[RequestError], str] = {
    ConnectTimeout: "connecting took",
    ReadTimeout: "the server sent nothing for",
    WriteTimeout: "the server accepted nothing of the body for",
    PoolTimeout: "all connections were in use for",
}


def from_native(kind: str, message: str, causes: Sequence[tuple[int | None, str]]) -> Exception:
    """Creates the exception for a failure of the native module."""
    if kind == "invalid_url":
        return InvalidURL(message)
    found = _CLASSES.get(kind, TransportError)
    number = next((number for number, _ in causes if number is not None), None)
    if found is RemoteProtocolError and number is not None:
        # A network error, not a server that ended early.
        found = ReadError
    if found in _TIMEOUTS:
        message = f"{_TIMEOUTS[found]} {message}"
    exception = found(message)
    if causes:
        text = ": ".join(text for _, text in causes)
        exception.__cause__ = OSError(number, os.strerror(number)) if number else OSError(text)
        if number and text:
            exception.__cause__.__cause__ = OSError(text)
    return exception
