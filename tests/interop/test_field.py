"""Clients and servers of other frameworks. Rule: what works directly also works through the bridge, with the same
results.

Each client does the same steps with each server twice, over HTTP directly and over stdio through the bridge, and
reports everything that it sees. The two reports must be equal, with the exceptions that the tests name. The scripts are
in field/.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bridge import Launch
from dialogues import AWKWARD, LARGE
from servers import HERE, INSTALLED, Server, free_port, plain_environment, process, wait_for_port

FIELD = HERE / "field"
STEP_LIMIT = 6.0
CLIENT_LIMIT = 240.0
END_LIMIT = 5.0


@dataclass
class Client:
    """A client script, the interpreter it needs, and how it negotiates, if it has a choice."""

    command: list[str]
    mode: str = ""


def python(environment: str, script: str) -> list[str]:
    return [str(INSTALLED / environment / "bin/python"), script]


CLIENTS = {
    "python2-auto": Client(python("venv-sdk2", "python2.py"), "auto"),
    "python2-modern": Client(python("venv-sdk2", "python2.py"), "2026-07-28"),
    "typescript2-auto": Client(["node", "typescript2.cjs"], "auto"),
    "typescript2-modern": Client(["node", "typescript2.cjs"], "2026-07-28"),
    "fastmcp4-auto": Client(python("venv-fastmcp4", "fastmcp_client.py"), "auto"),
    "fastmcp4-modern": Client(python("venv-fastmcp4", "fastmcp_client.py"), "2026-07-28"),
    "fastmcp2": Client(python("venv-fastmcp2", "fastmcp_client.py")),
    "pydantic-ai": Client(python("venv-field", "pydantic_client.py")),
    "openai-agents": Client(python("venv-field", "openai_client.py")),
    "langchain": Client(python("venv-field", "langchain_client.py")),
    "mcp-use": Client(python("venv-field", "mcp_use_client.py")),
    "ai-sdk": Client(["node", "ai_sdk.cjs"]),
}

FASTMCP = str(FIELD / "servers/fastmcp_server.py")
TYPESCRIPT = str(FIELD / "servers/typescript_server.cjs")
SUPERGATEWAY = ["node", str(INSTALLED / "node_modules/supergateway/dist/index.js")]
SUPERGATEWAY += ["--stdio", f"node {TYPESCRIPT} stdio", "--port", "PORT", "--outputTransport"]
MCP_PROXY = [*python("venv-field", "-m"), "mcp_proxy", "--pass-environment", "--port", "PORT", "--"]
MCP_PROXY += [*python("venv-fastmcp2", FASTMCP), "stdio"]
# The commands, in which PORT stands for the port. Names that end in `-sse` use HTTP+SSE, the transport of 2024.
SERVERS = {
    "fastmcp1": [sys.executable, FASTMCP, "PORT"],
    "fastmcp2": [*python("venv-fastmcp2", FASTMCP), "PORT"],
    "fastmcp3": [*python("venv-field", FASTMCP), "PORT"],
    "fastmcp4": [*python("venv-fastmcp4", FASTMCP), "PORT"],
    "typescript1": ["node", TYPESCRIPT, "PORT", "node"],
    "hono": ["node", TYPESCRIPT, "PORT", "hono"],
    "fastmcp-typescript": ["node", str(FIELD / "servers/fastmcp_typescript.cjs"), "PORT"],
    "fastapi-mcp": [*python("venv-field", str(FIELD / "servers/fastapi_server.py")), "PORT"],
    "supergateway": [*SUPERGATEWAY, "streamableHttp", "--stateful"],
    "supergateway-sse": [*SUPERGATEWAY, "sse"],
    "mcp-proxy": MCP_PROXY,
    "mcp-proxy-sse": MCP_PROXY,
}
# The SDKs have tests of their own. Here they run with servers of earlier revisions, and with one of the newest.
SDK_CLIENTS = ("python2-auto", "python2-modern", "typescript2-auto", "typescript2-modern", "fastmcp4-modern")
SDK_SERVERS = ("fastmcp1", "fastmcp2", "fastmcp4", "typescript1", "fastmcp-typescript")
EVERY_PAIR = [
    (client, server) for client in CLIENTS for server in SERVERS if client not in SDK_CLIENTS or server in SDK_SERVERS
]
# All pairs take minutes. Without EVERY_PAIR=1, the least useful ones are left out: the clients of one era run with a
# quarter of the servers each, and all other clients with the same servers as the SDKs' clients.
OTHERS = [client for client in CLIENTS if client not in SDK_CLIENTS]
PAIRS = [
    (client, server)
    for client, server in EVERY_PAIR
    if os.environ.get("EVERY_PAIR") == "1"
    or (client in SDK_CLIENTS or client.endswith("-auto"))
    and server in SDK_SERVERS
    or (OTHERS.index(client) + list(SERVERS).index(server)) % 4 == 0
]


def call(name: str, tool: str, arguments: dict[str, Any], *until: Any) -> dict[str, Any]:
    needs = {"tool": tool, "arguments": arguments, "progress": "progress" in until}
    return {"name": name, "do": "call", "until": until, **needs}


STEPS = [
    {"name": "about", "do": "about"},
    {"name": "tools", "do": "tools"},
    {"name": "resources", "do": "resources"},
    {"name": "templates", "do": "templates"},
    {"name": "prompts", "do": "prompts"},
    call("echo", "echo", {"text": AWKWARD}),
    call("echo nothing", "echo", {"text": ""}),
    call("echo much", "echo", {"text": LARGE[:20_000]}),
    call("object", "describe", {"name": "Ada"}),
    call("repeat", "repeat", {"text": "gr\u00fc\u00dfe ", "times": 20_000}),
    {"name": "together", "do": "together", "tool": "echo", "calls": [{"text": f"text {n}"} for n in range(8)]},
    call("progress", "count", {"steps": 5}, "progress", 5),
    call("failure", "fail", {"reason": "out of ink"}),
    call("wrong arguments", "repeat", {"text": "x"}),
    call("unknown tool", "nope", {}),
    {"name": "resource", "do": "read", "uri": "field://greeting"},
    {"name": "template", "do": "read", "uri": "field://people/Ada"},
    {"name": "unknown resource", "do": "read", "uri": "field://nope"},
    {"name": "prompt", "do": "prompt", "prompt": "introduce", "arguments": {"name": "\u5f20\u4f1f"}},
    {"name": "ping", "do": "ping"},
    {"name": "level", "do": "level", "level": "warning"},
    call("log", "log", {"text": "heard"}, "log", "error"),
    call("question", "ask", {"question": "Who?"}, "elicitation"),
    {"name": "subscribe", "do": "subscribe", "uri": "field://greeting"},
    call("touched", "touch", {"uri": "field://greeting"}, "updated"),
    {"name": "unsubscribe", "do": "unsubscribe", "uri": "field://greeting"},
    call("touched unheard", "touch", {"uri": "field://greeting"}),
    call("changed", "change", {}, "tools changed"),
]
# Required contents of the outcome in every pair, so that two equal failures do not pass.
ESSENTIAL = {
    "echo much": "0123456789abcdef \u00e9\u4e2d\U0001f600",
    "object": "Ada",
    "repeat": "gr\u00fc\u00dfe " * 20_000,
    "together": "text 7",
    "failure": "out of ink",
}


@contextmanager
def serve(folder: Path, name: str) -> Iterator[Server]:
    """Runs the server of this name."""
    port = free_port()
    log = folder / f"{name}.log"
    command = [part.replace("PORT", str(port)) for part in SERVERS[name]]
    with process(command, log, {"NODE_PATH": str(INSTALLED / "node_modules")}) as running:
        wait_for_port(port, running, log)
        yield Server(f"http://127.0.0.1:{port}/{'sse' if name.endswith('-sse') else 'mcp'}", log)


class Field:
    """The servers, started when the first client needs them, and each client's reports of its dialogues."""

    def __init__(self, binary: str, folder: Path, stack: ExitStack, pairs: list[tuple[str, str]]) -> None:
        self.binary = binary
        self.folder = folder
        self.pairs = pairs
        names = list(dict.fromkeys(server for _, server in pairs))

        def start(name: str) -> Server:
            context: AbstractContextManager[Server] = serve(folder, name)
            return stack.enter_context(context)

        with ThreadPoolExecutor(4) as pool:
            self.servers = dict(zip(names, pool.map(start, names), strict=True))
        self.reports: dict[str, dict[str, Any]] = {}
        self.launches: dict[tuple[str, str], Launch] = {}

    def __getitem__(self, pair: tuple[str, str]) -> tuple[dict[str, Any], dict[str, Any], Launch]:
        """Returns the direct report, the one through the bridge, and the launch of the bridge."""
        client, server = pair
        if client not in self.reports:
            # If the client fails, do not run it again for each pair.
            self.reports[client] = {}
            self.reports[client] = self.run(client)
        missing = {"steps": {}, "complaints": [], "failure": {"exception": "the client ended before"}}
        direct, bridged = (self.reports[client].get(f"{server} {way}", missing) for way in ("directly", "bridged"))
        return direct, bridged, self.launches[pair]

    def run(self, name: str) -> dict[str, Any]:
        """Runs all dialogues of a client in one process, because some frameworks load slowly."""
        client = CLIENTS[name]
        dialogues = []
        for _, server in [pair for pair in self.pairs if pair[0] == name]:
            folder = self.folder / f"{name}-{server}"
            folder.mkdir()
            launch = Launch(self.binary, folder, [self.servers[server].url])
            self.launches[name, server] = launch
            about = {"mode": client.mode}
            transport = "sse" if server.endswith("-sse") else "http"
            dialogues.append({"name": f"{server} directly", "url": launch.args[0], "transport": transport, **about})
            # Not every framework can redirect the stderr of the process that it launches.
            parameters = launch.parameters()
            args = ["-c", 'exec sh "$0" "$@" 2>>"$1/stderr"', *parameters["args"]]
            dialogues.append({"name": f"{server} bridged", "launch": {"command": "sh", "args": args}, **about})
        plan = json.dumps({"dialogues": dialogues, "steps": STEPS, "limit": STEP_LIMIT})
        log = self.folder / f"{name}.log"
        with log.open("w") as stderr:
            running = subprocess.Popen(
                client.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=plain_environment()
                | {"NODE_PATH": str(INSTALLED / "node_modules"), "MCP_USE_ANONYMIZED_TELEMETRY": "false"},
                cwd=FIELD / "clients",
                start_new_session=True,
            )
            try:
                stdout, _ = running.communicate(plan, timeout=CLIENT_LIMIT)
            except subprocess.TimeoutExpired:
                os.killpg(running.pid, signal.SIGKILL)
                stdout, _ = running.communicate()
        (self.folder / f"{name}.json").write_text(stdout)
        reports = [json.loads(line) for line in stdout.split("\n") if line]
        return {report["name"]: report for report in reports}


@pytest.fixture(scope="module")
def field(binary: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    """The dialogues of the pairs that the selected tests need."""
    chosen = {item.callspec.params["pair"] for item in request.session.items if item.path == request.path}
    with ExitStack() as stack:
        yield Field(binary, tmp_path_factory.mktemp("field"), stack, [pair for pair in PAIRS if pair in chosen])


def strings(value: Any) -> Iterator[str]:
    """Returns all strings in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings(item)


def failed(step: dict[str, Any]) -> bool:
    """True if the only outcome of a step is an error."""
    outcome = step["outcome"]
    return isinstance(outcome, dict) and not outcome.keys().isdisjoint({"error", "exception", "hang"})


def ended(launch: Launch) -> bool:
    """Waits for the bridge to end after its client. True if it ended in time; another process may have its pid by then."""
    number = (launch.folder / "pid").read_text().strip()
    deadline = time.monotonic() + END_LIMIT
    while not (launch.folder / "status").exists():
        shown = subprocess.run(["ps", "-o", "command=", "-p", number], capture_output=True, text=True, check=False)
        if launch.args[0] not in shown.stdout:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def reports(field: Field, pair: tuple[str, str], keep_log: Any) -> tuple[dict[str, Any], dict[str, Any], Launch]:
    """The reports of the pair's two dialogues, and the launch of the bridge."""
    direct, bridged, launch = field[pair]
    for log in (launch.stderr, field.servers[pair[1]].log, field.folder / f"{pair[0]}.log"):
        keep_log(log)
    return direct, bridged, launch


@pytest.mark.timeout(CLIENT_LIMIT + 60)
@pytest.mark.parametrize("pair", PAIRS, ids="-at-".join)
def test_works(reports: Any, pair: tuple[str, str]) -> None:
    """The essential steps work through the bridge, unless the client cannot even connect without it.

    A client that starts with the newest protocol unasked can do nothing directly at a server of earlier revisions, but
    it can do all this through the bridge.
    """
    direct, bridged, _ = reports
    if direct["failure"] is not None and bridged["failure"] is not None:
        return
    assert bridged["failure"] is None
    for step, text in ESSENTIAL.items():
        outcome = bridged["steps"][step]["outcome"]
        assert any(text in said for said in strings(outcome)), f"{step}: {json.dumps(outcome)[:400]}"


@pytest.mark.timeout(CLIENT_LIMIT + 60)
@pytest.mark.parametrize("pair", PAIRS, ids="-at-".join)
def test_same(reports: Any, pair: tuple[str, str]) -> None:
    """Each step has the same outcome and the same events through the bridge as without it.

    A client that speaks only revision 2026-07-28 can do nothing directly at a server of earlier ones. Failures there
    are not compared.
    """
    direct, bridged, _ = reports
    strict = CLIENTS[pair[0]].mode.startswith("20")
    differing = {}
    for name, step in direct["steps"].items():
        if not (strict and failed(step)) and step != bridged["steps"].get(name):
            differing[name] = {"directly": step, "through the bridge": bridged["steps"].get(name)}
    assert differing == {}
    assert strict or direct["failure"] is None


@pytest.mark.timeout(CLIENT_LIMIT + 60)
@pytest.mark.parametrize("pair", PAIRS, ids="-at-".join)
def test_end(reports: Any, pair: tuple[str, str]) -> None:
    """The framework reports no additional complaints through the bridge, which exits itself."""
    direct, bridged, launch = reports
    assert set(bridged["complaints"]) <= set(direct["complaints"])
    assert ended(launch)
    # The AI SDK signals the process that it launched. So does a client that was refused its only protocol; then there
    # is no status.
    if pair[0] != "ai-sdk" and bridged["failure"] is None:
        assert launch.status() == "0"
    assert launch.stderr.read_text() == ""
