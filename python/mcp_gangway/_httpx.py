"""Transports for httpx. With them, programs that use httpx, such as the official MCP SDK, run on the native core.

Rule: a transport behaves like httpx's own and raises httpx's exceptions. It also works for the successor httpx2, which
the SDK uses from version 2 on: objects for a client come from that client's package.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from . import _exceptions
from ._client import DEFAULT_LIMITS, AsyncClient, Client
from ._models import Limits, Proxy, Request
from ._tls import CertTypes, VerifyTypes
from ._urls import URL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from os import PathLike
    from types import ModuleType

    import httpx
    from httpx import AsyncBaseTransport, BaseTransport
    from typing_extensions import Self

    from ._response import Response
else:
    try:
        from httpx import AsyncBaseTransport, BaseTransport
    except ImportError:
        from httpx2 import AsyncBaseTransport, BaseTransport


_C = TypeVar("_C", AsyncClient, Client)

_ARGUMENTS = """
    Args:
        verify, cert, http1, http2, limits, trust_env, proxy, uds: As for :class:`mcp_gangway.AsyncClient`. As always in
            httpx, a client with a transport ignores its own arguments of these names.
    """


class _Transport(Generic[_C]):
    """What both transports share: the settings of the native client that they send with."""

    _kind: type[_C]

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
        self._client: _C = self._kind(
            verify=verify,
            cert=cert,
            http1=http1,
            http2=http2,
            limits=_own_limits(limits),
            trust_env=trust_env,
            proxy=None if proxy is None else Proxy.of(proxy),
            uds=uds,
        )


class AsyncHTTPTransport(_Transport[AsyncClient], AsyncBaseTransport):
    __doc__ = f"""``httpx.AsyncClient(transport=mcp_gangway.AsyncHTTPTransport())``.
{_ARGUMENTS}"""

    _kind = AsyncClient

    async def __aenter__(self) -> Self:
        return self

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends an httpx request, and opens its response."""
        with _translating(request) as package:
            response = await self._client._send_once(_own_request(request, package), whole=False)
            return _answer(response, _AsyncBody, request, package)

    async def aclose(self) -> None:
        """Refuses further requests."""
        await self._client.aclose()


class HTTPTransport(_Transport[Client], BaseTransport):
    __doc__ = f"""``httpx.Client(transport=mcp_gangway.HTTPTransport())``.
{_ARGUMENTS}"""

    _kind = Client

    def __enter__(self) -> Self:
        return self

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Sends an httpx request, and opens its response."""
        with _translating(request) as package:
            response = self._client._send_once(_own_request(request, package), whole=False)
            return _answer(response, _Body, request, package)

    def close(self) -> None:
        """Refuses further requests."""
        self._client.close()


def _own_limits(limits: Limits | httpx.Limits) -> Limits:
    return Limits(
        max_connections=limits.max_connections,
        max_keepalive_connections=limits.max_keepalive_connections,
        keepalive_expiry=limits.keepalive_expiry,
    )


def _own_request(request: httpx.Request, package: ModuleType) -> Request:
    times = request.extensions.get("timeout", {})
    content: Any
    try:
        content = request.content
    except package.RequestNotRead:
        content = request.stream
    # httpx adds both to every request, and the native client does the same.
    own = ((b"host", request.url.netloc), (b"connection", b"keep-alive"))
    headers = [(name.lower(), value) for name, value in request.headers.raw]
    # Exactly as httpx has encoded it.
    url = b"%b://%b%b" % (request.url.raw_scheme, request.url.netloc, request.url.raw_path)
    return Request(
        request.method,
        URL.encoded(url.decode("ascii")),
        headers=[pair for pair in headers if pair not in own],
        content=content,
        extensions={"timeout": {name: times.get(name) for name in ("connect", "read", "write", "pool")}},
    )


def _answer(response: Response, kind: type, request: httpx.Request, package: ModuleType) -> httpx.Response:
    answer: httpx.Response = package.Response(
        response.status_code,
        headers=response.headers.raw,
        stream=_body_of(package, kind)(response, request),
        extensions=response.extensions,
    )
    return answer


class _AsyncBody:
    """A body as received. httpx decompresses it."""

    def __init__(self, response: Response, request: httpx.Request) -> None:
        self._response = response
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _translating(self._request):
            async for chunk in self._response.aiter_raw():
                yield chunk

    async def aclose(self) -> None:
        await self._response.aclose()


class _Body:
    """The same for a synchronous client."""

    def __init__(self, response: Response, request: httpx.Request) -> None:
        self._response = response
        self._request = request

    def __iter__(self) -> Iterator[bytes]:
        with _translating(self._request):
            yield from self._response.iter_raw()

    def close(self) -> None:
        self._response.close()


@cache
def _body_of(package: ModuleType, kind: type) -> Any:
    """Returns the body class for a package, which requires its own base class."""
    base = package.AsyncByteStream if kind is _AsyncBody else package.SyncByteStream
    return type("Body", (kind, base), {})


@contextmanager
def _translating(request: httpx.Request) -> Generator[ModuleType, None, None]:
    """Yields the package of a request, and raises errors as its exceptions of the same names."""
    package = sys.modules[type(request).__module__.partition(".")[0]]
    try:
        yield package
    except _exceptions.InvalidURL as error:
        raise package.InvalidURL(str(error)) from error
    except _exceptions.StreamConsumed as error:
        raise package.StreamConsumed from error
    except _exceptions.RequestError as error:
        found: Any = getattr(package, type(error).__name__, package.TransportError)
        raise found(str(error), request=request) from error
