"""What requests and responses are made of: URLs, headers, times, limits.

Rule: they look and act as their namesakes in httpx, as far as a client of JSON-RPC or of streams uses these.
"""

from __future__ import annotations

import json as _json
import re
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any, Union
from urllib.parse import SplitResult, quote, unquote, urlencode, urlsplit, urlunsplit

from ._exceptions import InvalidURL, UnsupportedProtocol

HeaderTypes = Union[
    "Headers",
    Mapping[str, str],
    Mapping[bytes, bytes],
    Iterable[tuple[str, str]],
    Iterable[tuple[bytes, bytes]],
    None,
]
TimeoutTypes = Union["Timeout", float, tuple[float | None, ...], None]
#: Values of a query or a form.
Primitive = str | int | float | bool | None
ParamTypes = Mapping[str, Primitive | Iterable[Primitive]] | Iterable[tuple[str, Primitive]] | str | bytes | None
RequestContent = bytes | str | AsyncIterable[bytes] | Iterable[bytes]
RequestData = bytes | str | Mapping[str, Primitive | Iterable[Primitive]]


class URL(str):
    """An absolute ``http`` or ``https`` URL: a string with attributes.

    >>> url = URL("https://example.com:8443/mcp?a=1")
    >>> url.scheme, url.host, url.port, url.path, url.query
    ('https', 'example.com', 8443, '/mcp', b'a=1')
    """

    __slots__ = ()

    def __new__(cls, url: str, params: ParamTypes = None) -> URL:
        """Reads a URL, and adds ``params`` to its query.

        Raises:
            InvalidURL: A text that is no absolute URL.
            UnsupportedProtocol: A URL of another scheme.
        """
        if not isinstance(url, str):
            raise TypeError(f"a URL is a str, not {type(url).__name__}")
        parts = _split(url)
        query = "&".join(filter(None, (parts.query, encoded(params))))
        path = quote(parts.path or "/", safe=_SAFE)
        return str.__new__(
            cls,
            urlunsplit((parts.scheme.lower(), _ascii(parts), path, quote(query, safe=_SAFE), parts.fragment)),
        )

    @property
    def _parts(self) -> SplitResult:
        return urlsplit(self)

    @property
    def scheme(self) -> str:
        """``http`` or ``https``."""
        return self._parts.scheme

    @property
    def host(self) -> str:
        """The host's name or address, without port."""
        return self._parts.hostname or ""

    @property
    def port(self) -> int | None:
        """The port, if it is not the scheme's own."""
        port = self._parts.port
        return None if port == {"http": 80, "https": 443}[self.scheme] else port

    @property
    def path(self) -> str:
        """The path, decoded."""
        return unquote(self._parts.path)

    @property
    def query(self) -> bytes:
        """The query as it is sent."""
        return self._parts.query.encode("ascii")

    @property
    def fragment(self) -> str:
        """The fragment, which is not sent."""
        return self._parts.fragment

    @property
    def userinfo(self) -> tuple[str, str] | None:
        """User and password, if the URL has them."""
        parts = self._parts
        return None if parts.username is None else (unquote(parts.username), unquote(parts.password or ""))

    def sent(self) -> str:
        """The URL as it is asked for: without user, password and fragment."""
        parts = self._parts
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit((parts.scheme, host, parts.path, parts.query, ""))

    def __repr__(self) -> str:
        return f"URL({str.__repr__(self)})" if self.userinfo is None else f"URL({self.sent()!r}, with a user)"


#: What stays as it is in a path or query: all that is reserved there, and what is encoded already.
_SAFE = "/?:@!$&'()*+,;=-._~%[]"


#: What no URL holds, and what no host holds besides. The parser of the standard library passes over some of it.
_NOT_PRINTABLE = re.compile(r"[\x00-\x1f\x7f]")
_NO_HOST = re.compile(r"""[\s"<>\\^`{|}]""")


def _split(url: str) -> SplitResult:
    if _NOT_PRINTABLE.search(url):
        raise InvalidURL("the URL has a character that cannot be printed")
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  Read here, as it is only judged when it is read.
    except ValueError as error:
        raise InvalidURL(f"{url!r} is no URL: {error}") from None
    if not parts.scheme or not parts.netloc:
        raise UnsupportedProtocol(
            "Request URL is missing an 'http://' or 'https://' protocol: give it like https://example.com/mcp"
        )
    if parts.scheme.lower() not in ("http", "https"):
        raise UnsupportedProtocol(f"Request URL has an unsupported protocol {parts.scheme + '://'!r}.")
    if not parts.hostname:
        raise InvalidURL("the URL has no host")
    if _NO_HOST.search(parts.hostname):
        raise InvalidURL("the URL's host has a character that no host has")
    return parts


def is_relative(url: str) -> bool:
    """Whether a URL has neither scheme nor host."""
    return "://" not in url.partition("?")[0].partition("#")[0]


def _ascii(parts: SplitResult) -> str:
    """The authority as DNS and HTTP want it."""
    userinfo, at, authority = parts.netloc.rpartition("@")
    if not authority.isascii():
        try:
            authority = authority.encode("idna").decode("ascii")
        except UnicodeError as error:
            raise InvalidURL(f"the URL's host cannot be looked up: {error}") from None
    return f"{quote(userinfo, safe=_SAFE)}{at}{authority.lower()}"


def encoded(values: ParamTypes) -> str:
    """Query or form in its encoding; None is empty, and true is ``true``."""
    if values is None:
        return ""
    if isinstance(values, (str, bytes)):
        return values.decode("ascii") if isinstance(values, bytes) else values
    if not isinstance(values, Iterable):
        raise TypeError(f"params and data are a mapping, pairs or text, not {type(values).__name__}")
    pairs: list[tuple[str, str]] = []
    for key, value in values.items() if isinstance(values, Mapping) else values:
        several = value if isinstance(value, Iterable) and not isinstance(value, str) else [value]
        pairs.extend((str(key), _primitive(one)) for one in several)
    return urlencode(pairs)


def _primitive(value: Primitive) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


class Headers(MutableMapping[str, str]):
    """Headers of a request or response: names in any case, several values for a name.

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
            self._pairs = [(_bytes(name, "ascii"), _bytes(value, "utf-8")) for name, value in pairs]

    @property
    def raw(self) -> list[tuple[bytes, bytes]]:
        """Names and values as they are on the wire."""
        return list(self._pairs)

    def get_list(self, key: str, split_commas: bool = False) -> list[str]:
        """All values of a name; ``split_commas`` also takes those apart that came in one."""
        name = key.lower().encode("ascii", "replace")
        values = [_text(value) for found, value in self._pairs if found.lower() == name]
        if not split_commas:
            return values
        return [part.strip() for value in values for part in value.split(",")]

    def multi_items(self) -> list[tuple[str, str]]:
        """All pairs, a name once for each of its values."""
        return [(_text(name).lower(), _text(value)) for name, value in self._pairs]

    def copy(self) -> Headers:
        """A copy that can be changed for itself."""
        return Headers(self)

    def update(self, headers: HeaderTypes = None, /, **_: str) -> None:  # type: ignore[override]
        """Sets what ``headers`` holds: their names lose the values that they have here."""
        other = Headers(headers)
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

    def __repr__(self) -> str:
        secret = ("authorization", "proxy-authorization", "cookie", "set-cookie")
        shown = [(name, "[secure]" if name in secret else value) for name, value in self.multi_items()]
        return f"Headers({shown!r})"


def _comparable(pairs: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return sorted((name.lower(), value) for name, value in pairs)


def _bytes(text: str | bytes, encoding: str) -> bytes:
    if isinstance(text, bytes):
        return text
    if not isinstance(text, str):
        raise TypeError(f"Header value must be str or bytes, not {type(text)}")
    return text.encode(encoding)


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


class _Unset:
    """Nothing was said."""

    def __repr__(self) -> str:
        return "<unset>"


UNSET = _Unset()


class Timeout:
    """Times in seconds, after which a request fails; None for no limit.

    Args:
        timeout: What counts where nothing else is said.
        connect: Address, TCP, proxy and TLS together.
        read: The longest silence of the server, also while it is to take the request.
        write: The longest that the server may take nothing of a body from an iterator. ``read`` covers other bodies.
        pool: The longest wait for a connection to become free.

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

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Timeout):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    def __hash__(self) -> int:
        return hash((self.connect, self.read, self.write, self.pool))

    def __repr__(self) -> str:
        return f"Timeout(connect={self.connect}, read={self.read}, write={self.write}, pool={self.pool})"


class Limits:
    """How many connections there are.

    Args:
        max_connections: Requests that may be open at once; those beyond wait (see ``Timeout.pool``). None for no limit.
        max_keepalive_connections: Connections to one host that are kept while nobody uses them. None for no limit.
        keepalive_expiry: How long they are kept, in seconds. None for no limit.
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


class Request:
    """A request: what is sent, and where."""

    __slots__ = ("content", "headers", "method", "url")

    def __init__(
        self,
        method: str,
        url: str,
        *,
        params: ParamTypes = None,
        headers: HeaderTypes = None,
        content: RequestContent | None = None,
        data: RequestData | None = None,
        json: Any = None,
    ) -> None:
        self.method = method.upper()
        self.url = URL(url, params)
        self.headers = Headers(headers)
        self.content, kind = _body(content, data, json)
        if kind is not None and "Content-Type" not in self.headers:
            self.headers["Content-Type"] = kind

    def __repr__(self) -> str:
        return f"<Request({self.method!r}, {self.url.sent()!r})>"


#: Made once, which ``json.dumps`` with these options does for every call.
_JSON = _json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _body(
    content: RequestContent | None, data: RequestData | None, json: Any
) -> tuple[bytes | AsyncIterable[bytes] | Iterable[bytes] | None, str | None]:
    """The bytes of a body, or what makes them, and the content type that follows from how it was given."""
    if content is not None:
        if isinstance(content, str):
            return content.encode("utf-8"), None
        if isinstance(content, (bytes, bytearray, memoryview)):
            return bytes(content), None
        pieces: Any = content
        if isinstance(pieces, (AsyncIterable, Iterable)) and not isinstance(pieces, Mapping):
            return pieces, None
        raise TypeError(f"content is bytes, str or an iterable of bytes, not {type(content).__name__}")
    if isinstance(data, (bytes, str)):
        return _body(data, None, None)
    if data:
        return encoded(data).encode("ascii"), "application/x-www-form-urlencoded"
    if json is not None:
        return _JSON.encode(json).encode("utf-8"), "application/json"
    return None, None
