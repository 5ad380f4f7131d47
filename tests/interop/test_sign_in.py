"""Sign-in at the authorization server of the TypeScript SDK: in a real browser, and by a slow user."""

import asyncio
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bridge import CLIENTS, talk
from dialogues import Step
from servers import HERE, Server
from test_command import call, connect, launch  # noqa: F401 (a fixture)

PAGE_LIMIT = 20.0
ASKED = ["elicitation", "Sign in to use this server."]


def environment(folder: Path) -> dict[str, str]:
    """Makes the bridge keep its sign-ins in a folder, not in the keychain of the person who runs the tests."""
    return {"MCP_STATE_FOLDER": str(folder / "state"), "MCP_NO_KEYCHAIN": "1"}


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs Chromium")
def test_a_browser_signs_in(running: Any, launch: Any, tmp_path: Path) -> None:  # noqa: F811
    """The bridge opens the browser, which consents by a click. The token is renewed, and kept for the next bridge."""
    server: Server = running["guarded"]
    said, complaint = tmp_path / "said", tmp_path / "complaint"
    opener = tmp_path / "xdg-open"
    opener.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{HERE}/browser.py" "$1" "{said}" 2>"{complaint}"\n')
    opener.chmod(0o700)
    desktop = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "DISPLAY": ":0"}
    launched = launch(server.url, "--log-level", "debug", env=environment(tmp_path) | desktop)
    before = server.log.stat().st_size

    async def dialogue() -> list[str]:
        async with connect(launched) as session:
            return [await call(session, tool) for tool in ("whoami", "expire", "whoami")]

    first, expired, second = asyncio.run(dialogue())
    assert (expired, first != second) == ("expired: true", True)
    assert launched.status() == "0"
    deadline = time.monotonic() + PAGE_LIMIT
    while not said.exists():
        assert time.monotonic() < deadline, f"the browser shows nothing: {complaint.read_text()}"
        time.sleep(0.05)
    assert "You are signed in" in said.read_text()

    async def again() -> str:
        async with connect(launched) as session:
            return await call(session, "whoami")

    assert asyncio.run(again()) == second
    assert launched.stderr.read_text().count("asks you to sign in") == 1
    logged = server.log.read_bytes()[before:].decode().splitlines()
    granted = [line for line in logged if line.startswith(("registered", "granted"))]
    assert granted == ["registered: mcp-gangway", "granted: code", "granted: refresh"]


@pytest.mark.parametrize("name", CLIENTS)
def test_a_slow_sign_in_does_not_delay_the_handshake(running: Any, launch: Any, tmp_path: Path, name: str) -> None:  # noqa: F811
    """No handshake waits for the user. A client with a session gets an error with the URL, and a notification of
    changed tools after the sign-in. A modern client shows the URL, and its call continues.
    """
    client, server = CLIENTS[name], running["guarded"]
    launched = launch(server.url, "--no-browser", "--login-wait", "1", env=environment(tmp_path))
    whoami = {"tool": "whoami", "arguments": {}}
    steps = [
        Step("sign in", "sign_in", whoami, {}, [ASKED] if client.modern else [ASKED, ["tools changed"]], apart=True),
        Step("whoami", "call", whoami, {}),
        Step("tools", "list_tools", {}, {"tools": ["expire", "whoami"]}),
    ]
    dialogue = talk(client, launched, steps)
    report = dialogue.report
    assert (report["failure"], report["complaints"], dialogue.lingered) == (None, [], False)
    assert report["server"] in ("mcp-gangway", None)
    outcome, events = report["steps"]["sign in"].values()
    assert events == steps[0].events
    if client.modern:
        assert outcome["text"].startswith("token ")
    else:
        assert outcome["error"] == -32603
    assert report["steps"]["whoami"]["outcome"]["text"].startswith("token ")
    assert report["steps"]["tools"]["outcome"] == steps[2].outcome
    assert launched.status() == "0"
