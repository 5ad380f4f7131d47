"""Redirects: who follows them, what is sent, and that credentials stay on their origin."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import mcp_gangway
import pytest
from http_server import Answer, Request, serving, whole
from mcp_gangway import MockTransport, Response

pytestmark = pytest.mark.asyncio


def site(**pages: Response) -> MockTransport:
    """Answers by path. Other pages echo the request."""

    def answer(request: mcp_gangway.Request) -> Response:
        page = pages.get(request.url.path.strip("/"))
        if page is not None:
            return page
        body = {
            "method": request.method,
            "url": str(request.url),
            "headers": dict(request.headers),
            "body": request.read().decode(),
        }
        return Response(200, json=body)

    return MockTransport(answer)


def to(location: str, status: int = 302) -> Response:
    return Response(status, headers={"Location": location})


async def both(transport: MockTransport, use: Callable[[Any], Any], **options: Any) -> list[Any]:
    """Does the same with both clients."""
    with mcp_gangway.Client(transport=transport, **options) as client:
        found = [use(client)]
    async with mcp_gangway.AsyncClient(transport=transport, **options) as other:
        found.append(await use(other))
    return found


async def test_redirects_are_followed_only_on_demand() -> None:
    transport = site(a=to("/b"))
    for response in await both(transport, lambda client: client.get("http://h/a")):
        assert (response.status_code, response.history) == (302, [])
        assert response.next_request.url == "http://h/b"
    for options, arguments in (({"follow_redirects": True}, {}), ({}, {"follow_redirects": True})):
        for response in await both(
            transport, lambda client, more=arguments: client.get("http://h/a", **more), **options
        ):
            assert (response.status_code, response.url, response.next_request) == (200, "http://h/b", None)
            assert [page.status_code for page in response.history] == [302]
            assert response.history[0].url == "http://h/a"
    for response in await both(
        transport, lambda client: client.get("http://h/a", follow_redirects=False), follow_redirects=True
    ):
        assert response.status_code == 302


@pytest.mark.parametrize(
    ("status", "method", "seen"),
    [
        (301, "POST", "GET"),
        (301, "PUT", "PUT"),
        (302, "POST", "GET"),
        (302, "PUT", "GET"),
        (302, "HEAD", "HEAD"),
        (303, "POST", "GET"),
        (303, "DELETE", "GET"),
        (303, "HEAD", "HEAD"),
        (307, "POST", "POST"),
        (308, "PATCH", "PATCH"),
    ],
)
async def test_methods_and_bodies_of_redirects(status: int, method: str, seen: str) -> None:
    transport = site(a=to("/b", status))
    headers = {"Content-Type": "text/plain", "X-Kept": "1"}
    for response in await both(
        transport,
        lambda client: client.request(method, "http://h/a", content=b"body", headers=headers),
        follow_redirects=True,
    ):
        page = response.json()
        assert (page["method"], page["headers"]["x-kept"]) == (seen, "1")
        assert page["body"] == ("body" if seen == method else "")
        assert ("content-type" in page["headers"]) == (seen == method)


SECRETS = {
    "Authorization": "Bearer hunter2",
    "X-API-Key": "hunter2",
    "Mcp-Session-Id": "hunter2",
    "Cookie": "a=hunter2",
}


@pytest.mark.parametrize(
    ("start", "location", "is_same"),
    [
        ("http://h/a", "/b", True),
        ("http://h/a", "http://h:80/b", True),
        ("http://h/a", "https://h/b", True),
        ("http://h/a", "http://i/b", False),
        ("http://h/a", "//i/b", False),
        ("http://h/a", "http://h:8080/b", False),
        ("http://h/a", "http://sub.h/b", False),
        ("http://h/a", "http://h@i/b", False),
        ("http://h:8080/a", "https://h:8443/b", False),
        ("http://h/a", "https://i/b", False),
        ("https://h/a", "https://h:444/b", False),
    ],
)
async def test_credentials_stay_on_the_origin(start: str, location: str, is_same: bool) -> None:
    transport = site(a=to(location, 307))
    for auth in (None, ("user", "hunter2")):
        for response in await both(
            transport,
            lambda client, auth=auth: client.post(
                start, headers=SECRETS, content=b"x", auth=auth or mcp_gangway.Auth()
            ),
            follow_redirects=True,
            headers={"X-Client-Key": "hunter2"},
            cookies={"session": "hunter2"},
        ):
            seen = response.json()["headers"]
            assert ("authorization" in seen) == is_same
            assert ("hunter2" in json.dumps(seen)) == is_same
            assert seen["accept"] == "*/*"


async def test_cookies_of_servers_follow_their_own_rules() -> None:
    def answer(request: mcp_gangway.Request) -> Response:
        if request.url.path == "/login":
            return Response(200, headers={"Set-Cookie": "a=1; Domain=.site.example"})
        if request.url.path == "/out":
            return to("http://two.site.example/" if request.url.host == "one.site.example" else "http://other.example/")
        return Response(200, json=dict(request.headers))

    async with mcp_gangway.AsyncClient(transport=MockTransport(answer), follow_redirects=True) as client:
        await client.get("http://one.site.example/login")
        client.cookies.set("b", "2")
        assert (await client.get("http://one.site.example/out")).json()["cookie"] == "a=1"
        assert "cookie" not in (await client.get("http://two.site.example/out")).json()


async def test_the_host_header_is_not_sent_to_another_origin() -> None:
    transport = site(a=to("http://i/b"), c=to("/d"))
    for response in await both(
        transport, lambda client: client.get("http://h/a", headers={"Host": "x"}), follow_redirects=True
    ):
        assert response.json()["headers"]["host"] == "i"
    for response in await both(
        transport, lambda client: client.get("http://h/c", headers={"Host": "x"}), follow_redirects=True
    ):
        assert response.json()["headers"]["host"] == "x"


async def test_too_many_redirects() -> None:
    transport = site(a=to("/a"))
    for most in (0, 3):
        count = 0

        async def hook(_: Any) -> None:
            nonlocal count
            count += 1

        async with mcp_gangway.AsyncClient(
            transport=transport, follow_redirects=True, max_redirects=most, event_hooks={"request": [hook]}
        ) as client:
            with pytest.raises(mcp_gangway.TooManyRedirects) as caught:
                await client.get("http://h/a")
        assert count == most + 1
        assert caught.value.request.url == "http://h/a"


@pytest.mark.parametrize(
    ("location", "error"),
    [
        ("http://h:99999/?hunter2", mcp_gangway.RemoteProtocolError),
        ("ftp://hunter2@h/hunter2", mcp_gangway.UnsupportedProtocol),
        ("http://i/", mcp_gangway.RemoteProtocolError),
        ("http://", mcp_gangway.UnsupportedProtocol),
    ],
)
async def test_locations_that_are_not_followed(location: str, error: type[Exception]) -> None:
    transport = site(a=to(location))
    with mcp_gangway.Client(transport=transport, follow_redirects=True) as client:
        with pytest.raises(error) as caught:
            client.get("https://h/a")
        assert "hunter2" not in str(caught.value)
        # It is a response like any other if it is not followed.
        response = client.get("https://h/a", follow_redirects=False)
        assert (response.status_code, response.next_request) == (302, None)


async def test_a_generator_cannot_be_sent_again() -> None:
    async def pieces() -> Any:
        yield b"a"

    def answer(request: Request) -> Answer:
        return whole(status=307, headers=[("Location", "/again")])

    async with serving(answer) as server, mcp_gangway.AsyncClient(follow_redirects=True) as client:
        with pytest.raises(mcp_gangway.StreamConsumed):
            await client.post(server.url, content=pieces())
        await server.until(lambda server: len(server.requests) == 1)


async def test_redirects_over_a_connection() -> None:
    def answer(request: Request) -> Answer:
        if request.target == "/mcp":
            return whole(b"moved", status=301, headers=[("Location", "../other?x#y")])
        return whole(request.target.encode())

    async with serving(answer) as server, mcp_gangway.AsyncClient(follow_redirects=True) as client:
        response = await client.get(server.url + "#z")
        assert (response.content, response.url.fragment) == (b"/other?x", "y")
        assert response.history[0].content == b"moved"
        async with client.stream("GET", server.url) as streamed:
            assert await streamed.aread() == b"/other?x"
        await asyncio.sleep(0)
    assert server.connections == 1
