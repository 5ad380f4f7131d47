"""Authentication: how a request gets its credentials.

Rule: credentials belong to the origin of the request that they were made for; a redirect to another one goes without.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import AsyncGenerator, Callable, Generator
from typing import TYPE_CHECKING, Any

from ._exceptions import ProtocolError
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


class DigestAuth(Auth):
    """A user and a password, of which only hashes are sent (RFC 7616), with the quality of protection ``auth``."""

    def __init__(self, username: str | bytes, password: str | bytes) -> None:
        self._user, self._password = _credential(username), _credential(password)
        self._challenge: dict[str, str] | None = None
        #: How often the nonce of the challenge was used.
        self._count = 0

    def auth_flow(self, request: Request) -> Generator[Request, Response, None]:
        """Sends the request with hashes for the last challenge, and again if there is a new one.

        Raises:
            ProtocolError: The server's challenge cannot be used.
        """
        if self._challenge is not None:
            request.headers["Authorization"] = self._header(request, self._challenge)
        response = yield request
        if response.status_code != 401:
            return
        challenges = response.headers.get_list("www-authenticate")
        found = next((text for text in challenges if text.lower().startswith("digest ")), None)
        if found is None:
            return
        self._challenge, self._count = _digest_challenge(found, request), 0
        request.headers["Authorization"] = self._header(request, self._challenge)
        if response.headers.get("set-cookie"):
            response.cookies.set_cookie_header(request)
        yield request

    def _header(self, request: Request, challenge: dict[str, str]) -> str:
        name = challenge.get("algorithm", "MD5")
        algorithm = _ALGORITHMS[name.upper().removesuffix("-SESS")]

        def hashed(*parts: bytes) -> bytes:
            return hashlib.new(algorithm, b":".join(parts), usedforsecurity=False).hexdigest().encode()

        realm, nonce = challenge["realm"].encode(), challenge["nonce"].encode()
        target = request.url.raw_path
        self._count += 1
        count, own = b"%08x" % self._count, os.urandom(8).hex().encode()
        secret = hashed(self._user, realm, self._password)
        if name.upper().endswith("-SESS"):
            secret = hashed(secret, nonce, own)
        what = hashed(request.method.encode(), target)
        has_quality = "qop" in challenge
        proof = hashed(secret, nonce, count, own, b"auth", what) if has_quality else hashed(secret, nonce, what)
        fields = {"username": self._user, "realm": realm, "nonce": nonce, "uri": target, "response": proof}
        parts = [f'{field}="{value.decode("utf-8", "replace")}"' for field, value in fields.items()]
        parts.append(f"algorithm={name}")
        if "opaque" in challenge:
            parts.append(f'opaque="{challenge["opaque"]}"')
        if has_quality:
            parts.append(f'qop=auth, nc={count.decode()}, cnonce="{own.decode()}"')
        return "Digest " + ", ".join(parts)


#: The hash of each algorithm (RFC 7616, 6.1), and of those that other clients also know.
_ALGORITHMS = {"MD5": "md5", "SHA": "sha1", "SHA-256": "sha256", "SHA-512": "sha512"}


def _digest_challenge(text: str, request: Request) -> dict[str, str]:
    """Returns the fields of a challenge.

    Raises:
        ProtocolError: A field is missing, or the server wants what is not supported.
    """
    # It takes longer to import than everything here.
    from urllib.request import parse_http_list, parse_keqv_list

    try:
        fields = {key.lower(): value for key, value in parse_keqv_list(parse_http_list(text.partition(" ")[2])).items()}
    except (ValueError, IndexError):
        fields = {}
    algorithm = fields.get("algorithm", "MD5").upper().removesuffix("-SESS")
    qualities = [quality.strip() for quality in fields.get("qop", "auth").split(",")]
    if "realm" not in fields or "nonce" not in fields:
        raise ProtocolError("Malformed Digest WWW-Authenticate header: realm or nonce is missing", request=request)
    if "auth" not in qualities:
        if "auth-int" in qualities:
            raise NotImplementedError("Digest auth-int support is not yet implemented")
        raise ProtocolError("the server wants an unknown quality of protection for Digest", request=request)
    if algorithm not in _ALGORITHMS:
        raise ProtocolError("the server wants an unknown algorithm for Digest", request=request)
    return fields


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
