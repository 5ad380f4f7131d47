"""The client for threads, compared with httpx: every test that takes `api` runs over `httpx.Client` and ours.

Rule: servers run in an event loop of another thread; the tests themselves have none.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import mcp_gangway
import pytest
from conftest import Authority, Run
from http_server import CUT, HANG, Answers, Pause, Request, Server, chunked, event, raw, serving, whole
from mcp_gangway import Client

SSE = "text/event-stream"


class Served:
    """A server, and the loop that it runs in."""

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self.server = server
        self.url = server.url
        self._loop = loop

    def until(self, condition: Callable[[Server], bool]) -> None:
        """Waits until the condition holds."""
        asyncio.run_coroutine_threadsafe(self.server.until(condition), self._loop).result(10)


@contextmanager
def served(answers: Answers, **options: Any) -> Iterator[Served]:
    """Runs a server of `http_server` in another thread."""
    ready: list[Served] = []
    begun, failures = threading.Event(), []

    async def serve() -> None:
        async with serving(answers, **options) as server:
            ready.append(Served(server, asyncio.get_running_loop()))
            over.append(asyncio.Event())
            begun.set()
            await over[0].wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            failures.append(error)
            begun.set()

    over: list[asyncio.Event] = []
    thread = threading.Thread(target=run)
    thread.start()
    assert begun.wait(10)
    try:
        yield ready[0]
    finally:
        if over:
            ready[0]._loop.call_soon_threadsafe(over[0].set)
        thread.join()
    if failures:
        raise failures[0]


def echo(request: Request) -> Any:
    seen = {"method": request.method, "body": request.body.decode("latin-1"), "headers": request.headers}
    return whole(json.dumps(seen).encode(), content_type="application/json")


# Requests


def test_the_methods_of_the_same_name(api: ModuleType) -> None:
    with served(echo) as server, api.Client(headers={"x-own": "1"}) as client:
        assert not client.is_closed
        answers = [
            client.get(server.url, params={"a": 1}),
            client.post(server.url, json={"a": 1}),
            client.put(server.url, content="x"),
            client.delete(server.url, headers={"x-a": "b"}),
            client.request("PATCH", server.url, data={"a": "b"}),
            client.send(client.build_request("QUERY", server.url)),
        ]
        assert [answer.json()["method"] for answer in answers] == ["GET", "POST", "PUT", "DELETE", "PATCH", "QUERY"]
        assert [answer.json()["body"] for answer in answers] == ["", '{"a":1}', "x", "", "a=b", ""]
        assert {answer.json()["headers"]["x-own"] for answer in answers} == {"1"}
        assert server.server.connections == 1
        assert answers[0].read() == answers[0].content
        assert answers[0].raise_for_status() is answers[0]
    assert client.is_closed
    with pytest.raises(RuntimeError, match="closed"):
        client.get(server.url)


def test_credentials_and_the_base_url(api: ModuleType) -> None:
    with served(echo) as server, api.Client(base_url=server.url, auth=("user", "pass")) as client:
        assert client.get("/a").json()["headers"]["authorization"] == "Basic dXNlcjpwYXNz"


def test_raise_for_status_raises_for_a_404(api: ModuleType) -> None:
    with served(whole(b"no", status=404)) as server, api.Client() as client:
        with pytest.raises(api.HTTPStatusError, match="404"):
            client.get(server.url).raise_for_status()


def test_tls(api: ModuleType, authority: Authority) -> None:
    with served(echo, tls=authority.server()) as server:
        with api.Client(verify=authority.client()) as client:
            assert client.get(server.url).status_code == 200
        with api.Client() as client, pytest.raises(api.ConnectError):
            client.get(server.url)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (raw(CUT), "ReadError"),
        (raw(b"nonsense\r\n\r\n"), "RemoteProtocolError"),
        (raw(HANG), "ReadTimeout"),
        (chunked(b"a", HANG), "ReadTimeout"),
        (chunked(b"a", CUT), "ReadError"),
    ],
)
def test_server_faults_raise_the_expected_exception(api: ModuleType, answer: Any, error: str) -> None:
    with served(answer) as server, api.Client(timeout=1) as client:
        with pytest.raises(getattr(api, error)) as caught:
            client.get(server.url)
        assert str(caught.value.request.url) == server.url


def test_the_sync_client_raises_connect_error_for_a_refused_connection(api: ModuleType) -> None:
    with api.Client() as client, pytest.raises(api.ConnectError):
        client.get("http://127.0.0.1:9/")


def test_the_pool_has_a_limit(api: ModuleType) -> None:
    limits = api.Limits(max_connections=1)
    with served(chunked(b"a", HANG)) as server, api.Client(limits=limits, timeout=api.Timeout(5, pool=0.1)) as client:
        with client.stream("GET", server.url), pytest.raises(api.PoolTimeout):
            client.get(server.url)


# Streamed request bodies


def test_a_body_from_an_iterator(api: ModuleType) -> None:
    def pieces() -> Iterator[bytes]:
        for number in range(3):
            yield b"%d" % number * 100_000

    with served(echo) as server, api.Client() as client:
        seen = client.post(server.url, content=pieces()).json()
        assert seen["body"] == "".join(f"{number}" * 100_000 for number in range(3))
        assert seen["headers"]["transfer-encoding"] == "chunked"
        assert client.post(server.url, content=[b"a", b"b"]).json()["body"] == "ab"
        generator = pieces()
        request = client.build_request("POST", server.url, content=generator)
        client.send(request)
        with pytest.raises(api.StreamConsumed):
            client.send(request)


def test_an_exception_of_a_body_iterator_reaches_the_caller(api: ModuleType) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"a"
        raise KeyError("mine")

    with served(echo) as server, api.Client() as client:
        with pytest.raises(KeyError, match="mine"):
            client.post(server.url, content=pieces())
        server.until(lambda server: server.open_connections == 0)


def test_a_body_iterator_is_not_read_after_its_request_failed() -> None:
    asked: list[int] = []

    def pieces() -> Iterator[bytes]:
        for number in range(1000):
            asked.append(number)
            yield b"a" * 100_000

    with Client() as client, pytest.raises(mcp_gangway.ConnectError):
        client.post("http://127.0.0.1:9/", content=pieces())
    assert len(asked) < 5


def test_a_response_before_the_unread_rest_of_the_body_is_returned() -> None:
    """The server refuses the request and reads nothing more. Its answer counts, not the write timeout."""
    answer = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno"
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        connection.recv(1000)
        connection.sendall(answer)
        done.wait(20)
        connection.close()

    done = threading.Event()
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with Client(timeout=mcp_gangway.Timeout(10)) as client:
            begin = time.monotonic()
            response = client.post(
                f"http://127.0.0.1:{listener.getsockname()[1]}/", content=(b"a" * 1_000_000 for _ in range(100))
            )
            assert (response.status_code, response.content) == (413, b"no")
            assert time.monotonic() - begin < 8
    finally:
        done.set()
        thread.join()
        listener.close()


@pytest.mark.parametrize("content", [5, {"a": 1}, object()])
def test_content_of_the_wrong_type_raises_type_error(content: Any) -> None:
    with Client() as client, pytest.raises(TypeError, match="content is bytes, str or an iterable of bytes"):
        client.post("http://127.0.0.1:9/", content=content)


def test_a_client_refuses_iterables_of_the_other_client_kind() -> None:
    async def pieces() -> Any:
        yield b"a"

    async def ask() -> None:
        async with mcp_gangway.AsyncClient() as client:
            await client.post("http://127.0.0.1:9/", content=iter([b"a"]))

    with Client() as client, pytest.raises(RuntimeError, match="for an AsyncClient"):
        client.post("http://127.0.0.1:9/", content=pieces())
    with pytest.raises(RuntimeError, match="for a Client"):
        asyncio.run(ask())


# Streams


ITERATORS: dict[str, list[Any]] = {
    "iter_bytes": [b"ab", b"\xc3", b"\xa9\nc"],
    "iter_raw": [b"ab", b"\xc3", b"\xa9\nc"],
    "iter_text": ["ab", "é\nc"],
    "iter_lines": ["abé", "c"],
}


@pytest.mark.parametrize("name", ITERATORS)
def test_the_iterators_read_a_body_as_it_arrives(api: ModuleType, name: str) -> None:
    answer = chunked(b"ab", Pause(0.1), b"\xc3", Pause(0.1), b"\xa9\nc", content_type="text/plain; charset=utf-8")
    with served(answer) as server, api.Client() as client, client.stream("GET", server.url) as response:
        assert list(getattr(response, name)()) == ITERATORS[name]
        assert response.is_closed
        with pytest.raises(api.StreamConsumed):
            next(getattr(response, name)())


@pytest.mark.parametrize(
    ("name", "size", "expected"), [("iter_bytes", 2, [b"ab", b"cd", b"e"]), ("iter_text", 3, ["abc", "de"])]
)
def test_iterators_with_a_chunk_size(api: ModuleType, name: str, size: int, expected: list[Any]) -> None:
    answer = chunked(b"a", b"bcd", b"e", content_type="text/plain; charset=utf-8")
    with served(answer) as server, api.Client() as client, client.stream("GET", server.url) as response:
        assert list(getattr(response, name)(size)) == expected


def test_the_sync_client_decodes_compressed_bodies(api: ModuleType) -> None:
    packed = gzip.compress(b"hello" * 1000)
    answer = whole(packed, headers=[("Content-Encoding", "gzip")])
    with served(answer) as server, api.Client() as client:
        assert client.get(server.url).content == b"hello" * 1000
        with client.stream("GET", server.url) as response:
            assert response.read() == b"hello" * 1000
            assert response.read() is response.content
        with client.stream("GET", server.url) as response:
            assert b"".join(response.iter_raw()) == packed


MESSAGES = [{"jsonrpc": "2.0", "method": "m", "params": {"n": n}} for n in range(3)]


def test_events_lines_and_messages() -> None:
    stream = chunked(*map(event, MESSAGES), content_type=SSE)
    lines = chunked(*(json.dumps(item).encode() + b"\n" for item in MESSAGES), content_type="application/x-ndjson")
    with Client() as client:
        with served(stream) as server:
            with client.stream("GET", server.url) as response:
                assert [item.json() for item in response.iter_sse()] == MESSAGES
            with client.stream("GET", server.url) as response:
                assert [json.loads(item) for item in response.iter_messages()] == MESSAGES
            with client.stream("GET", server.url) as response:
                assert list(response.iter_json()) == MESSAGES
        with served(lines) as server:
            with client.stream("GET", server.url) as response:
                assert [json.loads(item) for item in response.iter_ndjson()] == MESSAGES
            assert list(client.get(server.url).iter_json()) == MESSAGES


def test_leaving_a_block_frees_the_connection(api: ModuleType) -> None:
    with served(chunked(b"a", HANG)) as server, api.Client() as client:
        with client.stream("GET", server.url) as response:
            for part in response.iter_bytes():
                assert part == b"a"
                break
        server.until(lambda server: server.open_connections == 0)
        with client.stream("GET", server.url) as response:
            pass
        with pytest.raises(api.StreamClosed):
            next(response.iter_bytes())


def test_a_slow_reader_loses_nothing() -> None:
    with served(chunked(*[b"x" * 100_000] * 200)) as server, Client() as client:
        with client.stream("GET", server.url) as response:
            length = 0
            for number, part in enumerate(response.iter_bytes()):
                length += len(part)
                time.sleep(0.05 if number < 5 else 0)
    assert length == 20_000_000


def test_a_response_is_read_with_the_methods_of_its_client_kind() -> None:
    async def ask(url: str) -> None:
        async with mcp_gangway.AsyncClient() as client:
            async with client.stream("GET", url) as response:
                with pytest.raises(RuntimeError, match=r"of AsyncClient: read it with aiter_"):
                    next(response.iter_bytes())
            assert list((await client.get(url)).iter_bytes()) == [b"a"]

    with served(chunked(b"a")) as server:
        asyncio.run(ask(server.url))
        with Client() as client, client.stream("GET", server.url) as response:
            with pytest.raises(RuntimeError, match=r"of Client: read it with iter_"):
                response.aiter_bytes().__anext__().send(None)


# Threads


def test_many_threads_at_once() -> None:
    """More requests than could run one after the other in the time. Each gets its own answer."""

    async def answer(request: Request) -> Any:
        await asyncio.sleep(0.2)
        return echo(request)

    with served(answer) as server, Client(limits=mcp_gangway.Limits()) as client:
        begin = time.monotonic()
        with ThreadPoolExecutor(64) as pool:
            bodies = list(
                pool.map(lambda number: client.post(server.url, content=f"{number}").json()["body"], range(256))
            )
        assert bodies == [str(number) for number in range(256)]
        assert time.monotonic() - begin < 20


def test_a_waiting_request_does_not_block_other_threads() -> None:
    def ask() -> None:
        with pytest.raises(mcp_gangway.TransportError):
            client.get(server.url)

    with served(raw(HANG)) as server, Client(timeout=None) as client:
        thread = threading.Thread(target=ask)
        thread.start()
        server.until(lambda server: server.open_connections == 1)
        assert sum(range(100_000)) > 0
        assert thread.is_alive()
    # The server has gone, so the request fails.
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize("name", ["iter_bytes", "iter_lines", "iter_sse", "iter_json"])
def test_closing_a_response_from_another_thread_ends_its_reading(name: str) -> None:
    with served(chunked(b"data: a\n\n", HANG, content_type=SSE)) as server, Client(timeout=None) as client:
        with client.stream("GET", server.url) as response:
            timer = threading.Timer(0.2, response.close)
            timer.start()
            begin = time.monotonic()
            with pytest.raises(mcp_gangway.StreamClosed, match="while it was read"):
                list(getattr(response, name)())
            assert time.monotonic() - begin < 5
            timer.join()
        server.until(lambda server: server.open_connections == 0)


def test_closing_a_response_ends_its_reading_in_another_task() -> None:
    async def main() -> None:
        async with serving(chunked(b"a", HANG)) as server, mcp_gangway.AsyncClient(timeout=None) as client:
            async with client.stream("GET", server.url) as response:
                asyncio.get_running_loop().call_later(0.1, response.close)
                with pytest.raises(mcp_gangway.StreamClosed, match="while it was read"):
                    async for _ in response.aiter_bytes():
                        pass

    asyncio.run(asyncio.wait_for(main(), 10))


def test_closing_a_client_from_another_thread_keeps_its_open_streams() -> None:
    with served(chunked(b"a", Pause(0.3), b"b")) as server:
        client = Client()
        with client.stream("GET", server.url) as response:
            threading.Timer(0.1, client.close).start()
            assert b"".join(response.iter_bytes()) == b"ab"


# Signals


@pytest.mark.parametrize(
    "wait",
    [
        "client.get(url)",
        "client.post(url, content=iter([b'a', b'b']))",
        "[part for part in stream.iter_bytes()]",
    ],
)
def test_ctrl_c_interrupts_a_request(run_python: Run, wait: str) -> None:
    program = f"""
import os, signal, threading, time, mcp_gangway
from http_server import HANG, chunked, raw
from test_sync import served

def answer(request):
    return chunked(b"a", HANG) if request.method == "PUT" else raw(HANG)

with served(answer) as server, mcp_gangway.Client(timeout=None) as client:
    url = server.url
    stream = client.send(client.build_request("PUT", url), stream=True)
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    begin = time.monotonic()
    try:
        {wait}
    except KeyboardInterrupt:
        print("interrupted", time.monotonic() - begin < 1.5)
    stream.close()
    server.until(lambda server: server.open_connections == 0)
"""
    done = run_python(program)
    assert (done.stdout, done.stderr[-2000:]) == ("interrupted True\n", "")


def test_a_signal_handler_that_does_not_raise_does_not_end_a_request() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
    try:
        with served(chunked(Pause(0.5), b"a")) as server, Client() as client:
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
            assert client.get(server.url).content == b"a"
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert seen == [signal.SIGUSR1]


# Forks


def test_a_fork(run_python: Run) -> None:
    program = """
import os, warnings
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
import mcp_gangway
from http_server import chunked, HANG
from test_sync import served

with served(lambda request: chunked(b"answer", HANG) if request.method == "PUT" else chunked(b"answer")) as server:
    client = mcp_gangway.Client()
    assert client.get(server.url).content == b"answer"
    stream = client.send(client.build_request("PUT", server.url), stream=True)
    child = os.fork()
    if child == 0:
        for refused in (lambda: client.get(server.url), lambda: list(stream.iter_bytes())):
            try:
                refused()
            except RuntimeError as error:
                assert "forked" in str(error), error
            else:
                os._exit(3)
        stream.close()
        with mcp_gangway.Client() as own:
            assert own.get(server.url).content == b"answer"
        print("child", flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert client.get(server.url).content == b"answer"
    assert next(stream.iter_bytes()) == b"answer"
    print("parent")
"""
    done = run_python(program, "-W", "error")
    assert (done.stdout, done.stderr, done.returncode) == ("child\nparent\n", "", 0)


# Leaks, and the end of the interpreter


LEAKS = """
import gc, os, resource, threading
import mcp_gangway
from concurrent.futures import ThreadPoolExecutor
from http_server import HANG, chunked, whole
from test_sync import served

def memory():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

def descriptors():
    return len(os.listdir("/proc/self/fd"))

def answer(request):
    server.server.requests.clear()
    if request.method == "PUT":
        return chunked(b"data: hello\\n\\n", HANG)
    return chunked(b"data: hello\\n\\n")

with served(answer) as server, mcp_gangway.Client() as client:
    def one(number):
        if number % 4 == 0:
            client.post(server.url, json={"number": number})
        elif number % 4 == 1:
            with client.stream("GET", server.url) as response:
                assert [event.data for event in response.iter_sse()] == ["hello"]
        elif number % 4 == 2:
            with client.stream("PUT", server.url) as response:
                for event in response.iter_sse():
                    break
        else:
            client.post(server.url, content=iter([b"a", b"b"]))

    def many(count):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(one, range(count)))
        server.until(lambda server: server.open_connections < 20)

    many(1000)
    before = memory(), descriptors()
    many(4000)
    after = memory(), descriptors()
    assert after[0] - before[0] < 8 << 20, f"memory grew by {after[0] - before[0]} bytes"
    assert after[1] - before[1] < 30, f"{after[1] - before[1]} more descriptors"
"""


def test_memory_and_descriptors_are_flat(run_python: Run) -> None:
    done = run_python(LEAKS)
    assert (done.stderr, done.returncode) == ("", 0)


def test_the_interpreter_exits_while_threads_wait_for_responses(run_python: Run) -> None:
    program = """
import socket, threading, time, mcp_gangway
listener = socket.create_server(("127.0.0.1", 0))
url = "http://127.0.0.1:%d/" % listener.getsockname()[1]
client = mcp_gangway.Client(timeout=None)
for _ in range(50):
    threading.Thread(target=client.get, args=(url,), daemon=True).start()
time.sleep(0.3)
print("end", flush=True)
"""
    done = run_python(program)
    assert (done.stdout, done.stderr, done.returncode) == ("end\n", "", 0)
