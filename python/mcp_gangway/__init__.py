"""HTTP, streams and MCP for asyncio and for threads, on the native core of the bridge mcp-gangway.

The interface is that of httpx, plus streams of events, lines and JSON-RPC messages:

    async with mcp_gangway.AsyncClient() as client:
        async with client.stream("POST", url, json=message) as response:
            async for event in response.aiter_sse():
                print(event.json())
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._auth import Auth, BasicAuth, DigestAuth
    from ._bridge import Bridge, BridgeSettings, ForwardedRequest, SignIn, forward_request, run
    from ._client import AsyncClient, Client
    from ._cookies import CookieConflict, Cookies
    from ._exceptions import (
        CloseError,
        ConnectError,
        ConnectTimeout,
        DecodingError,
        HTTPError,
        HTTPStatusError,
        InvalidMessage,
        InvalidURL,
        LocalProtocolError,
        MessageTooLarge,
        NetworkError,
        PoolTimeout,
        ProtocolError,
        ProxyError,
        ReadError,
        ReadTimeout,
        RemoteProtocolError,
        RequestError,
        ResponseNotRead,
        StreamClosed,
        StreamConsumed,
        StreamError,
        TimeoutException,
        TooManyRedirects,
        TransportError,
        UnsupportedProtocol,
        WriteError,
        WriteTimeout,
    )
    from ._httpx import AsyncHTTPTransport as AsyncHTTPTransport
    from ._httpx import HTTPTransport as HTTPTransport
    from ._models import Headers, Limits, Proxy, Request, Timeout
    from ._native import VERSION as __version__
    from ._native import Event, MessageParser, NdjsonParser, SseParser
    from ._response import Response
    from ._transports import AsyncBaseTransport, BaseTransport, MockTransport
    from ._urls import URL, QueryParams

__all__ = [
    "URL",
    "AsyncBaseTransport",
    "AsyncClient",
    "Auth",
    "BaseTransport",
    "BasicAuth",
    "Bridge",
    "BridgeSettings",
    "Client",
    "CloseError",
    "ConnectError",
    "ConnectTimeout",
    "CookieConflict",
    "Cookies",
    "DecodingError",
    "DigestAuth",
    "Event",
    "ForwardedRequest",
    "HTTPError",
    "HTTPStatusError",
    "Headers",
    "InvalidMessage",
    "InvalidURL",
    "Limits",
    "LocalProtocolError",
    "MessageParser",
    "MessageTooLarge",
    "MockTransport",
    "NdjsonParser",
    "NetworkError",
    "PoolTimeout",
    "ProtocolError",
    "Proxy",
    "ProxyError",
    "QueryParams",
    "ReadError",
    "ReadTimeout",
    "RemoteProtocolError",
    "Request",
    "RequestError",
    "Response",
    "ResponseNotRead",
    "SignIn",
    "SseParser",
    "StreamClosed",
    "StreamConsumed",
    "StreamError",
    "Timeout",
    "TimeoutException",
    "TooManyRedirects",
    "TransportError",
    "UnsupportedProtocol",
    "WriteError",
    "WriteTimeout",
    "__version__",
    "forward_request",
    "run",
]

#: The module of each name. Modules are imported on first use, so that `python -m mcp_gangway`, which becomes another
#: program, starts fast.
_MODULES = {
    "Proxy": "_models",
    "CookieConflict": "_cookies",
    "Cookies": "_cookies",
    "BasicAuth": "_auth",
    "DigestAuth": "_auth",
    "Auth": "_auth",
    "MockTransport": "_transports",
    "BaseTransport": "_transports",
    "AsyncBaseTransport": "_transports",
    "Bridge": "_bridge",
    "BridgeSettings": "_bridge",
    "ForwardedRequest": "_bridge",
    "SignIn": "_bridge",
    "forward_request": "_bridge",
    "run": "_bridge",
    "AsyncClient": "_client",
    "Client": "_client",
    "Headers": "_models",
    "Limits": "_models",
    "Request": "_models",
    "Timeout": "_models",
    "Event": "_native",
    "MessageParser": "_native",
    "NdjsonParser": "_native",
    "SseParser": "_native",
    "Response": "_response",
    "QueryParams": "_urls",
    "URL": "_urls",
    # They need httpx, which is optional, so they are not in __all__.
    "AsyncHTTPTransport": "_httpx",
    "HTTPTransport": "_httpx",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value = import_module("._native", __name__).VERSION
    elif name in _MODULES or name in __all__:
        value = getattr(import_module(f".{_MODULES.get(name, '_exceptions')}", __name__), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
