"""HTTP, streams and MCP for asyncio, over the native core of the bridge mcp-gangway.

The interface is that of httpx where there is one, with streams of events, lines and JSON-RPC messages beside it:

    async with mcp_gangway.AsyncClient() as client:
        async with client.stream("POST", url, json=message) as response:
            async for event in response.aiter_sse():
                print(event.json())
"""

from typing import TYPE_CHECKING, Any

from ._bridge import Bridge, BridgeSettings, ForwardedRequest, forward_request, run
from ._client import AsyncClient
from ._exceptions import *  # noqa: F403  Its __all__ is part of this one.
from ._exceptions import __all__ as _exception_names
from ._models import URL, Headers, Limits, Request, Timeout
from ._native import VERSION as __version__
from ._native import Event, NdjsonParser, SseParser
from ._response import Response

if TYPE_CHECKING:
    from ._httpx import AsyncHTTPTransport as AsyncHTTPTransport

__all__ = [
    "URL",
    "AsyncClient",
    "Bridge",
    "BridgeSettings",
    "Event",
    "ForwardedRequest",
    "Headers",
    "Limits",
    "NdjsonParser",
    "Request",
    "Response",
    "SseParser",
    "Timeout",
    "__version__",
    "forward_request",
    "run",
    *_exception_names,
]


def __getattr__(name: str) -> Any:
    # It needs httpx, which not everybody has: so it is not in __all__ either.
    if name == "AsyncHTTPTransport":
        from ._httpx import AsyncHTTPTransport

        return AsyncHTTPTransport
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
