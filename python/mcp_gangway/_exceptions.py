"""What can go wrong, in classes named and related as those of httpx.

Rule: every exception says what failed in one line; ``__cause__`` leads to what the system, the network or the peer
said.
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


class HTTPError(Exception):
    """Anything that goes wrong with a request, or a response of a status that is no success."""

    def __init__(self, message: str, *, request: Request | None = None) -> None:
        super().__init__(message)
        self._request = request

    @property
    def request(self) -> Request:
        """The request that failed.

        Raises:
            RuntimeError: The exception belongs to none.
        """
        if self._request is None:
            raise RuntimeError("The .request property has not been set.")
        return self._request

    @request.setter
    def request(self, request: Request) -> None:
        self._request = request


class RequestError(HTTPError):
    """No response came, or not all of it."""


class TransportError(RequestError):
    """The way to the server failed."""


class TimeoutException(TransportError):
    """Something took longer than its limit."""


class ConnectTimeout(TimeoutException):
    """Connecting took too long: address, TCP, proxy and TLS together."""


class ReadTimeout(TimeoutException):
    """The server was silent for too long."""


class WriteTimeout(TimeoutException):
    """The server took nothing of the request for too long."""


class PoolTimeout(TimeoutException):
    """None of the connections that there may be at once became free in time."""


class NetworkError(TransportError):
    """The network failed."""


class ConnectError(NetworkError):
    """The server could not be reached: no address, no connection, or no secure one. Nothing was sent."""


class ReadError(NetworkError):
    """The connection broke while the response was awaited or read."""


class WriteError(NetworkError):
    """The connection broke while the request was written."""


class CloseError(NetworkError):
    """The connection could not be closed."""


class ProxyError(TransportError):
    """The proxy wants credentials, or others."""


class UnsupportedProtocol(TransportError):
    """The URL's scheme is neither http nor https."""


class ProtocolError(TransportError):
    """Somebody broke the rules of HTTP."""


class LocalProtocolError(ProtocolError):
    """This side did: the request cannot be sent in HTTP."""


class RemoteProtocolError(ProtocolError):
    """The server did, or it ended its response before it was complete."""


class DecodingError(RequestError):
    """What the server sent cannot be decoded."""


class InvalidMessage(DecodingError):
    """The response holds no JSON-RPC message, but something else."""


class MessageTooLarge(DecodingError):
    """An event, line or message is over the limit. It was passed over; what follows can be read."""

    #: What was complete in the same chunk, and is not in any other result.
    complete: list[Any]


class TooManyRedirects(RequestError):
    """The redirects do not end."""


class HTTPStatusError(HTTPError):
    """The response's status is no success."""

    def __init__(self, message: str, *, request: Request, response: Response) -> None:
        super().__init__(message, request=request)
        #: The response, whose body can still be read.
        self.response = response


class InvalidURL(Exception):
    """A text that is no URL."""


class StreamError(RuntimeError):
    """The program reads a response in a way that cannot be."""


class StreamConsumed(StreamError):
    """A body that there is only once was read before, or is being read."""

    def __init__(self, message: str = "The response's body was read already: it arrives only once.") -> None:
        super().__init__(message)


class StreamClosed(StreamError):
    """The response was closed before its body was read to the end."""

    def __init__(
        self, message: str = "The response was closed: read its body inside the block that opened it."
    ) -> None:
        super().__init__(message)


class ResponseNotRead(StreamError):
    """The body is asked for and was not read."""

    def __init__(self) -> None:
        super().__init__("The response's body was not read: call response.read() first, or await response.aread().")


#: By the kinds of the native module, which are those of the bridge's errors.
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
    ReadTimeout: "the server was silent for",
    WriteTimeout: "the server took nothing of the body for",
    PoolTimeout: "all connections were in use for",
}


def from_native(kind: str, message: str, causes: Sequence[tuple[int | None, str]]) -> Exception:
    """Makes the exception for what the native module reports."""
    if kind == "invalid_url":
        return InvalidURL(message)
    found = _CLASSES.get(kind, TransportError)
    number = next((number for number, _ in causes if number is not None), None)
    if found is RemoteProtocolError and number is not None:
        # It was the network, and not a server that ended before its time.
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
