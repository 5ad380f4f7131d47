"""The package inside a program: event loops, threads, forks, the interpreter's end, leaks, types.

Rule: effects that are visible only from outside, such as output at the interpreter's end, are tested in a new
interpreter.
"""

from __future__ import annotations

import asyncio
import doctest
import importlib
import os
import pkgutil
import subprocess
import sys
import threading
from typing import Any

import anyio
import mcp_gangway
import pytest
import trio
from conftest import PACKAGE, REPOSITORY, Run
from http_server import HANG, chunked, raw, serving, whole

if sys.platform != "win32":
    import uvloop


async def ask_once(client: mcp_gangway.AsyncClient | None = None) -> bytes:
    """Sends a request to a server in the same loop."""
    async with serving(whole(b"answer")) as server:
        if client is not None:
            return (await client.get(server.url)).content
        async with mcp_gangway.AsyncClient() as own:
            return (await own.get(server.url)).content


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# Event loops


def test_uvloop() -> None:
    async def main() -> None:
        assert "uvloop" in type(asyncio.get_running_loop()).__module__
        async with serving(chunked(b"a", HANG)) as server, mcp_gangway.AsyncClient() as client:
            async with client.stream("GET", server.url) as response:
                async for part in response.aiter_bytes():
                    assert part == b"a"
                    break
            with pytest.raises(mcp_gangway.ReadTimeout):
                await client.get(server.url, timeout=0.1)
            await server.until(lambda server: server.open_connections == 0)

    for _ in range(3):
        with (
            asyncio.Runner(loop_factory=uvloop.new_event_loop) if sys.version_info >= (3, 11) else UvRunner() as runner
        ):
            runner.run(main())


class UvRunner:
    """A replacement for asyncio.Runner with uvloop, for Python 3.10."""

    def __enter__(self) -> UvRunner:
        self._loop = uvloop.new_event_loop()
        return self

    def run(self, main: Any) -> None:
        self._loop.run_until_complete(main)

    def __exit__(self, *_: object) -> None:
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()


def test_cancel_scopes_of_anyio() -> None:
    async def main() -> None:
        async with serving(chunked(b"a", HANG)) as server, mcp_gangway.AsyncClient() as client:
            with anyio.move_on_after(0.1) as scope:
                async with client.stream("GET", server.url) as response:
                    async for _ in response.aiter_bytes():
                        pass
            assert scope.cancelled_caught
            await server.until(lambda server: server.open_connections == 0)
            with pytest.raises(TimeoutError):
                with anyio.fail_after(0.1):
                    await client.get(server.url)
            await server.until(lambda server: server.open_connections == 0)
            async with anyio.create_task_group() as group:
                group.start_soon(client.get, server.url)
                await server.until(lambda server: server.open_connections == 1)
                group.cancel_scope.cancel()
            await server.until(lambda server: server.open_connections == 0)

    anyio.run(main, backend="asyncio")


def test_trio_is_refused() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="trio is not supported"):
            await mcp_gangway.AsyncClient().get("http://127.0.0.1:9/")

    trio.run(main)


def test_a_request_without_an_event_loop_raises_runtime_error() -> None:
    with pytest.raises(RuntimeError, match=r"needs a running asyncio event loop.*asyncio\.run"):
        mcp_gangway.AsyncClient().get("http://127.0.0.1:9/").send(None)


def test_one_client_works_in_many_event_loops_in_turn() -> None:
    client = mcp_gangway.AsyncClient()
    for _ in range(10):
        assert asyncio.run(ask_once(client)) == b"answer"
    before = descriptors()
    for _ in range(200):
        assert asyncio.run(ask_once(client)) == b"answer"
    asyncio.run(client.aclose())
    # The last loops and their connections may not be collected yet.
    assert descriptors() < before + 20


def test_one_client_in_many_threads() -> None:
    client = mcp_gangway.AsyncClient()
    answers: list[bytes] = []

    def work() -> None:
        for _ in range(5):
            answers.append(asyncio.run(ask_once(client)))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [b"answer"] * 40


class WithoutReaders(asyncio.SelectorEventLoop):
    """Like the default loop of Windows: it does not support `add_reader`."""

    def add_reader(self, fd: Any, callback: Any, *args: Any) -> None:
        raise NotImplementedError


def run_without_readers() -> None:
    loop = WithoutReaders()
    try:
        assert loop.run_until_complete(ask_once()) == b"answer"
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def test_an_event_loop_without_add_reader_works() -> None:
    run_without_readers()
    threads = threading.active_count()
    for _ in range(3):
        run_without_readers()
    # One thread serves all of them.
    assert threading.active_count() == threads


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts in /proc")
def test_event_loops_without_add_reader_leave_nothing_behind(run_python: Run) -> None:
    program = """
import asyncio, gc, os, threading, weakref
import mcp_gangway
from test_citizen import WithoutReaders, ask_once

async def many():
    await asyncio.gather(*[ask_once() for _ in range(5)])

def one():
    loop = WithoutReaders()
    loop.run_until_complete(many())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    return weakref.ref(loop)

def resources():
    gc.collect()
    return threading.active_count(), len(os.listdir("/proc/self/fd"))

one()
before = resources()
loops = [one() for _ in range(50)]
assert resources() == before, (resources(), before)
assert not any(loop() for loop in loops)

# Several at once, in threads, and after a fork.
threads = [threading.Thread(target=one) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert resources() == before, (resources(), before)
child = os.fork()
if child == 0:
    one()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
    done = run_python(program, "-W", "ignore")
    assert (done.stderr, done.returncode) == ("", 0)


# Forks


FORK = """
import asyncio, os, sys, warnings
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
import mcp_gangway
from http_server import serving, whole

async def ask(client):
    async with serving(whole(b"answer")) as server:
        return (await client.get(server.url)).content

client = mcp_gangway.AsyncClient()
assert asyncio.run(ask(client)) == b"answer"
child = os.fork()
if child == 0:
    try:
        asyncio.run(ask(client))
    except RuntimeError as error:
        assert "forked" in str(error) and "make a new one" in str(error), error
    else:
        os._exit(3)
    assert asyncio.run(ask(mcp_gangway.AsyncClient())) == b"answer"
    print("child", flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert asyncio.run(ask(client)) == b"answer"
print("parent")
"""


def test_a_fork(run_python: Run) -> None:
    done = run_python(FORK, "-W", "error")
    assert (done.stdout, done.stderr, done.returncode) == ("child\nparent\n", "", 0)


FORK_IN_A_LOOP = """
import asyncio, os, sys, warnings
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
import mcp_gangway
from http_server import serving, whole

async def main():
    async with serving(whole(b"answer")) as server:
        async with mcp_gangway.AsyncClient() as client:
            await client.get(server.url)
        child = os.fork()
        if child == 0:
            # The loop is the parent's: asyncio says that it does not run here, or the package that it was forked.
            try:
                await mcp_gangway.AsyncClient().get(server.url)
            except RuntimeError as error:
                os._exit(0 if "forked" in str(error) or "needs a running" in str(error) else 4)
            os._exit(3)
        assert os.waitpid(child, 0)[1] == 0

asyncio.run(main())
"""


def test_a_fork_inside_an_event_loop_works(run_python: Run) -> None:
    done = run_python(FORK_IN_A_LOOP, "-W", "error")
    assert (done.stderr, done.returncode) == ("", 0)


# The end of the interpreter


PENDING = """
import asyncio, resource, sys
import mcp_gangway

resource.setrlimit(resource.RLIMIT_NOFILE, (20_000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
HEAD = b"HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n1\\r\\na\\r\\n"
COUNT = 4000
kept = []

class Silent(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        kept.append(transport)
    def data_received(self, data):
        if b"GET /stream" in data:
            self.transport.write(HEAD)

async def endless():
    yield b"a"
    await asyncio.get_running_loop().create_future()

async def main():
    loop = asyncio.get_running_loop()
    loop.slow_callback_duration = 3600  # Which the development mode would tell of.
    listener = await loop.create_server(Silent, "127.0.0.1", 0, backlog=COUNT)
    url = "http://127.0.0.1:%d" % listener.sockets[0].getsockname()[1]
    client = mcp_gangway.AsyncClient(limits=mcp_gangway.Limits(), timeout=None)
    streams = []

    async def read():
        response = await client.send(client.build_request("GET", url + "/stream"), stream=True)
        streams.append(response)
        async for _ in response.aiter_bytes():
            pass

    tasks = [asyncio.ensure_future(read()) for _ in range(COUNT // 2)]
    tasks += [asyncio.ensure_future(client.get(url + "/pending")) for _ in range(COUNT // 4)]
    tasks += [asyncio.ensure_future(client.post(url, content=endless())) for _ in range(COUNT // 4)]
    while len(kept) < COUNT or len(streams) < COUNT // 2:
        await asyncio.sleep(0.01)
    print("open", flush=True)
    kept.append((listener, client, tasks, streams))
    if END == "sys.exit":
        sys.exit(0)

END = "%s"
"""
ENDS = {
    "asyncio.run": "asyncio.run(main())",
    "sys.exit": "asyncio.run(main())",
    # Without cancellation, the tasks are pending when the loop is closed or dropped.
    "closed loop": "loop = asyncio.new_event_loop(); loop.run_until_complete(main()); QUIET(); loop.close()",
    "left loop": "loop = asyncio.new_event_loop(); loop.run_until_complete(main()); QUIET()",
}
#: asyncio itself reports pending tasks and the test's own open sockets. Hides these, so that only the package's output
#: is left.
QUIET = """
import logging, warnings
def QUIET():
    logging.getLogger("asyncio").disabled = True
    warnings.simplefilter("ignore", ResourceWarning)
"""


@pytest.mark.parametrize("options", [(), ("-W", "error", "-X", "dev")], ids=["usual", "development mode"])
@pytest.mark.parametrize("end", ENDS)
def test_the_interpreter_exits_with_4000_pending_requests(run_python: Run, end: str, options: tuple[str, ...]) -> None:
    program = PENDING.replace("%s", end) + QUIET + ENDS[end] + "\n"
    if "-X" in options:
        program = program.replace('print("open"', 'warnings.simplefilter("ignore", ResourceWarning); print("open"')
    done = run_python(program, *options)
    assert done.stderr[-2000:] == ""
    assert (done.stdout, done.returncode) == ("open\n", 0)


# Leaks


LEAKS = """
import asyncio, gc, os, resource
import mcp_gangway

async def serve(reader, writer):
    try:
        while head := await reader.readuntil(b"\\r\\n\\r\\n"):
            if b"HTTP/1.1" not in head:
                continue  # It is the end of a body.
            if b"/stream" in head:
                writer.write(b"HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n")
                writer.write(b"c\\r\\ndata: hello\\n\\r\\n1\\r\\n\\n\\r\\n")
                if b"/stream/left" not in head:
                    writer.write(b"0\\r\\n\\r\\n")
            else:
                writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 100000\\r\\n\\r\\n" + bytes(100000))
            await writer.drain()
    except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
        pass
    finally:
        writer.close()

def memory():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

def descriptors():
    return len(os.listdir("/proc/self/fd"))

async def pieces(has_end):
    yield b"a"
    if not has_end:
        await asyncio.get_running_loop().create_future()

async def main():
    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = "http://127.0.0.1:%d" % listener.sockets[0].getsockname()[1]
    async with mcp_gangway.AsyncClient() as client:
        async def one(number):
            kind = number % 7
            if kind == 0:
                await client.post(url, json={"number": number})
            elif kind == 1:
                async with client.stream("GET", url + "/stream") as response:
                    assert [event.data async for event in response.aiter_sse()] == ["hello"]
            elif kind == 2:
                async with client.stream("GET", url + "/stream/left") as response:
                    async for event in response.aiter_sse():
                        break
            elif kind == 3:
                task = asyncio.ensure_future(client.get(url))
                await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            elif kind in (4, 5):
                # The server answers before it has the body, whose end is not waited for; or the body has none.
                async with client.stream("POST", url + "/stream", content=pieces(kind == 4)) as response:
                    assert [event.data async for event in response.aiter_sse()] == ["hello"]
            else:
                try:
                    await client.get("http://127.0.0.1:9/")
                except mcp_gangway.ConnectError:
                    pass

        async def many(count):
            for start in range(0, count, 10):
                await asyncio.gather(*[one(start + number) for number in range(10)])
            await asyncio.sleep(0.3)

        await many(2000)
        before = memory(), descriptors()
        await many(10_000)
        after = memory(), descriptors()
        assert after[0] - before[0] < 8 << 20, f"memory grew by {after[0] - before[0]} bytes"
        assert after[1] - before[1] < 30, f"{after[1] - before[1]} more descriptors"
    listener.close()

asyncio.run(main())
"""


def test_memory_and_descriptors_are_flat_over_10000_requests(run_python: Run) -> None:
    done = run_python(LEAKS)
    assert (done.stderr, done.returncode) == ("", 0)


def test_unclosed_responses_free_their_connections_when_collected() -> None:
    async def main() -> None:
        async with serving(chunked(b"a", HANG)) as server, mcp_gangway.AsyncClient() as client:
            await client.send(client.build_request("GET", server.url), stream=True)
            await server.until(lambda server: server.connections == 1 and server.open_connections == 0)

    asyncio.run(main())


# Types, style, examples


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "MYPY_CACHE_DIR": os.devnull}
    # During development, the package is not installed.
    if PACKAGE.is_relative_to(REPOSITORY / "python"):
        environment |= {"MYPYPATH": str(PACKAGE.parent), "PYTHONPATH": str(PACKAGE.parent)}
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )


# Where the project's Python code is, with the scripts that pyproject.toml names.
FOLDERS = ("python", "tests/python", "tests/packages", "bench/python", "packaging", "scripts")


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "arguments",
    [
        ("mypy", "--strict", str(REPOSITORY / "python" / "mcp_gangway")),
        ("mypy.stubtest", "mcp_gangway._native"),
        ("ruff", "check", *FOLDERS),
        ("ruff", "format", "--check", *FOLDERS),
    ],
    ids=["types", "stubs", "lints", "format"],
)
def test_type_checks_and_lints_pass(arguments: tuple[str, ...]) -> None:
    done = command(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def modules() -> list[str]:
    names = [name for _, name, _ in pkgutil.iter_modules([str(PACKAGE)]) if name not in ("__main__", "_native")]
    return ["mcp_gangway", *[f"mcp_gangway.{name}" for name in names]]


def test_the_examples_in_the_docstrings() -> None:
    results = [doctest.testmod(importlib.import_module(name)) for name in modules()]
    assert sum(result.failed for result in results) == 0
    assert sum(result.attempted for result in results) > 3


def test_everything_public_has_a_docstring() -> None:
    for name in mcp_gangway.__all__:
        value = getattr(mcp_gangway, name)
        if not isinstance(value, type):
            continue
        assert value.__doc__, name
        for member, found in vars(value).items():
            if callable(found) and not member.startswith("_") and "_native" not in value.__module__:
                documented = value.__module__ != "builtins" and value.__name__ not in (
                    "Event",
                    "SseParser",
                    "NdjsonParser",
                    "MessageParser",
                )
                assert found.__doc__ or not documented, f"{name}.{member}"


def test_an_import_starts_no_threads_and_does_not_import_httpx(run_python: Run) -> None:
    program = "import mcp_gangway, os, sys; print(len(os.listdir('/proc/self/task')), 'httpx' in sys.modules)"
    done = run_python(program, "-W", "error")
    assert (done.stdout, done.stderr) == ("1 False\n", "")


def test_a_star_import_needs_nothing_else(run_python: Run) -> None:
    program = "import sys; sys.modules['httpx'] = None; from mcp_gangway import *; print(AsyncClient.__name__)"
    done = run_python(program, "-W", "error")
    assert (done.stdout, done.stderr) == ("AsyncClient\n", "")


def test_sigint_interrupts_a_request_without_a_timeout(run_python: Run) -> None:
    program = """
import asyncio, os, signal, threading, mcp_gangway
from http_server import HANG, raw, serving

async def main():
    async with serving(raw(HANG)) as server, mcp_gangway.AsyncClient(timeout=None) as client:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        await client.get(server.url)

try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted")
"""
    done = run_python(program)
    assert (done.stdout, done.stderr) == ("interrupted\n", "")


def test_the_server_of_the_tests_can_hang() -> None:
    """Proves that the tests above can fail."""

    async def main() -> None:
        async with serving(raw(HANG)) as server:
            reader, writer = await asyncio.open_connection(*server.url.split("/")[2].split(":"))
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.1)
            writer.close()

    asyncio.run(main())
