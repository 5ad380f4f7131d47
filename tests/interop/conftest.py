"""Fixtures: the bridge's binary, the servers and the dialogues, each created once, when first needed."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import servers
from bridge import CLIENTS, Dialogue, launch, talk
from dialogues import steps_with
from servers import INSTALLED, Server

LOGS = pytest.StashKey[list[Path]]()
LOG_TAIL = 6000


def pytest_sessionstart() -> None:
    """Reports missing prerequisites at the start."""
    binary = os.environ.get("MCP_GANGWAY_BIN", "")
    if not (os.path.isabs(binary) and os.access(binary, os.X_OK)):
        raise pytest.UsageError(f"MCP_GANGWAY_BIN must be the absolute path of the mcp-gangway binary, not {binary!r}")
    if not (INSTALLED / "stamp").exists():
        raise pytest.UsageError("run scripts/setup-interop first")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Shows the logs of a failed test."""
    report = yield
    if report.failed:
        for log in item.stash.get(LOGS, []):
            if log.exists():
                report.sections.append((f"{log.parent.name}/{log.name}", log.read_text(errors="replace")[-LOG_TAIL:]))
    return report


@pytest.fixture(scope="session")
def binary() -> str:
    """The path of the bridge."""
    return os.environ["MCP_GANGWAY_BIN"]


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Running"]:
    """The servers."""
    with contextlib.ExitStack() as stack:
        yield Running(stack, tmp_path_factory.mktemp("servers"))


@pytest.fixture(scope="session")
def dialogues(binary: str, running: "Running", tmp_path_factory: pytest.TempPathFactory) -> "Dialogues":
    """The dialogues of clients with servers."""
    return Dialogues(binary, running, tmp_path_factory.mktemp("bridges"))


@pytest.fixture
def keep_log(request: pytest.FixtureRequest) -> Any:
    """A function that registers a file to show if the test fails."""
    return request.node.stash.setdefault(LOGS, []).append


class Running:
    """Servers by name, started when first needed. The part of a name after a + selects a dialogue with the same server."""

    def __init__(self, stack: contextlib.ExitStack, folder: Path) -> None:
        self.stack = stack
        self.folder = folder
        self.started: dict[str, Server] = {}

    def __getitem__(self, name: str) -> Server:
        name, *_ = name.split("+")
        if name not in self.started:
            self.started[name] = self.stack.enter_context(self.start(name))
        return self.started[name]

    def start(self, name: str) -> contextlib.AbstractContextManager[Server]:
        kind, *features = name.split("-")
        if kind == "eras":
            return servers.eras(self.folder, "-".join(features))
        json_response = "json" in features
        if kind == "everything":
            return servers.everything(self.folder, sse="sse" in features)
        if kind == "unsteady":
            return servers.unsteady(self.folder)
        if kind == "guarded":
            return servers.guarded(self.folder)
        if kind == "python":
            return servers.python_server(self.folder, json_response=json_response)
        backend = self["python-sse"]
        return servers.gateway(self.folder, backend, stateful="stateful" in features, json_response=json_response)


class Dialogues:
    """The results of the dialogues, by the names of client and server."""

    def __init__(self, binary: str, running: Running, folder: Path) -> None:
        self.binary = binary
        self.running = running
        self.folder = folder
        self.done: dict[tuple[str, str], Dialogue] = {}

    def __getitem__(self, names: tuple[str, str]) -> Dialogue:
        if names not in self.done:
            client, server = names
            steps = steps_with(server, modern=CLIENTS[client].modern_at(server))
            log = self.running[server].log
            before = log.stat().st_size
            launched = launch(self.binary, self.folder / "-".join(names), self.running[server])
            launched.env |= CLIENTS[client].env
            self.done[names] = talk(CLIENTS[client], launched, steps)
            logged = log.read_bytes()[before:].decode(errors="replace").splitlines()
            self.done[names].improper = [line for line in logged if line.startswith("improper: ")]
            self.done[names].sessions = sum(line.startswith("session: ") for line in logged)
        return self.done[names]
