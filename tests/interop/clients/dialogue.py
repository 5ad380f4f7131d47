"""Shared by the Python clients: runs the steps of a plan in order, and reports the results.

A client script reads its plan as one JSON object from stdin and prints one JSON report:

    plan:    {"launch": {"command", "args", "env"}, "stderr": path, "mode": mode, "browser": [command that opens URLs],
              "steps": [step, ...]}
    mode:    "legacy" for revisions with a handshake, "2026-07-28" for only that one, "auto" to ask for it first
    step:    {"name", "do": one of the methods of Dialogue below, and its parameters,
              "events": how many to wait for, if they may come after the outcome}
    report:  {"protocol": version, "server": name, "steps": {name: {"outcome", "events"}},
              "complaints": [the SDK's errors about the bridge's stdout], "late": [events after the last step],
              "failure": the error that ended the connection early or that occurred when closing it, or null}

An outcome is {"text": ...}, {"tool_error": text}, {"error": code, "message": ...} for a JSON-RPC error, {"hang": limit}
for a step that took too long, or one that a method below documents. Events are the calls of the client's callbacks
during the step; the first step includes those since the connection: ["progress", progress, total, message],
["log", level, data], ["sampling", prompt], ["elicitation", message], ["roots"], ["tools changed"], ["updated", uri].

In revision 2026-07-28, server/discover replaces the ping, each request has its own log level, and a server notifies
only subscribers of changes.
"""

import asyncio
import contextlib
import json
import sys
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

import anyio
import mcp.types as types

STEP_LIMIT = 8.0
DIALOGUE_LIMIT = 16.0
ROOTS = [("file:///srv/interop", "interop"), ("file:///srv/gr%C3%BC%C3%9Fe", "grüße")]
PERSON = {"name": "Ada \u2028 \U0001f469", "age": 36}

Outcome = dict[str, Any]
# Called with the progress, its total and its message.
OnProgress = Callable[[float, float | None, str | None], Awaitable[None]]


class Sdk(Protocol):
    """One version of the SDK behind a common interface."""

    async def list_tools(self) -> list[str]: ...
    async def call(self, tool: str, arguments: dict[str, Any], on_progress: OnProgress | None) -> Outcome: ...
    async def read(self, uri: str) -> str: ...
    async def prompt(self, name: str, arguments: dict[str, str]) -> str: ...
    async def ping(self) -> None: ...
    async def set_log_level(self, level: str) -> None: ...
    async def watch_tools(self) -> None: ...
    async def subscribe(self, uri: str) -> None: ...
    async def unsubscribe(self, uri: str) -> None: ...
    async def cancel(self, call: "asyncio.Task[Outcome]") -> None: ...
    def rpc_error(self, error: Exception) -> Outcome | None: ...
    def sign_in_url(self, error: Exception) -> str: ...


class Dialogue:
    """Does the steps, one method for each kind, and keeps the report."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        self.events: list[list[Any]] = []
        self.seen = asyncio.Event()
        self.on_progress: OnProgress = ignore_progress
        self.report: dict[str, Any] = {"steps": {}, "complaints": [], "late": [], "failure": None}

    async def run(self, sdk: Sdk) -> None:
        """Does all steps. A step that fails or hangs does not prevent the next one."""
        self.sdk = sdk
        end = time.monotonic() + DIALOGUE_LIMIT
        for step in self.plan["steps"]:
            limit = max(0.0, min(STEP_LIMIT, end - time.monotonic()))
            try:
                with anyio.fail_after(limit):
                    outcome = await getattr(self, step["do"])(step)
                    while len(self.events) < step.get("events", 0):
                        self.seen.clear()
                        await self.seen.wait()
            except TimeoutError:
                outcome = {"hang": limit}
            except Exception as error:
                outcome = sdk.rpc_error(error) or {"exception": repr(error)}
            self.report["steps"][step["name"]] = {"outcome": outcome, "events": self.events}
            self.events = []
        self.events = self.report["late"]

    def saw(self, *event: Any) -> None:
        """Records an event. The SDK's callbacks call this."""
        self.events.append(list(event))
        self.seen.set()

    def complain(self, complaint: object) -> None:
        """Records input that the SDK could not process."""
        self.report["complaints"].append(repr(complaint))

    async def listen(self, step: dict[str, Any]) -> Outcome:
        """Only waits for the step's events."""
        return {}

    async def list_tools(self, step: dict[str, Any]) -> Outcome:
        """The outcome is {"tools": names}."""
        return {"tools": sorted(await self.sdk.list_tools())}

    async def call(self, step: dict[str, Any]) -> Outcome:
        """Calls a tool, asking for progress if the step says so."""
        if not step.get("progress"):
            return await self.sdk.call(step["tool"], step["arguments"], None)
        self.on_progress = self.note_progress
        return await self.sdk.call(step["tool"], step["arguments"], ignore_progress)

    async def sign_in(self, step: dict[str, Any]) -> Outcome:
        """Calls a tool that needs a sign-in. The outcome is the call's, or the error, which says where to sign in."""
        try:
            return await self.sdk.call(step["tool"], step["arguments"], None)
        except Exception as error:
            await self.browse(self.sdk.sign_in_url(error))
            return self.sdk.rpc_error(error)

    async def browse(self, url: str) -> None:
        """Opens a URL in the user's browser."""
        browser = await asyncio.create_subprocess_exec(*self.plan["browser"], url)
        assert await browser.wait() == 0

    async def call_released(self, step: dict[str, Any]) -> Outcome:
        """Calls a tool that answers only after a second call, made when the first call's progress arrives."""
        progressed = asyncio.Event()

        async def on_progress(*progress: Any) -> None:
            await self.note_progress(*progress)
            progressed.set()

        self.on_progress = on_progress
        async with self.open_call(step) as held:
            await progressed.wait()
            await self.sdk.call(step["release"], step["arguments"], None)
            return await held

    async def call_together(self, step: dict[str, Any]) -> Outcome:
        """Makes the calls at once. The outcome is {"outcomes": [one for each, in order]}."""
        calls = [self.sdk.call(call["tool"], call["arguments"], None) for call in step["calls"]]
        return {"outcomes": await asyncio.gather(*calls)}

    async def cancel(self, step: dict[str, Any]) -> Outcome:
        """Calls a tool and cancels the call once it runs.

        If the step names a tool that reports the call's state, the outcome is {"state": the last one reported}.
        Otherwise the first progress shows that the call runs, and the outcome is {}.
        """
        progressed = asyncio.Event()

        async def on_progress(*_: Any) -> None:
            progressed.set()

        self.on_progress = on_progress
        async with self.open_call(step) as call:
            if "state" not in step:
                await progressed.wait()
                await self.sdk.cancel(call)
                return {}
            await self.state_is("open", step)
            await self.sdk.cancel(call)
            return {"state": await self.state_is("cancelled", step)}

    async def read(self, step: dict[str, Any]) -> Outcome:
        return {"text": await self.sdk.read(step["uri"])}

    async def prompt(self, step: dict[str, Any]) -> Outcome:
        return {"text": await self.sdk.prompt(step["prompt"], step["arguments"])}

    async def ping(self, step: dict[str, Any]) -> Outcome:
        await self.sdk.ping()
        return {}

    async def set_log_level(self, step: dict[str, Any]) -> Outcome:
        await self.sdk.set_log_level(step["level"])
        return {}

    async def watch_tools(self, step: dict[str, Any]) -> Outcome:
        await self.sdk.watch_tools()
        return {}

    async def subscribe(self, step: dict[str, Any]) -> Outcome:
        await self.sdk.subscribe(step["uri"])
        return {}

    async def unsubscribe(self, step: dict[str, Any]) -> Outcome:
        await self.sdk.unsubscribe(step["uri"])
        return {}

    async def note_progress(self, progress: float, total: float | None, message: str | None) -> None:
        self.saw("progress", progress, total, message)

    @contextlib.asynccontextmanager
    async def open_call(self, step: dict[str, Any]) -> AsyncIterator["asyncio.Task[Outcome]"]:
        """Calls the step's tool, with progress, and cancels the call at the end of the block."""
        call = asyncio.create_task(self.sdk.call(step["tool"], step["arguments"], ignore_progress))
        try:
            yield call
        finally:
            call.cancel()

    async def state_is(self, wanted: str, step: dict[str, Any]) -> str:
        """Polls the state of the step's call until it is the wanted one, or half of the step's time is over."""
        state = ""
        with anyio.move_on_after(STEP_LIMIT / 2):
            while state != wanted:
                state = (await self.sdk.call(step["state"], step["arguments"], None))["text"]
        return state


class Callbacks:
    """The client's responses to the server. The types used here are the same in both versions of the SDK."""

    def __init__(self, dialogue: Dialogue) -> None:
        self.dialogue = dialogue

    async def sampling(self, _: Any, params: types.CreateMessageRequestParams) -> types.CreateMessageResult:
        prompt = params.messages[0].content.text
        self.dialogue.saw("sampling", prompt)
        content = types.TextContent(type="text", text=f"{prompt}? Yes.")
        return types.CreateMessageResult(role="assistant", content=content, model="parrot")

    async def elicitation(self, _: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        self.dialogue.saw("elicitation", params.message)
        if params.mode == "url":
            # In a modern dialogue the call waits for this; otherwise its error also has the URL.
            if self.dialogue.sdk.modern:
                await self.dialogue.browse(params.url)
            return types.ElicitResult(action="accept")
        return types.ElicitResult(action="accept", content=PERSON)

    async def roots(self, _: Any) -> types.ListRootsResult:
        self.dialogue.saw("roots")
        return types.ListRootsResult(roots=[types.Root(uri=uri, name=name) for uri, name in ROOTS])

    async def log(self, params: types.LoggingMessageNotificationParams) -> None:
        self.dialogue.saw("log", params.level, params.data)

    async def message(self, message: Any) -> None:
        if isinstance(message, Exception):
            self.dialogue.complain(message)
        # The SDK 1.x wraps notifications.
        match getattr(message, "root", message):
            case types.ToolListChangedNotification():
                self.dialogue.saw("tools changed")
            case types.ResourceUpdatedNotification(params=params):
                self.dialogue.saw("updated", str(params.uri))
            case types.ProgressNotification(params=params):
                await self.dialogue.on_progress(params.progress, params.total, params.message)


async def ignore_progress(progress: float, total: float | None, message: str | None) -> None:
    """Makes the SDK ask for progress. The SDK drops progress after the answer, so the message handler records it."""


def main(talk: Callable[[Dialogue], Awaitable[None]]) -> None:
    """Reads the plan, lets `talk` connect and run the dialogue, prints the report."""
    dialogue = Dialogue(json.load(sys.stdin))
    try:
        asyncio.run(talk(dialogue))
    except Exception:
        # Report the steps that were already done.
        dialogue.report["failure"] = traceback.format_exc()
    json.dump(dialogue.report, sys.stdout)
