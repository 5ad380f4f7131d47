"""The Python package, as scripts/setup-python installs it, with the ContextForge gateway."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bridge import CLIENTS, Launch, talk
from dialogues import steps_with
from servers import INSTALLED, plain_environment

PYTHON = INSTALLED.parent / "python/venv/bin/python"
GATEWAYS = ["gateway-stateless-json", "gateway-stateless-sse", "gateway-stateful-json", "gateway-stateful-sse"]

FORWARD = """
import asyncio, json, sys
from mcp_gangway import AsyncClient, forward_request

async def main(url, auth):
    async with AsyncClient() as client:
        headers = {}
        async def ask(message):
            async with forward_request(url, message, headers=headers, auth=auth, client=client) as response:
                response.raise_for_status()
                headers.update({name: value for name, value in response.headers.items() if name == "mcp-session-id"})
                return [json.loads(answer) async for answer in response.aiter_messages()]
        about = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
        [answer] = await ask({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": about})
        headers["mcp-protocol-version"] = answer["result"]["protocolVersion"]
        await ask({"jsonrpc": "2.0", "method": "notifications/initialized"})
        call = {"name": "interop-echo", "arguments": {"text": "caf\\u00e9"}}
        answers = await ask({"jsonrpc": "2.0", "id": "a", "method": "tools/call", "params": call})
        print(json.dumps(answers))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    assert PYTHON.exists(), "run scripts/setup-python first"


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_the_wrapper_replaces_the_gateways_wrapper(running: Any, tmp_path: Path, keep_log: Any, gateway: str) -> None:
    """`python -m mcp_gangway.wrapper`, launched by the official SDK with the original's variables."""
    server = running[gateway]
    folder = tmp_path / "bridge"
    folder.mkdir()
    environment = {"MCP_SERVER_URL": server.url, "MCP_AUTH": server.authorization, "MCP_TOOL_CALL_TIMEOUT": "30"}
    launched = Launch(str(PYTHON), folder, ["-m", "mcp_gangway.wrapper"], environment)
    keep_log(launched.stderr)
    steps = steps_with(gateway, modern=False)
    done = talk(CLIENTS["python1"], launched, steps)
    assert done.report["failure"] is None
    happened = {name: (step["outcome"], step["events"]) for name, step in done.report["steps"].items()}
    assert happened == {step.name: (step.outcome, step.events) for step in steps}
    assert launched.status() == "0"


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_forward_request(running: Any, gateway: str) -> None:
    """A session of single messages: the gateway's answers arrive unchanged, in JSON and in events."""
    server = running[gateway]
    script = subprocess.run(
        [PYTHON, "-W", "error", "-c", FORWARD, server.url, server.authorization],
        env=plain_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (script.returncode, script.stderr) == (0, "")
    [answer] = [message for message in json.loads(script.stdout) if "id" in message]
    assert answer["id"] == "a"
    assert [part["text"] for part in answer["result"]["content"]] == ["café"]
