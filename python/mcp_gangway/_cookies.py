"""Cookies, on the standard library's jar, which knows to which host and path each belongs.

Rule: a response sets cookies only for its own host or a domain of it, and a request gets only those for its host.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from email.message import Message
from http.cookiejar import Cookie, CookieJar
from typing import TYPE_CHECKING, Any, Union
from urllib.request import Request as UrlRequest

if TYPE_CHECKING:
    from ._models import Request
    from ._response import Response

CookieTypes = Union["Cookies", CookieJar, Mapping[str, str], Iterable[tuple[str, str]], None]

#: The most cookies of a jar. No benign server sets as many; when there are more, all are dropped.
_MOST = 1000


class CookieConflict(Exception):
    """Several cookies have this name: name the domain or path as well."""


class Cookies(MutableMapping[str, str]):
    """A jar of cookies, as a mapping from names to values. ``jar`` is the standard library's ``CookieJar``."""

    def __init__(self, cookies: CookieTypes = None) -> None:
        self.jar = cookies if isinstance(cookies, CookieJar) else CookieJar()
        if not isinstance(cookies, CookieJar):
            self.update(cookies)

    def extract_cookies(self, response: Response) -> None:
        """Takes the cookies that a response sets."""
        self.jar.extract_cookies(_Answer(response), _Asked(response.request))  # type: ignore[arg-type]
        if len(self.jar) > _MOST:
            self.jar.clear()

    def set_cookie_header(self, request: Request) -> None:
        """Adds the cookies for a request to its headers, unless it has a ``Cookie`` header."""
        self.jar.add_cookie_header(_Asked(request))

    def set(self, name: str, value: str, domain: str = "", path: str = "/") -> None:
        """Sets a cookie. Without a domain it is sent to every host."""
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError("names and values of cookies are str")
        self.jar.set_cookie(
            Cookie(
                version=0,
                name=name,
                value=value,
                port=None,
                port_specified=False,
                domain=domain,
                domain_specified=bool(domain),
                domain_initial_dot=domain.startswith("."),
                path=path,
                path_specified=bool(path),
                secure=False,
                expires=None,
                discard=True,
                comment=None,
                comment_url=None,
                rest={},
            )
        )

    def get(  # type: ignore[override]
        self, name: str, default: str | None = None, domain: str | None = None, path: str | None = None
    ) -> str | None:
        """Returns the value of a cookie.

        Raises:
            CookieConflict: Several cookies match.
        """
        found = [cookie.value for cookie in self._matching(name, domain, path)]
        if len(found) > 1:
            raise CookieConflict(f"several cookies are named {name!r}: name the domain or path as well")
        return found[0] if found and found[0] is not None else default

    def delete(self, name: str, domain: str | None = None, path: str | None = None) -> None:
        """Removes all cookies that match."""
        for cookie in self._matching(name, domain, path):
            self.jar.clear(cookie.domain, cookie.path, cookie.name)

    def clear(self, domain: str | None = None, path: str | None = None) -> None:
        """Removes all cookies, or those of a domain and path."""
        if domain is None:
            self.jar.clear()
        elif path is None:
            self.jar.clear(domain)
        else:
            self.jar.clear(domain, path)

    def update(self, cookies: CookieTypes = None) -> None:  # type: ignore[override]
        """Adds cookies; those of a mapping are sent to every host."""
        if isinstance(cookies, (Cookies, CookieJar)):
            for cookie in cookies.jar if isinstance(cookies, Cookies) else cookies:
                self.jar.set_cookie(cookie)
        elif cookies is not None:
            for name, value in cookies.items() if isinstance(cookies, Mapping) else cookies:
                self.set(name, value)

    def of_servers(self) -> Cookies:
        """Returns those that belong to a host. Those of the program may be for any host."""
        other = Cookies()
        for cookie in self.jar:
            if cookie.domain:
                other.jar.set_cookie(cookie)
        return other

    def _matching(self, name: str, domain: str | None, path: str | None) -> list[Cookie]:
        return [
            cookie
            for cookie in self.jar
            if cookie.name == name and domain in (None, cookie.domain) and path in (None, cookie.path)
        ]

    def __setitem__(self, name: str, value: str) -> None:
        self.set(name, value)

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __delitem__(self, name: str) -> None:
        if not self._matching(name, None, None):
            raise KeyError(name)
        self.delete(name)

    def __iter__(self) -> Iterator[str]:
        return (cookie.name for cookie in self.jar)

    def __len__(self) -> int:
        return len(self.jar)

    def __bool__(self) -> bool:
        return any(True for _ in self.jar)

    def __repr__(self) -> str:
        # A value may be a session.
        return f"Cookies({[(cookie.name, cookie.domain, cookie.path) for cookie in self.jar]!r})"


class _Asked(UrlRequest):
    """A request, as the jar sees it."""

    def __init__(self, request: Request) -> None:
        super().__init__(request.url.sent(), headers=dict(request.headers), method=request.method)
        self._request = request

    def add_unredirected_header(self, key: str, val: str) -> None:
        self._request.headers[key] = val


class _Answer:
    """A response, as the jar sees it."""

    def __init__(self, response: Response) -> None:
        self._response = response

    def info(self) -> Message[str, str]:
        message: Any = Message()
        for name, value in self._response.headers.multi_items():
            # Not `message[name] = value`, which limits some names to one value.
            message.add_header(name, value)
        return message  # type: ignore[no-any-return]
