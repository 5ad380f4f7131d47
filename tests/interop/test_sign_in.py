"""Signing in at the authorization server of the TypeScript SDK, in a real browser, by the Python SDK 1.x."""

import asyncio
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from servers import HERE, Server
from test_command import call, connect, launch  # noqa: F401 (a fixture)

PAGE_LIMIT = 20.0


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs Chromium")
def test_a_browser_signs_in(running: Any, launch: Any, tmp_path: Path) -> None:  # noqa: F811
    """The bridge opens the browser, which consents by a click; the token is renewed, and kept for the next bridge."""
    server: Server = running["guarded"]
    said = tmp_path / "said"
    opener = tmp_path / "xdg-open"
    opener.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{HERE}/browser.py" "$1" "{said}"\n')
    opener.chmod(0o700)
    environment = {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "DISPLAY": ":0",
        "MCP_STATE_FOLDER": str(tmp_path / "state"),
    }
    launched = launch(server.url, "--log-level", "debug", env=environment)

    async def dialogue() -> list[str]:
        async with connect(launched) as session:
            return [await call(session, tool) for tool in ("whoami", "expire", "whoami")]

    assert asyncio.run(dialogue()) == ["token 1", "expired: true", "token 2"]
    assert launched.status() == "0"
    deadline = time.monotonic() + PAGE_LIMIT
    while not said.exists():
        assert time.monotonic() < deadline, "the browser shows nothing"
        time.sleep(0.05)
    assert "You are signed in" in said.read_text()

    async def again() -> str:
        async with connect(launched) as session:
            return await call(session, "whoami")

    assert asyncio.run(again()) == "token 2"
    assert launched.stderr.read_text().count("asks you to sign in") == 1
    granted = [line for line in server.log.read_text().splitlines() if line.startswith(("registered", "granted"))]
    assert granted == ["registered: mcp-gangway", "granted: code", "granted: refresh"]
