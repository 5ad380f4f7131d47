"""The HTTP clients: the interfaces of ``httpx.AsyncClient`` and ``httpx.Client`` on the bridge's connections.

Rule: nothing here takes long; the native module does the work, on its own thread. What a request goes through (hooks,
authentication, redirects, cookies) is written once, in the base class, as a generator of steps. The two clients differ
only in how they execute a step.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterable, Callable, Generator, Iterable, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from functools import partial
from os import PathLike
from time import perf_counter
from typing import TYPE_CHECKING, Any

from ._auth import Auth, AuthTypes, BasicAuth, made_auth
from ._exceptions import InvalidURL, RemoteProtocolError, RequestError, TooManyRedirects, UnsupportedProtocol
from ._loop import complete
from ._models import (
    UNSET,
    Headers,
    HeaderTypes,
    Limits,
    Proxy,
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
from ._transports import Mounts, checked
from ._upload import UploadTask, upload
from ._urls import URL, ParamTypes, QueryParams, is_relative

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from types import TracebackType

    from typing_extensions import Self, TypedDict, Unpack

    from ._cookies import Cookies, CookieTypes
    from ._native import Call, Completions, Operation

    class RequestOptions(TypedDict, total=False):
        """The named arguments of :meth:`AsyncClient.request`."""

        content: RequestContent | None
        data: RequestData | None
        json: Any
        params: ParamTypes
        headers: HeaderTypes
        cookies: CookieTypes
        auth: AuthTypes | _Unset
        follow_redirects: bool | _Unset
        timeout: TimeoutTypes | _Unset
        extensions: Mapping[str, Any] | None


#: Functions to call with each request and each response.
EventHooks = Mapping[str, Iterable[Callable[[Any], Any]]]
#: A step of a request: a function without arguments, whose result an ``AsyncClient`` awaits.
Steps = Generator[Callable[[], Any], Any, Response]

DEFAULT_TIMEOUT = Timeout(5.0)
DEFAULT_LIMITS = Limits(max_connections=100, max_keepalive_connections=20)
DEFAULT_MAX_REDIRECTS = 20

logger = logging.getLogger("mcp_gangway")


_ARGUMENTS = """
    Args:
        headers: Headers of every request. By default any content type is accepted.
        params: Parameters of every request's query.
        cookies: Cookies to send. The cookies that servers set are added to them.
        auth: ``(user, password)`` for Basic, a function that gets the :class:`Request`, adds to it and returns it, or
            an :class:`Auth`. By default the user and password of the URL are used.
        follow_redirects: Whether to follow redirects. Credentials stay on the origin: a request to another one has
            only headers that are known to be no secrets. ``https`` is never redirected to ``http``.
        max_redirects: The most redirects to follow for a request.
        event_hooks: ``{"request": [function], "response": [function]}``, called with each request before it is sent
            and with each response before its body is read.
        timeout: A :class:`Timeout`, or seconds for each of its timeouts. None means no limit.
        verify: False accepts any certificate. The certificates of a path or of an ``ssl.SSLContext`` are trusted in
            addition to the system's. A context with other settings than these is refused.
        cert: A client certificate: the path of a PEM file with its key, or the paths of both files.
        proxy: A proxy's URL (``http``, ``https``, ``socks5``, ``socks5h``) or :class:`Proxy`, for all requests.
        uds: The path of a Unix socket, for all requests.
        http1: Whether HTTP/1.1 is allowed.
        http2: Whether HTTP/2 is allowed. If it is the only one, it is used even without TLS.
        limits: Limits on connections.
        trust_env: Whether to use the proxies of the environment or the system.
        base_url: The prefix of relative URLs.
        transport: What sends the requests instead of the native core, such as a :class:`MockTransport`.
        mounts: Transports for some URLs: ``{"all://example.com": transport}``. None stands for the native core.
        default_encoding: The charset of responses that name none, or a function that finds it in the body.

    Raises:
        ValueError: Certificates, a context or a proxy cannot be used.
"""


class BaseClient:
    """The common part of :class:`AsyncClient` and :class:`Client`: building, authorizing and starting requests."""

    def __init__(
        self,
        *,
        headers: HeaderTypes = None,
        params: ParamTypes = None,
        cookies: CookieTypes = None,
        auth: AuthTypes = None,
        follow_redirects: bool = False,
        max_redirects: int = DEFAULT_MAX_REDIRECTS,
        event_hooks: EventHooks | None = None,
        timeout: TimeoutTypes = DEFAULT_TIMEOUT,
        verify: VerifyTypes = True,
        cert: CertTypes = None,
        proxy: str | Proxy | None = None,
        uds: str | PathLike[str] | None = None,
        http1: bool = True,
        http2: bool = False,
        limits: Limits = DEFAULT_LIMITS,
        trust_env: bool = True,
        base_url: str = "",
        transport: Any = None,
        mounts: Mapping[str, Any] | None = None,
        default_encoding: str | Callable[[bytes], str] = "utf-8",
    ) -> None:
        self.headers = headers
        self.params = params
        self.auth = auth
        self.timeout = timeout
        self.base_url = base_url
        self.event_hooks = event_hooks or {}
        #: Whether redirects are followed, and the most for a request.
        self.follow_redirects = follow_redirects
        self.max_redirects = max_redirects
        self._cookies: Cookies | None = None
        if cookies is not None:
            self.cookies = cookies
        self._default_encoding = default_encoding
        self._trust_env = trust_env
        self._transport = transport
        self._mounts = Mounts(mounts or {})
        self._is_opened = False
        self._is_closed = False
        trusted, authorities = trust(verify)
        self._native = HttpClient(
            verify=trusted,
            authorities=authorities,
            identity=identity(cert),
            proxy=None if proxy is None else Proxy.of(proxy).full_url(),
            trust_env=trust_env,
            http1=http1,
            http2=http2,
            keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            connections=limits.max_connections,
            unix_socket=uds,
        )

    @property
    def is_closed(self) -> bool:
        """True if the client accepts no more requests."""
        return self._is_closed

    @property
    def trust_env(self) -> bool:
        """Whether the proxies of the environment or the system are used."""
        return self._trust_env

    @property
    def headers(self) -> Headers:
        """The headers of every request."""
        return self._headers

    @headers.setter
    def headers(self, headers: HeaderTypes) -> None:
        self._headers = Headers({"Accept": "*/*"})
        self._headers.update(headers)

    @property
    def params(self) -> QueryParams:
        """The parameters of every request."""
        return self._params

    @params.setter
    def params(self, params: ParamTypes) -> None:
        self._params = QueryParams(params)

    @property
    def cookies(self) -> Cookies:
        """The cookies, which responses add to."""
        if self._cookies is None:
            from ._cookies import Cookies

            self._cookies = Cookies()
        return self._cookies

    @cookies.setter
    def cookies(self, cookies: CookieTypes) -> None:
        from ._cookies import Cookies

        self._cookies = Cookies(cookies)

    @property
    def auth(self) -> Auth | None:
        """How requests are authenticated."""
        return self._auth

    @auth.setter
    def auth(self, auth: AuthTypes) -> None:
        self._auth = made_auth(auth)

    @property
    def timeout(self) -> Timeout:
        """The timeouts of requests."""
        return self._timeout

    @timeout.setter
    def timeout(self, timeout: TimeoutTypes) -> None:
        self._timeout = Timeout(timeout)

    @property
    def base_url(self) -> str:
        """The prefix of relative URLs, with a slash at the end, or nothing."""
        return self._base_url

    @base_url.setter
    def base_url(self, url: str) -> None:
        self._base_url = ""
        if url != "":
            parsed = URL(url)
            ended = parsed.raw_path if parsed.raw_path.endswith(b"/") else parsed.raw_path + b"/"
            self._base_url = parsed.copy_with(raw_path=ended, fragment=None)

    @property
    def event_hooks(self) -> dict[str, list[Callable[[Any], Any]]]:
        """The functions that are called with each request and each response."""
        return self._event_hooks

    @event_hooks.setter
    def event_hooks(self, hooks: EventHooks) -> None:
        unknown = hooks.keys() - {"request", "response"}
        if unknown:
            raise ValueError(f"event_hooks are for request and response, not {min(unknown)!r}")
        self._event_hooks = {name: list(hooks.get(name, ())) for name in ("request", "response")}

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
        cookies: CookieTypes = None,
        timeout: TimeoutTypes | _Unset = UNSET,
        extensions: Mapping[str, Any] | None = None,
    ) -> Request:
        """Builds the request that the other methods would send.

        Raises:
            InvalidURL: The text is not a URL.
            UnsupportedProtocol: Its scheme is neither http nor https.
        """
        if self._base_url and is_relative(url):
            url = f"{self._base_url}{url.lstrip('/')}"
        if self._params:
            params = self._params.merge(params)
        merged = Headers(self._headers)
        merged.update(headers)
        if self._cookies and not cookies:
            cookies = self._cookies
        elif self._cookies:
            from ._cookies import Cookies

            both = Cookies(self._cookies)
            both.update(cookies)
            cookies = both
        more = dict(extensions or {})
        if "timeout" not in more:
            more["timeout"] = (self._timeout if isinstance(timeout, _Unset) else Timeout(timeout)).as_dict()
        return Request(
            method,
            url,
            params=params,
            headers=merged,
            cookies=cookies,
            content=content,
            data=data,
            json=json,
            extensions=more,
        )

    def _open(self) -> None:
        if self._is_closed:
            raise RuntimeError("Cannot reopen a client instance, once it has been closed.")
        if self._is_opened:
            raise RuntimeError("Cannot open a client instance more than once.")
        self._is_opened = True

    def _close(self) -> None:
        self._is_closed = True
        self._native.close()

    def _steps(
        self,
        request: Request,
        *,
        auth: AuthTypes | _Unset = UNSET,
        follow_redirects: bool | _Unset = UNSET,
        whole: bool,
    ) -> Steps:
        """Yields the steps of a request, and returns its response."""
        if self._is_closed:
            raise RuntimeError("Cannot send a request, as the client has been closed.")
        follow = self.follow_redirects if isinstance(follow_redirects, _Unset) else follow_redirects
        chosen = self._auth if isinstance(auth, _Unset) else made_auth(auth)
        userinfo = request.url.userinfo if chosen is None else None
        if userinfo is not None and "Authorization" not in request.headers:
            chosen = BasicAuth(*userinfo)
        if chosen is None:
            return (yield from self._redirected(request, [], follow, whole))
        flow = self._flow(chosen, request)
        try:
            history: list[Response] = []
            request = yield partial(self._advance, flow, None)
            while True:
                response = yield from self._redirected(request, history, follow, whole)
                try:
                    following = yield partial(self._advance, flow, response)
                except BaseException:
                    response.close()
                    raise
                if following is None:
                    return response
                response.history = list(history)
                yield partial(self._read, response)
                history.append(response)
                request = following
        finally:
            yield partial(self._end, flow)

    def _redirected(self, request: Request, history: list[Response], follow: bool, whole: bool) -> Steps:
        """Sends a request, and the requests that its redirects lead to if they are followed."""
        history = list(history)
        begun = len(history)
        while True:
            if len(history) - begun > self.max_redirects:
                raise TooManyRedirects("Exceeded maximum allowed redirects.", request=request)
            for hook in self._event_hooks["request"]:
                yield partial(self._call, hook, request)
            response = yield partial(self._send_once, request, whole)
            try:
                self._note(response)
                for hook in self._event_hooks["response"]:
                    yield partial(self._call, hook, response)
                response.history = list(history)
                if response.has_redirect_location and not follow:
                    response.next_request = self._next_request(response)
                if not (response.has_redirect_location and follow):
                    return response  # type: ignore[no-any-return]
                request = self._redirect(response)
                yield partial(self._read, response)
            except BaseException:
                response.close()
                raise
            history.append(response)

    def _note(self, response: Response) -> None:
        """Takes the cookies of a response, and logs it."""
        if "set-cookie" in response.headers:
            self.cookies.extract_cookies(response)
        if logger.isEnabledFor(logging.INFO):
            logger.info(
                'HTTP Request: %s %s "%s %d %s"',
                response.request.method,
                response.url.shown(),
                response.http_version,
                response.status_code,
                response.reason_phrase,
            )

    def _next_request(self, response: Response) -> Request | None:
        """Returns the request that a redirect leads to, or None if it cannot be followed."""
        try:
            return self._redirect(response)
        except RequestError:
            return None

    def _redirect(self, response: Response) -> Request:
        """Returns the request that a redirect leads to.

        Raises:
            RemoteProtocolError: The location is no URL, or less secure.
            UnsupportedProtocol: The location has another scheme.
        """
        old = response.request
        try:
            url = old.url.join(response.headers["location"])
        except InvalidURL as error:
            raise RemoteProtocolError(f"the location of a redirect cannot be used: {error}", request=old) from None
        except UnsupportedProtocol as error:
            error.request = old
            raise
        if old.url.scheme == "https" and url.scheme == "http":
            raise RemoteProtocolError("the server redirects from https to http, which is not followed", request=old)
        if old.url.fragment and not url.fragment:
            url = url.copy_with(fragment=old.url.fragment)
        method = old.method
        is_seen = response.status_code in (302, 303) and method != "HEAD"
        if is_seen or (response.status_code == 301 and method == "POST"):
            method = "GET"
        headers, cookies = old.headers.copy(), self._cookies
        if not _may_keep_credentials(old.url, url):
            headers = headers.without_secrets()
            cookies = None if cookies is None else cookies.of_servers()
        gone = ["cookie"]
        if old.url.origin != url.origin:
            gone.append("host")
        if method != old.method:
            gone += ["content-length", "content-type", "content-encoding", "transfer-encoding"]
        for name in gone:
            headers.pop(name, None)
        content = b"" if method != old.method else old.content
        return Request(method, url, headers=headers, cookies=cookies, content=content, extensions=old.extensions)

    def _transports(self) -> list[Any]:
        """Returns all transports of the program, which are opened and closed with the client."""
        return [*([] if self._transport is None else [self._transport]), *self._mounts.all()]

    def _timeout_of(self, request: Request) -> Timeout:
        times = request.extensions.get("timeout")
        return self._timeout if times is None else Timeout(None, **times)

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

    def _finished(self, response: Response, request: Request, begun: float) -> Response:
        response.request = request
        response.elapsed = timedelta(seconds=perf_counter() - begun)
        response._default_encoding = self._default_encoding
        return response

    # What the two clients do in their own ways.

    def _flow(self, auth: Auth, request: Request) -> Any:
        raise NotImplementedError

    def _advance(self, flow: Any, response: Response | None) -> Any:
        """Returns the next request of an authentication, or None at its end."""
        raise NotImplementedError

    def _end(self, flow: Any) -> Any:
        raise NotImplementedError

    def _call(self, hook: Callable[[Any], Any], argument: Any) -> Any:
        raise NotImplementedError

    def _read(self, response: Response) -> Any:
        raise NotImplementedError

    def _send_once(self, request: Request, whole: bool) -> Any:
        raise NotImplementedError


def _may_keep_credentials(old: URL, new: URL) -> bool:
    """True for the same origin, or the same host if only TLS is added."""
    is_secured = (old.scheme, old.port, new.scheme, new.port) == ("http", None, "https", None)
    return old.origin == new.origin or (is_secured and old.host == new.host)


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
        cookies: CookieTypes = None,
        auth: AuthTypes | _Unset = UNSET,
        follow_redirects: bool | _Unset = UNSET,
        timeout: TimeoutTypes | _Unset = UNSET,
        extensions: Mapping[str, Any] | None = None,
    ) -> Response:
        """Sends a request, and reads the whole response.

        Args:
            content: The body, sent unchanged. An async iterable of bytes is sent while it is iterated, with chunked
                encoding unless the headers give its length.
            data: A form, or a body that is sent unchanged.
            json: A body to encode as JSON.
            params: The URL's query, instead of its own. The client's are added.
            headers: Headers in addition to the client's. A header of the same name replaces the client's.
            cookies: Cookies in addition to the client's.
            auth, follow_redirects, timeout: Replace the client's.
            extensions: More about the request: see :class:`Request`.

        Raises:
            RequestError: No response arrived, or only a part (see the subclasses).
            RuntimeError: The client is closed, or there is no asyncio event loop.
        """
        request = self.build_request(
            method,
            url,
            content=content,
            data=data,
            json=json,
            params=params,
            headers=headers,
            cookies=cookies,
            timeout=timeout,
            extensions=extensions,
        )
        return await self.send(request, auth=auth, follow_redirects=follow_redirects)

    async def get(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """``request("GET", …)``"""
        return await self.request("GET", url, **options)

    async def head(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """``request("HEAD", …)``"""
        return await self.request("HEAD", url, **options)

    async def options(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """``request("OPTIONS", …)``"""
        return await self.request("OPTIONS", url, **options)

    async def post(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """``request("POST", …)``"""
        return await self.request("POST", url, **options)

    async def put(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """``request("PUT", …)``"""
        return await self.request("PUT", url, **options)

    async def patch(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """``request("PATCH", …)``"""
        return await self.request("PATCH", url, **options)

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
        cookies: CookieTypes = None,
        auth: AuthTypes | _Unset = UNSET,
        follow_redirects: bool | _Unset = UNSET,
        timeout: TimeoutTypes | _Unset = UNSET,
        extensions: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[Response]:
        """Sends a request, and streams the response: ``async with client.stream(…) as response``.

        The end of the block frees the connection. For arguments and exceptions see :meth:`request`.
        """
        request = self.build_request(
            method,
            url,
            content=content,
            data=data,
            json=json,
            params=params,
            headers=headers,
            cookies=cookies,
            timeout=timeout,
            extensions=extensions,
        )
        response = await self.send(request, stream=True, auth=auth, follow_redirects=follow_redirects)
        try:
            yield response
        finally:
            response.close()

    async def send(
        self,
        request: Request,
        *,
        stream: bool = False,
        auth: AuthTypes | _Unset = UNSET,
        follow_redirects: bool | _Unset = UNSET,
    ) -> Response:
        """Sends a request from :meth:`build_request`. With ``stream`` the body is streamed, and the caller must close
        the response. ``auth`` and ``follow_redirects`` replace the client's.

        Raises:
            RequestError: No response arrived, or only a part.
        """
        steps = self._steps(request, auth=auth, follow_redirects=follow_redirects, whole=not stream)
        response = await self._execute(steps)
        if stream:
            response._send_again = partial(self.send, stream=True, auth=auth, follow_redirects=follow_redirects)
        else:
            await self._read(response)
        return response

    async def aclose(self) -> None:
        """Refuses further requests. Open streams go on."""
        is_open = not self._is_closed
        self._close()
        for transport in self._transports() if is_open else ():
            await transport.aclose()

    async def __aenter__(self) -> Self:
        self._open()
        for transport in self._transports():
            await transport.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        is_open = not self._is_closed
        self._close()
        for transport in self._transports() if is_open else ():
            await transport.__aexit__(kind, error, traceback)

    async def _execute(self, steps: Steps) -> Response:
        try:
            step = next(steps)
            while True:
                try:
                    result = await step()
                except BaseException as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(result)
        except StopIteration as end:
            response: Response = end.value
            return response

    def _flow(self, auth: Auth, request: Request) -> Any:
        return auth.async_auth_flow(request)

    async def _advance(self, flow: Any, response: Response | None) -> Any:
        try:
            return await flow.asend(response)
        except StopAsyncIteration:
            return None

    async def _end(self, flow: Any) -> None:
        await flow.aclose()

    async def _call(self, hook: Callable[[Any], Any], argument: Any) -> None:
        await hook(argument)

    async def _read(self, response: Response) -> None:
        await response.aread()

    async def _send_once(self, request: Request, whole: bool) -> Response:
        begun = perf_counter()
        transport = self._mounts.transport(request.url, self._transport)
        if transport is not None:
            response = checked(await transport.handle_async_request(request))
            return self._finished(response, request, begun)
        times = self._timeout_of(request)
        content: Any = request.content
        task = UploadTask(content, times.write) if isinstance(content, AsyncIterable) else None
        if task is None and not isinstance(content, bytes):
            raise RuntimeError(
                "an AsyncClient sends bytes, str and async iterables of bytes: this iterable is for a Client"
            )
        sending = complete(self._sending(request, times, task.native if task is not None else content, whole=whole))
        try:
            native = await (sending if task is None else task.beside(sending))
        except RequestError as error:
            error.request = request
            raise
        if task is not None and whole:
            task.stop()
        return self._finished(Response._received(native, request, task), request, begun)


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
        cookies: CookieTypes = None,
        auth: AuthTypes | _Unset = UNSET,
        follow_redirects: bool | _Unset = UNSET,
        timeout: TimeoutTypes | _Unset = UNSET,
        extensions: Mapping[str, Any] | None = None,
    ) -> Response:
        """Sends a request, and reads the whole response.

        For the arguments see :meth:`AsyncClient.request`. ``content`` may be an iterable of bytes, which is sent while
        this thread iterates it.

        Raises:
            RequestError: No response arrived, or only a part (see the subclasses).
            RuntimeError: The client is closed.
        """
        request = self.build_request(
            method,
            url,
            content=content,
            data=data,
            json=json,
            params=params,
            headers=headers,
            cookies=cookies,
            timeout=timeout,
            extensions=extensions,
        )
        return self.send(request, auth=auth, follow_redirects=follow_redirects)

    def get(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """``request("GET", …)``"""
        return self.request("GET", url, **options)

    def head(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """``request("HEAD", …)``"""
        return self.request("HEAD", url, **options)

    def options(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """``request("OPTIONS", …)``"""
        return self.request("OPTIONS", url, **options)

    def post(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """``request("POST", …)``"""
        return self.request("POST", url, **options)

    def put(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """``request("PUT", …)``"""
        return self.request("PUT", url, **options)

    def patch(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """``request("PATCH", …)``"""
        return self.request("PATCH", url, **options)

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
        cookies: CookieTypes = None,
        auth: AuthTypes | _Unset = UNSET,
        follow_redirects: bool | _Unset = UNSET,
        timeout: TimeoutTypes | _Unset = UNSET,
        extensions: Mapping[str, Any] | None = None,
    ) -> Iterator[Response]:
        """Sends a request, and streams the response: ``with client.stream(…) as response``.

        The end of the block frees the connection. For arguments and exceptions see :meth:`request`.
        """
        request = self.build_request(
            method,
            url,
            content=content,
            data=data,
            json=json,
            params=params,
            headers=headers,
            cookies=cookies,
            timeout=timeout,
            extensions=extensions,
        )
        response = self.send(request, stream=True, auth=auth, follow_redirects=follow_redirects)
        try:
            yield response
        finally:
            response.close()

    def send(
        self,
        request: Request,
        *,
        stream: bool = False,
        auth: AuthTypes | _Unset = UNSET,
        follow_redirects: bool | _Unset = UNSET,
    ) -> Response:
        """Sends a request from :meth:`build_request`. With ``stream`` the body is streamed, and the caller must close
        the response. ``auth`` and ``follow_redirects`` replace the client's.

        Raises:
            RequestError: No response arrived, or only a part.
        """
        steps = self._steps(request, auth=auth, follow_redirects=follow_redirects, whole=not stream)
        response = self._execute(steps)
        if stream:
            response._send_again = partial(self.send, stream=True, auth=auth, follow_redirects=follow_redirects)
        else:
            self._read(response)
        return response

    def close(self) -> None:
        """Refuses further requests. Open streams go on."""
        is_open = not self._is_closed
        self._close()
        for transport in self._transports() if is_open else ():
            transport.close()

    def __enter__(self) -> Self:
        self._open()
        for transport in self._transports():
            transport.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        is_open = not self._is_closed
        self._close()
        for transport in self._transports() if is_open else ():
            transport.__exit__(kind, error, traceback)

    def _execute(self, steps: Steps) -> Response:
        try:
            step = next(steps)
            while True:
                try:
                    result = step()
                except BaseException as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(result)
        except StopIteration as end:
            response: Response = end.value
            return response

    def _flow(self, auth: Auth, request: Request) -> Any:
        return auth.sync_auth_flow(request)

    def _advance(self, flow: Any, response: Response | None) -> Any:
        try:
            return flow.send(response)
        except StopIteration:
            return None

    def _end(self, flow: Any) -> None:
        flow.close()

    def _call(self, hook: Callable[[Any], Any], argument: Any) -> None:
        hook(argument)

    def _read(self, response: Response) -> None:
        response.read()

    def _send_once(self, request: Request, whole: bool) -> Response:
        begun = perf_counter()
        transport = self._mounts.transport(request.url, self._transport)
        if transport is not None:
            return self._finished(checked(transport.handle_request(request)), request, begun)
        times = self._timeout_of(request)
        content: Any = request.content
        if isinstance(content, AsyncIterable) and not isinstance(content, Iterable):
            raise RuntimeError(
                "a Client sends bytes, str and iterables of bytes: this async iterable is for an AsyncClient"
            )
        body = content if isinstance(content, bytes) else Upload()
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
        return self._finished(Response._received(native, request, is_async=False), request, begun)


__all__ = ["URL", "AsyncClient", "AuthTypes", "CertTypes", "Client", "VerifyTypes"]
