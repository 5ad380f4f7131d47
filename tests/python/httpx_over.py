"""A pytest plugin for httpx's own tests (scripts/httpx-tests): puts the package under httpx, or in its place.

The variable HTTPX_OVER selects how: `stock` changes nothing, `transport` gives all clients of httpx our transports, and
`class` replaces the classes of httpx by ours.

Rule: of the tests that pass with `stock`, exactly those fail that httpx_expected.txt lists with a reason. Those with a
`?` may also pass.
"""

from __future__ import annotations

import fnmatch
import json
import os
from pathlib import Path
from typing import Any

import httpx
import mcp_gangway
import pytest
from mcp_gangway import _exceptions

HOW = os.environ["HTTPX_OVER"]
EXPECTED = Path(__file__).with_name("httpx_expected.txt")
#: The names of the tests that pass with `stock`.
STOCK = Path(os.environ["HTTPX_STOCK"])

#: The classes that a program for httpx uses.
CLASSES = [
    "AsyncBaseTransport",
    "AsyncClient",
    "Auth",
    "BaseTransport",
    "BasicAuth",
    "Client",
    "CookieConflict",
    "Cookies",
    "DigestAuth",
    "Headers",
    "Limits",
    "MockTransport",
    "Proxy",
    "QueryParams",
    "Request",
    "Response",
    "Timeout",
    "URL",
    *[name for name in _exceptions.__all__ if hasattr(httpx, name)],
]

outcomes: dict[str, str] = {}


def without_environment(transport: Any) -> Any:
    """Returns the transport class for httpx's clients, which look up the proxies of the environment themselves."""

    class Transport(transport):  # type: ignore[misc]
        def __init__(self, trust_env: bool = True, **options: Any) -> None:
            super().__init__(trust_env=False, **options)

    return Transport


def pytest_configure() -> None:
    """Replaces what HTTPX_OVER selects, before httpx's tests are imported."""
    if HOW == "transport":
        for name in ("AsyncHTTPTransport", "HTTPTransport"):
            transport = without_environment(getattr(mcp_gangway, name))
            setattr(httpx, name, transport)
            setattr(httpx._client, name, transport)
    elif HOW == "class":
        for name in CLASSES:
            setattr(httpx, name, getattr(mcp_gangway, name))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Notes the outcome of a test; a failure before or after it counts as its own."""
    if report.failed or report.when == "call":
        outcomes[report.nodeid] = "failed" if report.failed else outcomes.get(report.nodeid, report.outcome)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Compares the outcomes with the expected ones."""
    passed = {name for name, outcome in outcomes.items() if outcome == "passed"}
    if HOW == "stock":
        STOCK.write_text(json.dumps(sorted(passed)))
        session.exitstatus = 0 if passed else 1
        print(f"\nstock: {len(passed)} of {len(outcomes)} pass")
        return
    counted = set(json.loads(STOCK.read_text()))
    failed = counted - passed
    lines = [line.split("#")[0].split() for line in EXPECTED.read_text().splitlines()]
    patterns = [pattern for how, pattern in filter(None, lines) if how.rstrip("?") == HOW]
    certain = [pattern for how, pattern in filter(None, lines) if how == HOW]

    def matches(name: str, pattern: str) -> bool:
        # Brackets belong to the names of tests.
        return fnmatch.fnmatchcase(name.replace("[", "("), pattern.replace("[", "("))

    unexpected = sorted(name for name in failed if not any(matches(name, pattern) for pattern in patterns))
    stale = [pattern for pattern in certain if not any(matches(name, pattern) for name in failed)]
    print(f"\n{HOW}: {len(counted) - len(failed)} of the {len(counted)} that pass with stock httpx")
    for name in unexpected:
        print(f"  fails, and is not expected to: {name}")
    for pattern in stale:
        print(f"  is expected to fail, and does not: {pattern}")
    session.exitstatus = 1 if unexpected or stale else 0
