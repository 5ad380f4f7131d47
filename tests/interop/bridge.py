"""Has a client launch the bridge, and tells how that went."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dialogues import Step
from servers import HERE, INSTALLED, Server, plain_environment

CLIENT_LIMIT = 30.0


@dataclass
class Client:
    """A client script, the interpreter it needs, and how it negotiates the protocol version."""

    command: list[str]
    mode: str = "legacy"
    # What the bridge is told, as nothing that the client sends says it.
    env: dict[str, str] = field(default_factory=dict)

    @property
    def modern(self) -> bool:
        """Whether it can speak revision 2026-07-28."""
        return self.mode != "legacy"

    def modern_at(self, server: str) -> bool:
        """Whether it comes to speak that in front of the server of this name."""
        name, *_ = server.split("+")
        return name in SPEAK_MODERN if self.mode == "auto" else self.modern


SPEAK_MODERN = ("eras-modern", "eras-dual", "eras-python")


CLIENTS = {
    "python1": Client([sys.executable, "python1.py"]),
    # Each SDK's default comes first: 2.x asks for the newest protocol in Python, but not in TypeScript. With a version
    # for a mode Python asks for nothing but starts with the first request, while TypeScript asks all the same, as if it
    # could do without.
    "python2": Client([str(INSTALLED / "venv-sdk2/bin/python"), "python2.py"], "auto"),
    "python2-legacy": Client([str(INSTALLED / "venv-sdk2/bin/python"), "python2.py"]),
    "python2-modern": Client([str(INSTALLED / "venv-sdk2/bin/python"), "python2.py"], "2026-07-28"),
    "typescript1": Client(["node", "typescript1.cjs"]),
    "typescript2": Client(["node", "typescript2.cjs"]),
    "typescript2-auto": Client(["node", "typescript2.cjs"], "auto"),
    "typescript2-modern": Client(["node", "typescript2.cjs"], "2026-07-28", {"MCP_ERA": "modern"}),
}


@dataclass
class Launch:
    """One launch of the bridge through launcher.sh, with the files that tell how it went."""

    binary: str
    folder: Path
    args: list[str]
    env: dict[str, str] = field(default_factory=dict)

    def parameters(self) -> dict[str, Any]:
        """What an SDK's stdio transport wants to know."""
        args = [str(HERE / "launcher.sh"), str(self.folder), self.binary, *self.args]
        return {"command": "sh", "args": args, "env": self.env}

    @property
    def stderr(self) -> Path:
        """What the bridge wrote to stderr."""
        return self.folder / "stderr"

    def status(self) -> str:
        """The exit status of the bridge, or what happened instead."""
        status = self.folder / "status"
        return status.read_text().strip() if status.exists() else "it did not exit by itself"

    def kill(self) -> bool:
        """Kill the bridge if it is still there; return whether it was."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int((self.folder / "pid").read_text()), signal.SIGKILL)
            return True
        return False


@dataclass
class Dialogue:
    """What came of a dialogue.

    That is the client's report, whether the bridge was still there when the client ended, what the server found that it
    should not have been sent, and how many sessions it started, as far as it tells.
    """

    launched: Launch
    steps: dict[str, Step]
    report: dict[str, Any]
    lingered: bool
    improper: list[str] = field(default_factory=list)
    sessions: int = 0


def launch(binary: str, folder: Path, server: Server) -> Launch:
    """The launch for a server: by environment where a secret is needed, else by argument."""
    folder.mkdir(parents=True)
    if server.authorization is None:
        return Launch(binary, folder, [server.url])
    return Launch(binary, folder, [], {"MCP_SERVER_URL": server.url, "MCP_AUTH": server.authorization})


def talk(client: Client, launched: Launch, steps: list[Step]) -> Dialogue:
    """Have the client launch the bridge and do the steps."""
    plan = {
        "launch": launched.parameters(),
        "mode": client.mode,
        "stderr": str(launched.stderr),
        "browser": [sys.executable, str(HERE / "consent.py")],
        "steps": [step.plan() for step in steps],
    }
    running = subprocess.Popen(
        client.command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=plain_environment() | {"NODE_PATH": str(INSTALLED / "node_modules")},
        cwd=HERE / "clients",
        start_new_session=True,
    )
    try:
        stdout, stderr = running.communicate(json.dumps(plan), timeout=CLIENT_LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(running.pid, signal.SIGKILL)
        stdout, stderr = running.communicate()
        stderr += f"\nkilled after {CLIENT_LIMIT} s"
    finally:
        lingered = launched.kill()
    report = json.loads(stdout) if running.returncode == 0 else {"steps": {}, "failure": stderr}
    return Dialogue(launched, {step.name: step for step in steps}, report, lingered)
