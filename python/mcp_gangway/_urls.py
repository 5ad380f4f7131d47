"""URLs and their parameters.

Rule: there is one parser, the native core's, which the command uses too. So a URL has the same host everywhere, and a
token goes to no other. It follows the WHATWG standard, except that control characters are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from ._exceptions import InvalidURL, UnsupportedProtocol
from ._native import normalized_url

#: Values of a query or a form.
Primitive = str | bytes | int | float | bool | None
ParamTypes = Mapping[str, Primitive | Iterable[Primitive]] | Iterable[tuple[str, Primitive]] | str | bytes | None

_SCHEME = re.compile(r"\s*([a-zA-Z][a-zA-Z0-9+.-]*):")
_PORTS = {"http": 80, "https": 443}


class URL(str):
    """An absolute ``http`` or ``https`` URL in its normal form: a string with attributes.

    >>> url = URL("https://EXAMPLE.com:8443/a/../mcp?a=1")
    >>> url.scheme, url.host, url.port, url.path, url.query
    ('https', 'example.com', 8443, '/mcp', b'a=1')
    """

    __slots__ = ()

    def __new__(cls, url: str, params: ParamTypes = None) -> URL:
        """Parses a URL. ``params``, if they are not None, replace its query.

        Args:
            url: A text, or a URL object of another library.
            params: See :class:`QueryParams`.

        Raises:
            InvalidURL: The text is not an absolute URL.
            UnsupportedProtocol: The URL has another scheme.
        """
        if isinstance(url, URL):
            parsed = url
        else:
            text = _text(url)
            _check_scheme(text)
            parsed = str.__new__(cls, normalized_url(text))
        return parsed if params is None else parsed.copy_with(query=str(QueryParams(params)).encode() or None)

    @classmethod
    def encoded(cls, url: str) -> URL:
        """Takes a URL whose path and query must be sent as they are.

        Raises:
            UnsupportedProtocol: The URL has another scheme.
        """
        _check_scheme(url)
        return str.__new__(cls, url)

    @property
    def _parts(self) -> SplitResult:
        return urlsplit(self)

    @property
    def scheme(self) -> str:
        """``http`` or ``https``."""
        return self._parts.scheme

    @property
    def userinfo(self) -> tuple[str, str] | None:
        """The user and password, if the URL has them."""
        parts = self._parts
        return None if parts.username is None else (unquote(parts.username), unquote(parts.password or ""))

    @property
    def username(self) -> str:
        """The user, or nothing."""
        return (self.userinfo or ("", ""))[0]

    @property
    def password(self) -> str:
        """The password, or nothing."""
        return (self.userinfo or ("", ""))[1]

    @property
    def host(self) -> str:
        """The host's name or address as it is looked up, without port."""
        return self._parts.hostname or ""

    @property
    def raw_host(self) -> bytes:
        """The host as bytes."""
        return self.host.encode("ascii")

    @property
    def port(self) -> int | None:
        """The port, if it is not the scheme's own."""
        return self._parts.port

    @property
    def netloc(self) -> bytes:
        """The host and port as sent in the ``Host`` header."""
        return self._parts.netloc.rpartition("@")[2].encode("ascii")

    @property
    def path(self) -> str:
        """The path, decoded."""
        return unquote(self._parts.path)

    @property
    def raw_path(self) -> bytes:
        """The path and query, encoded as sent."""
        return f"/{self.sent().split('/', 3)[3]}".encode("ascii")

    @property
    def query(self) -> bytes:
        """The query, encoded as sent."""
        return self._parts.query.encode("ascii")

    @property
    def params(self) -> QueryParams:
        """The query, decoded."""
        return QueryParams(self._parts.query)

    @property
    def fragment(self) -> str:
        """The fragment, decoded. It is not sent."""
        return unquote(self._parts.fragment)

    @property
    def origin(self) -> tuple[str, str, int]:
        """The scheme, host and port, which credentials belong to."""
        return self.scheme, self.host, self.port or _PORTS[self.scheme]

    def sent(self) -> str:
        """Returns the URL as sent in the request: without user, password and fragment."""
        scheme, _, rest = self.partition("#")[0].partition("://")
        authority, slash, target = rest.partition("/")
        return f"{scheme}://{authority.rpartition('@')[2]}{slash}{target}"

    def shown(self) -> str:
        """Returns the URL for messages: without user, password, and the query, which may be a secret."""
        url, mark, _ = self.sent().partition("?")
        return url + ("?…" if mark else "")

    def join(self, url: str) -> URL:  # type: ignore[override]
        """Resolves a reference against this URL.

        Raises:
            InvalidURL: The result is not a URL.
            UnsupportedProtocol: The reference has another scheme.
        """
        text = _text(url)
        if _SCHEME.match(text):
            _check_scheme(text)
        return str.__new__(URL, normalized_url(text, self.sent()))

    def copy_with(self, **parts: Any) -> URL:
        """Returns a copy with other parts: ``scheme``, ``username``, ``password``, ``host``, ``port``, ``path``,
        ``raw_path``, ``query`` (bytes), ``params`` or ``fragment``. None removes a part.

        Raises:
            InvalidURL: The result is not a URL.
            TypeError: There is no such part.
        """
        unknown = parts.keys() - _PARTS
        if unknown:
            raise TypeError(f"a URL has no part {min(unknown)!r}")
        if "params" in parts:
            parts["query"] = str(QueryParams(parts.pop("params"))).encode() or None
        if "raw_path" in parts:
            path, mark, query = parts.pop("raw_path").decode("ascii").partition("?")
            parts |= {"path": path, "query": query.encode() if mark else None}
        elif "path" in parts:
            parts["path"] = quote(parts["path"] or "/", safe="/:@!$&'()*+,;=~%")
        old = self._parts
        query = old.query.encode() if "?" in self.partition("#")[0] else None
        new: dict[str, Any] = {
            "username": self.username,
            "password": self.password,
            "host": self.host,
            "port": self.port,
        }
        new |= {"scheme": self.scheme, "path": old.path, "query": query, "fragment": old.fragment or None} | parts
        host = f"[{new['host']}]" if ":" in new["host"] and not new["host"].startswith("[") else new["host"]
        user = quote(new["username"] or "", safe="")
        user += f":{quote(new['password'], safe='')}" if new["password"] else ""
        text = f"{new['scheme']}://{user}{'@' if user else ''}{host}"
        text += f":{new['port']}" if new["port"] is not None else ""
        text += "/" + new["path"].removeprefix("/")
        text += f"?{new['query'].decode('ascii')}" if new["query"] is not None else ""
        return URL(text + (f"#{new['fragment']}" if new["fragment"] is not None else ""))

    def __repr__(self) -> str:
        return f"URL({self.shown()!r})" if self.userinfo is None else f"URL({self.shown()!r}, with a user)"


_PARTS = frozenset(
    ["scheme", "username", "password", "host", "port", "path", "raw_path", "query", "params", "fragment"]
)


def is_relative(url: str) -> bool:
    """True if a URL has neither scheme nor host."""
    text = _text(url)
    found = _SCHEME.match(text)
    return (found is None or found[1].lower() not in _PORTS) and "://" not in text.partition("?")[0].partition("#")[0]


def utf8(text: str, what: str) -> bytes:
    """Encodes a text that may be a secret.

    Raises:
        ValueError: It has lone surrogates. Python's own exception would show the text.
    """
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"{what} has a character without a UTF-8 form (a lone surrogate)") from None


def _text(url: object) -> str:
    # httpx.URL, pydantic's and yarl's have these attributes.
    if not isinstance(url, str) and not (hasattr(url, "scheme") and hasattr(url, "host")):
        raise TypeError(f"a URL is a str, not {type(url).__name__}")
    text = str(url)
    try:
        utf8(text, "the URL")
    except ValueError as error:
        raise InvalidURL(str(error)) from None
    return text


def _check_scheme(url: str) -> None:
    found = _SCHEME.match(url)
    if found is None or url[found.end() :].rstrip() == "//":
        raise UnsupportedProtocol(
            "Request URL is missing an 'http://' or 'https://' protocol: give it like https://example.com/mcp"
        )
    if found[1].lower() not in _PORTS:
        # Without slashes it may be a user, and what follows a password.
        named = (
            f" '{found[1]}://'" if url[found.end() :].startswith("//") else ": only http:// and https:// are supported"
        )
        raise UnsupportedProtocol(f"Request URL has an unsupported protocol{named}.")


class QueryParams(Mapping[str, str]):
    """The parameters of a query or form, unchangeable. A name may have several values.

    >>> params = QueryParams({"a": [1, 2], "b": True})
    >>> str(params), params.get_list("a")
    ('a=1&a=2&b=true', ['1', '2'])
    """

    __slots__ = ("_values",)

    def __init__(self, params: ParamTypes | QueryParams = None, **more: Primitive) -> None:
        """Takes a mapping, pairs, or an encoded text. A value may be a list. None becomes empty, True ``true``.

        Raises:
            TypeError: A value has no text form, such as a nested mapping.
        """
        #: Values are bytes where they were given as bytes.
        self._values: dict[str | bytes, list[str | bytes]] = {}
        for key, value in [*_pairs(params), *_pairs(more)]:
            self._values.setdefault(key, []).append(value)

    def multi_items(self) -> list[tuple[str, str]]:
        """Returns all pairs, with one pair for each value."""
        return [(_decoded(key), _decoded(value)) for key, values in self._values.items() for value in values]

    def get_list(self, key: str) -> list[str]:
        """Returns all values of a name."""
        return [value for found, value in self.multi_items() if found == key]

    def set(self, key: str, value: Primitive = None) -> QueryParams:
        """Returns a copy in which the name has only this value."""
        return self.merge({key: value})

    def add(self, key: str, value: Primitive = None) -> QueryParams:
        """Returns a copy with one more value of the name."""
        return self.merge({key: [*self._values.get(key, ()), value]})

    def remove(self, key: str) -> QueryParams:
        """Returns a copy without the name."""
        other = QueryParams(self)
        other._values.pop(key, None)
        return other

    def merge(self, params: ParamTypes | QueryParams = None) -> QueryParams:
        """Returns a copy in which ``params`` replace the values of their names."""
        other = QueryParams()
        other._values = {**self._values, **QueryParams(params)._values}
        return other

    def __getitem__(self, key: str) -> str:
        return _decoded(self._values[key][0])

    def __iter__(self) -> Iterator[str]:
        return map(_decoded, self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, QueryParams):
            return NotImplemented
        return sorted(self.multi_items()) == sorted(other.multi_items())

    def __hash__(self) -> int:
        return hash(tuple(sorted(self.multi_items())))

    def __str__(self) -> str:
        return urlencode(self._values, doseq=True)

    def __repr__(self) -> str:
        # A value may be a key.
        return f"QueryParams({list(self)!r})"


def _pairs(params: Any) -> list[tuple[str | bytes, str | bytes]]:
    """Returns names and values as text, or as bytes where they were given as bytes."""
    if params is None:
        return []
    if isinstance(params, QueryParams):
        return [(key, value) for key, values in params._values.items() for value in values]
    if isinstance(params, (str, bytes)):
        text = params if isinstance(params, str) else params.decode("ascii")
        return [(_primitive(key), _primitive(value)) for key, value in parse_qsl(text.removeprefix("?"), True)]
    if not isinstance(params, Iterable) or isinstance(params, (bytearray, memoryview)):
        raise TypeError(f"params and data are a mapping, pairs or text, not {type(params).__name__}")
    found: list[tuple[str | bytes, str | bytes]] = []
    for key, value in params.items() if isinstance(params, Mapping) else params:
        several = isinstance(value, Iterable) and not isinstance(value, (str, bytes, bytearray, memoryview, Mapping))
        found.extend((_primitive(key), _primitive(one)) for one in (value if several else [value]))
    return found


def _primitive(value: Any) -> str | bytes:
    if value is None:
        return ""
    if isinstance(value, str):
        return utf8(value, "a value of params or data") if not value.isascii() else value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    # A list, a mapping, or an object that would only be sent as its address.
    kind: Any = type(value)
    if isinstance(value, Iterable) or (kind.__repr__ is object.__repr__ and kind.__str__ is object.__str__):
        raise TypeError(f"a value of params or data is a text, bytes or number, not {kind.__name__}")
    return str(value).lower() if isinstance(value, bool) else str(value)


def _decoded(text: str | bytes) -> str:
    return text if isinstance(text, str) else text.decode("utf-8", "replace")


__all__ = ["URL", "InvalidURL", "ParamTypes", "Primitive", "QueryParams", "is_relative", "utf8"]
