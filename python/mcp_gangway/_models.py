"""The parts of requests and responses: headers, timeouts, limits.

Rule: they behave like the httpx classes of the same name, as far as a client of JSON-RPC or of streams uses those.
"""

from __future__ import annotations

import json as _json
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Union
from urllib.parse import quote, unquote

from ._urls import URL, ParamTypes, Primitive, QueryParams, utf8

if TYPE_CHECKING:
    from ._cookies import CookieTypes

HeaderTypes = Union[
    "Headers",
    Mapping[str, str],
    Mapping[bytes, bytes],
    Iterable[tuple[str, str]],
    Iterable[tuple[bytes, bytes]],
    None,
]
TimeoutTypes = Union["Timeout", float, tuple[float | None, ...], None]
RequestContent = bytes | str | AsyncIterable[bytes] | Iterable[bytes]
RequestData = bytes | str | Mapping[str, Primitive | Iterable[Primitive]]


class Headers(MutableMapping[str, str]):
    """Headers of a request or response. Names ignore case, and can have several values.

    >>> headers = Headers([("Set-Cookie", "a=1"), ("set-cookie", "b=2")])
    >>> headers["SET-COOKIE"], headers.get_list("set-cookie")
    ('a=1, b=2', ['a=1', 'b=2'])
    """

    __slots__ = ("_pairs",)

    def __init__(self, headers: HeaderTypes = None) -> None:
        self._pairs: list[tuple[bytes, bytes]]
        if headers is None:
            self._pairs = []
        elif isinstance(headers, Headers):
            self._pairs = list(headers._pairs)
        elif not isinstance(headers, Iterable) or isinstance(headers, (str, bytes)):
            raise TypeError(f"headers are a mapping, or pairs of names and values, not {type(headers).__name__}")
        else:
            pairs: Any = headers.items() if isinstance(headers, Mapping) else headers
            self._pairs = [(_bytes(name, is_name=True), _bytes(value)) for name, value in pairs]

    @property
    def raw(self) -> list[tuple[bytes, bytes]]:
        """Names and values as sent or received."""
        return list(self._pairs)

    def get_list(self, key: str, split_commas: bool = False) -> list[str]:
        """Returns all values of a name; ``split_commas`` also splits comma-separated values."""
        name = key.lower().encode("ascii", "replace")
        values = [_text(value) for found, value in self._pairs if found.lower() == name]
        if not split_commas:
            return values
        return [part.strip() for value in values for part in value.split(",")]

    def multi_items(self) -> list[tuple[str, str]]:
        """Returns all pairs, with one pair for each value."""
        return [(_text(name).lower(), _text(value)) for name, value in self._pairs]

    def copy(self) -> Headers:
        """Returns an independent copy."""
        return Headers(self)

    def update(self, headers: HeaderTypes = None, /, **more: str) -> None:  # type: ignore[override]
        """Sets ``headers`` and the named ones, which replace all current values of their names."""
        other = Headers(headers)
        if more:
            other.update(more)
        gone = {name.lower() for name, _value in other._pairs}
        self._pairs = [pair for pair in self._pairs if pair[0].lower() not in gone] + other._pairs

    def __getitem__(self, key: str) -> str:
        values = self.get_list(key)
        if not values:
            raise KeyError(key)
        return ", ".join(values)

    def __setitem__(self, key: str, value: str) -> None:
        self.update([(key, value)])

    def __delitem__(self, key: str) -> None:
        name = key.lower().encode("ascii", "replace")
        rest = [pair for pair in self._pairs if pair[0].lower() != name]
        if len(rest) == len(self._pairs):
            raise KeyError(key)
        self._pairs = rest

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and bool(self.get_list(key))

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for name, _value in self.multi_items()))

    def __len__(self) -> int:
        return len({name.lower() for name, _value in self._pairs})

    def __eq__(self, other: object) -> bool:
        try:
            pairs = Headers(other)._pairs  # type: ignore[arg-type]
        except (TypeError, ValueError, AttributeError):
            return NotImplemented
        return _comparable(self._pairs) == _comparable(pairs)

    __hash__ = None  # type: ignore[assignment]

    def without_secrets(self) -> Headers:
        """Returns the headers whose values are known to be no secrets: keys and tokens have names of all kinds."""
        return Headers([pair for pair in self._pairs if pair[0].lower() in _OPEN])

    def __repr__(self) -> str:
        shown = [(name, value if name.encode() in _OPEN else "[secure]") for name, value in self.multi_items()]
        return f"Headers({(dict(shown) if len(dict(shown)) == len(shown) else shown)!r})"


#: Headers whose values are no secrets.
_OPEN = frozenset(
    b"""accept accept-charset accept-encoding accept-language accept-ranges age allow cache-control connection
    content-disposition content-encoding content-language content-length content-range content-type date etag expect
    expires host if-match if-modified-since if-none-match if-range if-unmodified-since keep-alive last-modified
    mcp-method mcp-protocol-version origin pragma proxy-connection range retry-after server te trailer
    transfer-encoding upgrade user-agent vary via""".split()
)


def _comparable(pairs: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return sorted((name.lower(), value) for name, value in pairs)


def _bytes(text: str | bytes, *, is_name: bool = False) -> bytes:
    if isinstance(text, bytes):
        return text
    if not isinstance(text, str):
        raise TypeError(f"Header value must be str or bytes, not {type(text)}")
    if is_name and not text.isascii():
        raise ValueError("the name of a header has a character that is not ASCII")
    return utf8(text, "the value of a header")


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


class _Unset:
    """The type of an argument that was not given."""

    def __repr__(self) -> str:
        return "<unset>"


UNSET = _Unset()


class Timeout:
    """Timeouts of a request, in seconds. None means no limit.

    Args:
        timeout: The default of the others.
        connect: DNS, TCP, proxy and TLS together.
        read: The longest time without data from the server, including while it accepts the request.
        write: The longest time in which the server accepts nothing of a body from an iterator. ``read`` covers other
            bodies.
        pool: The longest wait for a free connection.

    >>> Timeout(5.0, read=None)
    Timeout(connect=5.0, read=None, write=5.0, pool=5.0)
    """

    __slots__ = ("connect", "pool", "read", "write")

    connect: float | None
    read: float | None
    write: float | None
    pool: float | None

    def __init__(
        self,
        timeout: TimeoutTypes | _Unset = UNSET,
        *,
        connect: float | _Unset | None = UNSET,
        read: float | _Unset | None = UNSET,
        write: float | _Unset | None = UNSET,
        pool: float | _Unset | None = UNSET,
    ) -> None:
        values: tuple[float | None, ...]
        if isinstance(timeout, Timeout):
            values = (timeout.connect, timeout.read, timeout.write, timeout.pool)
        elif isinstance(timeout, tuple):
            values = (*timeout, *[None] * 4)[:4]
        elif isinstance(timeout, _Unset):
            if any(isinstance(value, _Unset) for value in (connect, read, write, pool)):
                raise ValueError("Timeout must either include a default, or set all four parameters explicitly.")
            values = (None,) * 4
        else:
            values = (timeout,) * 4
        given = (connect, read, write, pool)
        chosen = [old if isinstance(new, _Unset) else new for old, new in zip(values, given, strict=True)]
        self.connect, self.read, self.write, self.pool = chosen

    def as_dict(self) -> dict[str, float | None]:
        """Returns the four timeouts by name."""
        return {name: getattr(self, name) for name in ("connect", "read", "write", "pool")}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Timeout):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    def __hash__(self) -> int:
        return hash((self.connect, self.read, self.write, self.pool))

    def __repr__(self) -> str:
        return f"Timeout(connect={self.connect}, read={self.read}, write={self.write}, pool={self.pool})"


class Limits:
    """Limits on connections. None means no limit.

    Args:
        max_connections: Maximum number of open requests; further ones wait (see ``Timeout.pool``).
        max_keepalive_connections: Maximum number of idle connections to one host.
        keepalive_expiry: How long idle connections are kept, in seconds.
    """

    __slots__ = ("keepalive_expiry", "max_connections", "max_keepalive_connections")

    def __init__(
        self,
        *,
        max_connections: int | None = None,
        max_keepalive_connections: int | None = None,
        keepalive_expiry: float | None = 5.0,
    ) -> None:
        self.max_connections = max_connections
        self.max_keepalive_connections = max_keepalive_connections
        self.keepalive_expiry = keepalive_expiry

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Limits):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    def __hash__(self) -> int:
        return hash((self.max_connections, self.max_keepalive_connections, self.keepalive_expiry))

    def __repr__(self) -> str:
        return (
            f"Limits(max_connections={self.max_connections}, "
            f"max_keepalive_connections={self.max_keepalive_connections}, "
            f"keepalive_expiry={self.keepalive_expiry})"
        )


class Proxy:
    """A proxy and its credentials.

    Args:
        url: Its URL (``http``, ``https``, ``socks5``, ``socks5h``), perhaps with user and password.
        auth: ``(user, password)``, instead of those in the URL.
    """

    __slots__ = ("auth", "url")

    def __init__(self, url: str, *, auth: tuple[str, str] | None = None) -> None:
        if not isinstance(url, str):
            raise TypeError(f"proxy is the URL of a proxy, not {type(url).__name__}")
        utf8(url, "proxy")
        scheme, separator, rest = url.rpartition("://")
        userinfo, _, address = rest.rpartition("@")
        user, _, password = userinfo.partition(":")
        #: The URL without user and password.
        self.url = f"{scheme}{separator}{address}"
        #: The user and password, if there are any.
        self.auth = (unquote(user), unquote(password)) if auth is None and userinfo else auth

    @classmethod
    def of(cls, proxy: Any) -> Proxy:
        """Takes a URL, or a proxy object of httpx.

        Raises:
            TypeError: It is another object.
            ValueError: The object has settings that cannot be used.
        """
        if isinstance(proxy, cls):
            return proxy
        if hasattr(proxy, "scheme") and hasattr(proxy, "host"):
            return cls(str(proxy))
        if not (hasattr(proxy, "url") and hasattr(proxy, "auth")):
            return cls(proxy)
        if getattr(proxy, "headers", None) or getattr(proxy, "ssl_context", None):
            raise ValueError("proxy: its headers and ssl_context cannot be used")
        return cls(str(proxy.url), auth=proxy.auth)

    def full_url(self) -> str:
        """Returns the URL with user and password."""
        if self.auth is None:
            return self.url
        scheme, separator, address = self.url.rpartition("://")
        user, password = (quote(part, safe="") for part in self.auth)
        return f"{scheme}{separator}{user}:{password}@{address}"

    def __repr__(self) -> str:
        return f"Proxy({self.url!r}{', with a user' if self.auth else ''})"


class Request:
    """A request: method, URL, headers and body.

    Args:
        extensions: More about the request: ``{"timeout": {"connect": 5.0, …}}``.

    For the others see :meth:`AsyncClient.request`.
    """

    __slots__ = ("content", "extensions", "headers", "method", "url")

    #: The body: bytes, or an iterable that has not been read.
    content: bytes | AsyncIterable[bytes] | Iterable[bytes]

    def __init__(
        self,
        method: str,
        url: str,
        *,
        params: ParamTypes = None,
        headers: HeaderTypes = None,
        cookies: CookieTypes = None,
        content: RequestContent | None = None,
        data: RequestData | None = None,
        json: Any = None,
        extensions: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(method, str):
            raise TypeError(f"a method is a str, not {type(method).__name__}")
        self.method = method.upper()
        self.url = URL(url, params)
        self.headers = Headers(headers)
        self.extensions = dict(extensions or {})
        self.content, kind = _body(content, data, json)
        if kind is not None and "Content-Type" not in self.headers:
            self.headers["Content-Type"] = kind
        self._add_framing()
        if cookies:
            from ._cookies import Cookies

            Cookies(cookies).set_cookie_header(self)

    def _add_framing(self) -> None:
        """Adds the headers that say which host the request is for and where it ends."""
        # Every request passes here, so not by the methods of Headers, which look at all names each time.
        names = {name.lower() for name, _value in self.headers._pairs}
        added = []
        if b"host" not in names:
            added.append((b"Host", self.url.sent().split("/", 3)[2].encode("ascii")))
        if b"content-length" not in names and b"transfer-encoding" not in names:
            if not isinstance(self.content, bytes):
                added.append((b"Transfer-Encoding", b"chunked"))
            elif self.content or self.method in ("POST", "PUT", "PATCH"):
                added.append((b"Content-Length", b"%d" % len(self.content)))
        self.headers._pairs = added + self.headers._pairs

    @property
    def stream(self) -> bytes | AsyncIterable[bytes] | Iterable[bytes]:
        """The body, under httpx's other name for it."""
        return self.content

    def read(self) -> bytes:
        """Returns the body. An iterable is read, and the request has its bytes from then on."""
        if not isinstance(self.content, bytes):
            if not isinstance(self.content, Iterable):
                raise RuntimeError("this request's body is an async iterable: read it with aread")
            self.content = b"".join(self.content)
        return self.content

    async def aread(self) -> bytes:
        """Like :meth:`read`, also for an async iterable."""
        if isinstance(self.content, AsyncIterable):
            self.content = b"".join([piece async for piece in self.content])
        return self.read()

    def __getstate__(self) -> tuple[None, dict[str, Any]]:
        # An iterable can be neither pickled nor copied.
        content = self.content if isinstance(self.content, bytes) else b""
        return None, {name: getattr(self, name) for name in self.__slots__} | {"content": content}

    def __repr__(self) -> str:
        return f"<Request({self.method!r}, {self.url.shown()!r})>"


#: Created once; ``json.dumps`` with these options would create one for every call.
_JSON = _json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _body(
    content: RequestContent | None, data: RequestData | None, json: Any
) -> tuple[bytes | AsyncIterable[bytes] | Iterable[bytes], str | None]:
    """Returns the body as bytes or as an iterable of bytes, and the content type that its argument implies."""
    if content is not None:
        if isinstance(content, str):
            return utf8(content, "content"), None
        if isinstance(content, (bytes, bytearray, memoryview)):
            return bytes(content), None
        pieces: Any = content
        if isinstance(pieces, (AsyncIterable, Iterable)) and not isinstance(pieces, Mapping):
            return pieces, None
        raise TypeError(f"content is bytes, str or an iterable of bytes, not {type(content).__name__}")
    if isinstance(data, (bytes, bytearray, memoryview, str, AsyncIterable)):
        return _body(data, None, None)
    if data:
        return str(QueryParams(data)).encode("ascii"), "application/x-www-form-urlencoded"
    if json is not None:
        return utf8(_JSON.encode(json), "json"), "application/json"
    return b"", None
