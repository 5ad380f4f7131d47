"""Has a client launch the bridge, and collects the results."""

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
    # Settings of the bridge that no message of the client shows.
    env: dict[str, str] = field(default_factory=dict)

    @property
    def modern(self) -> bool:
        """True if it can speak revision 2026-07-28."""
        return self.mode != "legacy"

    def modern_at(self, server: str) -> bool:
        """True if it speaks that revision with the server of this name."""
        name, *_ = server.split("+")
        return name in SPEAK_MODERN if self.mode == "auto" else self.modern


SPEAK_MODERN = ("eras-modern", "eras-dual", "eras-python")


CLIENTS = {
    "python1": Client([sys.executable, "python1.py"]),
    # Each SDK's default comes first: 2.x asks for the newest protocol first in Python, but not in TypeScript. With a
    # version as mode, Python asks for nothing and starts with the first request. TypeScript still sends a probe, so the
    # bridge cannot tell that it has no fallback.
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
    """One launch of the bridge through launcher.sh, with the files that record its end."""

    binary: str
    folder: Path
    args: list[str]
    env: dict[str, str] = field(default_factory=dict)

    def parameters(self) -> dict[str, Any]:
        """Returns the parameters for an SDK's stdio transport."""
        args = [str(HERE / "launcher.sh"), str(self.folder), self.binary, *self.args]
        return {"command": "sh", "args": args, "env": self.env}

    @property
    def stderr(self) -> Path:
        """The file with the bridge's stderr."""
        return self.folder / "stderr"

    def status(self) -> str:
        """Returns the exit status of the bridge, or says that there is none."""
        status = self.folder / "status"
        return status.read_text().strip() if status.exists() else "it did not exit by itself"

    def kill(self) -> bool:
        """Kills the bridge if it still runs. Returns True if it did."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int((self.folder / "pid").read_text()), signal.SIGKILL)
            return True
        return False


@dataclass
class Dialogue:
    """The results of a dialogue.

    These are the client's report, whether the bridge still ran when the client ended, the messages that the server
    should not have received, and the number of sessions, if the server reports them.
    """

    launched: Launch
    steps: dict[str, Step]
    report: dict[str, Any]
    lingered: bool
    improper: list[str] = field(default_factory=list)
    sessions: int = 0


def launch(binary: str, folder: Path, server: Server) -> Launch:
    """Returns the launch for a server: by environment if it needs a secret, otherwise by argument."""
    folder.mkdir(parents=True)
    if server.authorization is None:
        return Launch(binary, folder, [server.url])
    return Launch(binary, folder, [], {"MCP_SERVER_URL": server.url, "MCP_AUTH": server.authorization})


def talk(client: Client, launched: Launch, steps: list[Step]) -> Dialogue:
    """Has the client launch the bridge and do the steps."""
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
