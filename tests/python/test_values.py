"""Values of wrong types are never sent in another form, and secrets are in no text."""

from __future__ import annotations

import base64
import datetime
import decimal
from collections.abc import Callable
from typing import Any

import mcp_gangway
import pytest
from mcp_gangway import BridgeSettings, Headers, SignIn, wrapper

SECRET = "hunter2"


def body(**arguments: Any) -> bytes:
    content = mcp_gangway.Client().build_request("POST", "http://h/", **arguments).content
    assert isinstance(content, bytes)
    return content


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"a": b"x\xff &"}, b"a=x%FF+%26"),
        ({b"\xff": "a"}, b"%FF=a"),
        ({"a": bytearray(b"x"), "b": memoryview(b"y")}, b"a=x&b=y"),
        ({"a": [b"x", "y", 1]}, b"a=x&a=y&a=1"),
        ([("a", b"x"), (b"a", "y")], b"a=x&a=y"),
        ({"a": decimal.Decimal("1.5"), "b": datetime.date(2026, 1, 2)}, b"a=1.5&b=2026-01-02"),
        (bytearray(b"raw"), b"raw"),
        (memoryview(b"raw"), b"raw"),
    ],
    ids=str,
)
def test_bytes_in_forms_are_sent_as_they_are(data: Any, expected: bytes) -> None:
    assert body(data=data) == expected


def test_bytes_in_params_are_sent_as_they_are() -> None:
    request = mcp_gangway.Client().build_request("GET", "http://h/", params={"a": b"\xff", b"b": "c"})
    assert request.url.query == b"a=%FF&b=c"


@pytest.mark.parametrize(
    "value", [{"b": 1}, [["x"]], [{"b": 1}], object(), [object()], [(1, 2)], type("Plain", (), {})()], ids=str
)
def test_values_without_a_text_form_are_refused(value: Any) -> None:
    for argument in ("data", "params"):
        with pytest.raises(TypeError, match="params or data"):
            body(**{argument: {"a": value}})


def authorization(auth: Any) -> str:
    with mcp_gangway.Client(timeout=1.0, trust_env=False) as client:
        request = client.build_request("GET", "http://127.0.0.1:9/")
        with pytest.raises(mcp_gangway.ConnectError):
            client.send(request, auth=auth)
    return request.headers["authorization"]


@pytest.mark.parametrize(
    ("auth", "pair"),
    [
        (("user", "pass"), b"user:pass"),
        ((b"user", b"p\xff"), b"user:p\xff"),
        (("ż", b"pass"), "ż:pass".encode()),
        ((b"user", ""), b"user:"),
    ],
    ids=str,
)
def test_credentials_may_be_bytes(auth: Any, pair: bytes) -> None:
    assert authorization(auth) == "Basic " + base64.b64encode(pair).decode()


@pytest.mark.parametrize("auth", [("u", None), ("u", 1), ("u", bytearray(b"p")), ("u",), ("u", "p", "q"), "u:p", b"u"])
def test_other_credentials_are_refused(auth: Any) -> None:
    with pytest.raises(TypeError, match="auth"):
        authorization(auth)


@pytest.mark.parametrize(
    "arguments",
    [
        {"proxy": b"http://h:1"},
        {"proxy": 1},
        {"base_url": b"http://h"},
        {"base_url": 1},
        {"headers": {"a": bytearray(b"x")}},
        {"headers": {1: "a"}},
    ],
    ids=str,
)
def test_settings_of_wrong_types_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        mcp_gangway.Client(**arguments)


def test_a_method_must_be_text() -> None:
    with pytest.raises(TypeError, match="method"):
        mcp_gangway.Request(b"GET", "http://h/")  # type: ignore[arg-type]


# Secrets

HIDDEN: dict[str, Callable[[], Any]] = {
    "URL": lambda: mcp_gangway.URL(f"http://u:{SECRET}@h/?key={SECRET}#{SECRET}"),
    "Request": lambda: mcp_gangway.Request("GET", f"http://u:{SECRET}@h/{''}?{SECRET}", headers={"key": SECRET}),
    "BridgeSettings": lambda: BridgeSettings(
        f"http://u:{SECRET}@h/?key={SECRET}",
        SECRET,
        auth_command=SECRET,
        headers={"X-Key": SECRET},
        proxy=f"http://u:{SECRET}@p",
        sign_in=SignIn(
            client_secret=SECRET,
            client_private_key=SECRET,
            issuer=f"https://u:{SECRET}@h",
            client_metadata_url=f"https://u:{SECRET}@h/m",
            resource=f"https://h/?{SECRET}",
            parameters={"a": SECRET},
        ),
    ),
    "Settings": lambda: wrapper.Settings(f"http://u:{SECRET}@h/?{SECRET}", f"Bearer {SECRET}"),
    **{
        name: lambda name=name: Headers([(name, SECRET)])  # type: ignore[misc]
        for name in (
            "Authorization",
            "Proxy-Authorization",
            "Cookie",
            "Set-Cookie",
            "X-API-Key",
            "Api-Key",
            "Ocp-Apim-Subscription-Key",
            "X-Auth-Token",
            "PRIVATE-TOKEN",
            "X-Amz-Security-Token",
            "Mcp-Session-Id",
            "Last-Event-ID",
            "Location",
            "X-Anything",
        )
    },
}


@pytest.mark.parametrize("name", HIDDEN)
def test_no_repr_shows_a_secret(name: str) -> None:
    shown = repr(HIDDEN[name]())
    assert SECRET not in shown
    assert shown != ""


def test_harmless_headers_are_shown() -> None:
    headers = Headers({"Content-Type": "text/plain", "MCP-Protocol-Version": "2025-06-18", "X-Key": SECRET})
    assert repr(headers) == (
        "Headers({'content-type': 'text/plain', 'mcp-protocol-version': '2025-06-18', 'x-key': '[secure]'})"
    )


FAILING: dict[str, Callable[[], Any]] = {
    "port": lambda: mcp_gangway.URL(f"http://u:{SECRET}@h:99999/"),
    "port text": lambda: mcp_gangway.URL(f"http://h:{SECRET}/"),
    "host": lambda: mcp_gangway.URL(f"http://u:{SECRET}@a b/?{SECRET}"),
    "bracket": lambda: mcp_gangway.URL(f"http://u:{SECRET}@[::1"),
    "no scheme": lambda: mcp_gangway.URL(f"u:{SECRET}@h/"),
    "control": lambda: mcp_gangway.URL(f"http://u:{SECRET}\n@h/"),
    "surrogate": lambda: mcp_gangway.URL(f"http://u:{SECRET}\ud800@h/"),
    "reference": lambda: mcp_gangway.URL("http://h/").join(f"http://u:{SECRET}@h:x/"),
    "base_url": lambda: mcp_gangway.Client(base_url=f"http://u:{SECRET}@h:x"),
    "proxy": lambda: mcp_gangway.Client(proxy=f"http://u:{SECRET}@h:x"),
    "proxy surrogate": lambda: mcp_gangway.Client(proxy=f"http://u:{SECRET}\ud800@h"),
    "proxy scheme": lambda: mcp_gangway.Client(proxy=f"ftp://u:{SECRET}@h"),
    "header": lambda: Headers({"a": SECRET + "\ud800"}),
    "params": lambda: body(params={"a": SECRET + "\ud800"}),
    "data": lambda: body(data={"a": SECRET + "\ud800"}),
    "json": lambda: body(json={"a": SECRET + "\ud800"}),
    "content": lambda: body(content=SECRET + "\ud800"),
    "auth": lambda: authorization(("u", SECRET + "\ud800")),
    "bridge url": lambda: mcp_gangway.Bridge(BridgeSettings(f"http://u:{SECRET}@h:x")),
    "bridge proxy": lambda: mcp_gangway.Bridge(BridgeSettings("http://h", proxy=f"http://u:{SECRET}@h:x")),
    "bridge auth": lambda: mcp_gangway.Bridge(BridgeSettings("http://h", f"{SECRET}\n{SECRET}")),
    "unreachable": lambda: mcp_gangway.Client(trust_env=False).get(f"http://u:{SECRET}@127.0.0.1:9/?{SECRET}"),
    "sent header": lambda: mcp_gangway.Client().get("http://127.0.0.1:9/", headers={"a": SECRET + "\n"}),
}


@pytest.mark.parametrize("name", FAILING)
def test_no_exception_shows_a_secret(name: str) -> None:
    with pytest.raises((ValueError, TypeError, mcp_gangway.InvalidURL, mcp_gangway.RequestError)) as caught:
        FAILING[name]()
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in str(error)
        assert SECRET not in repr(error)
        error = error.__cause__
