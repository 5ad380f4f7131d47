"""Authentication: how a request gets its credentials.

Rule: credentials belong to the origin of the request that they were made for; a redirect to another one goes without.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, Callable, Generator
from typing import TYPE_CHECKING, Any

from ._urls import utf8

if TYPE_CHECKING:
    from ._models import Request
    from ._response import Response


class Auth:
    """The base class of a way to authenticate, as in httpx. Override :meth:`auth_flow`, or the flow of one client."""

    #: Whether the flow reads ``request.content``.
    requires_request_body = False
    #: Whether the flow reads ``response.content``.
    requires_response_body = False

    def auth_flow(self, request: Request) -> Generator[Request, Response, None]:
        """Yields the request, perhaps several times, and gets the response to each."""
        yield request

    def sync_auth_flow(self, request: Request) -> Generator[Request, Response, None]:
        """The flow for a ``Client``."""
        if self.requires_request_body:
            request.read()
        flow = self.auth_flow(request)
        request = next(flow)
        while True:
            response = yield request
            if self.requires_response_body:
                response.read()
            try:
                request = flow.send(response)
            except StopIteration:
                return

    async def async_auth_flow(self, request: Request) -> AsyncGenerator[Request, Response]:
        """The flow for an ``AsyncClient``."""
        if self.requires_request_body:
            await request.aread()
        flow = self.auth_flow(request)
        request = next(flow)
        while True:
            response = yield request
            if self.requires_response_body:
                await response.aread()
            try:
                request = flow.send(response)
            except StopIteration:
                return


class BasicAuth(Auth):
    """A user and a password, sent with every request (RFC 7617)."""

    def __init__(self, username: str | bytes, password: str | bytes) -> None:
        token = base64.b64encode(b":".join(map(_credential, (username, password)))).decode("ascii")
        self._header = f"Basic {token}"

    def auth_flow(self, request: Request) -> Generator[Request, Response, None]:
        """Adds the header."""
        request.headers["Authorization"] = self._header
        yield request


class FunctionAuth(Auth):
    """A function that gets the request, adds to it and returns it."""

    def __init__(self, function: Callable[[Request], Request]) -> None:
        self._function = function

    def auth_flow(self, request: Request) -> Generator[Request, Response, None]:
        """Calls the function."""
        yield self._function(request)


AuthTypes = tuple[str | bytes, str | bytes] | Callable[["Request"], "Request"] | Auth | None


def made_auth(auth: Any) -> Auth | None:
    """Returns the object for any of ``AuthTypes``.

    Raises:
        TypeError: It is another object.
    """
    if auth is None or isinstance(auth, Auth):
        return auth
    if isinstance(auth, tuple) and len(auth) == 2:
        return BasicAuth(*auth)
    if callable(auth):
        return FunctionAuth(auth)
    raise TypeError(f"auth is (user, password), a function or an Auth, not {type(auth).__name__}")


def _credential(value: str | bytes) -> bytes:
    if isinstance(value, str):
        return utf8(value, "auth")
    if isinstance(value, bytes):
        return value
    raise TypeError(f"user and password of auth are str or bytes, not {type(value).__name__}")
