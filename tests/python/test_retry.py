"""`mcp_gangway.retry`: which requests are retried, how often, and with which backoff.

The tests record the calls of `asyncio.sleep` and never really wait. The servers are real.
"""

from __future__ import annotations

import asyncio
import email.utils
import time
from collections.abc import Sequence
from typing import Any

import httpx
import mcp_gangway
import pytest
from http_server import CUT, HANG, Answer, Pause, chunked, serving, whole
from mcp_gangway import retry
from mcp_gangway.retry import ResilientHttpClient, RetriesExhausted

RETRYABLE = [408, 429, 502, 503, 504]


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits that the client requested; none of them really happens."""
    slept: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float, result: Any = None) -> Any:
        if seconds:
            slept.append(seconds)
        return await real(0, result)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return slept


@pytest.fixture(params=["httpx", "mcp_gangway"])
def client_class(request: pytest.FixtureRequest) -> Any:
    """The two possible underlying clients."""
    return httpx.AsyncClient if request.param == "httpx" else mcp_gangway.AsyncClient


def refused(status: int, **headers: str) -> Answer:
    fields = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return whole(b"no", status=status, headers=fields)


OK = whole(b"yes")


async def open_and_read(client: ResilientHttpClient, method: str, url: str) -> tuple[int, bytes]:
    async with client.stream(method, url) as response:
        return response.status_code, await response.aread()


# --- Names and attributes ---


def test_the_names_of_the_module() -> None:
    assert {429, 502, 503, 504, 408} == retry.RETRYABLE_STATUS_CODES
    assert {400, 401, 403, 404, 405, 406} == retry.NON_RETRYABLE_STATUS_CODES
    assert retry.logger.name == "mcp_gangway.retry"
    assert retry.settings.retry_max_attempts == 3


def test_the_attributes_are_the_arguments_and_have_defaults() -> None:
    client = ResilientHttpClient()
    assert (client.max_retries, client.base_backoff, client.max_delay, client.jitter_max) == (
        3,
        1.0,
        60,
        0.5,
    )
    client = ResilientHttpClient(7, 0.1, 9, 0.2, {"timeout": 4.0})
    assert (client.max_retries, client.base_backoff, client.max_delay, client.jitter_max) == (
        7,
        0.1,
        9,
        0.2,
    )
    assert client.client_args["timeout"] == 4.0
    assert client.client.timeout.read == 4.0


def test_limits_are_added_where_none_are_given_and_the_callers_dict_is_left_alone() -> None:
    given: dict[str, Any] = {}
    limits = ResilientHttpClient(client_args=given).client_args["limits"]
    assert limits == httpx.Limits(max_connections=200, max_keepalive_connections=100, keepalive_expiry=30.0)
    assert given == {}
    own = httpx.Limits(max_connections=1)
    assert ResilientHttpClient(client_args={"limits": own}).client_args["limits"] is own


def test_the_default_client_is_httpx_and_ours_can_be_chosen() -> None:
    assert isinstance(ResilientHttpClient().client, httpx.AsyncClient)
    ours = ResilientHttpClient(client_class=mcp_gangway.AsyncClient)
    assert isinstance(ours.client, mcp_gangway.AsyncClient)
    assert isinstance(ours.client_args["limits"], mcp_gangway.Limits)


@pytest.mark.asyncio
async def test_leaving_the_block_closes_the_client() -> None:
    async with ResilientHttpClient() as client:
        assert not client.client.is_closed
    assert client.client.is_closed


# --- Retries ---


@pytest.mark.asyncio
@pytest.mark.parametrize("status", RETRYABLE)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_idempotent_methods_are_repeated_until_the_attempts_are_used_up(
    status: int, method: str, client_class: Any, naps: list[float]
) -> None:
    async with (
        serving(refused(status)) as server,
        ResilientHttpClient(client_class=client_class) as client,
    ):
        response = await getattr(client, method.lower())(server.url)
    assert response.status_code == status
    assert [request.method for request in server.requests] == [method] * 3


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("status", "attempts"),
    [(429, 3), (503, 3), (502, 1), (504, 1), (408, 1), (500, 1), (404, 1), (302, 1)],
)
async def test_a_post_is_repeated_only_where_it_was_not_read(
    status: int, attempts: int, client_class: Any, naps: list[float]
) -> None:
    async with (
        serving(refused(status)) as server,
        ResilientHttpClient(client_class=client_class) as client,
    ):
        response = await client.post(server.url, content=b"x")
        assert response.status_code == status
        assert len(server.requests) == attempts
        if attempts == 1:
            assert await open_and_read(client, "POST", server.url) == (status, b"no")
        else:
            with pytest.raises(RetriesExhausted, match="Max retries reached opening stream") as failure:
                await open_and_read(client, "POST", server.url)
            assert isinstance(failure.value, RuntimeError)
            assert failure.value.status_code == status
        assert len(server.requests) == 2 * attempts


@pytest.mark.asyncio
@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 406, 418, 500])
async def test_other_status_codes_are_not_retried(status: int, naps: list[float]) -> None:
    async with serving(refused(status)) as server, ResilientHttpClient() as client:
        assert (await client.get(server.url)).status_code == status
        assert await open_and_read(client, "GET", server.url) == (status, b"no")
    assert len(server.requests) == 2
    assert naps == []


@pytest.mark.asyncio
async def test_an_unreachable_server_is_retried_for_any_method(client_class: Any, naps: list[float]) -> None:
    async with serving([]) as server:
        url = server.url
    async with ResilientHttpClient(client_class=client_class) as client:
        errors = (httpx.ConnectError, mcp_gangway.ConnectError)
        with pytest.raises(errors):
            await client.post(url)
        assert len(naps) == 2
        with pytest.raises(RuntimeError) as failure:
            await open_and_read(client, "POST", url)
        assert isinstance(failure.value.__cause__, errors)
        assert len(naps) == 4


@pytest.mark.asyncio
@pytest.mark.parametrize(("method", "attempts"), [("GET", 3), ("POST", 1)])
async def test_a_post_that_may_have_been_read_is_not_repeated(method: str, attempts: int, naps: list[float]) -> None:
    async with serving(Answer([CUT])) as server, ResilientHttpClient() as client:
        with pytest.raises((httpx.ReadError, RetriesExhausted)):
            await open_and_read(client, method, server.url)
    assert len(server.requests) == attempts


@pytest.mark.asyncio
async def test_the_first_success_ends_the_retries(client_class: Any, naps: list[float]) -> None:
    async with (
        serving([refused(503), OK, refused(503), OK]) as server,
        ResilientHttpClient(client_class=client_class) as client,
    ):
        assert (await client.get(server.url)).status_code == 200
        assert await open_and_read(client, "POST", server.url) == (200, b"yes")
    assert len(server.requests) == 4


@pytest.mark.asyncio
async def test_the_outcome_is_that_of_the_last_attempt(naps: list[float]) -> None:
    async with serving([Answer([CUT]), refused(503)]) as server, ResilientHttpClient(max_retries=2) as client:
        assert (await client.get(server.url)).status_code == 503
    async with serving([refused(503), Answer([CUT])]) as server, ResilientHttpClient(max_retries=2) as client:
        with pytest.raises(httpx.NetworkError):
            await client.get(server.url)


@pytest.mark.asyncio
async def test_an_exception_that_is_not_a_network_failure_is_not_retried(
    monkeypatch: pytest.MonkeyPatch, naps: list[float]
) -> None:
    calls = 0

    def fail(*_: Any, **__: Any) -> Any:
        nonlocal calls
        calls += 1
        raise ValueError("no such option")

    async with ResilientHttpClient() as client:
        monkeypatch.setattr(client.client, "request", fail)
        monkeypatch.setattr(client.client, "stream", fail)
        with pytest.raises(ValueError, match="no such option"):
            await client.get("http://localhost")
        with pytest.raises(ValueError, match="no such option"):
            await open_and_read(client, "GET", "http://localhost")
    assert calls == 2
    assert naps == []


@pytest.mark.asyncio
async def test_without_attempts_there_is_no_response() -> None:
    async with ResilientHttpClient(max_retries=0) as client:
        assert await client.get("http://localhost:1") is None
        with pytest.raises(RuntimeError, match="Max retries reached opening stream"):
            await open_and_read(client, "GET", "http://localhost:1")


def test_should_retry_knows_the_exceptions_of_both_libraries() -> None:
    client = ResilientHttpClient()
    for library in (httpx, mcp_gangway):
        for name in ("ConnectTimeout", "ReadTimeout", "NetworkError", "ConnectError", "ReadError"):
            assert client._should_retry(getattr(library, name)("x"), None), name
        for name in ("RemoteProtocolError", "PoolTimeout"):
            assert not client._should_retry(getattr(library, name)("x"), None), name
    assert not client._should_retry(Exception(), None)


# --- A stream ---


@pytest.mark.asyncio
async def test_only_the_opening_of_a_stream_is_repeated(naps: list[float]) -> None:
    async with serving(chunked(b"first", CUT)) as server, ResilientHttpClient() as client:
        received = []
        with pytest.raises(httpx.TransportError):
            async with client.stream("GET", server.url) as response:
                async for chunk in response.aiter_bytes():
                    received.append(chunk)
    assert received == [b"first"]
    assert len(server.requests) == 1


@pytest.mark.asyncio
async def test_a_stream_stays_open_as_long_as_it_is_read(client_class: Any) -> None:
    answer = chunked(b"a", Pause(0.2), b"b", Pause(0.2), b"c")
    async with serving(answer) as server, ResilientHttpClient(client_class=client_class) as client:
        assert await open_and_read(client, "POST", server.url) == (200, b"abc")
        async with client.stream("POST", server.url) as response:
            first = await response.aiter_bytes().__anext__()
            assert first == b"a"
            assert server.open_connections >= 1


@pytest.mark.asyncio
async def test_an_exception_of_the_reader_passes_and_frees_the_connection(
    client_class: Any,
) -> None:
    async with serving(chunked(b"x", HANG)) as server, ResilientHttpClient(client_class=client_class) as client:
        with pytest.raises(KeyError):
            async with client.stream("GET", server.url) as response:
                assert response.status_code == 200
                raise KeyError
        await server.until(lambda server: server.open_connections == 0)
    assert len(server.requests) == 1


@pytest.mark.asyncio
async def test_a_refused_response_is_closed_before_the_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving([chunked(HANG, status=503), OK]) as server, ResilientHttpClient() as client:
        freed = []

        async def wait(*_: float) -> None:
            await server.until(lambda server: server.open_connections == 0)
            freed.append(True)

        monkeypatch.setattr(client, "_sleep_with_jitter", wait)
        assert await open_and_read(client, "GET", server.url) == (200, b"yes")
    assert freed == [True]


# --- Backoff ---


@pytest.mark.asyncio
async def test_waits_double_and_never_exceed_the_limit(naps: list[float]) -> None:
    async with serving(refused(503)) as server, ResilientHttpClient(5, 1.0, 6.0, 0.0) as client:
        await client.get(server.url)
    assert naps == [1.0, 2.0, 4.0, 6.0, 6.0]


@pytest.mark.asyncio
async def test_jitter_adds_at_most_its_share_of_the_delay(naps: list[float]) -> None:
    client = ResilientHttpClient(jitter_max=0.5, max_delay=60)
    for _ in range(200):
        await client._sleep_with_jitter(2.0, 1.0)
    assert all(2.0 <= nap <= 3.0 for nap in naps)
    assert max(naps) - min(naps) > 0.3


@pytest.mark.asyncio
async def test_a_negative_backoff_does_not_wait() -> None:
    began = time.monotonic()
    await ResilientHttpClient(base_backoff=-1)._back_off(3)
    assert time.monotonic() - began < 1


def in_a_moment() -> str:
    return email.utils.formatdate(time.time() + 5, usegmt=True)


@pytest.mark.asyncio
@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(("asked", "shortest", "longest"), [("2", 2, 2), ("0.5", 0.5, 0.5), (None, 3, 5)])
async def test_retry_after_is_followed(
    status: int, asked: str | None, shortest: float, longest: float, naps: list[float]
) -> None:
    header = asked or in_a_moment()
    async with (
        serving([refused(status, Retry_After=header), OK] * 2) as server,
        ResilientHttpClient(max_delay=0.1) as client,
    ):
        assert (await client.post(server.url)).status_code == 200
        assert await open_and_read(client, "POST", server.url) == (200, b"yes")
    assert len(naps) == 2
    assert all(shortest <= nap <= longest for nap in naps), naps


@pytest.mark.asyncio
@pytest.mark.parametrize("nonsense", ["soon", "0", "-5", "nan", "inf", "Thu, 01 Jan 1970 00:00:00 GMT"])
async def test_an_invalid_retry_after_is_ignored(nonsense: str, naps: list[float]) -> None:
    async with (
        serving([refused(429, Retry_After=nonsense), OK] * 2) as server,
        ResilientHttpClient(base_backoff=0.25, jitter_max=0) as client,
    ):
        assert (await client.get(server.url)).status_code == 200
        assert await open_and_read(client, "GET", server.url) == (200, b"yes")
    assert naps == [0.25, 0.25]


@pytest.mark.asyncio
@pytest.mark.parametrize(("asked", "waited"), [("900", []), ("31", []), ("20", [20.0]), ("10", [10.0, 10.0, 10.0])])
async def test_a_long_retry_after_is_left_to_the_caller(asked: str, waited: Sequence[float], naps: list[float]) -> None:
    async with serving(refused(429, Retry_After=asked)) as server, ResilientHttpClient(9) as client:
        response = await client.post(server.url)
        assert (response.status_code, response.headers["retry-after"]) == (429, asked)
        assert naps == waited
        naps.clear()
        assert await open_and_read(client, "POST", server.url) == (429, b"no")
        assert naps == waited


# --- Arguments for the underlying client ---


@pytest.mark.asyncio
@pytest.mark.filterwarnings("error")
async def test_arguments_are_handed_on_and_raw_data_is_content() -> None:
    async with serving(OK) as server, ResilientHttpClient() as client:
        await client.post(server.url, json={"a": 1}, headers={"X-Test": "1"}, params={"q": "2"})
        await client.post(server.url, data=b"raw")
        async with client.stream("POST", server.url, data={"a": "b"}) as response:
            await response.aread()
    first, second, third = server.requests
    assert (first.json(), first.headers["x-test"], first.target) == ({"a": 1}, "1", "/mcp?q=2")
    assert second.body == b"raw"
    assert third.body == b"a=b"


@pytest.mark.asyncio
async def test_the_log_holds_no_secrets(caplog: pytest.LogCaptureFixture, naps: list[float]) -> None:
    caplog.set_level("DEBUG", logger="mcp_gangway.retry")
    caplog.set_level("ERROR", logger="httpx")
    async with serving(refused(503)) as server, ResilientHttpClient() as client:
        await client.get(server.url.replace("://", "://user:hunter2@") + "?token=hunter2")
    assert "/mcp" in caplog.text
    assert "hunter2" not in "".join(r.getMessage() for r in caplog.records if "gangway" in r.name)
