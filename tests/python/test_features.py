"""What a user of httpx expects of the clients: methods, cookies, hooks, authentication, transports, copies."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import hashlib
import logging
import pickle
import re
from collections.abc import AsyncIterator, Callable, Generator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import mcp_gangway
import pytest
from conftest import Run
from http_server import HANG, Answer, Pause, Request, chunked, raw, serving, whole

pytestmark = pytest.mark.asyncio

METHODS = ["get", "head", "options", "post", "put", "patch", "delete"]


def echo(request: Any) -> Any:
    """Answers for the package whose request it is."""
    package = httpx if isinstance(request, httpx.Request) else mcp_gangway
    headers = {name: value for name, value in request.headers.items() if name in ("authorization", "cookie", "x-a")}
    return package.Response(200, json={"method": request.method, "headers": headers})


@pytest.mark.parametrize("name", METHODS)
async def test_each_method_has_a_function(api: ModuleType, name: str) -> None:
    transport = api.MockTransport(echo)
    with api.Client(transport=transport) as client:
        assert getattr(client, name)("http://h/").json()["method"] == name.upper()
    async with api.AsyncClient(transport=transport) as other:
        assert (await getattr(other, name)("http://h/")).json()["method"] == name.upper()


# Cookies


async def test_cookies_are_kept_for_their_host_and_path(api: ModuleType) -> None:
    def answer(request: Any) -> Any:
        if request.url.path == "/login":
            cookies = [("set-cookie", "a=1; Path=/"), ("set-cookie", "b=2; Path=/p"), ("set-cookie", "c=3; Secure")]
            return api.Response(200, headers=cookies)
        return echo(request)

    async with api.AsyncClient(transport=api.MockTransport(answer)) as client:
        response = await client.get("http://one.example/login")
        assert dict(response.cookies) == {"a": "1", "b": "2", "c": "3"}
        seen = [
            (await client.get(url)).json()["headers"].get("cookie", "")
            for url in ("http://one.example/", "http://one.example/p/q", "https://one.example/", "http://two.example/")
        ]
        client.cookies.delete("a")
        assert "a" not in client.cookies
    assert [sorted(cookies.split("; ")) for cookies in seen] == [["a=1"], ["a=1", "b=2"], ["a=1", "c=3"], [""]]


async def test_cookies_of_the_program(api: ModuleType) -> None:
    async with api.AsyncClient(transport=api.MockTransport(echo), cookies={"a": "1"}) as client:
        assert (await client.get("http://h/")).json()["headers"]["cookie"] == "a=1"
        client.cookies.set("b", "2", domain="i.example")
        assert (await client.get("http://h/")).json()["headers"]["cookie"] == "a=1"
        assert (await client.get("http://i.example/")).json()["headers"]["cookie"] in ("a=1; b=2", "b=2; a=1")
        client.cookies = {"c": "3"}
        request = client.build_request("GET", "http://h/", headers={"Cookie": "own=1"})
        assert (await client.send(request)).json()["headers"]["cookie"] == "own=1"
    request = api.Request("GET", "http://h/", cookies={"d": "4"})
    assert request.headers["cookie"] == "d=4"


async def test_a_cookie_for_another_domain_is_not_taken() -> None:
    headers = [
        ("set-cookie", f"a=1; Domain={domain}") for domain in ("other.example", "example", "com", "x.one.example")
    ]
    async with mcp_gangway.AsyncClient(
        transport=mcp_gangway.MockTransport(lambda _: mcp_gangway.Response(200, headers=headers))
    ) as client:
        await client.get("http://one.example/")
        assert len(client.cookies) == 0


async def test_a_server_cannot_fill_the_jar() -> None:
    count = 0

    def answer(_: Any) -> mcp_gangway.Response:
        nonlocal count
        count += 1
        return mcp_gangway.Response(200, headers=[("set-cookie", f"{count}-{n}=1") for n in range(300)])

    async with mcp_gangway.AsyncClient(transport=mcp_gangway.MockTransport(answer)) as client:
        for _ in range(20):
            await client.get("http://h.example/")
            assert len(client.cookies) <= 1000


async def test_the_values_of_cookies_are_in_no_repr() -> None:
    cookies = mcp_gangway.Cookies({"session": "hunter2"})
    assert "session" in repr(cookies)
    assert "hunter2" not in repr(cookies)


async def test_several_cookies_of_one_name(api: ModuleType) -> None:
    cookies = api.Cookies()
    cookies.set("a", "1", domain="one.example")
    cookies.set("a", "2", domain="two.example")
    with pytest.raises(api.CookieConflict):
        cookies["a"]
    assert cookies.get("a", domain="two.example") == "2"
    if api is mcp_gangway:
        with pytest.raises(KeyError):
            del cookies["absent"]
    cookies.delete("a", domain="one.example")
    assert cookies["a"] == "2"
    cookies.clear()
    assert len(cookies) == 0


# Hooks


async def test_event_hooks(api: ModuleType) -> None:
    seen: list[Any] = []

    async def on_request(request: Any) -> None:
        request.headers["X-A"] = "hook"
        seen.append(request.method)

    async def on_response(response: Any) -> None:
        await response.aread()
        seen.append(response.json()["headers"]["x-a"])

    hooks = {"request": [on_request], "response": [on_response]}
    async with api.AsyncClient(transport=api.MockTransport(echo), event_hooks=hooks) as client:
        await client.get("http://h/")
        client.event_hooks = {"response": [on_response, on_response]}
        await client.get("http://h/", headers={"X-A": "own"})
    assert seen == ["GET", "hook", "own", "own"]


async def test_a_hook_that_raises_ends_the_request_and_frees_its_connection() -> None:
    async def on_response(response: mcp_gangway.Response) -> None:
        response.raise_for_status()

    async with serving(chunked(b"a", HANG, status=500)) as server:
        async with mcp_gangway.AsyncClient(event_hooks={"response": [on_response]}) as client:
            with pytest.raises(mcp_gangway.HTTPStatusError):
                async with client.stream("GET", server.url):
                    raise AssertionError
            await server.until(lambda server: server.open_connections == 0)
    with pytest.raises(ValueError, match="absent"):
        mcp_gangway.Client(event_hooks={"absent": []})


# Authentication


def challenging(package: ModuleType) -> Any:
    """Wants the token that its refusal names."""

    def answer(request: Any) -> Any:
        if request.headers.get("authorization") == "Bearer fresh":
            return package.Response(200, text="welcome")
        return package.Response(401, text="fresh")

    return package.MockTransport(answer)


def renewing(package: ModuleType) -> Any:
    class Renewing(package.Auth):  # type: ignore[misc, name-defined]
        requires_response_body = True

        def auth_flow(self, request: Any) -> Generator[Any, Any, None]:
            request.headers["Authorization"] = "Bearer stale"
            response = yield request
            if response.status_code == 401:
                request.headers["Authorization"] = f"Bearer {response.text}"
                yield request

    return Renewing()


async def test_an_authentication_with_several_requests(api: ModuleType) -> None:
    with api.Client(transport=challenging(api), auth=renewing(api)) as client:
        response = client.get("http://h/")
        assert (response.text, [past.status_code for past in response.history]) == ("welcome", [401])
    async with api.AsyncClient(transport=challenging(api)) as other:
        assert (await other.get("http://h/", auth=renewing(api))).text == "welcome"
        request = other.build_request("GET", "http://h/")
        assert (await other.send(request, auth=renewing(api))).text == "welcome"


async def test_an_authentication_of_its_own_for_asyncio(api: ModuleType) -> None:
    class Asynchronous(api.Auth):  # type: ignore[misc, name-defined]
        async def async_auth_flow(self, request: Any) -> AsyncIterator[Any]:
            await asyncio.sleep(0)
            request.headers["Authorization"] = "Bearer fresh"
            yield request

    async with api.AsyncClient(transport=challenging(api), auth=Asynchronous()) as client:
        assert (await client.get("http://h/")).text == "welcome"


async def test_an_authentication_reads_the_body_that_it_signs(api: ModuleType) -> None:
    class Signing(api.Auth):  # type: ignore[misc, name-defined]
        requires_request_body = True

        def auth_flow(self, request: Any) -> Generator[Any, Any, None]:
            request.headers["X-A"] = request.content.decode()
            yield request

    async def pieces() -> AsyncIterator[bytes]:
        yield b"bo"
        yield b"dy"

    async with api.AsyncClient(transport=api.MockTransport(echo), auth=Signing()) as client:
        assert (await client.post("http://h/", content=pieces())).json()["headers"]["x-a"] == "body"


async def test_an_exception_of_an_authentication_reaches_the_caller() -> None:
    class Failing(mcp_gangway.Auth):
        def auth_flow(self, request: mcp_gangway.Request) -> Generator[mcp_gangway.Request, mcp_gangway.Response, None]:
            yield request
            raise LookupError("no token")

    async with serving(chunked(b"a", HANG)) as server, mcp_gangway.AsyncClient(auth=Failing()) as client:
        with pytest.raises(LookupError, match="no token"):
            async with client.stream("GET", server.url):
                raise AssertionError
        await server.until(lambda server: server.open_connections == 0)


def guarded(package: ModuleType, algorithm: str, seen: list[str]) -> Any:
    """Wants a digest by this algorithm (RFC 7616), computed here in its own way."""

    def answer(request: Any) -> Any:
        fields = dict(re.findall(r'(\w+)="?([^",]*)"?', request.headers.get("authorization", "")))
        if fields:
            seen.append(request.headers["authorization"])

            def hashed(text: str) -> str:
                return hashlib.new(algorithm.lower().replace("-", ""), text.encode()).hexdigest()

            secret, what = hashed("user:the realm:pass"), hashed(f"{request.method}:/p?q=1")
            middle = f"{fields['nc']}:{fields['cnonce']}:auth"
            if fields["response"] == hashed(f"{secret}:abc:{middle}:{what}"):
                return package.Response(200, text="welcome")
        challenge = f'Digest realm="the realm", nonce="abc", qop="auth, auth-int", opaque="o", algorithm={algorithm}'
        return package.Response(401, headers=[("www-authenticate", "Basic"), ("www-authenticate", challenge)])

    return package.MockTransport(answer)


@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256", "SHA-512"])
async def test_digest_authentication(api: ModuleType, algorithm: str) -> None:
    seen: list[str] = []
    auth = api.DigestAuth("user", "pass")
    with api.Client(transport=guarded(api, algorithm, seen), auth=auth) as client:
        response = client.post("http://h/p?q=1", content=b"x")
        assert (response.text, len(response.history)) == ("welcome", 1)
        # The challenge is used again.
        again = client.post("http://h/p?q=1", content=b"x")
        assert (again.text, len(again.history)) == ("welcome", 0)
    async with api.AsyncClient(transport=guarded(api, algorithm, seen)) as other:
        assert (await other.get("http://h/p?q=1", auth=api.DigestAuth("user", "pass"))).text == "welcome"
    assert [re.search(r"nc=(\d+)", header)[1] for header in seen] == ["00000001", "00000002", "00000001"]  # type: ignore[index]
    assert "pass" not in "".join(seen)


@pytest.mark.parametrize("challenge", ["Digest", "Digest realm=", 'Digest realm="r"', 'Digest realm="r", nonce="n", x'])
async def test_a_malformed_digest_challenge_is_an_error(challenge: str) -> None:
    transport = mcp_gangway.MockTransport(lambda _: mcp_gangway.Response(401, headers={"www-authenticate": challenge}))
    with mcp_gangway.Client(transport=transport, auth=mcp_gangway.DigestAuth("user", "hunter2")) as client:
        if challenge == "Digest":
            assert client.get("http://h/").status_code == 401
            return
        with pytest.raises(mcp_gangway.ProtocolError, match="Digest") as caught:
            client.get("http://h/")
    assert "hunter2" not in str(caught.value)


# Logging


async def test_requests_are_logged_without_secrets(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="mcp_gangway"):
        async with mcp_gangway.AsyncClient(transport=mcp_gangway.MockTransport(echo)) as client:
            await client.get("http://user:hunter2@h/p?key=hunter2")
    [record] = caplog.records
    assert record.name == "mcp_gangway"
    assert record.getMessage() == 'HTTP Request: GET http://h/p?… "HTTP/1.1 200 OK"'


# Transports


async def test_a_program_is_tested_without_a_server(api: ModuleType) -> None:
    seen: list[Any] = []

    async def handler(request: Any) -> Any:
        seen.append((request.method, str(request.url), request.content, request.headers["x-a"]))
        return api.Response(201, headers={"X-B": "2"}, html="<p>ż</p>")

    async with api.AsyncClient(transport=api.MockTransport(handler), base_url="http://h/base") as client:
        response = await client.post("/p", json={"a": 1}, headers={"X-A": "1"}, params={"q": "2"})
        async with client.stream("POST", "p", content=b"x", headers={"X-A": "1"}) as streamed:
            assert [part async for part in streamed.aiter_text()] == ["<p>ż</p>"]
    assert seen == [
        ("POST", "http://h/base/p?q=2", b'{"a":1}', "1"),
        ("POST", "http://h/base/p", b"x", "1"),
    ]
    assert (response.status_code, response.text, response.headers["x-b"]) == (201, "<p>ż</p>", "2")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.request.method == "POST"
    if api is mcp_gangway:
        assert response.elapsed.total_seconds() >= 0


async def test_transports_may_fail_and_stream(api: ModuleType) -> None:
    def failing(request: Any) -> Any:
        raise api.ReadTimeout("too slow", request=request)

    with api.Client(transport=api.MockTransport(failing)) as client, pytest.raises(api.ReadTimeout, match="too slow"):
        client.get("http://h/")

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(3):
            yield b"data: %d\n\n" % number

    headers = {"Content-Type": "text/event-stream"}
    transport = api.MockTransport(lambda _: api.Response(200, headers=headers, content=pieces()))
    async with api.AsyncClient(transport=transport) as other:
        assert (await other.get("http://h/")).text == "data: 0\n\ndata: 1\n\ndata: 2\n\n"
        async with other.stream("GET", "http://h/") as response:
            if api is mcp_gangway:
                assert [event.data async for event in response.aiter_sse()] == ["0", "1", "2"]
            else:
                await response.aread()
            assert response.is_closed


async def test_a_transport_of_the_program_is_closed_with_the_client() -> None:
    class Counting(mcp_gangway.AsyncBaseTransport, mcp_gangway.BaseTransport):
        closed = 0

        async def aclose(self) -> None:
            self.closed += 1

        def close(self) -> None:
            self.closed += 1

    transport = Counting()
    async with mcp_gangway.AsyncClient(transport=transport):
        pass
    with mcp_gangway.Client(transport=transport):
        pass
    assert transport.closed == 2


async def test_mounts_choose_the_transport(api: ModuleType) -> None:
    def named(name: str) -> Any:
        return api.MockTransport(lambda _: api.Response(200, text=name))

    patterns = [
        "all://",
        "https://",
        "all://one.example",
        "all://*.two.example",
        "all://*three.example",
        "http://one.example:8080",
    ]
    mounts = {pattern: named(pattern) for pattern in patterns}
    with api.Client(mounts=mounts) as client:
        for url, pattern in [
            ("http://other.example/", "all://"),
            ("https://other.example/", "https://"),
            ("https://ONE.example/", "all://one.example"),
            ("http://one.example:8080/", "http://one.example:8080"),
            ("http://one.example:8081/", "all://one.example"),
            ("http://a.two.example/", "all://*.two.example"),
            ("http://two.example/", "all://"),
            ("http://three.example/", "all://*three.example"),
            ("http://a.three.example/", "all://*three.example"),
            ("http://athree.example/", "all://"),
        ]:
            assert client.get(url).text == pattern, url
    if api is mcp_gangway:
        for wrong in ("example.com", "ftp://", "all://a/b", ""):
            with pytest.raises(ValueError, match="mounts"):
                mcp_gangway.Client(mounts={wrong: None})


async def test_a_mount_may_be_the_native_core() -> None:
    async with serving(whole(b"native")) as server:
        mounts = {"all://127.0.0.1": None}
        async with mcp_gangway.AsyncClient(transport=mcp_gangway.MockTransport(echo), mounts=mounts) as client:
            assert (await client.get(server.url)).text == "native"
            assert (await client.get("http://h/")).json()["method"] == "GET"


async def test_what_is_no_response_is_refused() -> None:
    async def handler(_: Any) -> Any:
        return mcp_gangway.Response(200)

    for wrong in (handler, lambda _: None, lambda _: httpx.Response(200)):
        with mcp_gangway.Client(transport=mcp_gangway.MockTransport(wrong)) as client:
            with pytest.raises(TypeError, match=r"mcp_gangway\.Response"):
                client.get("http://h/")


@pytest.mark.parametrize(
    ("arguments", "body", "kind"),
    [
        ({}, b"", None),
        ({"content": b"x"}, b"x", None),
        ({"content": "ż"}, "ż".encode(), None),
        ({"text": "ż"}, "ż".encode(), "text/plain; charset=utf-8"),
        ({"html": "ż"}, "ż".encode(), "text/html; charset=utf-8"),
        ({"json": {"a": None}}, b'{"a":null}', "application/json"),
        ({"content": [b"a", b"b"]}, b"ab", None),
        ({"text": "x", "headers": {"content-type": "text/csv"}}, b"x", "text/csv"),
    ],
)
async def test_responses_made_by_hand(api: ModuleType, arguments: Any, body: bytes, kind: str | None) -> None:
    response = api.Response(200, **arguments)
    assert response.read() == body
    assert response.content == body
    assert response.headers.get("content-type") == kind
    assert (response.http_version, response.reason_phrase, response.is_success) == ("HTTP/1.1", "OK", True)
    for name in ("request", "url", "elapsed"):
        with pytest.raises(RuntimeError):
            getattr(response, name)


async def test_a_response_made_by_hand_streams_once() -> None:
    def pieces() -> Generator[bytes, None, None]:
        yield b'{"jsonrpc":"2.0","id":1,'
        yield b'"result":{}}\n'

    response = mcp_gangway.Response(200, content=pieces())
    assert not response.is_closed
    with pytest.raises(mcp_gangway.ResponseNotRead):
        _ = response.content
    assert [message["id"] for message in response.iter_json()] == [1]
    assert response.is_closed
    with pytest.raises(mcp_gangway.StreamConsumed):
        response.read()
    with pytest.raises(mcp_gangway.DecodingError):
        list(mcp_gangway.Response(200, text="x").iter_sse())


# Arguments of requests


async def test_timeouts_of_requests_and_clients(api: ModuleType) -> None:
    async with serving(raw(HANG)) as server, api.AsyncClient() as client:
        request = client.build_request("GET", server.url, timeout=0.1)
        assert request.extensions["timeout"]["read"] == 0.1
        with pytest.raises(api.ReadTimeout):
            await client.send(request)
        client.timeout = 0.1
        assert client.timeout == api.Timeout(0.1)
        with pytest.raises(api.ReadTimeout):
            await client.get(server.url)
        client.timeout = None
        assert client.timeout.read is None


async def test_params_of_the_client(api: ModuleType) -> None:
    client = api.AsyncClient(params={"a": "1", "b": "2"})
    assert client.build_request("GET", "http://h/?x=y", params={"b": "3"}).url.query == b"a=1&b=3"
    assert client.build_request("GET", "http://h/").url.query == b"a=1&b=2"
    client.params = None
    assert client.build_request("GET", "http://h/?x=y").url.query == b"x=y"


async def test_attributes_of_the_client_are_converted(api: ModuleType) -> None:
    client = api.AsyncClient()
    client.headers = {"X-A": "1"}
    assert client.headers["accept"] == "*/*"
    assert client.headers["x-a"] == "1"
    client.base_url = "http://h/base"
    assert str(client.base_url) == "http://h/base/"
    assert str(client.build_request("GET", "p").url) == "http://h/base/p"
    client.auth = ("user", "pass")
    client._transport = api.MockTransport(echo)
    assert (await client.get("p")).json()["headers"]["authorization"] == "Basic dXNlcjpwYXNz"
    with pytest.raises(TypeError):
        client.auth = 1
    await client.aclose()


async def test_headers_are_updated_by_name(api: ModuleType) -> None:
    headers = api.Headers({"a": "1", "B": "x"})
    headers.update({"c": "3"})
    if api is mcp_gangway:
        headers.update(b="2")
        headers.update({"d": "4"}, e="5")
        assert dict(headers) == {"a": "1", "b": "2", "c": "3", "d": "4", "e": "5"}


async def test_the_version_is_in_the_extensions(api: ModuleType) -> None:
    async with serving(whole(b"x")) as server, api.AsyncClient() as client:
        response = await client.get(server.url)
    assert response.extensions["http_version"] == b"HTTP/1.1"


# The life of a client


async def test_a_closed_client_stays_closed(api: ModuleType) -> None:
    transport = api.MockTransport(echo)
    client = api.AsyncClient(transport=transport)
    async with client:
        with pytest.raises(RuntimeError, match="more than once"):
            await client.__aenter__()
    other = api.Client(transport=transport)
    other.close()
    for use in (lambda: client.get("http://h/"), client.__aenter__):
        with pytest.raises(RuntimeError, match="has been closed"):
            await use()
    for again in (lambda: other.get("http://h/"), other.__enter__):
        with pytest.raises(RuntimeError, match="has been closed"):
            again()


# Proxies and sockets


async def test_proxy_objects(api: ModuleType) -> None:
    proxy = api.Proxy("http://user:pass@h:1")
    assert "pass" not in repr(proxy)
    assert str(proxy.url) == "http://h:1"
    assert proxy.auth == ("user", "pass")
    proxy = api.Proxy("http://h:1", auth=("u", "p@:"))
    assert proxy.auth == ("u", "p@:")
    if api is mcp_gangway:
        assert proxy.full_url() == "http://u:p%40%3A@h:1"
        with pytest.raises(ValueError, match="proxy"):
            mcp_gangway.AsyncClient(proxy=mcp_gangway.Proxy("ftp://h"))


@pytest.mark.parametrize("make", [mcp_gangway.Proxy, httpx.Proxy, str, httpx.URL], ids=lambda make: make.__name__)
async def test_a_proxy_object_is_used(make: Callable[..., Any]) -> None:
    def answer(request: Request) -> Answer:
        return whole(f"{request.target} {request.headers.get('proxy-authorization')}".encode())

    async with serving(answer) as server:
        proxy = make(server.url.replace("http://", "http://user:pass@").removesuffix("/mcp"))
        async with mcp_gangway.AsyncClient(proxy=proxy) as client:
            assert (await client.get("http://h/p")).text == "http://h/p Basic dXNlcjpwYXNz"
        async with httpx.AsyncClient(transport=mcp_gangway.AsyncHTTPTransport(proxy=proxy)) as other:
            assert (await other.get("http://h/p")).text == "http://h/p Basic dXNlcjpwYXNz"


async def test_a_proxy_with_headers_is_refused() -> None:
    with pytest.raises(ValueError, match="headers"):
        mcp_gangway.AsyncClient(proxy=httpx.Proxy("http://h", headers={"a": "b"}))  # type: ignore[arg-type]


async def test_unix_sockets(tmp_path: Path) -> None:
    path = tmp_path / "socket"

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                host = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"host:"))[6:]
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(host), host))
        writer.close()

    listener = await asyncio.start_unix_server(handle, path)
    try:
        async with mcp_gangway.AsyncClient(uds=path) as client:
            for host in ("one", "two"):
                assert (await client.get(f"http://{host}/")).text == host
        transport = mcp_gangway.AsyncHTTPTransport(uds=str(path))
        async with httpx.AsyncClient(transport=transport) as other:
            assert (await other.get("http://three/")).text == "three"
    finally:
        listener.close()
    async with mcp_gangway.AsyncClient(uds=tmp_path / "absent") as client:
        with pytest.raises(mcp_gangway.ConnectError, match="socket"):
            await client.get("http://h/")


# Copies


def exceptions() -> list[Exception]:
    request = mcp_gangway.Request("POST", "http://h/", content=b"x", headers={"a": "b"})
    response = mcp_gangway.Response(404, text="gone", request=request)
    made: list[Exception] = []
    for name in mcp_gangway.__all__:
        kind = getattr(mcp_gangway, name)
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            continue
        if issubclass(kind, mcp_gangway.HTTPStatusError):
            made.append(kind("text", request=request, response=response))
        elif issubclass(kind, mcp_gangway.HTTPError):
            made.append(kind("text", request=request))
        elif kind in (mcp_gangway.ResponseNotRead, mcp_gangway.StreamClosed, mcp_gangway.StreamConsumed):
            made.append(kind())  # type: ignore[call-arg]
        else:
            made.append(kind("text"))
    too_large = mcp_gangway.MessageTooLarge("text")
    too_large.complete = [b"1"]
    return [*made, too_large, mcp_gangway.StreamClosed("other")]


COPIES: list[Callable[[Any], Any]] = [
    lambda value: pickle.loads(pickle.dumps(value)),
    lambda value: pickle.loads(pickle.dumps(value, protocol=2)),
    copy.copy,
    copy.deepcopy,
]


@pytest.mark.parametrize("copied", COPIES)
async def test_exceptions_can_be_copied(copied: Callable[[Any], Any]) -> None:
    for error in exceptions():
        other = copied(error)
        assert type(other) is type(error)
        assert str(other) == str(error)
        if isinstance(error, mcp_gangway.HTTPError) and error._request is not None:
            assert (other.request.url, other.request.content) == ("http://h/", b"x")
        if isinstance(error, mcp_gangway.HTTPStatusError):
            assert (other.response.status_code, other.response.text) == (404, "gone")
        if hasattr(error, "complete"):
            assert other.complete == [b"1"]


@pytest.mark.parametrize("copied", COPIES)
async def test_responses_of_a_server_can_be_copied(copied: Callable[[Any], Any]) -> None:
    async with serving(whole(b"body", headers=[("X-A", "1")])) as server, mcp_gangway.AsyncClient() as client:
        response = copied(await client.get(server.url))
        assert (response.content, response.headers["x-a"], response.url) == (b"body", "1", server.url)
        assert response.elapsed.total_seconds() > 0
        async with client.stream("GET", server.url) as streamed:
            unread = copied(streamed)
            assert await streamed.aread() == b"body"
    with pytest.raises(mcp_gangway.StreamClosed):
        unread.read()


@pytest.mark.parametrize("copied", COPIES)
async def test_values_can_be_copied(copied: Callable[[Any], Any]) -> None:
    for value in (
        mcp_gangway.URL("http://h/?a"),
        mcp_gangway.Headers({"a": "b"}),
        mcp_gangway.Timeout(1.0),
        mcp_gangway.Limits(max_connections=1),
        mcp_gangway.QueryParams("a=b"),
    ):
        assert copied(value) == value


# Streams that reconnect


def stream_of(*answers: Answer) -> Any:
    return serving([*answers, whole(status=204)])


async def test_a_stream_of_events_is_opened_again() -> None:
    events = "text/event-stream"
    first = chunked(b"retry: 1\n\n", b"id: 7\ndata: a\n\n", content_type=events)
    second = raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 99\r\n\r\ndata: b\n\n")
    third = chunked(b"id\ndata: c\n\n", content_type=events)
    async with stream_of(first, raw(), second, third) as server, mcp_gangway.AsyncClient() as client:
        headers = {"X-A": "1"}
        async with client.stream("POST", server.url, content=b"{}", headers=headers) as response:
            assert [event.data async for event in response.aiter_sse(reconnect=True)] == ["a", "b", "c"]
    assert [request.method for request in server.requests] == ["POST", "GET", "GET", "GET", "GET"]
    assert [request.headers.get("last-event-id") for request in server.requests] == [None, "7", "7", "7", None]
    for request in server.requests[1:]:
        assert (request.headers["x-a"], request.body) == ("1", b"")
        assert "content-type" not in request.headers


async def test_a_synchronous_stream_is_opened_again() -> None:
    answers = [chunked(b"retry: 1\nid: %d\ndata: %d\n\n" % (n, n), content_type="text/event-stream") for n in range(3)]

    def work(url: str) -> list[str]:
        with mcp_gangway.Client() as client, client.stream("GET", url) as response:
            return [event.data for event in response.iter_sse(reconnect=True)]

    async with stream_of(*answers) as server:
        assert await asyncio.to_thread(work, server.url) == ["0", "1", "2"]


async def test_a_stream_is_not_opened_again_without_need() -> None:
    events = chunked(b"retry: 1\ndata: a\n\n", content_type="text/event-stream")
    async with serving([events]) as server, mcp_gangway.AsyncClient() as client:
        async with client.stream("GET", server.url) as response:
            assert [event.data async for event in response.aiter_sse()] == ["a"]
        response = mcp_gangway.Response(200, content=b"data: a\n\n")
        with pytest.raises(RuntimeError, match="reconnect"):
            [event async for event in response.aiter_sse(reconnect=True)]


async def test_a_refusal_ends_a_stream_that_reconnects() -> None:
    events = chunked(b"retry: 1\ndata: a\n\n", content_type="text/event-stream")
    async with serving([events, whole(b"no", status=401)]) as server, mcp_gangway.AsyncClient() as client:
        async with client.stream("GET", server.url) as response:
            with pytest.raises(mcp_gangway.DecodingError, match="HTTP 401"):
                [event async for event in response.aiter_sse(reconnect=True)]


async def test_failures_to_reconnect_are_limited() -> None:
    events = chunked(b"retry: 1\ndata: a\n\n", content_type="text/event-stream")
    async with serving([events, *[raw()] * 5]) as server, mcp_gangway.AsyncClient() as client:
        async with client.stream("GET", server.url) as response:
            with pytest.raises(mcp_gangway.RemoteProtocolError):
                [event async for event in response.aiter_sse(reconnect=True)]
    assert len(server.requests) == 6


async def test_leaving_a_stream_that_reconnects_frees_its_connection() -> None:
    first = chunked(b"retry: 1\ndata: a\n\n", content_type="text/event-stream")
    second = chunked(b"data: b\n\n", HANG, content_type="text/event-stream")
    async with serving([first, second]) as server, mcp_gangway.AsyncClient() as client:
        async with client.stream("GET", server.url) as response:
            events = response.aiter_sse(reconnect=True)
            async for event in events:
                if event.data == "b":
                    break
            await events.aclose()  # type: ignore[attr-defined]
        await server.until(lambda server: server.open_connections <= 1)


# Memory


async def test_long_bodies_are_whole(api: ModuleType) -> None:
    for length in (0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5_000_000):
        body = bytes(range(256)) * (length // 256) + b"x" * (length % 256)
        answer = (
            chunked(body[: length // 2] or b"", Pause(0.01), body[length // 2 :] or b"") if length > 1 else whole(body)
        )
        async with serving(answer) as server, api.AsyncClient() as client:
            response = await client.get(server.url)
            assert response.content == body
            assert response.is_closed


MEMORY = """
import asyncio, resource, socket, threading
import mcp_gangway

SIZE = 128 << 20

def serve(listener):
    while True:
        connection, _ = listener.accept()
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % SIZE)
        piece = bytes(1 << 20)
        for _ in range(SIZE >> 20):
            connection.sendall(piece)
        connection.close()

listener = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=serve, args=(listener,), daemon=True).start()
url = "http://127.0.0.1:%d/" % listener.getsockname()[1]

async def read():
    async with mcp_gangway.AsyncClient(timeout=None) as client:
        if HOW == "stream":
            async with client.stream("GET", url) as response:
                return len(await response.aread())
        return len((await client.get(url)).content)

def read_in_a_thread():
    with mcp_gangway.Client(timeout=None) as client:
        return len(client.get(url).content)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10

before = peak()
assert (read_in_a_thread() if HOW == "sync" else asyncio.run(read())) == SIZE
assert peak() - before < 1.25 * SIZE, f"{(peak() - before) >> 20} MiB for {SIZE >> 20}"
"""


@pytest.mark.parametrize("how", ["get", "stream", "sync"])
async def test_a_whole_response_is_held_once(run_python: Run, how: str) -> None:
    done = await asyncio.to_thread(run_python, f"HOW = {how!r}\n{MEMORY}")
    assert (done.stderr, done.returncode) == ("", 0)
