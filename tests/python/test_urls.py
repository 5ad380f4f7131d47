"""URLs: which host they are for, and what is sent of them."""

from __future__ import annotations

import asyncio
from types import ModuleType
from typing import Any

import httpx
import mcp_gangway
import pytest
from http_server import serving, whole
from mcp_gangway import URL, QueryParams

#: Texts and their hosts by the WHATWG standard.
HOSTS = {
    "http://faß.de": "xn--fa-hia.de",
    "http://FAẞ.de": "xn--fa-hia.de",
    "http://βόλος.com": "xn--nxasmm1c.com",
    "http://EXAMPLE.COM./": "example.com.",
    "http://\uff45\uff58.com": "ex.com",
    "http://a。b": "a.b",
    "http://a%2Eb": "a.b",
    "http://%E2%98%83": "xn--n3h",
    "http://0x7f.1": "127.0.0.1",
    "http://2130706433": "127.0.0.1",
    "http://0177.0.0.01": "127.0.0.1",
    "http://[0:0::1]": "::1",
    "http://[::ffff:127.0.0.1]": "::ffff:7f00:1",
    "http://user:pass@host@evil/": "evil",
    "http://good\\@evil/": "good",
    "http:\\\\good\\evil": "good",
    "http:good/evil": "good",
    "http:///good": "good",
    "http://good#@evil/": "good",
    "http://good?@evil/": "good",
    "https://under_score/": "under_score",
}


@pytest.mark.parametrize("text", HOSTS, ids=ascii)
def test_the_host_is_that_of_the_standard(text: str) -> None:
    url = URL(text)
    assert (url.host, url.raw_host) == (HOSTS[text], HOSTS[text].encode())
    assert URL(str(url)) == url


@pytest.mark.parametrize(
    "text",
    [
        "http://a b",
        "http://a%20b",
        "http://a<b",
        "http://a%00b",
        "http://a|b",
        "http://xn--a",
        "http://1.2.3.256",
        "http://0x100000000",
        "http://[::1",
        "http://[g::1]",
        "http://[fe80::1%25eth0]",
        "http://a:65536",
        "http://a:1x",
        "http://a:+1",
        "http://a\x7f",
        "http://a/\x00",
        "http://a/\tb",
        "http://@/",
        "http://:80",
    ],
    ids=ascii,
)
def test_invalid_urls_are_refused(text: str) -> None:
    with pytest.raises(mcp_gangway.InvalidURL):
        URL(text)
    with pytest.raises(mcp_gangway.InvalidURL):
        mcp_gangway.Client().build_request("GET", text)


def test_the_request_goes_to_the_host_of_the_url() -> None:
    """The name that is looked up, not another spelling of it."""
    with mcp_gangway.Client(trust_env=False) as client:
        with pytest.raises(mcp_gangway.ConnectError, match=r"xn--fa-hia\.invalid"):
            client.get("http://faß.invalid/")


PATHS = {
    "/a/b/../c": "/a/c",
    "/a/./b/./c": "/a/b/c",
    "/../../a": "/a",
    "/a/..": "/",
    "/a//b": "/a//b",
    "/a/...": "/a/...",
    "?a=/../b": "/?a=/../b",
    "/%2F%41%e9": "/%2F%41%e9",
    "/a?b=c%20d+e&f='g'": "/a?b=c%20d+e&f='g'",
    "/a?": "/a?",
    "/é?é#é": "/%C3%A9?%C3%A9",
    "/a|b?c|d": "/a|b?c|d",
}


@pytest.mark.asyncio
@pytest.mark.parametrize("path", PATHS, ids=ascii)
async def test_paths_are_normalized(api: ModuleType, path: str) -> None:
    async with serving(whole()) as server, api.AsyncClient() as client:
        url = server.url.removesuffix("/mcp") + path
        response = await client.get(url)
    if api is httpx and "|" in path:
        return  # It encodes the bar, as WHATWG does not.
    if api is httpx and path == "/a?":
        return  # It drops the mark.
    assert server.requests[0].target == PATHS[path]
    assert response.url.raw_path.decode() == PATHS[path]


@pytest.mark.asyncio
@pytest.mark.parametrize("path", ["/a/%2e%2e/b?'", "/x|y^z?`{}", "/a?", "/%7Eu/[1]?q=[1]", "/a//../b"])
@pytest.mark.parametrize("package", ["httpx", "httpx2"])
async def test_a_target_that_httpx_has_encoded_is_sent_as_it_is(package: str, path: str) -> None:
    module = pytest.importorskip(package)
    targets = []
    for transport in (mcp_gangway.AsyncHTTPTransport(), None):
        async with serving(whole()) as server, module.AsyncClient(transport=transport) as client:
            await client.get(server.url.removesuffix("/mcp") + path)
            targets.append(server.requests[0].target)
    assert targets[0] == targets[1]


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"a": "1"},
        {"c": ["1", "2"], "d": None, "e": True, "f": 1.5},
        [("c", "1"), ("c", "2")],
        [],
        "",
        "c=1 2&d",
        "c=%20&d=+",
        {"ż": "ż&=+ /?'"},
        {"a[]": "1"},
    ],
    ids=str,
)
@pytest.mark.parametrize("url", ["http://h/p", "http://h/p?a=1&b=2", "http://h/p?#f"])
def test_params_replace_the_query(api: ModuleType, url: str, params: Any) -> None:
    built = api.AsyncClient().build_request("GET", url, params=params).url
    reference = httpx.AsyncClient().build_request("GET", url, params=params).url
    assert built.raw_path == reference.raw_path
    assert built.fragment == reference.fragment


def test_ports(api: ModuleType) -> None:
    for text, port, netloc in [
        ("http://h", None, b"h"),
        ("http://h:80", None, b"h"),
        ("https://h:443", None, b"h"),
        ("http://h:443", 443, b"h:443"),
        ("http://h:", None, b"h"),
        ("http://h:0080", None, b"h"),
        ("http://[::1]:8080", 8080, b"[::1]:8080"),
    ]:
        url = api.URL(text)
        assert (url.port, url.netloc) == (port, netloc), text


@pytest.mark.parametrize("reference", ["", "b", "/b", "../b", "?b", "#b", "//i/b", "http://i:1/b", "b/../c?d#e"])
def test_references_are_resolved(api: ModuleType, reference: str) -> None:
    expected = str(httpx.URL("https://h:8443/a/x?q").join(reference))
    joined = str(api.URL("https://h:8443/a/x?q").join(reference))
    if reference == "":
        expected = "https://h:8443/a/x?q"  # httpx drops the query.
        joined = joined if api is mcp_gangway else expected
    assert joined == expected


def test_a_reference_to_another_scheme_is_refused() -> None:
    for reference in ("ftp://h/", "javascript:1", "http://"):
        with pytest.raises((mcp_gangway.InvalidURL, mcp_gangway.UnsupportedProtocol)):
            URL("http://h/").join(reference)


def test_copies_with_other_parts(api: ModuleType) -> None:
    url = api.URL("https://user:pass@h:8443/a?b#c")
    for parts, expected in [
        ({"host": "i"}, "https://user:pass@i:8443/a?b#c"),
        ({"port": None}, "https://user:pass@h/a?b#c"),
        ({"path": "/x y"}, "https://user:pass@h:8443/x%20y?b#c"),
        ({"raw_path": b"/x?y"}, "https://user:pass@h:8443/x?y#c"),
        ({"query": b"z"}, "https://user:pass@h:8443/a?z#c"),
        ({"query": None, "fragment": None}, "https://user:pass@h:8443/a"),
        ({"username": "u", "password": "p@:"}, "https://u:p%40%3A@h:8443/a?b#c"),
        ({"scheme": "http", "params": {"d": "1"}}, "http://user:pass@h:8443/a?d=1#c"),
    ]:
        assert str(url.copy_with(**parts)) == expected
    with pytest.raises(TypeError):
        url.copy_with(absent=1)


def test_urls_of_httpx_are_accepted() -> None:
    assert URL(httpx.URL("http://h/a?b#c")) == "http://h/a?b#c"  # type: ignore[arg-type]


def test_query_params(api: ModuleType) -> None:
    params = api.QueryParams({"a": "1", "b": ["2", 3], "c": None})
    assert str(params) == "a=1&b=2&b=3&c="
    assert (params["b"], params.get_list("b"), len(params), dict(params)["a"]) == ("2", ["2", "3"], 3, "1")
    assert params.multi_items() == [("a", "1"), ("b", "2"), ("b", "3"), ("c", "")]
    assert str(params.merge({"b": 4})) == "a=1&b=4&c="
    assert str(params.set("a", 5).remove("b").add("c", True)) == "a=5&c=&c=true"
    assert params == api.QueryParams("a=1&b=2&b=3&c=")
    assert hash(params) == hash(api.QueryParams(params))


def test_the_values_of_a_query_are_in_no_repr() -> None:
    url = URL("http://user:hunter2@h/?key=hunter2#hunter2")
    for shown in (repr(url), repr(QueryParams(url.query)), repr(mcp_gangway.Request("GET", url)), url.shown()):
        assert "hunter2" not in shown
    assert url.params["key"] == "hunter2"


def test_both_clients_build_the_same_url() -> None:
    for client in (mcp_gangway.AsyncClient(base_url="http://h/a"), mcp_gangway.Client(base_url="http://h/a")):
        assert client.build_request("GET", "../b", params={"c": "d"}).url == "http://h/b?c=d"
        assert client.build_request("GET", "HTTP://I").url == "http://i/"
    asyncio.run(mcp_gangway.AsyncClient().aclose())
