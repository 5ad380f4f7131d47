"""The HTTP client, compared with httpx: every test runs over `httpx.AsyncClient` and over ours.

Where the two differ on purpose, the test says so; docs/python.md has the list.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import http.client
import json
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import mcp_gangway
import pytest
from conftest import Authority
from http_server import CUT, HANG, Answer, Pause, Request, Server, chunked, raw, serving, whole
from hypercorn.asyncio import serve
from hypercorn.config import Config

pytestmark = [
    pytest.mark.asyncio,
    # httpx's newest version deprecates these arguments.
    pytest.mark.filterwarnings("ignore:`verify=<str>` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`cert=...` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload:DeprecationWarning"),
]

JSON = "application/json"


def echo(request: Request) -> Answer:
    """Answers with the request itself, as JSON."""
    seen = {
        "method": request.method,
        "target": request.target,
        "headers": request.headers,
        "body": request.body.decode("latin-1"),
    }
    return whole(json.dumps(seen).encode(), content_type=JSON)


@contextlib.asynccontextmanager
async def listening(handle: Any) -> AsyncIterator[int]:
    """Runs a bare TCP server and yields its port. Its connections end with the test."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await handle(reader, writer)
        finally:
            writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def causes(error: BaseException) -> list[BaseException]:
    """Returns the causes of an exception, the nearest first."""
    found = []
    while (error := error.__cause__ or error.__context__) is not None:  # type: ignore[assignment]
        found.append(error)
    return found


# Requests


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "QUERY"])
async def test_the_method_and_an_empty_body(api: ModuleType, method: str) -> None:
    async with serving(echo) as server, api.AsyncClient() as client:
        seen = (await client.request(method.lower(), server.url)).json()
    assert (seen["method"], seen["target"], seen["body"]) == (method, "/mcp", "")
    # An empty body is declared only for methods that usually have a body.
    expected = "0" if method in ("POST", "PUT", "PATCH") else None
    assert seen["headers"].get("content-length") == expected


async def test_the_methods_of_the_same_name(api: ModuleType) -> None:
    async with serving(echo) as server, api.AsyncClient() as client:
        answers = [
            await client.get(server.url, params={"a": 1}),
            await client.post(server.url, content=b"x"),
            await client.put(server.url, content=b"x"),
            await client.delete(server.url, headers={"x-a": "b"}),
        ]
    assert [answer.json()["method"] for answer in answers] == ["GET", "POST", "PUT", "DELETE"]


async def test_a_response_to_head_has_no_body(api: ModuleType) -> None:
    answer = Answer([b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"])
    async with serving(answer) as server, api.AsyncClient() as client:
        for _ in range(2):
            response = await client.request("HEAD", server.url)
            assert (response.content, response.headers["content-length"]) == (b"", "5")
    assert server.connections == 1


@pytest.mark.parametrize(
    ("arguments", "body", "content_type"),
    [
        ({"content": b"\x00\xff"}, b"\x00\xff", None),
        ({"content": "zażółć"}, "zażółć".encode(), None),
        ({"content": b""}, b"", None),
        ({"json": {"a": "ż", "b": [1, 2.5, None, True]}}, '{"a":"ż","b":[1,2.5,null,true]}'.encode(), JSON),
        ({"json": []}, b"[]", JSON),
        ({"json": 0}, b"0", JSON),
        ({"data": {"a": "1 2&", "b": ["x", "y"], "c": True, "d": None}}, b"a=1+2%26&b=x&b=y&c=true&d=", "form"),
        ({"data": b"raw"}, b"raw", None),
        ({"data": "raw"}, b"raw", None),
    ],
)
async def test_request_bodies_and_their_content_types(
    api: ModuleType, arguments: dict[str, Any], body: bytes, content_type: str | None
) -> None:
    if content_type == "form":
        content_type = "application/x-www-form-urlencoded"
    async with serving(echo) as server, api.AsyncClient() as client:
        seen = (await client.post(server.url, **arguments)).json()
    assert seen["body"].encode("latin-1") == body
    assert seen["headers"].get("content-type") == content_type
    assert seen["headers"]["content-length"] == str(len(body))


async def test_a_body_keeps_the_content_type_that_was_given(api: ModuleType) -> None:
    async with serving(echo) as server, api.AsyncClient() as client:
        seen = (await client.post(server.url, json={}, headers={"content-type": "application/x-mine"})).json()
    assert seen["headers"]["content-type"] == "application/x-mine"


async def test_json_with_nan_cannot_be_sent(api: ModuleType) -> None:
    with pytest.raises(ValueError, match="Out of range float values"):
        api.Request("POST", "http://127.0.0.1/", json=float("nan"))


@pytest.mark.parametrize(
    ("params", "target"),
    [
        ({"a": "1 2", "b": "ż"}, "/mcp?a=1+2&b=%C5%BC"),
        ({"a": [1, 2.5], "b": True, "c": None}, "/mcp?a=1&a=2.5&b=true&c="),
        ([("a", "1"), ("a", "2")], "/mcp?a=1&a=2"),
        ({"a": "/?:&=+%"}, "/mcp?a=%2F%3F%3A%26%3D%2B%25"),
    ],
)
async def test_params(api: ModuleType, params: Any, target: str) -> None:
    async with serving(echo) as server, api.AsyncClient() as client:
        response = await client.get(server.url, params=params)
    assert response.json()["target"] == target
    assert response.url.query == target.partition("?")[2].encode()


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("", "/"),
        ("/a b", "/a%20b"),
        ("/ż?q=ż", "/%C5%BC?q=%C5%BC"),
        ("/a%20b?c=%2F", "/a%20b?c=%2F"),
        ("/a?b#fragment", "/a?b"),
        ('/"<>`{} ', "/%22%3C%3E%60%7B%7D%20"),
        ("/100%", "/100%"),
        ("/?'", "/?'"),
        ("/a;b=c@d:e,f!g$h&i'j(k)l*m", "/a;b=c@d:e,f!g$h&i'j(k)l*m"),
        ("/[a]?[b]", "/[a]?[b]"),
    ],
)
async def test_urls_are_encoded_as_expected(api: ModuleType, path: str, target: str) -> None:
    async with serving(echo) as server, api.AsyncClient() as client:
        response = await client.get(server.url.removesuffix("/mcp") + path)
    assert response.json()["target"] == target


async def test_request_headers_override_client_headers(api: ModuleType) -> None:
    async with serving(echo) as server, api.AsyncClient(headers={"X-Kept": "client", "x-Other": "client"}) as client:
        seen = (await client.get(server.url, headers=[("X-OTHER", "one"), ("x-other", "two")])).json()["headers"]
        client.headers["x-kept"] = "changed"
        again = (await client.get(server.url)).json()["headers"]
    assert (seen["x-kept"], seen["x-other"]) == ("client", "one, two")
    assert (again["x-kept"], again["x-other"]) == ("changed", "client")


async def test_header_values_may_be_utf_8(api: ModuleType) -> None:
    async with serving(echo) as server, api.AsyncClient() as client:
        seen = (await client.get(server.url, headers=[(b"X-Name", "ż".encode())])).json()["headers"]
    assert seen["x-name"].encode("latin-1") == "ż".encode()


async def test_the_host_header_is_that_of_the_url_unless_given(api: ModuleType) -> None:
    async with serving(echo) as server, api.AsyncClient() as client:
        seen = (await client.get(server.url)).json()["headers"]
        other = (await client.get(server.url, headers={"Host": "elsewhere.example"})).json()["headers"]
    assert seen["host"] == server.url.split("/")[2]
    assert other["host"] == "elsewhere.example"


async def test_default_accept_headers_allow_any_type_and_compression(api: ModuleType) -> None:
    async with serving(echo) as server, api.AsyncClient() as client:
        seen = (await client.get(server.url)).json()["headers"]
    assert seen["accept"] == "*/*"
    assert {"gzip", "deflate"} <= set(seen["accept-encoding"].replace(" ", "").split(","))


async def test_relative_urls(api: ModuleType) -> None:
    async with serving(echo) as server, api.AsyncClient(base_url=server.url) as client:
        targets = [(await client.get(path)).json()["target"] for path in ("tools", "/tools", "")]
        absolute = (await client.get(server.url + "/x")).json()["target"]
    assert targets == ["/mcp/tools", "/mcp/tools", "/mcp/"]
    assert absolute == "/mcp/x"


async def test_a_built_request_can_be_sent(api: ModuleType) -> None:
    async with serving(echo) as server, api.AsyncClient(headers={"x-a": "b"}) as client:
        request = client.build_request("POST", server.url, json={"a": 1}, params={"c": "d"})
        seen = (await client.send(request)).json()
        streamed = await client.send(request, stream=True)
        with pytest.raises(api.ResponseNotRead):
            _ = streamed.content
        body = await streamed.aread()
        await streamed.aclose()
    assert (seen["target"], seen["body"], seen["headers"]["x-a"]) == ("/mcp?c=d", '{"a":1}', "b")
    assert json.loads(body)["body"] == '{"a":1}'


# Authentication


async def test_user_and_password_become_basic_authorization(api: ModuleType) -> None:
    async with serving(echo) as server, api.AsyncClient(auth=("user", "pass:ż")) as client:
        seen = [
            (await client.get(server.url)).json()["headers"].get("authorization"),
            (await client.get(server.url, auth=("other", ""))).json()["headers"].get("authorization"),
            (await client.get(server.url, auth=None)).json()["headers"].get("authorization"),
        ]
    assert seen == ["Basic dXNlcjpwYXNzOsW8", "Basic b3RoZXI6", None]


async def test_user_and_password_in_the_url_become_basic_authorization(api: ModuleType) -> None:
    async with serving(echo) as server, api.AsyncClient() as client:
        url = server.url.replace("://", "://us%40er:p%3Aw@")
        response = await client.get(url)
        given = (await client.get(url, headers={"Authorization": "Bearer x"})).json()["headers"]["authorization"]
    assert response.json()["headers"]["authorization"] == "Basic dXNAZXI6cDp3"
    assert given == "Bearer x" or api is httpx  # httpx replaces the explicit header.
    assert "p%3Aw" not in repr(response.url)


async def test_an_auth_function_may_add_headers(api: ModuleType) -> None:
    def sign(request: Any) -> Any:
        request.headers["x-signed"] = f"{request.method} {request.url}"
        return request

    async with serving(echo) as server, api.AsyncClient(auth=sign) as client:
        seen = (await client.post(server.url, content=b"x")).json()["headers"]
    assert seen["x-signed"] == f"POST {server.url}"


# Responses


async def test_a_whole_response(api: ModuleType) -> None:
    answer = whole(b'{"a":"\xc5\xbc"}', status=201, content_type="application/json; charset=utf-8")
    async with serving(answer) as server, api.AsyncClient() as client:
        response = await client.post(server.url, json={})
    assert (response.status_code, response.reason_phrase, response.http_version) == (201, "Created", "HTTP/1.1")
    assert (response.content, response.text) == ('{"a":"ż"}'.encode(), '{"a":"ż"}')
    assert response.json() == {"a": "ż"}
    assert response.json(parse_float=str) == {"a": "ż"}
    assert (response.url, str(response.url)) == (server.url, server.url)
    assert (response.encoding, response.charset_encoding) == ("utf-8", "utf-8")
    assert response.request.method == "POST"
    assert response.is_success
    assert response.raise_for_status() is response
    assert response.is_closed
    assert response.is_stream_consumed
    assert response.elapsed.total_seconds() > 0
    assert repr(response) == "<Response [201 Created]>"
    assert await response.aread() == response.content
    assert [part async for part in response.aiter_bytes()] == [response.content]


@pytest.mark.parametrize(
    ("status", "is_what", "message"),
    [
        (204, "is_success", None),
        (304, "is_redirect", "Redirect response '304 Not Modified'"),
        (302, "is_redirect", "Redirect response '302 Found'"),
        (404, "is_client_error", "Client error '404 Not Found'"),
        (503, "is_server_error", "Server error '503 Service Unavailable'"),
        (599, "is_server_error", "Server error '599 '"),
    ],
)
async def test_statuses(api: ModuleType, status: int, is_what: str, message: str | None) -> None:
    phrase = http.client.responses.get(status, "")
    head = f"HTTP/1.1 {status} {phrase}\r\nContent-Length: 0\r\nLocation: /there\r\n\r\n".encode()
    async with serving(Answer([head])) as server, api.AsyncClient() as client:
        response = await client.get(server.url)
        kinds = ("is_informational", "is_success", "is_redirect", "is_client_error", "is_server_error")
        assert [kind for kind in kinds if getattr(response, kind)] == [is_what]
        assert response.is_error == (status >= 400)
        if message is None:
            assert response.raise_for_status() is response
            return
        with pytest.raises(api.HTTPStatusError) as caught:
            response.raise_for_status()
    assert str(caught.value).startswith(f"{message} for url '{server.url}'")
    assert ("Redirect location: '/there'" in str(caught.value)) == (status == 302)
    assert caught.value.response is response
    assert caught.value.request is response.request
    assert isinstance(caught.value, api.HTTPError)


async def test_a_password_is_in_no_exception(api: ModuleType) -> None:
    async with serving(whole(status=500)) as server, api.AsyncClient() as client:
        response = await client.get(server.url.replace("://", "://user:hidden@"))
        with pytest.raises(api.HTTPStatusError) as caught:
            response.raise_for_status()
    assert "hidden" not in str(caught.value) or api is httpx


async def test_response_headers(api: ModuleType) -> None:
    fields = [
        ("Set-Cookie", "a=1"),
        ("X-One", "b, c"),
        ("set-cookie", "d=2"),
        ("X-Utf", "ż".encode().decode("latin-1")),
    ]
    async with serving(whole(b"x", headers=fields)) as server, api.AsyncClient() as client:
        headers = (await client.get(server.url)).headers
    assert headers["SET-COOKIE"] == headers.get("set-cookie") == "a=1, d=2"
    assert headers.get_list("Set-Cookie") == ["a=1", "d=2"]
    assert headers.get_list("x-one", split_commas=True) == ["b", "c"]
    assert headers.get("absent", "else") == "else"
    assert "X-ONE" in headers and "absent" not in headers
    assert headers["x-utf"] == "ż"
    assert list(headers.keys()) == ["content-length", "set-cookie", "x-one", "x-utf"]
    assert headers.multi_items()[1] == ("set-cookie", "a=1")
    with pytest.raises(KeyError):
        headers["absent"]


# Streamed responses


async def test_body_chunks_are_delivered_as_they_arrive(api: ModuleType) -> None:
    more = asyncio.Event()
    async with serving(chunked(b"one", more, b"two")) as server, api.AsyncClient() as client:
        async with client.stream("GET", server.url) as response:
            assert (response.is_closed, response.is_stream_consumed) == (False, False)
            parts = []
            async for part in response.aiter_bytes():
                parts.append(part)
                more.set()  # The server sends more only after the first part was seen.
            assert response.is_closed
        assert parts == [b"one", b"two"]


@pytest.mark.parametrize("size", [1, 3, 7, 100])
async def test_chunk_sizes(api: ModuleType, size: int) -> None:
    async with serving(chunked(b"abcd", b"efg", b"hij")) as server, api.AsyncClient() as client:
        for name in ("aiter_bytes", "aiter_raw"):
            async with client.stream("GET", server.url) as response:
                parts = [part async for part in getattr(response, name)(chunk_size=size)]
            assert parts == [b"abcdefghij"[at : at + size] for at in range(0, 10, size)]
        async with client.stream("GET", server.url) as response:
            texts = [text async for text in response.aiter_text(chunk_size=size)]
        assert texts == ["abcdefghij"[at : at + size] for at in range(0, 10, size)]
    assert server.connections == 1


async def test_a_compressed_body_is_decoded(api: ModuleType) -> None:
    text = "zażółć" * 1000
    packed = gzip.compress(text.encode())
    answer = whole(packed, headers=[("Content-Encoding", "gzip")])
    async with serving(answer) as server, api.AsyncClient() as client:
        response = await client.get(server.url)
        assert response.text == text
        assert response.headers["content-encoding"] == "gzip"
        assert response.headers["content-length"] == str(len(packed))
        async with client.stream("GET", server.url) as response:
            assert b"".join([part async for part in response.aiter_raw()]) == packed
        async with client.stream("GET", server.url) as response:
            assert b"".join([part async for part in response.aiter_bytes()]).decode() == text
    assert server.connections == 1


async def test_a_body_that_is_not_gzip_raises_decoding_error(api: ModuleType) -> None:
    answer = whole(b"no gzip at all", headers=[("Content-Encoding", "gzip")])
    async with serving(answer) as server, api.AsyncClient() as client:
        with pytest.raises(api.DecodingError):
            await client.get(server.url)
        async with client.stream("GET", server.url) as response:
            with pytest.raises(api.DecodingError):
                await response.aread()


async def test_characters_split_between_chunks_are_decoded(api: ModuleType) -> None:
    text = "ż𝄞e\u0301 \N{REPLACEMENT CHARACTER}"
    data = text.encode()
    pieces = [data[at : at + 1] for at in range(len(data))]
    async with serving(chunked(*pieces)) as server, api.AsyncClient() as client:
        async with client.stream("GET", server.url) as response:
            parts = [part async for part in response.aiter_text()]
        assert "".join(parts) == text
        async with client.stream("GET", server.url) as response:
            await response.aread()
            assert response.text == text


@pytest.mark.parametrize(
    ("body", "content_type", "text"),
    [
        (b"a\xffb\xc5", "text/plain", "a\ufffdb\ufffd"),
        (b"\xbf\xf3\xb3", "text/plain; charset=iso-8859-2", "żół"),
        (b"\xbf\xf3\xb3", 'text/plain; a=b; CHARSET="ISO-8859-2"', "żół"),
        ("ż".encode(), "text/plain; charset=unheard-of", "ż"),
        (b"", "text/plain", ""),
    ],
)
async def test_charsets(api: ModuleType, body: bytes, content_type: str, text: str) -> None:
    async with serving(whole(body, content_type=content_type)) as server, api.AsyncClient() as client:
        assert (await client.get(server.url)).text == text
        async with client.stream("GET", server.url) as response:
            assert "".join([part async for part in response.aiter_text()]) == text


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        ([b"a\nb\r\nc\rd"], ["a", "b", "c", "d"]),
        ([b"a\r", b"\nb"], ["a", "b"]),
        ([b"a\r", b"b\n"], ["a", "b"]),
        ([b"a\n", b"\n", b"b"], ["a", "", "b"]),
        ([b"a", b"b", b"c\n"], ["abc"]),
        ([b"\r\n\r\n"], ["", ""]),
        ([b"a\r"], ["a"]),
        ([b"\xc5", b"\xbc\n"], ["ż"]),
        ([], []),
        ([b"\n"], [""]),
    ],
)
async def test_lines(api: ModuleType, pieces: list[bytes], lines: list[str]) -> None:
    async with serving(chunked(*pieces)) as server, api.AsyncClient() as client:
        async with client.stream("GET", server.url) as response:
            assert [line async for line in response.aiter_lines()] == lines


async def test_a_streamed_body_can_be_read_only_once(api: ModuleType) -> None:
    async with serving(chunked(b"a", b"b")) as server, api.AsyncClient() as client:
        async with client.stream("GET", server.url) as response:
            assert [part async for part in response.aiter_raw()] != []
            for read in (response.aiter_raw, response.aiter_bytes, response.aiter_text, response.aiter_lines):
                with pytest.raises(api.StreamConsumed):
                    [part async for part in read()]
            with pytest.raises(api.StreamConsumed):
                await response.aread()
            with pytest.raises(api.ResponseNotRead):
                _ = response.content
            with pytest.raises(api.ResponseNotRead):
                _ = response.text


async def test_a_body_that_was_read_can_be_read_again(api: ModuleType) -> None:
    async with serving(chunked(b"a", b"b")) as server, api.AsyncClient() as client:
        async with client.stream("GET", server.url) as response:
            assert await response.aread() == b"ab"
            assert await response.aread() == b"ab"
        assert [part async for part in response.aiter_bytes(chunk_size=1)] == [b"a", b"b"]
        assert [line async for line in response.aiter_lines()] == ["ab"]
        with pytest.raises(api.StreamConsumed):
            [part async for part in response.aiter_raw()]
        assert response.text == "ab"


async def test_a_closed_response_cannot_be_read(api: ModuleType) -> None:
    async with serving(chunked(b"a")) as server, api.AsyncClient() as client:
        async with client.stream("GET", server.url) as response:
            pass
        assert response.is_closed
        for read in (response.aiter_raw, response.aiter_bytes, response.aiter_text):
            with pytest.raises(api.StreamClosed):
                [part async for part in read()]
        with pytest.raises(api.StreamClosed):
            await response.aread()
        await response.aclose()


# Timeouts


async def test_silence_before_the_head_raises_read_timeout(api: ModuleType) -> None:
    async with serving(raw(HANG)) as server, api.AsyncClient(timeout=0.1) as client:
        with pytest.raises(api.ReadTimeout) as caught:
            await client.get(server.url)
        await server.until(lambda server: server.open_connections == 0)
        with pytest.raises(api.ReadTimeout):
            async with client.stream("GET", server.url):
                raise AssertionError("there is no response")
    assert isinstance(caught.value, api.TimeoutException)
    assert caught.value.request.url == server.url


async def test_silence_in_the_body_raises_read_timeout(api: ModuleType) -> None:
    async with serving(chunked(b"a", HANG)) as server, api.AsyncClient() as client:
        seen = []
        async with client.stream("GET", server.url, timeout=0.1) as response:
            with pytest.raises(api.ReadTimeout) as caught:
                async for part in response.aiter_bytes():
                    seen.append(part)
        with pytest.raises(api.ReadTimeout):
            await client.get(server.url, timeout=0.1)
        await server.until(lambda server: server.open_connections == 0)
    assert seen == [b"a"]
    assert caught.value.request.url == server.url


async def test_a_request_may_override_the_clients_read_timeout(api: ModuleType) -> None:
    answer = chunked(Pause(0.2), b"a", Pause(0.2), b"b")
    async with serving(answer) as server, api.AsyncClient(timeout=0.1) as client:
        assert (await client.get(server.url, timeout=None)).content == b"ab"
        assert (await client.get(server.url, timeout=api.Timeout(0.1, read=5))).content == b"ab"


async def test_the_timeout_limits_each_silence_not_the_whole_response(api: ModuleType) -> None:
    answer = chunked(*[b"x", Pause(0.05)] * 20)
    async with serving(answer) as server, api.AsyncClient(timeout=0.5) as client:
        assert (await client.get(server.url)).content == b"x" * 20


async def test_a_connection_that_is_not_accepted_raises_connect_timeout(api: ModuleType) -> None:
    # A listener that accepts nothing and has a full queue.
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)
        async with api.AsyncClient(timeout=api.Timeout(30.0, connect=0.2)) as client:
            with pytest.raises(api.ConnectTimeout) as caught:
                await client.get(f"http://127.0.0.1:{address[1]}/")
    assert isinstance(caught.value, api.TimeoutException)


async def test_a_tls_handshake_without_an_answer_raises_connect_timeout(api: ModuleType) -> None:
    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with listening(silent) as port, api.AsyncClient(timeout=api.Timeout(30.0, connect=0.2)) as client:
        with pytest.raises(api.ConnectTimeout):
            await client.get(f"https://127.0.0.1:{port}/")


async def test_a_request_with_no_free_connection_raises_pool_timeout(api: ModuleType) -> None:
    release = asyncio.Event()
    limits = api.Limits(max_connections=1)
    timeout = api.Timeout(5.0, pool=0.1)
    async with serving(chunked(b"a", release, b"b")) as server:
        async with api.AsyncClient(limits=limits, timeout=timeout) as client:
            async with client.stream("GET", server.url) as response:
                with pytest.raises(api.PoolTimeout) as caught:
                    await client.get(server.url)
                assert caught.value.request.url == server.url
                release.set()
                assert await response.aread() == b"ab"
            # At the end of the body, the connection is free again.
            assert (await client.get(server.url)).content == b"ab"
            async with client.stream("GET", server.url):
                pass
            assert (await client.get(server.url)).content == b"ab"


async def test_waiting_requests_share_the_limited_connections(api: ModuleType) -> None:
    async with serving(chunked(b"a", Pause(0.02), b"b")) as server:
        async with api.AsyncClient(limits=api.Limits(max_connections=2)) as client:
            bodies = await asyncio.gather(*[client.get(server.url) for _ in range(20)])
    assert [body.content for body in bodies] == [b"ab"] * 20
    assert server.connections == 2


# Errors


async def test_a_refused_connection_raises_connect_error(api: ModuleType) -> None:
    async with api.AsyncClient() as client:
        with pytest.raises(api.ConnectError) as caught:
            await client.get(f"http://127.0.0.1:{unused_port()}/")
    assert isinstance(caught.value, (api.NetworkError, api.TransportError))
    assert any(isinstance(cause, OSError) for cause in causes(caught.value))
    assert caught.value.request.method == "GET"


async def test_an_unknown_host_name_raises_connect_error(api: ModuleType) -> None:
    async with api.AsyncClient() as client:
        with pytest.raises(api.ConnectError):
            await client.get("http://nobody.invalid/")


async def test_a_connection_closed_before_the_head_raises_remote_protocol_error(api: ModuleType) -> None:
    async with serving(raw()) as server, api.AsyncClient() as client:
        with pytest.raises(api.RemoteProtocolError):
            await client.get(server.url)


async def test_a_connection_closed_within_the_head_raises_remote_protocol_error(api: ModuleType) -> None:
    async with serving(raw(b"HTTP/1.1 200 OK\r\nContent-")) as server, api.AsyncClient() as client:
        with pytest.raises(api.RemoteProtocolError):
            await client.get(server.url)


@pytest.mark.parametrize(
    "steps",
    [
        [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc"],
    ],
)
async def test_a_truncated_response_body_raises_remote_protocol_error(api: ModuleType, steps: list[bytes]) -> None:
    async with serving(raw(*steps)) as server, api.AsyncClient() as client:
        with pytest.raises(api.RemoteProtocolError):
            await client.get(server.url)
        async with client.stream("GET", server.url) as response:
            seen = []
            with pytest.raises(api.RemoteProtocolError) as caught:
                async for part in response.aiter_bytes():
                    seen.append(part)
    assert b"".join(seen) == b"abc"
    assert caught.value.request.url == server.url


async def test_a_body_without_a_length_ends_with_the_connection(api: ModuleType) -> None:
    async with serving(raw(b"HTTP/1.1 200 OK\r\n\r\nabc", Pause(0.05), b"def")) as server, api.AsyncClient() as client:
        assert (await client.get(server.url)).content == b"abcdef"


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    ],
)
async def test_a_response_that_is_not_http_raises_remote_protocol_error(api: ModuleType, answer: bytes) -> None:
    async with serving(raw(answer)) as server, api.AsyncClient() as client:
        with pytest.raises(api.RemoteProtocolError) as caught:
            await client.get(server.url)
    assert str(caught.value)


async def test_a_reset_connection_raises_read_error(api: ModuleType) -> None:
    async with serving(chunked(b"a", Pause(0.05), CUT)) as server, api.AsyncClient() as client:
        async with client.stream("GET", server.url) as response:
            with pytest.raises(api.ReadError) as caught:
                await response.aread()
    assert any(isinstance(cause, ConnectionResetError) for cause in causes(caught.value))
    async with serving(raw(Pause(0.05), CUT)) as server, api.AsyncClient() as client:
        with pytest.raises(api.ReadError) as caught:
            await client.get(server.url)
    assert any(isinstance(cause, ConnectionResetError) for cause in causes(caught.value))


@pytest.mark.parametrize("url", ["ftp://example.com/", "file:///etc/passwd", "example.com", "/path", ""])
async def test_an_unsupported_url_scheme_is_refused(api: ModuleType, url: str) -> None:
    async with api.AsyncClient() as client:
        with pytest.raises(api.UnsupportedProtocol):
            await client.get(url)


@pytest.mark.parametrize("url", ["http://[::1", "http://example.com:port/"])
async def test_an_invalid_url_is_refused(api: ModuleType, url: str) -> None:
    async with api.AsyncClient() as client:
        with pytest.raises(api.InvalidURL):
            await client.get(url)


async def test_a_closed_client_refuses_requests(api: ModuleType) -> None:
    async with serving(echo) as server:
        client = api.AsyncClient()
        await client.get(server.url)
        assert not client.is_closed
        await client.aclose()
        await client.aclose()
        assert client.is_closed
        with pytest.raises(RuntimeError, match="client has been closed"):
            await client.get(server.url)
        with pytest.raises(RuntimeError, match="client has been closed"):
            async with client.stream("GET", server.url):
                pass
        await server.until(lambda server: server.open_connections == 0)


@pytest.mark.parametrize("value", ["a\r\nX-Injected: b", "a\nb", "a\rb", "a\0b"])
async def test_line_breaks_in_header_values_are_refused(api: ModuleType, value: str) -> None:
    async with serving(echo) as server, api.AsyncClient() as client:
        with pytest.raises(api.LocalProtocolError) as caught:
            await client.get(server.url, headers={"Authorization": "Bearer secret" + value})
        assert server.requests == []
    if api is not httpx:  # httpx's message shows the value.
        assert "secret" not in str(caught.value)
        assert "authorization" in str(caught.value).lower()


@pytest.mark.parametrize("name", [b"a b", b"a:", b"", b"a\n", "ż".encode()])
async def test_invalid_header_names_are_refused(api: ModuleType, name: bytes) -> None:
    async with serving(echo) as server, api.AsyncClient() as client:
        with pytest.raises((api.LocalProtocolError, ValueError)) as caught:
            await client.get(server.url, headers=[(name, b"x")])
        assert isinstance(caught.value, api.LocalProtocolError) or api is httpx
        assert server.requests == []


@pytest.mark.parametrize(
    "arguments",
    [{"content": 1}, {"content": object()}, {"json": object()}, {"headers": 1}, {"params": 1}, {"auth": 1}],
)
async def test_arguments_of_wrong_types_are_refused(api: ModuleType, arguments: dict[str, Any]) -> None:
    async with serving(echo) as server, api.AsyncClient() as client:
        with pytest.raises((TypeError, ValueError, AttributeError)) as caught:
            await client.post(server.url, **arguments)
        if api is not httpx:
            assert not isinstance(caught.value, AttributeError)
            assert next(iter(arguments)) in str(caught.value) or "JSON" in str(caught.value)
        assert (await client.get(server.url)).status_code == 200


async def test_a_url_of_the_wrong_type_raises_type_error(api: ModuleType) -> None:
    async with api.AsyncClient() as client:
        for url in (1, None, b"http://127.0.0.1/"):
            with pytest.raises(TypeError):
                await client.get(url)


async def test_oversized_response_headers_raise_remote_protocol_error(api: ModuleType) -> None:
    for head in (b"X: " + b"a" * 2_000_000 + b"\r\n", b"X: a\r\n" * 50_000):
        async with serving(raw(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n")) as server, api.AsyncClient() as client:
            with pytest.raises(api.RemoteProtocolError):
                await client.get(server.url)


async def test_a_response_header_of_60_kb_is_accepted(api: ModuleType) -> None:
    answer = whole(b"x", headers=[("X", "a" * 60_000)])
    async with serving(answer) as server, api.AsyncClient() as client:
        assert (await client.get(server.url)).headers["x"] == "a" * 60_000


async def test_header_values_that_are_not_utf_8_are_read_as_latin_1(api: ModuleType) -> None:
    async with serving(whole(b"", headers=[("X", "a\xff")])) as server, api.AsyncClient() as client:
        headers = (await client.get(server.url)).headers
    assert headers["x"] == "a\xff"
    assert (b"X", b"a\xff") in [(name.title(), value) for name, value in headers.raw]


# Connections


async def test_a_connection_is_used_again(api: ModuleType) -> None:
    async with serving(whole(b"x" * 100_000)) as server, api.AsyncClient() as client:
        for _ in range(5):
            await client.get(server.url)
        async with client.stream("GET", server.url) as response:
            await response.aread()
        async with client.stream("GET", server.url) as response:
            async for _ in response.aiter_bytes():
                pass
        await client.get(server.url)
        assert (server.connections, server.open_connections) == (1, 1)


async def test_a_connection_closed_by_the_server_is_replaced(api: ModuleType) -> None:
    async with serving(Answer(whole(b"x").steps, keeps_alive=False)) as server, api.AsyncClient() as client:
        for number in range(1, 4):
            assert (await client.post(server.url, json={})).content == b"x"
            await server.until(lambda server: server.open_connections == 0)
            await asyncio.sleep(0.02)  # The client has time to notice.
            assert server.connections == number


async def test_no_idle_connection_is_kept_with_max_keepalive_0(api: ModuleType) -> None:
    async with serving(whole(b"x")) as server:
        async with api.AsyncClient(limits=api.Limits(max_keepalive_connections=0)) as client:
            await client.get(server.url)
            await client.get(server.url)
            await server.until(lambda server: server.open_connections == 0)
    assert server.connections == 2


async def test_an_idle_connection_expires(api: ModuleType) -> None:
    async with serving(whole(b"x")) as server:
        async with api.AsyncClient(limits=api.Limits(keepalive_expiry=0.05)) as client:
            await client.get(server.url)
            await asyncio.sleep(0.2)
            await client.get(server.url)
    assert server.connections == 2


def leaves(how: str) -> Any:
    """Returns a reader of an endless body that stops in this way."""

    async def by_the_end_of_the_block(client: Any, url: str) -> None:
        async with client.stream("GET", url) as response:
            assert response.status_code == 200

    async def by_break(client: Any, url: str) -> None:
        async with client.stream("GET", url) as response:
            async for _ in response.aiter_bytes():
                break

    async def by_an_exception(client: Any, url: str) -> None:
        with pytest.raises(ZeroDivisionError):
            async with client.stream("GET", url) as response:
                async for _ in response.aiter_bytes():
                    raise ZeroDivisionError

    async def by_cancellation(client: Any, url: str) -> None:
        reading = asyncio.Event()

        async def read() -> None:
            async with client.stream("GET", url) as response:
                async for _ in response.aiter_bytes():
                    reading.set()

        task = asyncio.create_task(read())
        await reading.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def by_a_time_limit(client: Any, url: str) -> None:
        async def read() -> None:
            async with client.stream("GET", url) as response:
                async for _ in response.aiter_lines():
                    pass

        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(read(), 0.1)

    async def by_aclose(client: Any, url: str) -> None:
        response = await client.send(client.build_request("GET", url), stream=True)
        await response.aclose()

    return locals()[how]


@pytest.mark.parametrize(
    "how",
    ["by_the_end_of_the_block", "by_break", "by_an_exception", "by_cancellation", "by_a_time_limit", "by_aclose"],
)
@pytest.mark.parametrize("body", ["silent", "endless"])
async def test_leaving_a_stream_closes_its_connection_at_once(api: ModuleType, how: str, body: str) -> None:
    steps = [b"x", HANG] if body == "silent" else [b"x" * 65536] * 10_000
    limits = api.Limits(max_connections=1)
    async with serving(chunked(*steps)) as server, api.AsyncClient(limits=limits, timeout=5.0) as client:
        for number in range(1, 4):
            await leaves(how)(client, server.url)
            await server.until(lambda server: server.open_connections == 0)
            assert server.connections == number


async def test_cancellation_before_the_head_frees_the_connection(api: ModuleType) -> None:
    async with serving(raw(HANG)) as server, api.AsyncClient() as client:
        for number, body in enumerate((b"", b"x" * 10_000_000), 1):
            if api is httpx:
                # httpx keeps a connection that it is about to make, and a body that it has begun to send.
                body = b""
            task = asyncio.create_task(client.post(server.url, content=body))
            if api is httpx:
                await server.until(lambda server, number=number: len(server.requests) == number)
            await server.until(lambda server: server.open_connections == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await server.until(lambda server: server.open_connections == 0)


async def test_64_requests_at_once(api: ModuleType) -> None:
    async def answer(request: Request) -> Answer:
        await asyncio.sleep(0.01)
        return echo(request)

    async with serving(answer) as server, api.AsyncClient() as client:
        answers = await asyncio.gather(*[client.post(server.url, json=number) for number in range(64)])
    assert [answer.json()["body"] for answer in answers] == [str(number) for number in range(64)]


async def test_large_bodies_both_ways(api: ModuleType) -> None:
    body = bytes(range(256)) * 40_000
    async with serving(lambda request: whole(request.body)) as server, api.AsyncClient() as client:
        assert (await client.post(server.url, content=body)).content == body


# Streamed request bodies


async def pieces(*parts: Any) -> AsyncIterator[Any]:
    """An async generator of a body: raises exceptions, awaits events, and yields everything else."""
    for part in parts:
        if isinstance(part, Exception):
            raise part
        if isinstance(part, asyncio.Event):
            await part.wait()
        else:
            yield part


class Again:
    """A body that can be iterated several times."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"a"
        yield b""
        yield b"bc"


async def test_a_body_of_an_async_iterable(api: ModuleType) -> None:
    async with serving(echo) as server, api.AsyncClient() as client:
        for content, body in ((pieces(b"a", b"", b"bc"), "abc"), (Again(), "abc"), (pieces(), "")):
            seen = (await client.post(server.url, content=content)).json()
            assert seen["body"] == body
            assert seen["headers"]["transfer-encoding"] == "chunked"
            assert "content-length" not in seen["headers"]
            assert "content-type" not in seen["headers"]
        seen = (await client.put(server.url, content=pieces(b"abc"), headers={"Content-Length": "3"})).json()
        assert (seen["body"], seen["headers"]["content-length"]) == ("abc", "3")
        assert "transfer-encoding" not in seen["headers"]
    assert server.connections == 1


async def test_a_body_over_http_2(api: ModuleType, authority: Authority) -> None:
    async with hypercorn_serving(authority) as url:
        async with api.AsyncClient(verify=authority.client(), http2=True) as client:
            content = pieces(*[b"x" * 10_000] * 100)
            assert (await client.post(url, content=content)).json()["length"] == 1_000_000


async def test_a_generator_is_sent_once(api: ModuleType) -> None:
    async with serving(echo) as server, api.AsyncClient() as client:
        request = client.build_request("POST", server.url, content=pieces(b"a"))
        assert (await client.send(request)).json()["body"] == "a"
        with pytest.raises(api.StreamConsumed):
            await client.send(request)
        request = client.build_request("POST", server.url, content=Again())
        for _ in range(2):
            assert (await client.send(request)).json()["body"] == "abc"


async def test_a_request_body_is_read_only_as_fast_as_the_server_takes_it(api: ModuleType) -> None:
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield b"x" * (1 << 20)

    async def never_reads(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    async with listening(never_reads) as port, api.AsyncClient() as client:
        with pytest.raises(api.WriteTimeout):
            await client.post(f"http://127.0.0.1:{port}/", content=endless(), timeout=api.Timeout(5, write=0.5))
    # The buffers hold this much; those of the kernel are the largest.
    assert 1 <= taken < 20


async def test_the_write_timeout_does_not_run_while_waiting_for_a_connection(api: ModuleType) -> None:
    """The write timeout does not run while the body waits for a connection."""

    async def answer(request: Request) -> Answer:
        await asyncio.sleep(0 if request.body else 0.6)
        return echo(request)

    limits, timeout = api.Limits(max_connections=1), api.Timeout(5, write=0.2)
    async with serving(answer) as server, api.AsyncClient(limits=limits, timeout=timeout) as client:
        first = asyncio.create_task(client.get(server.url))
        await server.until(lambda server: len(server.requests) == 1)
        assert (await client.post(server.url, content=pieces(b"a", b"b", b"c"))).json()["body"] == "abc"
        await first


async def test_the_read_timeout_starts_after_the_request_body(api: ModuleType) -> None:
    async def slow() -> AsyncIterator[bytes]:
        for _ in range(4):
            await asyncio.sleep(0.1)
            yield b"a"

    async with serving(echo) as server, api.AsyncClient(timeout=api.Timeout(5, read=0.2)) as client:
        assert (await client.post(server.url, content=slow())).json()["body"] == "aaaa"
    async with serving(raw(HANG)) as server, api.AsyncClient(timeout=api.Timeout(5, read=0.2)) as client:
        with pytest.raises(api.ReadTimeout):
            await client.post(server.url, content=slow())


async def test_exceptions_of_a_request_body_reach_the_caller(api: ModuleType) -> None:
    async with serving(echo) as server, api.AsyncClient() as client:
        mine = KeyError("mine")
        with pytest.raises(KeyError) as caught:
            await client.post(server.url, content=pieces(b"a", mine))
        assert caught.value is mine
        with pytest.raises(TypeError):
            await client.post(server.url, content=pieces("text"))
        await server.until(lambda server: server.open_connections == 0)
        # The server does not count an incomplete request.
        assert server.requests == []
        assert (await client.post(server.url, content=pieces(b"a"))).json()["body"] == "a"


async def test_cancelling_a_request_cancels_its_body_iterator(api: ModuleType) -> None:
    forever = asyncio.Event()
    ended: list[str] = []

    async def content() -> AsyncIterator[bytes]:
        try:
            yield b"a"
            await forever.wait()
        except BaseException as error:
            ended.append(type(error).__name__)
            raise

    async with serving(echo) as server, api.AsyncClient() as client:
        sending = asyncio.create_task(client.post(server.url, content=content()))
        await server.until(lambda server: server.open_connections == 1)
        await asyncio.sleep(0.05)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await server.until(lambda server: server.open_connections == 0)
    assert ended == ["CancelledError"]
    with pytest.raises(api.ConnectError):
        async with api.AsyncClient() as client:
            await client.post(f"http://127.0.0.1:{unused_port()}/", content=pieces(b"a", b"b", b"c"))


async def test_a_response_may_come_before_the_end_of_the_request_body() -> None:
    """Tests only our client: httpx reads the answer after it has sent the whole body."""

    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"a\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        # The second half of the exchange.
        await reader.readuntil(b"b\r\n")
        writer.write(b"3\r\ntwo\r\n0\r\n\r\n")
        await reader.read()

    heard = asyncio.Event()
    content = pieces(b"a", heard, b"b", asyncio.Event())
    async with listening(answers) as port, mcp_gangway.AsyncClient() as client:
        async with client.stream("POST", f"http://127.0.0.1:{port}/", content=content) as response:
            chunks = []
            async for chunk in response.aiter_bytes():
                chunks.append(chunk)
                heard.set()
    assert chunks == [b"one", b"two"]
    # The rest of the body is not needed, so its generator is closed.
    await asyncio.sleep(0)
    assert content.ag_frame is None  # type: ignore[attr-defined]


async def test_an_exception_of_the_request_body_ends_the_response() -> None:
    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"a\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        await reader.read()

    heard, mine = asyncio.Event(), KeyError("mine")
    async with listening(answers) as port, mcp_gangway.AsyncClient() as client:
        content = pieces(b"a", heard, mine)
        async with client.stream("POST", f"http://127.0.0.1:{port}/", content=content) as response:
            with pytest.raises(KeyError) as caught:
                async for _ in response.aiter_bytes():
                    heard.set()
    assert caught.value is mine


# Proxies and TLS


class SeenByProxy:
    def __init__(self) -> None:
        self.heads: list[bytes] = []


def proxy(seen: SeenByProxy, *, refuses: bool = False) -> Any:
    """A proxy: tunnels CONNECT, and answers all other requests itself."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        seen.heads.append(head)
        method, target, _ = head.split(b" ", 2)
        if refuses:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            return
        if method != b"CONNECT":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nproxied")
            await writer.drain()
            await reader.read()
            return
        host, _, port = target.decode().rpartition(":")
        there = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await tunnel((reader, writer), there)

    return serve


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def tunnel(one: Streams, other: Streams) -> None:
    async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        except ConnectionError:
            pass
        finally:
            sink.close()

    await asyncio.gather(copy(one[0], other[1]), copy(other[0], one[1]))


def socks(targets: list[tuple[str, str]], *, reply: int = 0) -> Any:
    """A SOCKS5 proxy for one user (RFC 1928, 1929). Records users and targets; connects all to this machine."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def text() -> str:
            return (await reader.readexactly((await reader.readexactly(1))[0])).decode()

        assert await reader.readexactly(1) == b"\x05"
        if "\x02" not in await text():
            writer.write(b"\x05\xff")
            await writer.drain()
            return
        writer.write(b"\x05\x02")
        assert await reader.readexactly(1) == b"\x01"
        credentials = f"{await text()}:{await text()}"
        if credentials != "us@er:pass":
            writer.write(b"\x01\x01")
            await writer.drain()
            return
        writer.write(b"\x01\x00")
        assert await reader.readexactly(3) == b"\x05\x01\x00"
        kind = (await reader.readexactly(1))[0]
        if kind == 3:
            host = await text()
        else:
            family, length = (socket.AF_INET, 4) if kind == 1 else (socket.AF_INET6, 16)
            host = socket.inet_ntop(family, await reader.readexactly(length))
        port = int.from_bytes(await reader.readexactly(2), "big")
        targets.append((credentials, f"{host}:{port}"))
        writer.write(bytes([5, reply, 0, 1, 127, 0, 0, 1, 0, 0]))
        if reply:
            await writer.drain()
            return
        await tunnel((reader, writer), await asyncio.open_connection("127.0.0.1", port))

    return serve


async def test_a_proxy_for_http(api: ModuleType) -> None:
    seen = SeenByProxy()
    async with listening(proxy(seen)) as port:
        async with api.AsyncClient(proxy=f"http://us%40er:pass@127.0.0.1:{port}") as client:
            response = await client.get("http://server.invalid/a?b=c")
    assert response.text == "proxied"
    head = seen.heads[0].lower()
    assert head.startswith(b"get http://server.invalid/a?b=c http/1.1\r\n")
    assert b"\r\nproxy-authorization: basic dxnazxi6cgfzcw==\r\n" in head
    assert b"\r\nhost: server.invalid\r\n" in head


async def test_a_proxy_for_https(api: ModuleType, authority: Authority) -> None:
    seen = SeenByProxy()
    async with serving(echo, tls=authority.server()) as server, listening(proxy(seen)) as port:
        client = api.AsyncClient(proxy=f"http://user:pass@127.0.0.1:{port}", verify=authority.client())
        async with client:
            answer = (await client.get(server.url)).json()
    assert seen.heads[0].startswith(f"CONNECT {server.url.split('/')[2]} HTTP/1.1\r\n".encode())
    assert b"basic dxnlcjpwyxnz" in seen.heads[0].lower()
    assert "proxy-authorization" not in answer["headers"]


async def test_a_407_of_the_proxy_raises_proxy_error_only_for_https(api: ModuleType, authority: Authority) -> None:
    async with listening(proxy(SeenByProxy(), refuses=True)) as port:
        async with api.AsyncClient(proxy=f"http://127.0.0.1:{port}") as client:
            with pytest.raises(api.ProxyError):
                await client.get("https://server.invalid/")
            assert (await client.get("http://server.invalid/")).status_code == 407


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_socks_proxy(api: ModuleType, authority: Authority, scheme: str) -> None:
    targets: list[tuple[str, str]] = []
    tls = authority.server() if scheme == "https" else None
    async with serving(echo, tls=tls) as server, listening(socks(targets)) as port:
        target = f"localhost:{server.url.split(':')[2].split('/')[0]}"
        client = api.AsyncClient(proxy=f"socks5h://us%40er:pass@127.0.0.1:{port}", verify=authority.client())
        async with client:
            for _ in range(2):
                seen = (await client.post(f"{scheme}://{target}/a?b", content=b"x" * 100_000)).json()
                assert (seen["target"], seen["headers"]["host"], len(seen["body"])) == ("/a?b", target, 100_000)
                assert "proxy-authorization" not in seen["headers"]
    # The proxy received the name, and the client reused the connection.
    assert targets == [("us@er:pass", target)]


async def test_socks5h_resolves_host_names_at_the_proxy(api: ModuleType) -> None:
    for scheme, is_proxy in (("socks5h", True), ("socks5", api is httpx)):
        targets: list[tuple[str, str]] = []
        async with serving(echo) as server, listening(socks(targets)) as port:
            async with api.AsyncClient(proxy=f"{scheme}://us%40er:pass@127.0.0.1:{port}") as client:
                assert (await client.get(server.url.replace("127.0.0.1", "localhost"))).status_code == 200
        assert targets[0][1].startswith("localhost:") == is_proxy


@pytest.mark.parametrize("url", ["http://server.invalid/", "https://server.invalid/"])
async def test_a_socks_proxy_that_refuses(api: ModuleType, url: str) -> None:
    targets: list[tuple[str, str]] = []
    # 2: connection not allowed.
    async with listening(socks(targets, reply=2)) as port:
        for user in ("", "us%40er:wrong@"):
            async with api.AsyncClient(proxy=f"socks5h://{user}127.0.0.1:{port}") as client:
                with pytest.raises(api.ProxyError) as caught:
                    await client.get(url)
            assert "wrong" not in str(caught.value)
        assert targets == []
        async with api.AsyncClient(proxy=f"socks5h://us%40er:pass@127.0.0.1:{port}") as client:
            # Our ProxyError is only for errors that the user's proxy settings can fix.
            with pytest.raises(api.ProxyError if api is httpx else api.ConnectError):
                await client.get(url)
    assert len(targets) == 1


async def test_an_unreachable_proxy_raises_an_error(api: ModuleType) -> None:
    async with api.AsyncClient(proxy=f"http://127.0.0.1:{unused_port()}") as client:
        with pytest.raises((api.ConnectError, api.ProxyError)):
            await client.get("http://server.invalid/")


async def test_proxies_are_taken_from_the_environment(api: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = SeenByProxy()
    async with listening(proxy(seen)) as port, serving(echo) as server:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        async with api.AsyncClient() as client:
            assert (await client.get("http://server.invalid/")).text == "proxied"
        async with api.AsyncClient(trust_env=False) as client:
            assert (await client.get(server.url)).json()["target"] == "/mcp"
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        async with api.AsyncClient() as client:
            assert (await client.get(server.url)).json()["target"] == "/mcp"
    assert len(seen.heads) == 1


async def test_an_untrusted_certificate_raises_connect_error(api: ModuleType, authority: Authority) -> None:
    async with serving(echo, tls=authority.server()) as server:
        async with api.AsyncClient() as client:
            with pytest.raises(api.ConnectError) as caught:
                await client.get(server.url)
        assert server.requests == []
    assert causes(caught.value)


@pytest.mark.parametrize("how", ["path", "text", "folder", "context", "nobody"])
async def test_ways_to_configure_certificate_verification(
    api: ModuleType, authority: Authority, how: str, tmp_path: Path
) -> None:
    (tmp_path / "one.pem").write_bytes(authority.path.read_bytes())
    verify: Any = {
        "path": authority.path,
        "text": str(authority.path),
        "folder": str(tmp_path),
        "context": authority.client(),
        "nobody": False,
    }[how]
    if api is httpx and how == "path":
        verify = str(verify)
    if api is httpx and how == "folder":
        pytest.skip("there it is OpenSSL's folder of hashes")
    async with serving(echo, tls=authority.server()) as server, api.AsyncClient(verify=verify) as client:
        assert (await client.get(server.url)).json()["target"] == "/mcp"


async def test_an_ssl_context_without_verification_is_used(api: ModuleType, authority: Authority) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    async with serving(echo, tls=authority.server()) as server, api.AsyncClient(verify=context) as client:
        assert (await client.get(server.url)).status_code == 200


@pytest.mark.parametrize("how", ["one file", "two files"])
async def test_client_certificates(api: ModuleType, authority: Authority, how: str) -> None:
    pair = (str(authority.client_certificate), str(authority.client_key))
    cert = str(authority.client_pem) if how == "one file" else pair
    context = authority.server(asks_for_certificate=True)
    async with serving(echo, tls=context) as server:
        async with api.AsyncClient(verify=authority.client(), cert=cert) as client:
            assert (await client.get(server.url)).json()["target"] == "/mcp"
        async with api.AsyncClient(verify=str(authority.path)) as client:
            # In TLS 1.3 the server's refusal comes after the client's handshake.
            with pytest.raises((api.ConnectError, api.ReadError, api.RemoteProtocolError)):
                await client.get(server.url)


@contextlib.asynccontextmanager
async def hypercorn_serving(authority: Authority | None = None) -> AsyncIterator[str]:
    """Runs a third-party HTTP/2 server, with TLS if there is an authority. Yields its URL. It echoes requests."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        length, more = 0, True
        while more:
            part = await receive()
            length, more = length + len(part["body"]), part["more_body"]
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        seen = {key: scope[key] for key in ("http_version", "method", "path", "client")}
        text = json.dumps({**seen, "headers": headers, "length": length}).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"1"), (b"x-a", b"2")]})
        for piece in (text[:1], text[1:20], text[20:]):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    config = Config()
    # Hypercorn closes the descriptor.
    config.bind = [f"fd://{listener.detach()}"]
    config.errorlog = None
    if authority is not None:
        config.certfile, config.keyfile = map(str, authority.server_files())
    stop = asyncio.Event()
    running = asyncio.create_task(serve(app, config, shutdown_trigger=stop.wait))
    try:
        yield f"http{'' if authority is None else 's'}://127.0.0.1:{port}/a%20b?c"
    finally:
        stop.set()
        # Hypercorn fails if a client leaves at the same time.
        with contextlib.suppress(ssl.SSLError):
            await running


async def test_http_2_where_the_server_offers_it(api: ModuleType, authority: Authority) -> None:
    async with hypercorn_serving(authority) as url:
        for http2, version in ((True, "2"), (False, "1.1")):
            async with api.AsyncClient(verify=authority.client(), http2=http2) as client:
                responses = await asyncio.gather(
                    *[client.post(url, content=b"x" * 100_000 * number, headers={"X-B": "3"}) for number in range(10)]
                )
            for number, response in enumerate(responses):
                seen = response.json()
                assert (response.http_version, seen["http_version"]) == (f"HTTP/{version}", version)
                assert (seen["method"], seen["path"], seen["length"]) == ("POST", "/a b", 100_000 * number)
                assert seen["headers"]["x-b"] == "3"
                assert response.headers.get_list("x-a") == ["1", "2"]
            # With HTTP/2, all requests share one connection; HTTP/1.1 needs several.
            assert (len({tuple(response.json()["client"]) for response in responses}) == 1) == http2


async def test_http_2_without_tls(api: ModuleType) -> None:
    async with hypercorn_serving() as url, api.AsyncClient(http1=False, http2=True) as client:
        response = await client.post(url, content=b"x" * 1_000_000)
        assert (response.http_version, response.json()["length"]) == ("HTTP/2", 1_000_000)
        async with client.stream("GET", url) as response:
            assert b"".join([chunk async for chunk in response.aiter_bytes()]).startswith(b'{"http_version": "2"')


async def test_http_2_where_the_server_does_not_offer_it(api: ModuleType, authority: Authority) -> None:
    async with serving(echo, tls=authority.server()) as server:
        async with api.AsyncClient(verify=authority.client(), http2=True) as client:
            assert (await client.get(server.url)).http_version == "HTTP/1.1"


async def test_files_that_are_not_certificates_are_refused(api: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "wrong.pem"
    path.write_text("nothing")
    with pytest.raises((ValueError, OSError)):
        api.AsyncClient(verify=str(path))
    with pytest.raises((ValueError, OSError)):
        api.AsyncClient(verify=str(tmp_path / "absent.pem"))
    with pytest.raises((ValueError, OSError)):
        api.AsyncClient(cert=str(path))


async def test_a_proxy_that_is_not_a_url_is_refused(api: ModuleType) -> None:
    for proxy in ("", "ftp://127.0.0.1", "http://"):
        with pytest.raises((ValueError, api.InvalidURL)):
            api.AsyncClient(proxy=proxy)
            raise ValueError if api is httpx else AssertionError(proxy)


async def test_until_fails_in_time() -> None:
    """Proves that the tests above would notice a connection that stays open."""
    async with serving(echo) as server:
        with pytest.raises(asyncio.TimeoutError):
            await server.until(lambda server: server.connections == 1, 0.05)
    assert isinstance(server, Server)
