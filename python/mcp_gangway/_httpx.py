"""A transport for httpx: programs that are written for it, the official MCP SDK among them, run over the native core.

Rule: httpx sees its own exceptions, and what it would see of its own transport.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx

from . import _exceptions
from ._client import DEFAULT_LIMITS, AsyncClient, CertTypes, VerifyTypes
from ._models import Limits, Request, Timeout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ._response import Response


class AsyncHTTPTransport(httpx.AsyncBaseTransport):
    """``httpx.AsyncClient(transport=mcp_gangway.AsyncHTTPTransport())``.

    Args:
        verify, cert, http1, http2, limits, trust_env, proxy: As for :class:`mcp_gangway.AsyncClient`. As in httpx, the
            client's own arguments of these names count for nothing when it has a transport.
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
        proxy: str | None = None,
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
            proxy=proxy,
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends a request of httpx, and opens its response."""
        times = request.extensions.get("timeout", {})
        try:
            sent = Request(
                request.method,
                str(request.url),
                # Host and length follow from URL and body.
                headers=[pair for pair in request.headers.raw if pair[0].lower() not in _OWN],
                content=await request.aread(),
            )
            response = await self._client._send(
                sent,
                None,
                Timeout(**{name: times.get(name) for name in ("connect", "read", "write", "pool")}),
                whole=False,
            )
        except _exceptions.RequestError as error:
            raise _translated(error, request) from error
        return httpx.Response(
            response.status_code,
            headers=response.headers.raw,
            stream=_Body(response, request),
            extensions={"http_version": response.http_version.encode("ascii")},
        )

    async def aclose(self) -> None:
        """Takes no more requests."""
        await self._client.aclose()


_OWN = (b"host", b"content-length", b"transfer-encoding", b"connection")


class _Body(httpx.AsyncByteStream):
    """A body as it came: httpx decompresses it itself."""

    def __init__(self, response: Response, request: httpx.Request) -> None:
        self._response = response
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._response.aiter_raw():
                yield chunk
        except _exceptions.RequestError as error:
            raise _translated(error, self._request) from error

    async def aclose(self) -> None:
        await self._response.aclose()


def _translated(error: _exceptions.RequestError, request: httpx.Request) -> httpx.RequestError:
    """The exception of httpx that has the same name."""
    found: Any = getattr(httpx, type(error).__name__, httpx.TransportError)
    translated: httpx.RequestError = found(str(error), request=request)
    return translated
