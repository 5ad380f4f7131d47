"""An MCP server on the Python SDK 1.x that exercises all messages that a bridge must carry.

Run it as `server.py PORT [--json]`; it serves Streamable HTTP with sessions at http://127.0.0.1:PORT/mcp and answers
with Server-Sent Events, or with plain JSON bodies under --json.

Messages that a tool sends to the client while it runs (progress, logs, sampling, elicitation, roots) are marked as
related to the call, so they travel on the event stream that answers the call's own POST. Tools that prove that
something happens *while* a call is open wait for another call, not for a clock; WAIT_LIMIT only ends a tool that would
hang for ever.
"""

import argparse
from collections import defaultdict

import anyio
import mcp.types as types
from mcp.server.fastmcp import Context, FastMCP
from mcp.shared.message import ServerMessageMetadata
from pydantic import BaseModel

WAIT_LIMIT = 30.0

mcp = FastMCP("interop", instructions="Tools that report how they were called.", host="127.0.0.1", log_level="INFO")


@mcp.tool()
def echo(text: str) -> str:
    """Answer with the text, verbatim."""
    return text


@mcp.tool()
async def count(steps: int, ctx: Context) -> str:
    """Report progress from 1 to steps, then answer."""
    for step in range(1, steps + 1):
        await ctx.report_progress(step, steps, f"step {step}")
    return f"counted to {steps}"


@mcp.tool()
async def hold(key: str, ctx: Context) -> str:
    """Report one progress, then answer only when `release` was called with the same key.

    A client that sees the progress no sooner than the answer never calls `release`.
    """
    await ctx.report_progress(1, 1, "holding")
    with anyio.fail_after(WAIT_LIMIT):
        await released[key].wait()
    return f"released {key}"


@mcp.tool()
def release(key: str) -> str:
    """Let the `hold` with this key answer."""
    released[key].set()
    return f"releasing {key}"


@mcp.tool()
async def meet(key: str, size: int) -> str:
    """Answer only when `size` calls with this key are open at once."""
    meeting = meetings[key]
    meeting.present += 1
    if meeting.present == size:
        meeting.complete.set()
    with anyio.fail_after(WAIT_LIMIT):
        await meeting.complete.wait()
    return f"{meeting.present} of {size}"


@mcp.tool()
async def log(messages: list[str], ctx: Context) -> str:
    """Send each message as a log notification, by turns of level warning and error."""
    for index, message in enumerate(messages):
        await ctx.log("warning" if index % 2 == 0 else "error", message, logger_name="interop")
    return f"logged {len(messages)}"


@mcp.tool()
async def ask_model(prompt: str, ctx: Context) -> str:
    """Ask the client's model (sampling) and answer with what it said."""
    answer = await ctx.session.create_message(
        [types.SamplingMessage(role="user", content=types.TextContent(type="text", text=prompt))],
        max_tokens=100,
        related_request_id=ctx.request_id,
    )
    assert isinstance(answer.content, types.TextContent)
    return f"{answer.model} said: {answer.content.text}"


class Person(BaseModel):
    """What `ask_user` asks for."""

    name: str
    age: int


@mcp.tool()
async def ask_user(question: str, ctx: Context) -> str:
    """Ask the client's user (elicitation) and answer with what they filled in."""
    answer = await ctx.elicit(question, Person)
    if answer.action != "accept":
        return answer.action
    return f"{answer.action}: {answer.data.name} is {answer.data.age}"


@mcp.tool()
async def ask_roots(ctx: Context) -> str:
    """Ask the client for its roots and answer with their URIs and names."""
    # session.list_roots() cannot name the call that it belongs to, so it would go to the GET stream.
    answer = await ctx.session.send_request(
        types.ServerRequest(types.ListRootsRequest()),
        types.ListRootsResult,
        metadata=ServerMessageMetadata(related_request_id=ctx.request_id),
    )
    return ", ".join(f"{root.uri} {root.name}" for root in answer.roots)


@mcp.tool()
async def sleep(key: str) -> str:
    """Do nothing for longer than anyone waits; remember under the key that the call was cancelled."""
    sleeps[key] = "open"
    try:
        await anyio.sleep(WAIT_LIMIT)
    except anyio.get_cancelled_exc_class():
        sleeps[key] = "cancelled"
        raise
    sleeps[key] = "done"
    return "overslept"


@mcp.tool()
def sleep_state(key: str) -> str:
    """Tell what became of the `sleep` with this key: unknown, open, cancelled or done."""
    return sleeps.get(key, "unknown")


@mcp.resource("interop://greeting", mime_type="text/plain")
def greeting() -> str:
    """A text with characters that need care."""
    return "grüße \u2028 \U0001f44b"


@mcp.prompt()
def introduce(name: str) -> str:
    """A prompt with one argument."""
    return f"Please introduce {name}."


class Meeting:
    """The calls of `meet` that have one key."""

    def __init__(self) -> None:
        self.present = 0
        self.complete = anyio.Event()


# Clients choose unique keys, so all can share one server.
released: defaultdict[str, anyio.Event] = defaultdict(anyio.Event)
meetings: defaultdict[str, Meeting] = defaultdict(Meeting)
sleeps: dict[str, str] = {}


# FastMCP has no decorator for logging/setLevel, and offers no logging without a handler.
@mcp._mcp_server.set_logging_level()
async def set_logging_level(level: types.LoggingLevel) -> None:
    """Accepts any level: the tools send only warnings and errors."""


def main() -> None:
    """Serves until terminated."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("--json", action="store_true", help="answer with JSON bodies instead of event streams")
    arguments = parser.parse_args()
    mcp.settings.port = arguments.port
    mcp.settings.json_response = arguments.json
    mcp.run(transport="streamable-http")


if __name__ == "__main__":
    main()
