"""Transports: what a client sends its requests with, instead of the native core. Tests use them to need no server."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from ._response import Response

if TYPE_CHECKING:
    from typing_extensions import Self

    from ._models import Request
    from ._urls import URL

__all__ = ["AsyncBaseTransport", "BaseTransport", "MockTransport"]


class BaseTransport:
    """The base class of transports of a ``Client``."""

    def handle_request(self, request: Request) -> Response:
        """Returns the response to a request."""
        raise NotImplementedError

    def close(self) -> None:
        """Is called when the client is closed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class AsyncBaseTransport:
    """The base class of transports of an ``AsyncClient``."""

    async def handle_async_request(self, request: Request) -> Response:
        """Returns the response to a request."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Is called when the client is closed."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()


class MockTransport(BaseTransport, AsyncBaseTransport):
    """Answers requests with a function, which may be ``async`` for an ``AsyncClient``.

    >>> transport = MockTransport(lambda request: Response(200, json={"path": request.url.path}))
    """

    def __init__(self, handler: Callable[[Request], Response | Awaitable[Response]]) -> None:
        self.handler = handler

    def handle_request(self, request: Request) -> Response:
        """Reads the request's body, and returns what the function returns."""
        request.read()
        return checked(self.handler(request))

    async def handle_async_request(self, request: Request) -> Response:
        """Reads the request's body, and returns what the function returns."""
        await request.aread()
        response = self.handler(request)
        return checked(await response if inspect.isawaitable(response) else response)


class Mounts:
    """The transports for some URLs: ``{"all://example.com": transport}``, the most specific pattern first.

    A pattern has a scheme or ``all``, and perhaps a host and a port. ``*.example.com`` are the subdomains of a host,
    and ``*example.com`` also the host itself. None stands for the native core.
    """

    def __init__(self, mounts: Mapping[str, Any]) -> None:
        found = [(_Pattern(pattern), transport) for pattern, transport in mounts.items()]
        self._mounts = sorted(found, key=lambda mount: mount[0].rank)

    def transport(self, url: URL, default: Any) -> Any:
        """Returns the transport for a URL, or the default one."""
        return next((transport for pattern, transport in self._mounts if pattern.matches(url)), default)

    def all(self) -> list[Any]:
        """Returns the transports."""
        return [transport for _, transport in self._mounts if transport is not None]


class _Pattern:
    def __init__(self, pattern: str) -> None:
        scheme, separator, rest = pattern.partition("://")
        host, _, port = rest.rpartition(":") if re.search(r":\d+$", rest) else (rest, "", "")
        if not separator or scheme not in ("all", "http", "https") or "/" in rest:
            raise ValueError(f"mounts: {pattern!r} is no pattern like all://, https:// or all://example.com")
        self._scheme = "" if scheme == "all" else scheme
        self._host = "" if host == "*" else host.lower().strip("[]")
        self._port = int(port) if port else None
        #: Less is more specific.
        self.rank = (self._port is None, -len(self._host), -len(self._scheme))

    def matches(self, url: URL) -> bool:
        if self._scheme not in ("", url.scheme) or self._port not in (None, url.port):
            return False
        if not self._host.startswith("*"):
            return self._host in ("", url.host)
        domain = self._host.lstrip("*.")
        return url.host.endswith(f".{domain}") or (not self._host.startswith("*.") and url.host == domain)


def checked(response: Any) -> Response:
    """Returns what a transport has returned.

    Raises:
        TypeError: It is no response.
    """
    if isinstance(response, Response):
        return response
    if inspect.iscoroutine(response):
        response.close()
    raise TypeError(f"a transport returns a mcp_gangway.Response, not {type(response).__name__}")
