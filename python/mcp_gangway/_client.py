"""The HTTP clients: the interfaces of ``httpx.AsyncClient`` and ``httpx.Client`` on the bridge's connections.

Rule: nothing here takes long; the native module does the work, on its own thread. Common code is in the base class. The
two clients differ only in how they wait.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterable, Callable, Iterable
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from time import perf_counter
from typing import TYPE_CHECKING, Any

from ._exceptions import RequestError
from ._loop import complete
from ._models import (
    UNSET,
    Headers,
    HeaderTypes,
    Limits,
    Request,
    RequestContent,
    RequestData,
    Timeout,
    TimeoutTypes,
    _Unset,
)
from ._native import HttpClient, Upload
from ._response import Response
from ._threads import Pending
from ._tls import CertTypes, VerifyTypes, identity, trust
from ._upload import UploadTask, upload
from ._urls import URL, ParamTypes, is_relative, utf8

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from types import TracebackType

    from typing_extensions import Self, TypedDict, Unpack

    from ._native import Call, Completions, Operation

    class RequestOptions(TypedDict, total=False):
        """The named arguments of :meth:`AsyncClient.request`."""

        content: RequestContent | None
        data: RequestData | None
        json: Any
        params: ParamTypes
        headers: HeaderTypes
        auth: AuthTypes | _Unset
        timeout: TimeoutTypes | _Unset


AuthTypes = tuple[str | bytes, str | bytes] | Callable[[Request], Request] | None

DEFAULT_TIMEOUT = Timeout(5.0)
DEFAULT_LIMITS = Limits(max_connections=100, max_keepalive_connections=20)


_ARGUMENTS = """
    Args:
        headers: Headers of every request. By default any content type is accepted.
        auth: ``(user, password)`` for Basic, or a function that gets the :class:`Request`, adds to it and returns it.
            By default the user and password of the URL are used.
        timeout: A :class:`Timeout`, or seconds for each of its timeouts. None means no limit.
        verify: False accepts any certificate. The certificates of a path or of an ``ssl.SSLContext`` are trusted in
            addition to the system's. A context with other settings than these is refused.
        cert: A client certificate: the path of a PEM file with its key, or the paths of both files.
        proxy: A proxy's URL (``http``, ``https``, ``socks5``, ``socks5h``) for all requests.
        http1: Whether HTTP/1.1 is allowed.
        http2: Whether HTTP/2 is allowed. If it is the only one, it is used even without TLS.
        limits: Limits on connections.
        trust_env: Whether to use the proxies of the environment or the system.
        base_url: The prefix of relative URLs.

    Raises:
        ValueError: Certificates or a proxy cannot be used.
"""


class BaseClient:
    """The common part of :class:`AsyncClient` and :class:`Client`: building, authorizing and starting requests."""

    def __init__(
        self,
        *,
        headers: HeaderTypes = None,
        auth: AuthTypes = None,
        timeout: TimeoutTypes = DEFAULT_TIMEOUT,
        verify: VerifyTypes = True,
        cert: CertTypes = None,
        proxy: str | None = None,
        http1: bool = True,
        http2: bool = False,
        limits: Limits = DEFAULT_LIMITS,
        trust_env: bool = True,
        base_url: str = "",
    ) -> None:
        self.headers = Headers({"Accept": "*/*"})
        self.headers.update(headers)
        self.auth = auth
        self.timeout = Timeout(timeout)
        self.base_url = URL(base_url) if base_url != "" else ""
        self._is_closed = False
        if not isinstance(proxy, str | None):
            raise TypeError(f"proxy is the URL of a proxy, not {type(proxy).__name__}")
        trusted, authorities = trust(verify)
        self._native = HttpClient(
            verify=trusted,
            authorities=authorities,
            identity=identity(cert),
            proxy=None if proxy is None else utf8(proxy, "proxy").decode(),
            trust_env=trust_env,
            http1=http1,
            http2=http2,
            keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            connections=limits.max_connections,
        )

    @property
    def is_closed(self) -> bool:
        """True if the client accepts no more requests."""
        return self._is_closed

    def build_request(
        self,
        method: str,
        url: str,
        *,
        content: RequestContent | None = None,
        data: RequestData | None = None,
        json: Any = None,
        params: ParamTypes = None,
        headers: HeaderTypes = None,
    ) -> Request:
        """Builds the request that the other methods would send.

        Raises:
            InvalidURL: The text is not a URL.
            UnsupportedProtocol: Its scheme is neither http nor https.
        """
        if self.base_url and is_relative(url):
            url = f"{self.base_url.rstrip('/')}/{url.lstrip('/')}"
        merged = Headers(self.headers)
        merged.update(headers)
        return Request(method, url, params=params, headers=merged, content=content, data=data, json=json)

    def _close(self) -> None:
        self._is_closed = True
        self._native.close()

    def _prepared(
        self, request: Request, auth: AuthTypes | _Unset, timeout: TimeoutTypes | _Unset
    ) -> tuple[Request, Timeout]:
        """Returns the request with its credentials, and its timeouts."""
        request = _signed(request, self.auth if isinstance(auth, _Unset) else auth)
        return request, self.timeout if isinstance(timeout, _Unset) else Timeout(timeout)

    def _sending(
        self, request: Request, times: Timeout, body: bytes | Upload | None, *, whole: bool
    ) -> Callable[[Completions | Call, Any], Operation]:
        """Returns a function that starts to send for a waiter."""
        return lambda waiter, future: self._native.send(
            waiter,
            future,
            request.method,
            request.url.sent(),
            request.headers.raw,
            body,
            (times.connect, times.read, times.pool),
            whole,
        )


class AsyncClient(BaseClient):
    __doc__ = f"""Sends HTTP requests on pooled connections, for asyncio.
{_ARGUMENTS}
    A client is not bound to an event loop. It works in any running loop, one after the other or in several threads.
    """

    async def request(
        self,
        method: str,
        url: str,
        *,
        content: RequestContent | None = None,
        data: RequestData | None = None,
        json: Any = None,
        params: ParamTypes = None,
        headers: HeaderTypes = None,
        auth: AuthTypes | _Unset = UNSET,
        timeout: TimeoutTypes | _Unset = UNSET,
    ) -> Response:
        """Sends a request, and reads the whole response.

        Args:
            content: The body, sent unchanged. An async iterable of bytes is sent while it is iterated, with chunked
                encoding unless the headers give its length.
            data: A form, or a body that is sent unchanged.
            json: A body to encode as JSON.
            params: Parameters added to the URL's query.
            headers: Headers in addition to the client's. A header of the same name replaces the client's.
            auth: Replaces the client's.
            timeout: Replaces the client's.

        Raises:
            RequestError: No response arrived, or only a part (see the subclasses).
            RuntimeError: The client is closed, or there is no asyncio event loop.
        """
        request = self.build_request(method, url, content=content, data=data, json=json, params=params, headers=headers)
        return await self._send(request, auth, timeout, whole=True)

    async def get(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """``request("GET", …)``"""
        return await self.request("GET", url, **options)

    async def post(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """``request("POST", …)``"""
        return await self.request("POST", url, **options)

    async def put(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """``request("PUT", …)``"""
        return await self.request("PUT", url, **options)

    async def delete(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """``request("DELETE", …)``"""
        return await self.request("DELETE", url, **options)

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        url: str,
        *,
        content: RequestContent | None = None,
        data: RequestData | None = None,
        json: Any = None,
        params: ParamTypes = None,
        headers: HeaderTypes = None,
        auth: AuthTypes | _Unset = UNSET,
        timeout: TimeoutTypes | _Unset = UNSET,
    ) -> AsyncIterator[Response]:
        """Sends a request, and streams the response: ``async with client.stream(…) as response``.

        The end of the block frees the connection. For arguments and exceptions see :meth:`request`.
        """
        request = self.build_request(method, url, content=content, data=data, json=json, params=params, headers=headers)
        response = await self._send(request, auth, timeout, whole=False)
        try:
            yield response
        finally:
            response.close()

    async def send(self, request: Request, *, stream: bool = False, auth: AuthTypes | _Unset = UNSET) -> Response:
        """Sends a request from :meth:`build_request`. With ``stream`` the body is streamed, and the caller must close
        the response. ``auth`` replaces the client's.

        Raises:
            RequestError: No response arrived, or only a part.
        """
        return await self._send(request, auth, UNSET, whole=not stream)

    async def aclose(self) -> None:
        """Refuses further requests. Open streams go on."""
        self._close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.aclose()

    async def _send(
        self, request: Request, auth: AuthTypes | _Unset, timeout: TimeoutTypes | _Unset, *, whole: bool
    ) -> Response:
        request, times = self._prepared(request, auth, timeout)
        content: Any = request.content
        task = UploadTask(content, times.write) if isinstance(content, AsyncIterable) else None
        if task is None and content is not None and not isinstance(content, bytes):
            raise RuntimeError(
                "an AsyncClient sends bytes, str and async iterables of bytes: this iterable is for a Client"
            )
        begun = perf_counter()
        sending = complete(self._sending(request, times, task.native if task is not None else content, whole=whole))
        try:
            native = await (sending if task is None else task.beside(sending))
        except RequestError as error:
            error.request = request
            raise
        if task is not None and whole:
            task.stop()
        return Response(native, request, timedelta(seconds=perf_counter() - begun), task)


class Client(BaseClient):
    __doc__ = f"""Sends HTTP requests on pooled connections, for threads without an event loop.
{_ARGUMENTS}
    Any number of threads can use a client at once. Waiting releases the interpreter lock, and Ctrl-C interrupts it.
    """

    def request(
        self,
        method: str,
        url: str,
        *,
        content: RequestContent | None = None,
        data: RequestData | None = None,
        json: Any = None,
        params: ParamTypes = None,
        headers: HeaderTypes = None,
        auth: AuthTypes | _Unset = UNSET,
        timeout: TimeoutTypes | _Unset = UNSET,
    ) -> Response:
        """Sends a request, and reads the whole response.

        For the arguments see :meth:`AsyncClient.request`. ``content`` may be an iterable of bytes, which is sent while
        this thread iterates it.

        Raises:
            RequestError: No response arrived, or only a part (see the subclasses).
            RuntimeError: The client is closed.
        """
        request = self.build_request(method, url, content=content, data=data, json=json, params=params, headers=headers)
        return self._send(request, auth, timeout, whole=True)

    def get(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """``request("GET", …)``"""
        return self.request("GET", url, **options)

    def post(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """``request("POST", …)``"""
        return self.request("POST", url, **options)

    def put(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """``request("PUT", …)``"""
        return self.request("PUT", url, **options)

    def delete(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """``request("DELETE", …)``"""
        return self.request("DELETE", url, **options)

    @contextmanager
    def stream(
        self,
        method: str,
        url: str,
        *,
        content: RequestContent | None = None,
        data: RequestData | None = None,
        json: Any = None,
        params: ParamTypes = None,
        headers: HeaderTypes = None,
        auth: AuthTypes | _Unset = UNSET,
        timeout: TimeoutTypes | _Unset = UNSET,
    ) -> Iterator[Response]:
        """Sends a request, and streams the response: ``with client.stream(…) as response``.

        The end of the block frees the connection. For arguments and exceptions see :meth:`request`.
        """
        request = self.build_request(method, url, content=content, data=data, json=json, params=params, headers=headers)
        response = self._send(request, auth, timeout, whole=False)
        try:
            yield response
        finally:
            response.close()

    def send(self, request: Request, *, stream: bool = False, auth: AuthTypes | _Unset = UNSET) -> Response:
        """Sends a request from :meth:`build_request`. With ``stream`` the body is streamed, and the caller must close
        the response. ``auth`` replaces the client's.

        Raises:
            RequestError: No response arrived, or only a part.
        """
        return self._send(request, auth, UNSET, whole=not stream)

    def close(self) -> None:
        """Refuses further requests. Open streams go on."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self.close()

    def _send(
        self, request: Request, auth: AuthTypes | _Unset, timeout: TimeoutTypes | _Unset, *, whole: bool
    ) -> Response:
        request, times = self._prepared(request, auth, timeout)
        content: Any = request.content
        if isinstance(content, AsyncIterable) and not isinstance(content, Iterable):
            raise RuntimeError(
                "a Client sends bytes, str and iterables of bytes: this async iterable is for an AsyncClient"
            )
        body = content if content is None or isinstance(content, bytes) else Upload()
        begun = perf_counter()
        pending = Pending(self._sending(request, times, body, whole=whole))
        try:
            if isinstance(body, Upload):
                upload(body, content, times.write, pending)
            native = pending.result()
        except BaseException as error:
            pending.cancel()
            if isinstance(error, RequestError):
                error.request = request
            raise
        return Response(native, request, timedelta(seconds=perf_counter() - begun), is_async=False)


def _signed(request: Request, auth: AuthTypes) -> Request:
    if auth is None:
        auth = request.url.userinfo
        if auth is None or "authorization" in request.headers:
            return request
    if callable(auth):
        return auth(request)
    if not isinstance(auth, tuple) or len(auth) != 2:
        raise TypeError(f"auth is (user, password) or a function, not {type(auth).__name__}")
    token = base64.b64encode(b":".join(map(_credential, auth))).decode("ascii")
    request.headers["Authorization"] = f"Basic {token}"
    return request


def _credential(value: str | bytes) -> bytes:
    if isinstance(value, str):
        return utf8(value, "auth")
    if isinstance(value, bytes):
        return value
    raise TypeError(f"user and password of auth are str or bytes, not {type(value).__name__}")


__all__ = ["URL", "AsyncClient", "AuthTypes", "CertTypes", "Client", "VerifyTypes"]
