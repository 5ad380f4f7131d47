"""Signing in at the authorization server of the TypeScript SDK, in a real browser, by the Python SDK 1.x."""

import asyncio
import os
import re
import shutil
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from mcp import McpError

from servers import HERE, Server, open_url
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
    before = server.log.stat().st_size

    async def dialogue() -> list[str]:
        async with connect(launched) as session:
            return [await call(session, tool) for tool in ("whoami", "expire", "whoami")]

    first, expired, second = asyncio.run(dialogue())
    assert (expired, first != second) == ("expired: true", True)
    assert launched.status() == "0"
    deadline = time.monotonic() + PAGE_LIMIT
    while not said.exists():
        assert time.monotonic() < deadline, "the browser shows nothing"
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


def test_a_slow_user(running: Any, launch: Any, tmp_path: Path) -> None:  # noqa: F811
    """The client's handshake does not wait for the user; then calls say where to sign in, and go on once that is done."""
    server: Server = running["guarded"]
    environment = {"MCP_STATE_FOLDER": str(tmp_path / "state")}
    launched = launch(server.url, "--no-browser", "--login-wait", "1", env=environment)

    async def dialogue() -> None:
        async with connect(launched, initialize=False) as session:
            provisional = await session.initialize()
            assert provisional.serverInfo.name == "mcp-gangway"
            assert provisional.capabilities.tools.listChanged
            with pytest.raises(McpError) as refusal:
                await session.list_tools()
            assert refusal.value.error.data["kind"] == "sign_in"
            await asyncio.to_thread(consent, refusal.value.error.data["url"])
            assert (await call(session, "whoami")).startswith("token ")
            assert [tool.name for tool in (await session.list_tools()).tools] == ["whoami", "expire"]

    asyncio.run(dialogue())
    assert launched.status() == "0"


def consent(url: str) -> None:
    """Sign in as a browser would that somebody clicks in."""
    with open_url(urllib.request.Request(url), timeout=PAGE_LIMIT) as page:
        (chosen,) = re.findall(r'name="id" value="(.+?)"', page.read().decode())
    form = urllib.parse.urlencode({"id": chosen}).encode()
    with open_url(urllib.request.Request(urllib.parse.urljoin(url, "/consent"), form), timeout=PAGE_LIMIT) as page:
        assert "You are signed in" in page.read().decode()
