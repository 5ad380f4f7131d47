"""`ResilientHttpClient`: an HTTP client that retries failed requests, with the interface of
`mcpgateway.utils.retry_manager`.

Rule: a request that may have had an effect is not sent again. GET, HEAD, OPTIONS, TRACE, PUT and
DELETE are retried after any of `RETRYABLE_STATUS_CODES` and after a failed connection. Other
methods are retried only if the server cannot have acted: it was not reached, or it refused with 429
or 503. Waits for `Retry-After` are limited to `LONGEST_RETRY_AFTER` seconds in total; beyond that
the caller gets the response.

If httpx is installed, the underlying client is an `httpx.AsyncClient`, because code written for the
original expects it: it checks the type, patches methods and catches httpx's exceptions. Otherwise
it is `mcp_gangway.AsyncClient`. `client_class` selects one explicitly.
"""

from __future__ import annotations

import asyncio
import email.utils
import logging
import math
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import mcp_gangway

try:
    import httpx
except ImportError:
    import mcp_gangway as httpx  # type: ignore[no-redef]

__all__ = [
    "LONGEST_RETRY_AFTER",
    "NON_RETRYABLE_STATUS_CODES",
    "RETRYABLE_STATUS_CODES",
    "ResilientHttpClient",
    "RetriesExhausted",
    "httpx",
    "logger",
    "settings",
]

logger = logging.getLogger(__name__)

RETRYABLE_STATUS_CODES = {429, 502, 503, 504, 408}
NON_RETRYABLE_STATUS_CODES = {400, 401, 403, 404, 405, 406}

# The most seconds that one request waits because of `Retry-After`.
LONGEST_RETRY_AFTER = 30.0

_UNREAD_STATUS_CODES = {429, 503}
_IDEMPOTENT_METHODS = {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"}


@dataclass(frozen=True)
class _Defaults:
    """The defaults. Times are in seconds."""

    retry_max_attempts: int = 3
    retry_base_delay: float = 1.0
    retry_max_delay: float = 60.0
    retry_jitter_max: float = 0.5
    httpx_max_connections: int = 200
    httpx_max_keepalive_connections: int = 100
    httpx_keepalive_expiry: float = 30.0


settings = _Defaults()


class RetriesExhausted(RuntimeError):
    """All attempts to open a stream failed.

    If the last attempt raised an exception, that is the cause (`__cause__`). Otherwise `status_code`
    is the status of its refusal, or None.
    """

    def __init__(self, message: str, status_code: int | None = None) -> None:
        super().__init__(message)
        self.status_code = status_code


class ResilientHttpClient:
    """Sends requests, and retries them if that can help and is safe.

    Args:
        max_retries: Maximum number of attempts, including the first; with 0 nothing is sent.
        base_backoff: Seconds before the second attempt. The delay doubles each time.
        max_delay: Longest delay between two attempts, in seconds (`LONGEST_RETRY_AFTER` limits the
            waits that a server asks for).
        jitter_max: Random addition to a delay, as a fraction of it, from 0 to 1.
        client_args: Arguments of the underlying client. The default `limits` are 200 connections,
            and 100 idle ones that are kept for 30 seconds.
        client_class: Class of the underlying client: `httpx.AsyncClient` by default (see the
            module), or `mcp_gangway.AsyncClient`.
    """

    client: httpx.AsyncClient

    def __init__(
        self,
        max_retries: int = settings.retry_max_attempts,
        base_backoff: float = settings.retry_base_delay,
        max_delay: float = settings.retry_max_delay,
        jitter_max: float = settings.retry_jitter_max,
        client_args: dict[str, Any] | None = None,
        *,
        client_class: Callable[..., Any] | None = None,
    ) -> None:
        self.max_retries = max_retries
        self.base_backoff = base_backoff
        self.max_delay = max_delay
        self.jitter_max = jitter_max
        self.client_args = dict(client_args or {})
        library = mcp_gangway if client_class is mcp_gangway.AsyncClient else httpx
        if "limits" not in self.client_args:
            self.client_args["limits"] = library.Limits(
                max_connections=settings.httpx_max_connections,
                max_keepalive_connections=settings.httpx_max_keepalive_connections,
                keepalive_expiry=settings.httpx_keepalive_expiry,
            )
        self.client = (client_class or httpx.AsyncClient)(**self.client_args)

    async def request(self, method: str, url: str, **kwargs: Any) -> Any:
        """Sends a request, with retries, and reads the whole response.

        Args:
            method: The HTTP method.
            url: The URL.
            **kwargs: Arguments of the client's own `request`.

        Returns:
            The first final response, or else the last one; None if `max_retries` is 0.

        Raises:
            Exception: The last attempt raised it, or the first one that cannot be retried.
        """
        patience = _Patience()
        response: Any = None
        for attempt in range(self.max_retries):
            failure: Exception | None = None
            try:
                logger.debug("attempt %d: %s %s", attempt + 1, method, without_secrets(url))
                response = await self.client.request(method, url, **_as_content(kwargs))
            except Exception as error:
                if not self._may_repeat(method, error, None):
                    raise
                failure = error
                logger.warning("%s will be retried: %s", method, describe(error))
            else:
                if response.is_success or not self._may_repeat(method, None, response):
                    return response
            is_last = attempt + 1 == self.max_retries
            if is_last and failure:
                raise failure
            asked = None if failure else _retry_after(response)
            if asked:
                if is_last or not patience.allows(asked):
                    return response
                logger.warning("the server asks to wait %.1f s", asked)
                await asyncio.sleep(asked)
            else:
                await self._back_off(attempt)
        logger.error("no attempts left for %s", without_secrets(url))
        return response

    async def get(self, url: str, **kwargs: Any) -> Any:
        """`request` with GET."""
        return await self.request("GET", url, **kwargs)

    async def post(self, url: str, **kwargs: Any) -> Any:
        """`request` with POST, which is retried only if the server cannot have acted on it."""
        return await self.request("POST", url, **kwargs)

    async def put(self, url: str, **kwargs: Any) -> Any:
        """`request` with PUT."""
        return await self.request("PUT", url, **kwargs)

    async def delete(self, url: str, **kwargs: Any) -> Any:
        """`request` with DELETE."""
        return await self.request("DELETE", url, **kwargs)

    @asynccontextmanager
    async def stream(self, method: str, url: str, **kwargs: Any) -> AsyncIterator[Any]:
        """Opens a response and streams its body. Only the opening is retried.

        Args:
            method: The HTTP method.
            url: The URL.
            **kwargs: Arguments of the client's own `stream`.

        Yields:
            The first final response: a success, or an error that a retry would not fix. Errors
            while reading are raised to the reader and not retried.

        Raises:
            RetriesExhausted: A RuntimeError. No attempt led to such a response.
            Exception: An attempt raised it that cannot be retried.
        """
        async with AsyncExitStack() as stack:
            yield await self._open(stack, method, url, _as_content(kwargs))

    async def aclose(self) -> None:
        """Closes the client and its connections."""
        await self.client.aclose()

    async def __aenter__(self) -> ResilientHttpClient:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def _open(self, stack: AsyncExitStack, method: str, url: str, kwargs: dict[str, Any]) -> Any:
        """Returns the response, which `stack` closes. Refused responses are closed at once."""
        patience = _Patience()
        status: int | None = None
        for attempt in range(self.max_retries):
            asked: float | None = None
            is_last = attempt + 1 == self.max_retries
            try:
                logger.debug("attempt %d: %s %s as a stream", attempt + 1, method, without_secrets(url))
                async with AsyncExitStack() as this:
                    response = await this.enter_async_context(self.client.stream(method, url, **kwargs))
                    status = int(response.status_code)
                    is_final = _is_success(response) or not self._may_repeat(method, None, response)
                    asked = None if is_final else _retry_after(response)
                    if is_final or (asked and (is_last or not patience.allows(asked))):
                        stack.push_async_exit(this.pop_all())
                        return response
            except Exception as error:
                if not self._may_repeat(method, error, None):
                    raise
                if is_last:
                    raise RetriesExhausted(describe(error)) from error
                logger.warning("%s will be retried: %s", method, describe(error))
            if asked:
                logger.warning("the server asks to wait %.1f s", asked)
                await asyncio.sleep(asked)
            else:
                await self._back_off(attempt)
        raise RetriesExhausted("Max retries reached opening stream", status)

    async def _back_off(self, attempt: int) -> None:
        delay = self.base_backoff * 2**attempt
        await self._sleep_with_jitter(delay, delay * self.jitter_max)

    async def _sleep_with_jitter(self, base: float, jitter_range: float) -> None:
        """Sleeps for `base` seconds plus a random time up to `jitter_range`, at most `max_delay`."""
        delay = base + random.uniform(0, jitter_range)
        await asyncio.sleep(max(0.0, min(delay, self.max_delay)))

    def _should_retry(self, exc: Exception | None, response: Any) -> bool:
        """True if another attempt could succeed, regardless of side effects."""
        if isinstance(exc, _kinds("ConnectTimeout", "ReadTimeout", "NetworkError")):
            return True
        if response is None:
            return False
        if response.status_code in NON_RETRYABLE_STATUS_CODES:
            logger.info(f"Response {response.status_code}: Not retrying.")
            return False
        if response.status_code in RETRYABLE_STATUS_CODES:
            logger.info(f"Response {response.status_code}: Retrying.")
            return True
        return False

    def _may_repeat(self, method: str, exc: Exception | None, response: Any) -> bool:
        """True if another attempt could succeed, and cannot repeat an effect."""
        if not self._should_retry(exc, response):
            return False
        if method.upper() in _IDEMPOTENT_METHODS:
            return True
        if response is not None:
            return response.status_code in _UNREAD_STATUS_CODES
        return is_unsent(exc)


def is_unsent(error: BaseException | None) -> bool:
    """True if `error` means that the server received nothing of the request."""
    return isinstance(error, _kinds("ConnectError", "ConnectTimeout", "PoolTimeout"))


class _Patience:
    """The rest of `LONGEST_RETRY_AFTER`."""

    def __init__(self) -> None:
        self._left = LONGEST_RETRY_AFTER

    def allows(self, seconds: float) -> bool:
        if seconds > self._left:
            return False
        self._left -= seconds
        return True


def _kinds(*names: str) -> tuple[type[Exception], ...]:
    """Returns the exceptions with these names, httpx's and ours. They are looked up late, because
    either module may still be loading."""
    return tuple(getattr(library, name) for library in {httpx, mcp_gangway} for name in names)


def _is_success(response: Any) -> bool:
    return 200 <= response.status_code < 300 or bool(response.is_success)


def _retry_after(response: Any) -> float | None:
    """Returns the seconds that the response asks to wait, or None if it names no valid delay."""
    if response.status_code not in _UNREAD_STATUS_CODES:
        return None
    text = response.headers.get("Retry-After")
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
        except ValueError:
            return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None


def _as_content(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Moves raw bytes from `data`, where httpx deprecates them, to `content`."""
    if isinstance(kwargs.get("data"), (bytes, str)):
        kwargs = dict(kwargs)
        kwargs["content"] = kwargs.pop("data")
    return kwargs


def describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def without_secrets(url: Any) -> str:
    """Returns scheme, host and path for the log, without user name, password and query."""
    text = str(url).split("?", 1)[0].split("#", 1)[0]
    scheme, separator, rest = text.partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}{separator}{authority.rpartition('@')[2]}{slash}{path}" if separator else text
