"""Runs every client's dialogue with every server through the bridge; each step is one test."""

from typing import Any

import pytest

from bridge import CLIENTS, Dialogue
from dialogues import steps_with

SERVERS = {
    "everything": "mcp-servers/everything",
    "everything-sse": "mcp-servers/everything",
    "unsteady": "unsteady",
    "python-sse": "interop",
    "python-json": "interop",
    "gateway-stateless-json": "mcp-streamable-http",
    "gateway-stateless-sse": "mcp-streamable-http",
    "gateway-stateful-json": "mcp-streamable-http",
    "gateway-stateful-sse": "mcp-streamable-http",
}
# These results do not depend on how a client negotiates.
ONLY_1X = ("everything-sse", "unsteady")
ERAS = ("eras-legacy-sessions", "eras-legacy-stateless", "eras-modern", "eras-dual", "eras-python")
SPEAK_BOTH = ("eras-dual", "eras-python")
ERAS_CLIENTS = (
    "python1",
    "python2",
    "python2-modern",
    "typescript1",
    "typescript2",
    "typescript2-auto",
    "typescript2-modern",
)
ERAS_PAIRS = [(client, server) for server in ERAS for client in ERAS_CLIENTS]
PAIRS = [
    *[(client, server) for server in SERVERS for client in ("python1", "typescript1")],
    *[(client, server) for server in SERVERS if server not in ONLY_1X for client in ("python2", "typescript2")],
    ("python2-legacy", "python-sse"),
    ("typescript2-auto", "python-sse"),
    *ERAS_PAIRS,
    *[
        (client, f"{server}+unlisted")
        for server in ("eras-legacy-sessions", "eras-modern", "eras-python")
        for client in ("python2-modern", "typescript1", "typescript2-modern")
    ],
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Creates one test for each pair, or for each step of each pair."""
    if "step" not in metafunc.fixturenames:
        pairs = ERAS_PAIRS if metafunc.function is test_requests else PAIRS
        metafunc.parametrize("pair", pairs, ids="-".join)
        return
    cases = [
        ((client, server), step.name)
        for client, server in PAIRS
        for step in steps_with(server, modern=CLIENTS[client].modern_at(server))
    ]
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
    """The step had its outcome, and the client's callbacks saw its events, in order.

    They saw them before the answer, except for events that the server sends on another stream.
    """
    assert step in dialogue.report["steps"], dialogue.report["failure"]
    expected = dialogue.steps[step]
    happened = dialogue.report["steps"][step]
    assert happened["outcome"] == expected.outcome
    assert happened["events"] == expected.events


def test_negotiation(dialogue: Dialogue, pair: tuple[str, str]) -> None:
    """The client got the newest version that both know, or its only one, and knows the server's name if it asked."""
    client, server = pair
    assert "server" in dialogue.report, dialogue.report["failure"]
    assert dialogue.report["protocol"] == ("2026-07-28" if CLIENTS[client].modern_at(server) else "2025-11-25")
    assert dialogue.report["server"] == (None if client == "python2-modern" else SERVERS.get(server, "eras"))


def test_requests(dialogue: Dialogue, pair: tuple[str, str]) -> None:
    """The server received no improper message, no wrong headers, and a session only in a legacy dialogue."""
    assert dialogue.improper == []
    client, server = pair
    has_sessions = server == "eras-legacy-sessions" or (server in SPEAK_BOTH and not CLIENTS[client].modern_at(server))
    assert (dialogue.sessions > 0) == has_sessions


def test_stdout_is_clean(dialogue: Dialogue) -> None:
    """The SDK found only valid messages on stdout, and nothing after the last step."""
    assert "complaints" in dialogue.report, dialogue.report["failure"]
    # A server may answer a cancelled request, and a client may complain about that.
    complaints = [text for text in dialogue.report["complaints"] if "Request cancelled" not in text]
    assert complaints == []
    assert dialogue.report["late"] == []


def test_end(dialogue: Dialogue) -> None:
    """After the client closed stdin, the bridge exited itself, silently and in time."""
    assert dialogue.report["failure"] is None, dialogue.report["failure"]
    assert dialogue.launched.status() == "0"
    assert not dialogue.lingered
    assert dialogue.launched.stderr.read_text() == ""
