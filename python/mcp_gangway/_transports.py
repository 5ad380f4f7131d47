"""Transports: what a client sends its requests with, instead of the native core. Tests use them to need no server."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from ._response import Response

if TYPE_CHECKING:
    from typing_extensions import Self

    from ._models import Request

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
