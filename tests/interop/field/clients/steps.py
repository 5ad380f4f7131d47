"""Shared by the Python clients: runs dialogues in order, and reports each of them.

A client script reads its plan as one JSON object from stdin and prints one JSON report a line, as each dialogue ends:

    plan:     {"dialogues": [dialogue, ...], "steps": [step, ...], "limit": seconds for a step}
    dialogue: {"name", "mode": of negotiation, if the client has several, and "url" and "transport" ("http" or "sse") to
               connect to the server directly, or "launch": {"command", "args"} for the bridge}
    step:     {"name", "do": a method of Framework, and its parameters, "until": the beginning of the event to wait for
               without the bridge; with the bridge, the step waits for the same number of events}
    report:   {"name", "steps": {name: {"outcome", "events"}}, "complaints": [input that the framework could not
               process], "failure": the error that ended the dialogue, or null}

An outcome is the client's view of the answer, in JSON; {"error": code, "message"} for a JSON-RPC error, {"exception"}
for any other, {"hang": true}, and {"lacks": method} if the framework cannot do the step. Events are the calls of its
callbacks meanwhile: ["progress", ...], ["log", level, data], ["elicitation", message], ["tools changed"],
["updated", uri].
"""

import asyncio
import contextlib
import json
import logging
import os
import sys
import traceback
import warnings
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio

PERSON = {"name": "Ada \u2028 \U0001f469", "age": 36}


class Framework:
    """A connected client of one framework. Subclasses have a method for each supported operation."""

    # The kinds of events that it can report.
    hears: tuple[str, ...] = ("progress", "log", "elicitation", "tools changed", "updated")

    def __init__(self, dialogue: dict[str, Any], saw: Callable[..., None], complain: Callable[[str], None]) -> None:
        self.dialogue = dialogue
        self.saw = saw
        self.complain = complain

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Connects, and closes at the end."""
        raise NotImplementedError
        yield

    async def call(self, tool: str, arguments: dict[str, Any], progress: bool) -> Any:
        """Calls a tool."""
        raise NotImplementedError

    async def together(self, tool: str, calls: list[dict[str, Any]]) -> Any:
        """Calls a tool several times at once."""
        return await asyncio.gather(*[self.call(tool, arguments, False) for arguments in calls])

    async def log(self, params: Any) -> None:
        self.saw("log", params.level, params.data)

    async def message(self, message: Any) -> None:
        """Handles a message from the SDK's message handler, of any version of the SDK."""
        if isinstance(message, Exception):
            self.complain(repr(message))
        message = getattr(message, "root", message)
        match type(message).__name__:
            case "ToolListChangedNotification":
                self.saw("tools changed")
            case "ResourceUpdatedNotification":
                self.saw("updated", str(message.params.uri))


def plain(value: Any) -> Any:
    """Converts the value to JSON."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", by_alias=True, exclude_none=True)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return value if isinstance(value, str | int | float | bool | None) else repr(value)


def error_outcome(error: BaseException) -> dict[str, Any]:
    """Returns the outcome of a step that raised: the innermost JSON-RPC error, or the exception."""
    while getattr(error, "exceptions", None):
        error = error.exceptions[0]
    data = getattr(error, "error", None)
    if isinstance(getattr(data, "code", None), int):
        return {"error": data.code, "message": data.message}
    return {"exception": f"{type(error).__name__}: {error}"}


def succeeded(outcome: Any) -> bool:
    """True if a step succeeded, so that its events can come."""
    return not (isinstance(outcome, dict) and outcome.keys() & {"error", "exception", "hang", "lacks"})


def heard_all(make: type[Framework], step: dict[str, Any], events: list[list[Any]], seen: dict[str, int]) -> bool:
    """True if no further events are expected."""
    if step["name"] in seen:
        return len(events) >= seen[step["name"]]
    until = step.get("until") or []
    return not until or until[0] not in make.hears or any(event[: len(until)] == until for event in events)


async def run_step(framework: Framework, step: dict[str, Any], limit: float) -> Any:
    """Does one step and returns its outcome."""
    needs = {key: value for key, value in step.items() if key not in ("name", "do", "until")}
    method = getattr(framework, step["do"], None)
    if method is None:
        return {"lacks": step["do"]}
    try:
        with anyio.fail_after(limit):
            return plain(await method(**needs))
    except TimeoutError:
        return {"hang": True}
    except Exception as error:
        return error_outcome(error)


async def run_dialogue(
    make: type[Framework], report: dict[str, Any], plan: dict[str, Any], dialogue: dict[str, Any], seen: dict[str, int]
) -> None:
    """Does all steps, also after failures. Records in `seen` how many events each step saw."""
    limit = plan["limit"]
    events: list[list[Any]] = []
    heard = asyncio.Event()

    def saw(*event: Any) -> None:
        events.append(list(event))
        heard.set()

    framework = make(dialogue, saw, report["complaints"].append)
    async with framework.connected():
        for step in plan["steps"]:
            outcome = await run_step(framework, step, limit)
            # Events on other streams may come later. Without the bridge they may also never come.
            with anyio.move_on_after(limit / 2 if step["name"] in seen else 1):
                while succeeded(outcome) and not heard_all(make, step, events, seen):
                    heard.clear()
                    await heard.wait()
            seen[step["name"]] = len(events)
            report["steps"][step["name"]] = {"outcome": outcome, "events": list(events)}
            events.clear()


async def run_all(make: type[Framework], plan: dict[str, Any]) -> None:
    """Does all dialogues."""
    seen: dict[str, int] = {}
    for dialogue in plan["dialogues"]:
        if "url" in dialogue:
            seen = {}
        report: dict[str, Any] = {"name": dialogue["name"], "steps": {}, "complaints": [], "failure": None}
        try:
            # In a separate task, so that leftovers of a framework do not affect the next dialogue.
            await asyncio.wait_for(run_dialogue(make, report, plan, dialogue, seen), 4 * plan["limit"])
        except Exception as error:
            traceback.print_exc()
            report["failure"] = error_outcome(error)
        print(json.dumps(report), file=REPORTS, flush=True)


def main(make: type[Framework]) -> None:
    """Reads the plan, does it, prints the reports."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    asyncio.run(run_all(make, json.load(sys.stdin)))


# Keep the output of frameworks away from the reports.
REPORTS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
