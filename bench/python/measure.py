"""Compares the Python package with httpx and httpx-sse. ``run`` starts it, docs/performance.md explains the results.

Each round of a test runs all ways in turn (A B C A B C …), so that changes on the machine affect all of them. The
server is that of the other bench: a native process, fast enough not to limit the results.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import os
import re
import resource
import subprocess
import sys
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from time import monotonic_ns, perf_counter, thread_time
from typing import TYPE_CHECKING, Any

import report
import uvloop
import ways

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    #: Measures one way once.
    Measure = Callable[[], list[float]]

KIB, MIB = 1 << 10, 1 << 20
#: Paced events: their number, their size in bytes, and the milliseconds between them.
PACED = {"count": 100, "size": 200, "pause": 5}
LOOPS: dict[str, Callable[..., Any]] = {"asyncio": asyncio.run, "uvloop": uvloop.run}


@dataclass(frozen=True)
class Bench:
    url: str
    quick: bool

    @property
    def seconds(self) -> float:
        """How long a repeatable measurement is repeated."""
        return 0.1 if self.quick else 1.0

    def tests(self) -> list[report.Test]:
        """Returns all tests, each with a function for every way."""
        tests = []
        for loop in LOOPS:
            tests.append(
                report.Test(
                    f"round-trip-{loop}",
                    f"One POST of a JSON message after the other, on {loop}",
                    ("p50 µs", "p90 µs", "CPU a call µs"),
                    self._clients(loop, self._round_trip),
                    over="raw socket",
                )
            )
        for loop in LOOPS:
            tests.append(
                report.Test(
                    f"concurrent-{loop}",
                    f"64 such calls at once, on {loop}",
                    ("calls/s", "CPU a call µs"),
                    self._clients(loop, self._concurrent),
                )
            )
        for size, chunk in itertools.product((150, 4 * KIB), (16 * KIB, KIB)):
            stream = self._events(size)
            tests.append(
                report.Test(
                    f"parse-{size}-{chunk}",
                    f"Events of {size} bytes from memory, in chunks of {chunk // KIB} KiB",
                    ("MB a CPU second",),
                    {name: self._parser(parse, stream, chunk) for name, parse in ways.PARSERS.items()},
                    over="httpx-sse",
                )
            )
        for size, chunk in itertools.product((150, 4 * KIB), (16 * KIB, KIB)):
            notices = self._notices(size)
            tests.append(
                report.Test(
                    f"objects-{size}-{chunk}",
                    f"Notifications in events of {size} bytes from memory, in chunks of {chunk // KIB} KiB, to objects",
                    ("MB a CPU second", "µs an event"),
                    {name: self._objects(parse, notices, chunk) for name, parse in ways.OBJECTS.items()},
                    over="httpx-sse + json",
                )
            )
        for size in (1, 16, 64):
            # This parser's time grows with the square of the size.
            parsers = {name: parse for name, parse in ways.PARSERS.items() if size < 16 or parse is not ways.by_hand}
            tests.append(
                report.Test(
                    f"parse-big-{size}",
                    f"One event of {size} MiB from memory, in chunks of 1 KiB",
                    ("MB a CPU second", "ms"),
                    {name: self._big(parse, size * MIB) for name, parse in parsers.items()},
                    over="httpx-sse",
                )
            )
        tests.append(
            report.Test(
                "first-event",
                "From a call to the first event of its answer; age of later events, which come one by one",
                ("first p50 µs", "age p50 µs", "age p90 µs"),
                self._clients("asyncio", self._first_event),
                over="raw socket",
            )
        )
        for size in (16, 256):
            tests.append(
                report.Test(
                    f"stream-{size}",
                    f"{size} MiB in events of 4 KiB, over HTTP, each event read",
                    ("peak memory over idle MiB", "MB/s"),
                    {way: self._alone(way, size) for way in ways.CLIENTS},
                )
            )
        for size in (1, 64):
            tests.append(
                report.Test(
                    f"whole-{size}",
                    f"A response of {size} MiB, read as a whole",
                    ("peak memory over idle MiB", "MB/s"),
                    {way: self._alone(way, size, "whole") for way in ways.CLIENTS if way != "raw socket"},
                )
            )
        tests.append(
            report.Test(
                "import",
                "The time to import the client in a new interpreter",
                ("ms",),
                {way: self._import(name) for way, name in ways.MODULES.items()},
            )
        )
        return tests

    def _import(self, name: str) -> Measure:
        module, _, attribute = name.rpartition(".")
        program = (
            "from time import perf_counter; begin = perf_counter()\n"
            f"from {module} import {attribute}\nprint(1e3 * (perf_counter() - begin))"
        )

        def measured() -> list[float]:
            return [float(subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=True).stdout)]

        return measured

    def _clients(self, loop: str, test: Callable[[Any], Awaitable[list[float]]]) -> dict[str, Measure]:
        async def measured(way: str) -> list[float]:
            client = ways.CLIENTS[way]()
            try:
                return await test(client)
            finally:
                await client.close()

        return {way: partial(_run, loop, measured, way) for way in ways.CLIENTS}

    async def _round_trip(self, client: Any) -> list[float]:
        message = _call("text", size=100)
        for _ in range(50):
            await client.call(self.url, message)
        times = []
        used, end = _used(), perf_counter() + self.seconds
        while (begin := perf_counter()) < end:
            await client.call(self.url, message)
            times.append(perf_counter() - begin)
        used = (_used() - used) / len(times)
        return [1e6 * median(times), 1e6 * quantiles(times, n=10)[-1], 1e6 * used]

    async def _concurrent(self, client: Any) -> list[float]:
        message = _call("text", size=100)

        async def go(until: float) -> int:
            count = 0
            while perf_counter() < until:
                await client.call(self.url, message)
                count += 1
            return count

        # The time until every connection is open is not part of this test.
        await asyncio.gather(*[go(perf_counter() + self.seconds / 4) for _ in range(64)])
        used, begin = _used(), perf_counter()
        counts = await asyncio.gather(*[go(begin + self.seconds) for _ in range(64)])
        return [sum(counts) / (perf_counter() - begin), 1e6 * (_used() - used) / sum(counts)]

    async def _first_event(self, client: Any) -> list[float]:
        message = _call("events", size=200, count=1, format="sse")
        times = []
        end = perf_counter() + self.seconds
        while (begin := perf_counter()) < end:
            came = [perf_counter() - begin async for _ in client.events(self.url, message)]
            times.append(came[0])
        ages = []
        async for text in client.events(self.url, _call("events", format="sse", **PACED)):
            # Both read the same clock, as they run on one machine.
            if left := re.search(r"at (\d+) ns", text):
                ages.append((monotonic_ns() - int(left[1])) / 1e3)
        if len(ages) != PACED["count"]:
            raise RuntimeError(f"{len(ages)} of {PACED['count']} events came")
        return [1e6 * median(times), median(ages), quantiles(ages, n=10)[-1]]

    def _events(self, size: int) -> bytes:
        """Returns a stream of about 16 MiB of events, in the format of the official TypeScript SDK."""
        one = b"event: message\ndata: "
        return (one + b"x" * (size - len(one) - 2) + b"\n\n") * (16 * MIB // size // (16 if self.quick else 1))

    def _notices(self, size: int) -> list[bytes]:
        """Returns about 8 MiB of events of about this size, each with its own progress notification."""
        events = []
        for number in range(8 * MIB // size // (16 if self.quick else 1)):
            params = {"progressToken": "call-17", "progress": number, "message": f"row {number}"}
            notice = {"jsonrpc": "2.0", "method": "notifications/progress", "params": params}
            text = "event: message\ndata: " + json.dumps(notice, separators=(",", ":")) + "\n\n"
            events.append(text.replace("row ", f"row {'x' * (size - len(text))}").encode())
        return events

    def _objects(self, parse: Any, events: list[bytes], chunk: int) -> Measure:
        stream = b"".join(events)

        def measured() -> list[float]:
            chunks = [stream[at : at + chunk] for at in range(0, len(stream), chunk)]
            begin = thread_time()
            total = parse(chunks)
            time = thread_time() - begin
            if total != sum(range(len(events))):
                raise RuntimeError(f"the notifications are {total} together")
            return [len(stream) / 1e6 / time, 1e6 * time / len(events)]

        return measured

    def _parser(self, parse: Any, stream: bytes, chunk: int) -> Measure:
        def measured() -> list[float]:
            # Chunks are separate objects, as from a connection.
            chunks = [stream[at : at + chunk] for at in range(0, len(stream), chunk)]
            begin = thread_time()
            length = parse(chunks)
            time = thread_time() - begin
            if length != stream.count(b"x"):
                raise RuntimeError(f"{length} characters were found")
            return [len(stream) / 1e6 / time]

        return measured

    def _big(self, parse: Any, size: int) -> Measure:
        def measured() -> list[float]:
            before, chunk, after = b"data: ", b"x" * KIB, b"\n\n"
            begin = thread_time()
            length = parse(itertools.chain([before], itertools.repeat(chunk, size // KIB), [after]))
            time = thread_time() - begin
            if length != size:
                raise RuntimeError(f"{length} characters came of {size}")
            return [size / 1e6 / time, 1e3 * time]

        return measured

    def _alone(self, way: str, size: int, what: str = "stream") -> Measure:
        """Measures in a new process, whose memory is not affected by other tests."""
        size = max(1, size // 16) if self.quick else size

        def measured() -> list[float]:
            command = [sys.executable, __file__, "--alone", way, str(size), self.url, what]
            output = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
            figures: list[float] = json.loads(output)
            return figures

        return measured


async def _alone(way: str, size: int, url: str, what: str) -> list[float]:
    """Measures a stream or a whole response of ``size`` MiB: the peak growth of memory in MiB, and MB/s."""
    client = ways.CLIENTS[way]()
    for _ in range(10):
        await _events_of(client, url, 10)
        await client.call(url, _call("text", size=100))
    gc.collect()
    idle = _memory_at_rest()
    begin = perf_counter()
    if what == "stream":
        await _events_of(client, url, size * MIB // (4 * KIB))
    else:
        await client.call(url, _call("text", size=size * MIB))
    time = perf_counter() - begin
    peak = _memory("VmHWM")
    await client.close()
    return [(peak - idle) / KIB, size * MIB / 1e6 / time]


async def _events_of(client: Any, url: str, count: int) -> None:
    found = 0
    async with aclosing(client.events(url, _call("events", size=4 * KIB, count=count, format="sse"))) as events:
        async for _ in events:
            found += 1
    # Add one for the result.
    if found != count + 1:
        raise RuntimeError(f"{found} events came of {count + 1}")


def _call(tool: str, **arguments: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}


def _run(loop: str, measured: Callable[[str], Awaitable[list[float]]], way: str) -> list[float]:
    figures: list[float] = LOOPS[loop](measured(way))
    return figures


def _used() -> float:
    """Returns the processor time of all threads of this process, in seconds."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _memory(name: str) -> int:
    """Returns a memory figure of this process, in KiB."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) if found else 0


def _memory_at_rest() -> int:
    """Resets the peak and returns the resident memory, in KiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _spin() -> float:
    """Returns the milliseconds for a fixed workload."""
    begin = perf_counter()
    number = 1
    for step in range(30_000):
        number = (number * 31 + step) & 0xFFFF
    return 1e3 * (perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench/python/run", description="Measures the Python package.")
    parser.add_argument("--only", default="", metavar="TESTS", help="only tests with these name prefixes (A,B,C)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds for each test")
    parser.add_argument("--quick", action="store_true", help="one short round, to check that it works")
    parser.add_argument("--pin", type=int, metavar="CPU", help="the processor for clients and server")
    parser.add_argument("--record", action="store_true", help="also write docs/performance/python.*")
    parser.add_argument("--server", type=Path, metavar="FILE", help="the built program that has the server")
    parser.add_argument("--results", type=Path, metavar="FILE", help="file for the results")
    parser.add_argument("--alone", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        way, size, url, what = options.alone
        print(json.dumps(asyncio.run(_alone(way, int(size), url, what))))
        return
    if options.quick and options.record:
        parser.error("a quick run is not recorded")
    if options.pin is not None:
        os.sched_setaffinity(0, {options.pin})
    prefixes = tuple(options.only.split(","))
    rounds = 1 if options.quick else options.rounds
    results = report.Results.of_this_machine(_command(options), rounds)
    # The server ends when its stdin does.
    with subprocess.Popen([options.server, "server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        bench = Bench(next(iter(server.stdout or ())).decode().strip(), options.quick)
        for test in bench.tests():
            if not test.name.startswith(prefixes):
                continue
            for _ in range(rounds):
                for way, measured in test.ways.items():
                    gc.collect()
                    results.spins.append(_spin())
                    results.add(test, way, measured())
            print(results.table(test), flush=True)
        server.communicate()
    print(results.conditions())
    if options.results:
        report.write(options.results, [results])
    if options.record:
        folder = Path("docs/performance")
        # Tests that were not repeated keep their results, with the conditions of their run.
        before = report.read(folder / "python.json", bench.tests()) if options.only else []
        runs = [*filter(None, (run.without(results) for run in before)), results]
        report.write(folder / "python.json", runs)
        (folder / "python.md").write_text(report.document(runs))


def _command(options: argparse.Namespace) -> str:
    """Returns the command that repeats this run."""
    words = ["bench/python/run"]
    words += ["--only", options.only] if options.only else []
    words += ["--pin", str(options.pin)] if options.pin is not None else []
    words += ["--quick"] if options.quick else ["--rounds", str(options.rounds)]
    words += ["--record"] if options.record else []
    return " ".join(words)


if __name__ == "__main__":
    main()
