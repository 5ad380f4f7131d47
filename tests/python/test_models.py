"""URLs, headers, timeouts and limits on their own. Those that httpx also has are compared with it."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import mcp_gangway
import pytest
from mcp_gangway import URL, Headers, Limits, Request, Timeout


def test_headers(api: ModuleType) -> None:
    headers = api.Headers({"A": "1", "b": "2"})
    assert headers == {"a": "1", "B": "2"}
    assert headers != {"a": "1"}
    headers["a"] = "3"
    headers.update({"C": "4"})
    del headers["B"]
    assert dict(headers) == {"a": "3", "c": "4"}
    assert len(headers) == 2
    copy = headers.copy()
    copy["a"] = "other"
    assert headers["a"] == "3"
    assert headers.setdefault("C", "5") == "4"
    assert headers.pop("c") == "4"
    assert "c" not in headers
    with pytest.raises(KeyError):
        del headers["absent"]


def test_headers_that_come_several_times(api: ModuleType) -> None:
    headers = api.Headers([(b"A", b"1"), (b"a", b"2"), (b"B", b"3")])
    assert headers.raw == [(b"A", b"1"), (b"a", b"2"), (b"B", b"3")]
    assert (headers["a"], headers.get_list("A")) == ("1, 2", ["1", "2"])
    headers["a"] = "4"
    assert headers.get_list("a") == ["4"]
    assert headers.multi_items().count(("a", "4")) == 1


@pytest.mark.parametrize("name", ["Authorization", "Proxy-Authorization"])
def test_secrets_are_not_shown(api: ModuleType, name: str) -> None:
    assert "secret" not in repr(api.Headers({name: "Bearer secret"}))


@pytest.mark.parametrize("value", [1, None, object(), ["x"]])
def test_a_header_value_must_be_str_or_bytes(api: ModuleType, value: Any) -> None:
    with pytest.raises(TypeError, match="must be str or bytes"):
        api.Headers({"a": value})


def test_timeouts(api: ModuleType) -> None:
    timeout = api.Timeout(5.0, read=None, connect=1.0)
    assert (timeout.connect, timeout.read, timeout.write, timeout.pool) == (1.0, None, 5.0, 5.0)
    assert repr(timeout) == "Timeout(connect=1.0, read=None, write=5.0, pool=5.0)"
    assert timeout == api.Timeout((1.0, None, 5.0, 5.0))
    assert api.Timeout(None) != timeout
    assert api.Timeout(timeout) == timeout
    with pytest.raises(ValueError, match="default, or set all four"):
        api.Timeout(read=1.0)


def test_limits(api: ModuleType) -> None:
    limits = api.Limits(max_connections=1)
    assert (limits.max_connections, limits.max_keepalive_connections, limits.keepalive_expiry) == (1, None, 5.0)
    assert limits == api.Limits(max_connections=1)
    assert limits != api.Limits()
    assert repr(limits) == "Limits(max_connections=1, max_keepalive_connections=None, keepalive_expiry=5.0)"


@pytest.mark.parametrize(
    "text",
    [
        "http://example.com",
        "https://EXAMPLE.com:443/a?b=c#d",
        "http://example.com:8080/a%20b?c=%2F",
        "http://user:pa%3Ass@example.com/",
        "http://[::1]:8080/x",
        "http://bücher.example/ż",
    ],
)
def test_parts_of_urls(api: ModuleType, text: str) -> None:
    import httpx

    url, reference = api.URL(text), httpx.URL(text)
    assert (url.scheme, url.port, url.path, url.query) == (
        reference.scheme,
        reference.port,
        reference.path,
        reference.query,
    )
    assert url.fragment == reference.fragment
    # Ours returns the name for the lookup, httpx the displayed one.
    assert url.host.encode("idna").decode() == reference.raw_host.decode()


def test_a_url_is_a_string_that_hides_its_password() -> None:
    url = URL("http://user:secret@example.com/a")
    assert isinstance(url, str)
    assert url.userinfo == ("user", "secret")
    assert "secret" not in repr(url)
    assert "secret" not in repr(Request("GET", url))
    assert url.sent() == "http://example.com/a"
    assert URL(url) == url


@pytest.mark.parametrize(
    "text",
    [
        "http://a b/",
        "http://a:-1/",
        "http://a/\n",
        "http://a\tb/",
        "http://",
        "http://[::1",
        "http://a:port/",
        "http://:80/",
        "http://a:99999/",
    ],
)
def test_build_request_refuses_an_invalid_url(api: ModuleType, text: str) -> None:
    with pytest.raises((api.InvalidURL, api.UnsupportedProtocol)):
        api.AsyncClient().build_request("GET", text)
        # httpx checks some of them only when it sends the request.
        raise api.InvalidURL("") if api is not mcp_gangway else AssertionError(text)


def test_all_public_names_can_be_imported() -> None:
    for name in mcp_gangway.__all__:
        assert getattr(mcp_gangway, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        _ = mcp_gangway.absent


def test_the_exceptions_have_the_same_bases_as_in_httpx() -> None:
    import httpx
    from mcp_gangway import _exceptions

    ours = [name for name in _exceptions.__all__ if name not in ("InvalidMessage", "MessageTooLarge")]
    for name in ours:
        bases = [base.__name__ for base in getattr(mcp_gangway, name).__mro__]
        assert bases == [base.__name__ for base in getattr(httpx, name).__mro__], name
    theirs = {
        name
        for name in httpx.__all__
        if isinstance(getattr(httpx, name, None), type) and issubclass(getattr(httpx, name), Exception)
    }
    # The errors of cookies and uploads are not needed here.
    assert theirs - set(ours) == {"CookieConflict", "RequestNotRead"}


def test_equal_timeouts_and_limits_have_equal_hashes() -> None:
    assert hash(Timeout(1.0)) == hash(Timeout(1.0))
    assert hash(Limits(max_connections=1)) == hash(Limits(max_connections=1))
    with pytest.raises(TypeError):
        hash(Headers())
