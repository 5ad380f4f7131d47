"""Runs the examples of the Python pages in order against a server on a real socket."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from pathlib import Path
from types import CodeType
from typing import Any

import mcp_gangway
import pytest
from http_server import Answer, Request, chunked, event, serving, whole

DOCS = Path(__file__).resolve().parents[2] / "docs"
ADDRESS = "https://example.com/mcp"


def examples(name: str) -> list[CodeType]:
    """Returns a page's Python, compiled with top-level await and with the page's line numbers."""
    path = DOCS / name
    page = path.read_text(encoding="utf-8")
    found = []
    for match in re.finditer(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE):
        line = page.count("\n", 0, match.start(1))
        tree = ast.parse(match[1], str(path))
        ast.increment_lineno(tree, line)
        found.append(compile(tree, str(path), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT))
    return found


def with_address(code: CodeType, url: str) -> CodeType:
    """Returns the same code with the server's address instead of the example's."""
    constants = [with_address(value, url) if isinstance(value, CodeType) else value for value in code.co_consts]
    return code.replace(co_consts=tuple(url if value == ADDRESS else value for value in constants))


def answered(request: Request) -> Answer:
    message = request.json()
    reply = {"jsonrpc": "2.0", "id": message["id"], "result": {"method": message["method"]}}
    if message["method"] == "tools/call":
        progress = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progress": 1}}
        return chunked(b"id: 1\n" + event(progress), event(reply), content_type="text/event-stream")
    return whole(repr(reply).replace("'", '"').encode(), content_type="application/json")


async def run(page: str) -> list[str]:
    """Runs the examples of a page. Returns the methods that they called."""
    names: dict[str, Any] = {"mcp_gangway": mcp_gangway}
    async with serving(answered) as server:
        for code in examples(page):
            example = with_address(code, server.url)
            if example.co_flags & inspect.CO_COROUTINE:
                await eval(example, names)
            else:
                # The example may block, and the server runs in this thread.
                await asyncio.to_thread(eval, example, names)
    return [request.json()["method"] for request in server.requests]


@pytest.mark.asyncio
async def test_the_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    asked = await run("python.md")
    assert asked == ["ping", "ping", "ping", "ping", "tools/call", "tools/list", "ping"]
    shown = capsys.readouterr().out
    assert "200 HTTP/1.1 application/json" in shown
    assert "\n7\n" in shown
    assert "message 1 {'jsonrpc': '2.0', 'method': 'notifications/progress'" in shown
    assert 'b\'{"jsonrpc": "2.0", "id": 4' in shown


@pytest.mark.asyncio
async def test_the_examples_for_programs_for_httpx_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert await run("from-httpx.md") == ["ping", "tools/call", "ping"]
    assert "message {" in capsys.readouterr().out


@pytest.mark.asyncio
async def test_the_examples_without_a_server_run() -> None:
    assert await run("testing.md") == []
