"""Shared by the tests of the packages: an MCP server over HTTP, and a session with it through an installed command.

Rule: the test of a package installs it as a user does, in a folder of its own, and ends with `converse`. Only the
standard library, pytest and pytest-timeout are needed, so that these tests run in any virtual environment.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PROTOCOL = "2025-11-25"
# The longest wait for a process that should end or answer at once, in seconds. It only ends tests that hang.
LIMIT = 60


class Request(NamedTuple):
    """What the server received: the HTTP method, the headers with lower-case names, and the JSON of the body."""

    method: str
    headers: Mapping[str, str]
    message: dict[str, Any] | None


class Server(ThreadingHTTPServer):
    """An MCP server over Streamable HTTP on a free port, with a tool `echo` and a tool `hang` that never answers."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/mcp"
        self.requests: list[Request] = []
        self.changed = threading.Condition()
        self.closing = threading.Event()

    def received(self, request: Request) -> None:
        with self.changed:
            self.requests.append(request)
            self.changed.notify_all()

    def wait_for(self, method: str, tool: str | None = None) -> Request:
        """Returns the last request with this HTTP method and, if given, this tool, as soon as there is one."""

        def matches(request: Request) -> bool:
            params = (request.message or {}).get("params") or {}
            return request.method == method and (tool is None or params.get("name") == tool)

        with self.changed:
            found = self.changed.wait_for(lambda: [one for one in self.requests if matches(one)], timeout=LIMIT)
        assert found, f"no {method} request for {tool}: {self.requests}"
        return found[-1]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.record(message)
        if "id" not in message:
            self.answer(202)
        elif message["method"] == "initialize":
            info = {"name": "test", "version": "1"}
            result = {"protocolVersion": PROTOCOL, "capabilities": {"tools": {}}, "serverInfo": info}
            self.answer(200, {"jsonrpc": "2.0", "id": message["id"], "result": result})
        elif message["method"] == "tools/call":
            if message["params"]["name"] == "hang":
                self.server.closing.wait()
                self.close_connection = True
                return
            text = json.dumps(message["params"]["arguments"], ensure_ascii=False)
            content = {"content": [{"type": "text", "text": text}]}
            self.answer(200, {"jsonrpc": "2.0", "id": message["id"], "result": content})
        else:
            error = {"code": -32601, "message": "Method not found"}
            self.answer(200, {"jsonrpc": "2.0", "id": message["id"], "error": error})

    def do_GET(self) -> None:
        self.record(None)
        self.answer(405)

    def do_DELETE(self) -> None:
        self.record(None)
        self.answer(204)

    def record(self, message: dict[str, Any] | None) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.received(Request(self.command, headers, message))

    def answer(self, status: int, message: dict[str, Any] | None = None) -> None:
        body = b"" if message is None else json.dumps(message).encode()
        self.send_response(status)
        if message is not None:
            self.send_header("content-type", "application/json")
            self.send_header("mcp-session-id", "session-1")
        if status != 204:
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.closing.set()
        server.shutdown()


class Bridge:
    """A command that runs as a bridge, as a client sees it. Leaving the `with` block kills what is left of it."""

    def __init__(
        self, command: Sequence[str | Path], env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        self.process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env if env is not None else without_proxies(),
            cwd=cwd,
        )
        self.stderr = b""
        # Read all the time: a full pipe would stop the command.
        self._reader = threading.Thread(target=self._read_stderr, daemon=True)
        self._reader.start()

    def _read_stderr(self) -> None:
        assert self.process.stderr
        with self.process.stderr as stderr:
            for line in stderr:
                self.stderr += line

    def __enter__(self) -> Bridge:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(timeout=LIMIT)
        for stream in (self.process.stdin, self.process.stdout):
            assert stream
            stream.close()

    def send(self, **members: Any) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **members}).encode() + b"\n")
        self.process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        assert self.process.stdout
        timer = threading.Timer(LIMIT, self.process.kill)
        timer.start()
        line = self.process.stdout.readline()
        timer.cancel()
        assert line, f"no answer; stderr: {self.stderr.decode()}"
        message: dict[str, Any] = json.loads(line)
        return message

    def initialize(self) -> None:
        client = {"name": "test", "version": "1"}
        params = {"protocolVersion": PROTOCOL, "capabilities": {}, "clientInfo": client}
        self.send(id=0, method="initialize", params=params)
        answer = self.receive()
        assert answer["id"] == 0 and answer["result"]["serverInfo"]["name"] == "test", answer
        self.send(method="notifications/initialized")

    def call(self, identifier: int, tool: str, **arguments: Any) -> None:
        self.send(id=identifier, method="tools/call", params={"name": tool, "arguments": arguments})

    def end(self) -> int:
        """Returns the exit status. The process must end by itself."""
        status = self.process.wait(timeout=LIMIT)
        self._reader.join(timeout=LIMIT)
        return status


def converse(
    command: Sequence[str | Path], server: Server, *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> str:
    """Has a whole session through `command` (which includes the server's URL), and returns what it wrote to stderr."""
    with Bridge(command, env, cwd) as bridge:
        bridge.initialize()
        bridge.call(1, "echo", text="Grüße, 世界", number=12345678901234567890)
        answer = bridge.receive()
        assert answer["id"] == 1, answer
        text = answer["result"]["content"][0]["text"]
        assert json.loads(text) == {"text": "Grüße, 世界", "number": 12345678901234567890}
        assert bridge.process.stdin
        bridge.process.stdin.close()
        assert bridge.end() == 0, bridge.stderr.decode()
        server.wait_for("DELETE")
        assert bridge.process.stdout and bridge.process.stdout.read() == b""
    return bridge.stderr.decode()


def without_proxies() -> dict[str, str]:
    """Returns the environment without proxies: the servers of the tests are on this machine."""
    return {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}


def this_platform() -> str:
    """Returns the name of this machine in packaging/platforms."""
    system = {"linux": "linux", "darwin": "darwin", "win32": "win32"}[sys.platform]
    machine = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}[platform.machine().lower()]
    musl = system == "linux" and platform.libc_ver()[0] != "glibc"
    return f"{system}-{machine}{'-musl' if musl else ''}"
