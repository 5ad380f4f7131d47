"""A transport for httpx. With it, programs that use httpx, such as the official MCP SDK, run on the native core.

Rule: the transport behaves like httpx's own and raises httpx's exceptions. It also works for the successor httpx2,
which the SDK uses from version 2 on: objects for a client come from that client's package.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING, Any

from . import _exceptions
from ._client import DEFAULT_LIMITS, AsyncClient
from ._models import Limits, Proxy, Request
from ._tls import CertTypes, VerifyTypes
from ._urls import URL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from os import PathLike
    from types import ModuleType

    import httpx
    from httpx import AsyncBaseTransport
    from typing_extensions import Self

    from ._response import Response
else:
    try:
        from httpx import AsyncBaseTransport
    except ImportError:
        from httpx2 import AsyncBaseTransport


class AsyncHTTPTransport(AsyncBaseTransport):
    """``httpx.AsyncClient(transport=mcp_gangway.AsyncHTTPTransport())``.

    Args:
        verify, cert, http1, http2, limits, trust_env, proxy, uds: As for :class:`mcp_gangway.AsyncClient`. As always in
            httpx, a client with a transport ignores its own arguments of these names.
    """

    def __init__(
        self,
        *,
        verify: VerifyTypes = True,
        cert: CertTypes = None,
        http1: bool = True,
        http2: bool = False,
        limits: Limits | httpx.Limits = DEFAULT_LIMITS,
        trust_env: bool = True,
        proxy: str | Proxy | httpx.Proxy | None = None,
        uds: str | PathLike[str] | None = None,
    ) -> None:
        self._client = AsyncClient(
            verify=verify,
            cert=cert,
            http1=http1,
            http2=http2,
            limits=Limits(
                max_connections=limits.max_connections,
                max_keepalive_connections=limits.max_keepalive_connections,
                keepalive_expiry=limits.keepalive_expiry,
            ),
            trust_env=trust_env,
            proxy=None if proxy is None else Proxy.of(proxy),
            uds=uds,
        )

    async def __aenter__(self) -> Self:
        return self

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends an httpx request, and opens its response."""
        package = sys.modules[type(request).__module__.partition(".")[0]]
        times = request.extensions.get("timeout", {})
        content: Any
        try:
            content = request.content
        except package.RequestNotRead:
            content = request.stream
        # httpx adds both to every request, and the native client does the same.
        own = ((b"host", request.url.netloc), (b"connection", b"keep-alive"))
        headers = [(name.lower(), value) for name, value in request.headers.raw]
        try:
            # Exactly as httpx has encoded it.
            url = b"%b://%b%b" % (request.url.raw_scheme, request.url.netloc, request.url.raw_path)
            sent = Request(
                request.method,
                URL.encoded(url.decode("ascii")),
                headers=[pair for pair in headers if pair not in own],
                content=content,
                extensions={"timeout": {name: times.get(name) for name in ("connect", "read", "write", "pool")}},
            )
            response = await self._client._send_once(sent, whole=False)
        except _exceptions.InvalidURL as error:
            raise package.InvalidURL(str(error)) from error
        except _exceptions.RequestError as error:
            raise _translated(error, request, package) from error
        answer: httpx.Response = package.Response(
            response.status_code,
            headers=response.headers.raw,
            stream=_body_of(package)(response, request, package),
            extensions={"http_version": response.http_version.encode("ascii")},
        )
        return answer

    async def aclose(self) -> None:
        """Refuses further requests."""
        await self._client.aclose()


class _Body:
    """A body as received. httpx decompresses it."""

    def __init__(self, response: Response, request: httpx.Request, package: ModuleType) -> None:
        self._response = response
        self._request = request
        self._package = package

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._response.aiter_raw():
                yield chunk
        except _exceptions.RequestError as error:
            raise _translated(error, self._request, self._package) from error

    async def aclose(self) -> None:
        await self._response.aclose()


@cache
def _body_of(package: ModuleType) -> Any:
    """Returns the body class for a package, which requires its own base class."""
    return type("Body", (_Body, package.AsyncByteStream), {})


def _translated(error: _exceptions.RequestError, request: httpx.Request, package: ModuleType) -> httpx.RequestError:
    """Converts an error to the package's exception of the same name."""
    found: Any = getattr(package, type(error).__name__, package.TransportError)
    translated: httpx.RequestError = found(str(error), request=request)
    return translated
