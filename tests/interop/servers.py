"""Starts and stops the MCP servers for the tests, each on a free port of 127.0.0.1."""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
INSTALLED = HERE.parents[1] / "target" / "interop"
EVERYTHING = INSTALLED / "node_modules/@modelcontextprotocol/server-everything/dist"

START_LIMIT = 240.0


@dataclass
class Server:
    """A running server: its address, and the credentials that a client must present."""

    url: str
    log: Path
    authorization: str | None = None


@contextlib.contextmanager
def everything(folder: Path, *, sse: bool = False) -> Iterator[Server]:
    """Runs the reference server of the MCP project, on the TypeScript SDK; if `sse`, over HTTP+SSE, the transport of
    2024.
    """
    port = free_port()
    log = folder / ("everything-sse.log" if sse else "everything.log")
    mode = "sse" if sse else "streamableHttp"
    with process(["node", str(EVERYTHING / "index.js"), mode], log, {"PORT": str(port)}) as running:
        wait_for_port(port, running, log)
        yield Server(f"http://127.0.0.1:{port}/{'sse' if sse else 'mcp'}", log)


@contextlib.contextmanager
def unsteady(folder: Path) -> Iterator[Server]:
    """Runs our own unsteady.cjs."""
    port = free_port()
    log = folder / "unsteady.log"
    command = ["node", str(HERE / "unsteady.cjs"), str(port)]
    with process(command, log, {"NODE_PATH": str(INSTALLED / "node_modules")}) as running:
        wait_for_port(port, running, log)
        yield Server(f"http://127.0.0.1:{port}/mcp", log)


@contextlib.contextmanager
def guarded(folder: Path) -> Iterator[Server]:
    """Runs our own guarded.cjs."""
    port = free_port()
    log = folder / "guarded.log"
    command = ["node", str(HERE / "guarded.cjs"), str(port)]
    with process(command, log, {"NODE_PATH": str(INSTALLED / "node_modules")}) as running:
        wait_for_port(port, running, log)
        yield Server(f"http://127.0.0.1:{port}/mcp", log)


@contextlib.contextmanager
def eras(folder: Path, mode: str) -> Iterator[Server]:
    """Runs our own eras.cjs, or our own eras.py in mode python."""
    port = free_port()
    log = folder / f"eras-{mode}.log"
    command = ["node", str(HERE / "eras.cjs"), str(port), mode]
    if mode == "python":
        command = [str(INSTALLED / "venv-sdk2/bin/python"), str(HERE / "eras.py"), str(port)]
    with process(command, log, {"NODE_PATH": str(INSTALLED / "node_modules")}) as running:
        wait_for_port(port, running, log)
        yield Server(f"http://127.0.0.1:{port}/mcp", log)


@contextlib.contextmanager
def python_server(folder: Path, *, json_response: bool = False) -> Iterator[Server]:
    """Runs our own server.py."""
    port = free_port()
    log = folder / ("python-json.log" if json_response else "python-sse.log")
    command = [sys.executable, str(HERE / "server.py"), str(port), *(["--json"] if json_response else [])]
    with process(command, log, {}) as running:
        wait_for_port(port, running, log)
        yield Server(f"http://127.0.0.1:{port}/mcp", log)


@contextlib.contextmanager
def gateway(folder: Path, backend: Server, *, stateful: bool, json_response: bool) -> Iterator[Server]:
    """Runs the ContextForge gateway with one virtual server, which offers everything that the backend has."""
    port = free_port()
    name = f"gateway-{'stateful' if stateful else 'stateless'}-{'json' if json_response else 'sse'}"
    home = folder / name
    home.mkdir()
    log = folder / f"{name}.log"
    admin = "admin@example.com"
    environment = {
        "AUTH_ENCRYPTION_SECRET": "interop-encryption-secret-0123456789abcdef",
        "DATABASE_URL": f"sqlite:///{home}/gateway.db",
        "JSON_RESPONSE_ENABLED": str(json_response).lower(),
        "JWT_SECRET_KEY": "interop-signing-secret-0123456789abcdefgh",
        "PLATFORM_ADMIN_EMAIL": admin,
        "PLATFORM_ADMIN_PASSWORD": "Interop-Password-2026!",
        "RATE_LIMITING_ENABLED": "false",
        "SSRF_ALLOW_LOCALHOST": "true",
        "USE_STATEFUL_SESSIONS": str(stateful).lower(),
    }
    command = [str(INSTALLED / "venv-gateway/bin/mcpgateway"), "--host", "127.0.0.1", "--port", str(port)]
    with process(command, log, environment, folder=home) as running:
        token = gateway_token(admin, environment, home)
        wait_for_port(port, running, log)
        identifier = publish(f"http://127.0.0.1:{port}", token, backend)
        yield Server(f"http://127.0.0.1:{port}/servers/{identifier}/mcp", log, f"Bearer {token}")


def gateway_token(user: str, environment: dict[str, str], folder: Path) -> str:
    """Returns a token for the user, made by the gateway's own command."""
    python = str(INSTALLED / "venv-gateway/bin/python")
    command = [python, "-m", "mcpgateway.utils.create_jwt_token", "--username", user, "--exp", "60"]
    command += ["--secret", environment["JWT_SECRET_KEY"]]
    made = subprocess.run(command, env=plain_environment() | environment, cwd=folder, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return made.stdout.strip().splitlines()[-1]


def publish(base: str, token: str, backend: Server) -> str:
    """Registers the backend at the gateway and creates a virtual server of all its parts. Returns the server's id."""

    def ask(method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(base + path, data, headers, method=method)
        try:
            with open_url(request, timeout=20) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error} {error.read().decode()}") from error

    ask("POST", "/gateways", {"name": "interop", "url": backend.url, "transport": "STREAMABLEHTTP"})
    offered = {kind: [item["id"] for item in ask("GET", f"/{kind}")] for kind in ("tools", "resources", "prompts")}
    assert all(offered.values()), offered
    server = {"name": "interop", **{f"associated_{kind}": ids for kind, ids in offered.items()}}
    return ask("POST", "/servers", {"server": server})["id"]


@contextlib.contextmanager
def process(
    command: list[str], log: Path, environment: dict[str, str], folder: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a command in its own process group, with its output in the log, and kills the whole group at the end."""
    with log.open("wb") as output:
        running = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=plain_environment() | environment,
            cwd=folder or log.parent,
            start_new_session=True,
        )
    try:
        yield running
    finally:
        # The servers keep no state, so they need no orderly shutdown.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()


def wait_for_port(port: int, running: subprocess.Popen[bytes], log: Path) -> None:
    """Waits until the port accepts connections."""
    deadline = time.monotonic() + START_LIMIT
    while True:
        ended = running.poll() is not None
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            if not ended:
                return
        if ended or time.monotonic() > deadline:
            tail = log.read_text(errors="replace")[-4000:]
            raise AssertionError(f"{log.stem} {'ended' if ended else 'does not listen'}; its log ends with:\n{tail}")
        time.sleep(0.02)


def free_port() -> int:
    """Returns a free port that the system assigns only to processes that ask for it by number."""
    while True:
        port = random.randrange(15000, 30000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def plain_environment() -> dict[str, str]:
    """Returns the environment without variables that change a server's behaviour or its connections.

    The bridge leaves nothing in the state folder of the user who runs the tests.
    """
    names = ("HOME", "LANG", "PATH", "TMPDIR", "USER")
    return {name: value for name, value in os.environ.items() if name in names} | {"MCP_NO_CACHE": "1"}


# The environment's proxies do not apply to loopback.
open_url = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
