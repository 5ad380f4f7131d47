"""Every client does its dialogue with every server through the bridge; each step is one test."""

from typing import Any

import pytest

from bridge import Dialogue
from dialogues import steps_with

SERVERS = {
    "everything": ("mcp-servers/everything", "2025-11-25"),
    "everything-sse": ("mcp-servers/everything", "2025-11-25"),
    "unsteady": ("unsteady", "2025-11-25"),
    "python-sse": ("interop", "2025-11-25"),
    "python-json": ("interop", "2025-11-25"),
    "gateway-stateless-json": ("mcp-streamable-http", "2025-11-25"),
    "gateway-stateless-sse": ("mcp-streamable-http", "2025-11-25"),
    "gateway-stateful-json": ("mcp-streamable-http", "2025-11-25"),
    "gateway-stateful-sse": ("mcp-streamable-http", "2025-11-25"),
}
# What these show does not depend on how a client negotiates.
ONLY_1X = ("everything-sse", "unsteady")
PAIRS = [
    *[(client, server) for server in SERVERS for client in ("python1", "typescript1")],
    *[(client, server) for server in SERVERS if server not in ONLY_1X for client in ("python2", "typescript2")],
    ("python2-legacy", "python-sse"),
    ("typescript2-auto", "python-sse"),
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each pair, or for each step of each pair."""
    if "step" not in metafunc.fixturenames:
        metafunc.parametrize("pair", PAIRS, ids="-".join)
        return
    cases = [(pair, step.name) for pair in PAIRS for step in steps_with(pair[1])]
    metafunc.parametrize(
        "pair, step", cases, ids=[f"{'-'.join(pair)}-{step.replace(' ', '-')}" for pair, step in cases]
    )


@pytest.fixture
def dialogue(pair: tuple[str, str], dialogues: Any, running: Any, keep_log: Any) -> Dialogue:
    """The finished dialogue of the pair."""
    done = dialogues[pair]
    keep_log(done.launched.stderr)
    keep_log(running[pair[1]].log)
    return done


def test_step(dialogue: Dialogue, step: str) -> None:
    """The step had its outcome, and the client's callbacks saw what belongs to it, in order.

    They did before the answer, but for what the server sends apart from it.
    """
    assert step in dialogue.report["steps"], dialogue.report["failure"]
    expected = dialogue.steps[step]
    happened = dialogue.report["steps"][step]
    assert happened["outcome"] == expected.outcome
    assert happened["events"] == expected.events


def test_negotiation(dialogue: Dialogue, pair: tuple[str, str]) -> None:
    """The client and the server agreed on a version as they would without the bridge."""
    assert "server" in dialogue.report, dialogue.report["failure"]
    assert (dialogue.report["server"], dialogue.report["protocol"]) == SERVERS[pair[1]]


def test_stdout_is_clean(dialogue: Dialogue) -> None:
    """The SDK found nothing on stdout that it could not use, and nothing after the last step."""
    assert "complaints" in dialogue.report, dialogue.report["failure"]
    # A server may answer a request that was cancelled, and a client need not like it.
    complaints = [text for text in dialogue.report["complaints"] if "Request cancelled" not in text]
    assert complaints == []
    assert dialogue.report["late"] == []


def test_end(dialogue: Dialogue) -> None:
    """Once the client had closed its stdin the bridge exited by itself, silently and in time."""
    assert dialogue.report["failure"] is None, dialogue.report["failure"]
    assert dialogue.launched.status() == "0"
    assert not dialogue.lingered
    assert dialogue.launched.stderr.read_text() == ""
