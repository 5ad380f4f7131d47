"""Writes results as a file and as tables."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING

import mcp_gangway

if TYPE_CHECKING:
    from collections.abc import Callable

#: The libraries whose versions are recorded.
LIBRARIES = (
    "httpx",
    "httpcore",
    "h11",
    "httpx-sse",
    "aiohttp",
    "niquests",
    "pyreqwest",
    "orjson",
    "anyio",
    "uvloop",
)


@dataclass(frozen=True)
class Test:
    name: str
    title: str
    #: The figures, with units. The first one is compared.
    figures: tuple[str, ...]
    ways: dict[str, Callable[[], list[float]]]
    #: The way that is compared with the others.
    over: str | None = None


@dataclass
class Results:
    date: str
    command: str
    rounds: int
    machine: dict[str, str | int]
    versions: dict[str, str]
    #: The milliseconds for a fixed workload before each measurement.
    spins: list[float] = field(default_factory=list)
    #: The figures of each test, way and round.
    samples: dict[str, dict[str, list[list[float]]]] = field(default_factory=dict)
    tests: list[Test] = field(default_factory=list)

    @classmethod
    def of_this_machine(cls, command: str, rounds: int) -> Results:
        def said(*words: str) -> str:
            return subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False).stdout.strip()

        def member(file: str, name: str) -> str:
            found = re.search(rf"^{name}\s*: *(.*)$", Path(file).read_text(), re.MULTILINE)
            return found[1] if found else ""

        return cls(
            date=datetime.now(timezone.utc).strftime("%Y-%m-%d"),
            command=command,
            rounds=rounds,
            machine={
                "processor": member("/proc/cpuinfo", "model name"),
                "processors": os.cpu_count() or 0,
                "memory": member("/proc/meminfo", "MemTotal"),
                "kernel": f"Linux {platform.release()}",
            },
            versions={
                "mcp_gangway": f"{mcp_gangway.__version__} (commit {said('git', 'describe', '--always', '--dirty')})",
                "Python": platform.python_version(),
                **{library: version(library) for library in LIBRARIES},
            },
        )

    def add(self, test: Test, way: str, figures: list[float]) -> None:
        if test not in self.tests:
            self.tests.append(test)
        self.samples.setdefault(test.name, {}).setdefault(way, []).append(figures)

    def without(self, later: Results) -> Results | None:
        """Returns the tests that were not measured again, if any."""
        left = [test for test in self.tests if test.name not in later.samples]
        samples = {test.name: self.samples[test.name] for test in left}
        return replace(self, samples=samples, tests=left) if left else None

    def conditions(self) -> str:
        """Describes the machine, its load, and the versions."""
        machine = self.machine
        parts = quantiles(self.spins, n=10) if len(self.spins) > 1 else self.spins * 9
        return (
            f"{self.date}; {machine['processors']} × {machine['processor']}, {machine['memory']} of memory, "
            f"{machine['kernel']}; `{self.command}`, {self.rounds} rounds\n\n"
            + "; ".join(f"{name} {number}" for name, number in self.versions.items())
            + f"\n\nA fixed workload before each measurement took {parts[4]:.2f} ms (median), {parts[8]:.2f} ms "
            f"(90th percentile), {max(self.spins, default=0):.2f} ms (maximum). Close values mean a quiet machine.\n"
        )

    def table(self, test: Test) -> str:
        ways = self.samples[test.name]
        figures = {way: [median(values) for values in zip(*rounds, strict=True)] for way, rounds in ways.items()}
        first = {way: [sample[0] for sample in rounds] for way, rounds in ways.items()}
        # Times are compared by difference, speeds by ratio.
        adds = test.over == "raw socket"
        compared = {None: [], True: ["added", "of httpx's"]}.get(adds if test.over else None, [f"of {test.over}'s"])
        rows = [["way", test.figures[0], "least–most", *compared, *test.figures[1:]]]
        base = figures[test.over][0] if test.over else 0.0
        for way, values in figures.items():
            cells = [""] * len(compared)
            if adds and way != test.over:
                added = values[0] - base
                cells = [short(added), f"{added / (figures['httpx'][0] - base):.2f}×"]
            elif test.over and not adds:
                cells = [f"{short(values[0] / base)}×"]
            spread = f"{short(min(first[way]))}–{short(max(first[way]))}"
            rows.append([way, short(values[0]), spread, *cells, *map(short, values[1:])])
        return f"**{test.title}**\n\n{_markdown(rows)}"


def read(file: Path, tests: list[Test]) -> list[Results]:
    """Reads the runs in a file of :func:`write`, without tests that no longer exist."""
    runs = [Results(**fields) for fields in json.loads(file.read_text())["runs"]]
    for run in runs:
        run.tests = [test for test in tests if test.name in run.samples]
    return runs


def write(file: Path, runs: list[Results]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    texts = [
        json.dumps({name: value for name, value in vars(run).items() if name != "tests"}, ensure_ascii=False)
        for run in runs
    ]
    file.write_text('{"runs": [\n' + ",\n".join(texts).replace('"samples"', '\n"samples"') + "\n]}\n")


def document(runs: list[Results]) -> str:
    begin = (
        "# Results of the Python package\n\nWritten by `bench/python/run --record`; "
        "[performance.md](../performance.md#python) explains the terms. Figures are medians over the "
        "rounds. The conditions of a run are above its tables.\n"
    )
    return "\n".join([begin, *[part for run in runs for part in (run.conditions(), *map(run.table, run.tests))]])


def short(value: float) -> str:
    """Formats three digits, as the measurements are not more precise."""
    return f"{value:.{2 if abs(value) < 10 else 1 if abs(value) < 100 else 0}f}"


def _markdown(rows: list[list[str]]) -> str:
    """Formats a table with aligned columns, for terminals."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    first, *others = widths
    lines = []
    for head, *cells in rows:
        padded = [head.ljust(first), *[cell.rjust(width) for cell, width in zip(cells, others, strict=True)]]
        lines.append(f"| {' | '.join(padded)} |")
    rule = "|".join(["-" * (first + 2), *["-" * (width + 1) + ":" for width in others]])
    return "\n".join([lines[0], f"|{rule}|", *lines[1:], ""])
