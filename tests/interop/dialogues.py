"""The dialogue of the clients with each server, and its expected results.

A step holds the input of the client scripts (documented in clients/dialogue.py), and the outcome and the events that
their report must then have, exactly.
"""

import itertools
import uuid
from dataclasses import dataclass, field
from typing import Any

from servers import EVERYTHING

# The number of concurrent calls.
TOGETHER = 20

# Characters that are special to JSON, to line splitters, to UTF-8 decoders, to shells or to markup.
AWKWARD = (
    "\U0001f469\u200d\U0001f680 \u2028 \u2029 \x85\v\f\x1c\0\x7f\r\n\t \"'`\\/ ${HOME} <&> \\u0041 \ufeff \U0010fffd"
)
LARGE = "".join(itertools.islice(itertools.cycle('0123456789abcdef \u00e9\u4e2d\U0001f600\\"'), 100_000))
TEXTS = {"awkward": AWKWARD, "empty": "", "large": LARGE}


@dataclass
class Step:
    """One step of a dialogue: its kind, its parameters and its expected results.

    Events that are `apart` have a stream of their own, and may come after the outcome.
    """

    name: str
    do: str
    needs: dict[str, Any]
    outcome: dict[str, Any]
    events: list[list[Any]] = field(default_factory=list)
    apart: bool = False

    def plan(self) -> dict[str, Any]:
        """Returns the step in the form that a client reads."""
        awaited = {"events": len(self.events)} if self.apart else {}
        return {"name": self.name, "do": self.do, **self.needs, **awaited}


def steps_with(server: str, *, modern: bool = False) -> list[Step]:
    """Returns the dialogue with the server of this name, for a client of revision 2026-07-28 if `modern`."""
    if server.endswith("+unlisted"):
        return with_eras_unlisted()
    if server.startswith("eras"):
        return with_eras(server.removeprefix("eras-"), modern=modern)
    if server.startswith("everything"):
        return with_everything(sse=server.endswith("sse"), modern=modern)
    if server == "unsteady":
        return with_unsteady()
    if server.startswith("python"):
        return with_python(json_response=server.endswith("json"))
    return with_gateway(stateful="stateful" in server, modern=modern)


def with_everything(*, sse: bool, modern: bool) -> list[Step]:
    """The reference server. It asks for the roots soon after the start and reports that in its log."""
    operation = "trigger-long-running-operation"
    done = "Long running operation completed. Duration: {} seconds, Steps: {}."
    document = (EVERYTHING / "docs/startup.md").read_text(encoding="utf-8")
    started = [["roots"], ["log", "info", "Roots updated: 2 root(s) received from client"]]
    if sse:
        # It also reports the tools that it adds, before a GET can open a stream.
        started = [["tools changed"]] * 5 + started
    start = Step("start", "listen", {}, {}, started, apart=True)
    if modern:
        # In this revision, a server asks only during a call, and logs only on request.
        start = call("start", operation, {"duration": 1, "steps": 1}, done.format(1, 1), [["roots"]])
    return [
        start,
        call("roots", "get-roots-list", {}, EVERYTHING_ROOTS),
        Step("tools", "list_tools", {}, {"tools": EVERYTHING_TOOLS}),
        *[call(f"echo {name}", "echo", {"message": said}, f"Echo: {said}") for name, said in TEXTS.items()],
        # Sequential calls would take longer than a step may.
        together([(operation, {"duration": 0.5, "steps": 1}, done.format(0.5, 1))] * TOGETHER),
        call(
            "progress",
            operation,
            {"duration": 0.25, "steps": 5},
            done.format(0.25, 5),
            events=[["progress", step, 5, None] for step in range(1, 6)],
            progress=True,
        ),
        call(
            "sampling",
            "trigger-sampling-request",
            {"prompt": "Rain"},
            EVERYTHING_SAMPLED,
            events=[["sampling", "Resource trigger-sampling-request context: Rain"]],
        ),
        call(
            "elicitation",
            "trigger-elicitation-request",
            {},
            EVERYTHING_ELICITED,
            events=[["elicitation", "Please provide inputs for the following fields:"]],
        ),
        Step(
            "unknown tool",
            "call",
            {"tool": "nope", "arguments": {}},
            {"tool_error": "MCP error -32602: Tool nope not found"},
        ),
        Step("resource", "read", {"uri": "demo://resource/static/document/startup.md"}, {"text": document}),
        Step(
            "unknown resource",
            "read",
            {"uri": "demo://nope"},
            {"error": -32602, "message": "MCP error -32602: Resource demo://nope not found"},
        ),
        prompt("args-prompt", {"city": "Z\u00fcrich"}, "What's weather in Z\u00fcrich?"),
        Step("log level", "set_log_level", {"level": "warning"}, {}),
        Step("ping", "ping", {}, {}),
        # Last, because this server continues a cancelled operation and never ends its stream.
        Step("cancel", "cancel", {"tool": operation, "arguments": {"duration": 20, "steps": 200}}, {}),
        Step("ping after cancel", "ping", {}, {}),
    ]


def with_unsteady() -> list[Step]:
    """Our own server that hangs up, forgets sessions and sends messages outside of calls."""
    key = uuid.uuid4().hex
    progress = [["progress", step, 9, None] for step in range(1, 10)]
    logs = [["log", "error", text] for text in ("before", "while away", "after")]
    pushed = [["tools changed"], ["log", "error", "pushed"]]
    once = "executed 1 times"
    touched = [f"touched {number} {key}" for number in range(TOGETHER)]
    interrupted = [f"interrupted {number} {key}" for number in range(5)]
    hang_ups = {how: f"{how} {key}" for how in ("close", "reset", "cut")}

    def forgetting(name: str, **how: Any) -> list[Step]:
        mine = f"{name} {key}"
        touched.append(mine)
        return [
            call(f"forget: {name}", "forget", {"key": mine, **how}, "forgetting"),
            call(f"call after {name}", "touch", {"key": mine}, once),
            call(f"session after {name}", "remembered", {"key": mine}, UNSTEADY_REMEMBERED),
        ]

    return [
        Step("tools", "list_tools", {}, {"tools": UNSTEADY_TOOLS}),
        call("push", "push", {}, "pushed", events=pushed, apart=True),
        call("questions outside of calls", "ask", {}, UNSTEADY_ASKED, events=UNSTEADY_QUESTIONS),
        *[
            call(f"interrupted call: {how}", "interrupted", {"key": mine, "how": how}, once, progress, progress=True)
            for how, mine in hang_ups.items()
        ],
        together([("interrupted", {"key": text, "how": "close"}, once) for text in interrupted]),
        *[
            call(f"interrupted push: {how}", "push_interrupted", {"how": how}, "logged 3", events=logs, apart=True)
            for how in hang_ups
        ],
        Step("log level", "set_log_level", {"level": "error"}, {}),
        Step("subscribe", "subscribe", {"uri": "unsteady://weather"}, {}),
        *forgetting("404", status=404),
        *forgetting("400", status=400),
        *forgetting("404 and hanging up", status=404, hang_up=True),
        # Many calls find at once that the session is gone.
        call("forget: 404 again", "forget", {"key": f"again {key}", "status": 404}, "forgetting"),
        together([("touch", {"key": text}, once) for text in touched[:TOGETHER]], "calls together after 404"),
        call("session after calls together", "remembered", {"key": f"again {key}"}, UNSTEADY_REMEMBERED),
        call("push in the new session", "push", {}, "pushed", events=pushed, apart=True),
        call("executions", "not_once", {"keys": [*touched, *interrupted, *hang_ups.values()]}, ""),
        Step("ping", "ping", {}, {}),
    ]


def with_python(*, json_response: bool) -> list[Step]:
    """Our own server. With JSON answers, only the answer of a call reaches the client."""
    key = uuid.uuid4().hex
    steps = [
        Step("tools", "list_tools", {}, {"tools": PYTHON_TOOLS}),
        *[call(f"echo {name}", "echo", {"text": said}, said) for name, said in TEXTS.items()],
        together([("meet", {"key": key, "size": TOGETHER}, f"{TOGETHER} of {TOGETHER}")] * TOGETHER),
        Step("unknown tool", "call", {"tool": "nope", "arguments": {}}, {"tool_error": "Unknown tool: nope"}),
        Step("resource", "read", {"uri": "interop://greeting"}, {"text": GREETING}),
        Step(
            "unknown resource",
            "read",
            {"uri": "interop://nope"},
            {"error": 0, "message": "Unknown resource: interop://nope"},
        ),
        prompt("introduce", {"name": "\u5f20\u4f1f"}, "Please introduce \u5f20\u4f1f."),
        Step("log level", "set_log_level", {"level": "warning"}, {}),
        Step("ping", "ping", {}, {}),
        Step(
            "cancel",
            "cancel",
            {"tool": "sleep", "arguments": {"key": key}, "state": "sleep_state"},
            {"state": "cancelled"},
        ),
        Step("ping after cancel", "ping", {}, {}),
    ]
    count = call("progress", "count", {"steps": 100}, "counted to 100", progress=True)
    log = call("log messages", "log", {"messages": ["one", AWKWARD, "three"]}, "logged 3")
    if json_response:
        return [*steps, count, log]
    count.events = [["progress", step, 100, f"step {step}"] for step in range(1, 101)]
    log.events = [["log", "warning", "one"], ["log", "error", AWKWARD], ["log", "warning", "three"]]
    return [
        *steps,
        count,
        log,
        Step(
            "progress while open",
            "call_released",
            {"tool": "hold", "arguments": {"key": key}, "release": "release"},
            {"text": f"released {key}"},
            [["progress", 1, 1, "holding"]],
        ),
        call("sampling", "ask_model", {"prompt": "Rain"}, "parrot said: Rain? Yes.", events=[["sampling", "Rain"]]),
        call("elicitation", "ask_user", {"question": "Who?"}, PYTHON_ELICITED, events=[["elicitation", "Who?"]]),
        call("roots", "ask_roots", {}, PYTHON_ROOTS, events=[["roots"]]),
    ]


def with_eras(mode: str, *, modern: bool) -> list[Step]:
    """Our own servers of either era. All clients have the same dialogue with them, except for the steps in LEFT_OUT."""
    key = uuid.uuid4().hex
    modern_server = mode == "modern" or (mode in ("dual", "python") and modern)
    left_out = LEFT_OUT["modern"] if modern_server else LEFT_OUT.get(mode, {})
    asked = [["elicitation", "Who?"]]
    # Up to 2025-11-25 a server logs everything until it gets a level; from 2026-07-28 on it logs nothing.
    unasked = [] if modern or modern_server else [["log", level, f"unasked {level}"] for level in ERAS_LEVELS]
    from_warning = [["log", level, f"asked {level}"] for level in ERAS_LEVELS[2:]]
    uri = "eras://greeting"
    changed, updated = [["tools changed"]], [["updated", uri]]
    tools = ERAS_TOOLS if "elicitation apart" in left_out else sorted([*ERAS_TOOLS, "ask_apart"])
    steps = [
        Step("tools", "list_tools", {}, {"tools": tools}),
        *[call(f"echo {name}", "echo", {"text": said}, said) for name, said in TEXTS.items()],
        *[
            call(f"header {name}", "route", {"region": region, "text": "yes"}, f"{region}: yes")
            for name, region in REGIONS.items()
        ],
        together([("echo", {"text": f"text {number}"}, f"text {number}") for number in range(TOGETHER)]),
        call(
            "progress",
            "count",
            {"steps": 100},
            "counted to 100",
            [["progress", step, 100, f"step {step}"] for step in range(1, 101)],
            progress=True,
        ),
        Step(
            "progress while open",
            "call_released",
            {"tool": "hold", "arguments": {"key": key}, "release": "release"},
            {"text": f"released {key}"},
            [["progress", 1, 1, "holding"]],
        ),
        Step("unknown tool", "call", {"tool": "nope", "arguments": {}}, ERAS_NO_TOOL[mode == "python"]),
        Step("resource", "read", {"uri": uri}, {"text": GREETING}),
        Step("unknown resource", "read", {"uri": "eras://nope"}, ERAS_NO_RESOURCE[mode == "python"]),
        # Servers reuse old error codes for new errors.
        *[
            Step(
                f"failing resource {code}",
                "read",
                {"uri": f"eras://fails/{-code}"},
                {"error": code, "message": "Out of ink"},
            )
            for code in (-32000, -32001, -32600, -32603, 1)
        ],
        prompt("introduce", {"name": "\u5f20\u4f1f"}, "Please introduce \u5f20\u4f1f."),
        Step(
            "cancel",
            "cancel",
            {"tool": "sleep", "arguments": {"key": key}, "state": "sleep_state"},
            {"state": "cancelled"},
        ),
        Step("ping after cancel", "ping", {}, {}),
        call("elicitation", "ask_user", {"question": "Who?"}, PYTHON_ELICITED, asked),
        call("elicitation apart", "ask_apart", {"question": "Who?"}, PYTHON_ELICITED, asked),
        call("sampling", "ask_model", {"prompt": "Rain"}, "parrot said: Rain? Yes.", [["sampling", "Rain"]]),
        call("roots", "ask_roots", {}, PYTHON_ROOTS, [["roots"]]),
        call(
            "questions together",
            "ask_both",
            {"question": "Who?", "prompt": "Rain"},
            f"{PYTHON_ELICITED}; parrot said: Rain? Yes.",
            [*asked, ["sampling", "Rain"]],
        ),
        call(
            "questions in turn",
            "ask_twice",
            {"question": "Who?"},
            f"{PYTHON_ELICITED}; parrot said: {PERSON_NAME}? Yes.",
            [*asked, ["sampling", PERSON_NAME]],
        ),
        call("log unasked", "log", {"text": "unasked"}, "logged 4", unasked),
        Step("log level", "set_log_level", {"level": "warning"}, {}),
        call("log", "log", {"text": "asked"}, "logged 4", from_warning),
        Step("watch tools", "watch_tools", {}, {}),
        call("tools changed", "change_tools", {}, "changed", changed, apart=True),
        Step("subscribe", "subscribe", {"uri": uri}, {}),
        call("updated", "touch", {"uri": uri}, "touched", updated, apart=True),
        call("other resource", "touch", {"uri": "eras://other"}, "touched"),
        call("tools changed while subscribed", "change_tools", {}, "changed", changed, apart=True),
        Step("unsubscribe", "unsubscribe", {"uri": uri}, {}),
        # An SDK may send the end of a subscription only together with its next request.
        Step("ping after unsubscribe", "ping", {}, {}),
        call("no longer subscribed", "touch", {"uri": uri}, "touched"),
        # This also shows that the touch before caused no notification: it would have come first.
        call("tools changed again", "change_tools", {}, "changed", changed, apart=True),
        Step("ping", "ping", {}, {}),
    ]
    assert left_out.keys() <= {step.name for step in steps}
    return [step for step in steps if step.name not in left_out]


def with_eras_unlisted() -> list[Step]:
    """The same servers for a client that already knows the tools, and starts by listening for changes."""
    return [
        Step("watch tools", "watch_tools", {}, {}),
        *[
            call(f"header {name}", "route", {"region": region, "text": "yes"}, f"{region}: yes")
            for name, region in REGIONS.items()
        ],
        call("tools changed", "change_tools", {}, "changed", [["tools changed"]], apart=True),
    ]


def with_gateway(*, stateful: bool, modern: bool) -> list[Step]:
    """Our own server behind the ContextForge gateway, which may run calls one after the other.

    It also forwards progress, but on a separate stream, which needs a session.
    """
    progress = [["progress", step, 3, f"step {step}"] for step in range(1, 4)] if stateful else []
    return [
        Step("tools", "list_tools", {}, {"tools": sorted(gateway_name(tool) for tool in PYTHON_TOOLS)}),
        *[call(f"echo {name}", gateway_name("echo"), {"text": said}, said) for name, said in TEXTS.items()],
        together([(gateway_name("echo"), {"text": f"text {number}"}, f"text {number}") for number in range(TOGETHER)]),
        # On a separate stream, progress may come after the answer. For a client of 2026-07-28 it then belongs to no
        # request.
        call("progress", gateway_name("count"), {"steps": 3}, "counted to 3")
        if modern
        else call("progress", gateway_name("count"), {"steps": 3}, "counted to 3", progress, progress=True, apart=True),
        Step(
            "unknown tool",
            "call",
            {"tool": "interop-nope", "arguments": {}},
            {"tool_error": "Tool not found: interop-nope"},
        ),
        Step("resource", "read", {"uri": "interop://greeting"}, {"text": GREETING}),
        Step(
            "unknown resource",
            "read",
            {"uri": "interop://nope"},
            {"error": 0, "message": "Resource template not found for 'interop://nope'"},
        ),
        prompt(gateway_name("introduce"), {"name": "\u5f20\u4f1f"}, "Please introduce \u5f20\u4f1f."),
        Step("log level", "set_log_level", {"level": "warning"}, {}),
        Step("ping", "ping", {}, {}),
    ]


def call(
    name: str,
    tool: str,
    arguments: dict[str, Any],
    answer: Any,
    events: list[list[Any]] | None = None,
    *,
    progress: bool = False,
    apart: bool = False,
) -> Step:
    """Returns a tool call that is answered with one text."""
    needs = {"tool": tool, "arguments": arguments, "progress": progress}
    return Step(name, "call", needs, {"text": answer}, events or [], apart)


def together(calls: list[tuple[str, dict[str, Any], str]], name: str = "calls together") -> Step:
    """Returns concurrent tool calls, each with its answer."""
    needs = {"calls": [{"tool": tool, "arguments": arguments} for tool, arguments, _ in calls]}
    outcome = {"outcomes": [{"text": answer} for _, _, answer in calls]}
    return Step(name, "call_together", needs, outcome)


def prompt(name: str, arguments: dict[str, str], answer: str) -> Step:
    """Returns a prompt of one text."""
    return Step("prompt", "prompt", {"prompt": name, "arguments": arguments}, {"text": answer})


def gateway_name(name: str) -> str:
    """Returns the gateway's name for a tool or prompt of the server that is registered as `interop`."""
    return f"interop-{name.replace('_', '-')}"


PYTHON_TOOLS = [
    "ask_model",
    "ask_roots",
    "ask_user",
    "count",
    "echo",
    "hold",
    "log",
    "meet",
    "release",
    "sleep",
    "sleep_state",
]
PERSON_NAME = "Ada \u2028 \U0001f469"
PYTHON_ELICITED = f"accept: {PERSON_NAME} is 36"
PYTHON_ROOTS = "file:///srv/interop interop, file:///srv/gr%C3%BC%C3%9Fe gr\u00fc\u00dfe"
GREETING = "gr\u00fc\u00dfe \u2028 \U0001f44b"

ERAS_TOOLS = [
    "ask_both",
    "ask_model",
    "ask_roots",
    "ask_twice",
    "ask_user",
    "change_tools",
    "count",
    "echo",
    "hold",
    "log",
    "release",
    "route",
    "sleep",
    "sleep_state",
    "touch",
]
ERAS_LEVELS = ["debug", "info", "warning", "error"]
# The TypeScript SDK's outcome and the Python SDK's.
ERAS_NO_TOOL = [{"error": -32602, "message": "Tool nope not found"}, {"tool_error": "Unknown tool: nope"}]
ERAS_NO_RESOURCE = [
    {"error": -32602, "message": "Resource not found: eras://nope"},
    {"error": -32602, "message": "Unknown resource: eras://nope"},
]
# Values that a header cannot carry directly: non-ASCII, empty, with spaces around them, and apparently encoded ones.
REGIONS = {
    "plain": "eu-west 1",
    "text": "Z\u00fcrich\t\u2028",
    "empty": "",
    "spaces": " x ",
    "encoded": "=?base64?eA==?=",
}

NO_QUESTIONS = "without a session nothing ties a client's answer to the server's question"
NO_LEVEL = "the level belongs to the session"
NO_TOOL = "its SDK has that for 2026-07-28 only"
NO_GET = "what belongs to no call needs a GET stream, and that needs a session"
# The steps that a server does not support, with the reason: under "modern" for 2026-07-28, under the server's mode for
# earlier revisions.
LEFT_OUT = {
    "legacy-stateless": {
        "elicitation": NO_QUESTIONS,
        "elicitation apart": NO_QUESTIONS,
        "sampling": NO_QUESTIONS,
        "roots": NO_QUESTIONS,
        "questions together": NO_QUESTIONS,
        "questions in turn": NO_QUESTIONS,
        "cancel": "without a session nothing tells which call a notification of cancelling is about",
        "log level": NO_LEVEL,
        "log": NO_LEVEL,
        "watch tools": NO_GET,
        "tools changed": NO_GET,
        "subscribe": NO_GET,
        "updated": NO_GET,
        "other resource": NO_GET,
        "tools changed while subscribed": NO_GET,
        "unsubscribe": NO_GET,
        "no longer subscribed": NO_GET,
        "tools changed again": NO_GET,
    },
    "python": {
        "elicitation apart": NO_TOOL,
        "log level": NO_TOOL,
        "log": NO_TOOL,
        "subscribe": NO_TOOL,
        "updated": NO_TOOL,
        "tools changed while subscribed": NO_TOOL,
        "unsubscribe": NO_TOOL,
    },
    "modern": {
        "elicitation apart": "from 2026-07-28 on servers ask in answers only",
    },
}

UNSTEADY_TOOLS = ["ask", "forget", "interrupted", "not_once", "push", "push_interrupted", "remembered", "touch"]
UNSTEADY_REMEMBERED = "1 new, introduced as before, log level error, subscribed unsteady://weather"
UNSTEADY_QUESTIONS = [["roots"], ["elicitation", "Who?"], ["sampling", "Rain"]]
UNSTEADY_ASKED = "file:///srv/interop file:///srv/gr%C3%BC%C3%9Fe, Ada \u2028 \U0001f469 is 36, Rain? Yes."

EVERYTHING_TOOLS = [
    "echo",
    "get-annotated-message",
    "get-env",
    "get-resource-links",
    "get-resource-reference",
    "get-roots-list",
    "get-structured-content",
    "get-sum",
    "get-tiny-image",
    "gzip-file-as-resource",
    "simulate-research-query",
    "toggle-simulated-logging",
    "toggle-subscriber-updates",
    "trigger-elicitation-request",
    "trigger-long-running-operation",
    "trigger-sampling-request",
    "trigger-url-elicitation",
]
EVERYTHING_ROOTS = """Current MCP Roots (2 total):

1. interop
   URI: file:///srv/interop

2. gr\u00fc\u00dfe
   URI: file:///srv/gr%C3%BC%C3%9Fe

Note: This server demonstrates the roots protocol capability but doesn't actually access files. \
The roots are provided by the MCP client and can be used by servers that need file system access."""
EVERYTHING_SAMPLED = """LLM sampling result: 
{
  "model": "parrot",
  "role": "assistant",
  "content": {
    "type": "text",
    "text": "Resource trigger-sampling-request context: Rain? Yes."
  }
}"""
EVERYTHING_ELICITED = """\u2705 User provided the requested information!User inputs:
- Name: Ada \u2028 \U0001f469
Raw result: {
  "action": "accept",
  "content": {
    "name": "Ada \u2028 \U0001f469",
    "age": 36
  }
}"""
