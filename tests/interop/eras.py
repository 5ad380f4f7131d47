"""Like eras.cjs in mode dual, on the Python SDK 2.x: an MCP server for revision 2026-07-28 and earlier ones.

Run it as `eras.py PORT`; it serves Streamable HTTP at http://127.0.0.1:PORT/mcp, with sessions for earlier revisions.
Its tools are those of eras.cjs with the same name. The SDK checks the headers of modern requests. The server prints a
line that starts with "improper: " for a request that the SDK refuses, and one with "session: " for a new session.
"""

import asyncio
import sys
import warnings
from collections import defaultdict
from typing import Annotated, Any

import anyio
import uvicorn
from mcp import MCPDeprecationWarning, MCPError
from mcp.server.mcpserver import Context, Elicit, ListRoots, MCPServer, Resolve, Sample
from mcp.types import CreateMessageResult, ListRootsResult, SamplingMessage, TextContent
from pydantic import BaseModel, Field

WAIT_LIMIT = 10.0
HEADER_MISMATCH = b'"code":-32020'
SESSION = b"mcp-session-id"
LEVELS = ("debug", "info", "warning", "error")

# Logging and roots are deprecated; the bridge still carries them.
warnings.simplefilter("ignore", MCPDeprecationWarning)
server = MCPServer("eras", version="1.0.0")
released: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
sleeps: dict[str, str] = {}


class Person(BaseModel):
    """What the user is asked for."""

    name: str
    age: int


def user(question: str) -> Elicit[Person]:
    return Elicit(question, Person)


def sample(prompt: str) -> Sample:
    return Sample([SamplingMessage(role="user", content=TextContent(type="text", text=prompt))], max_tokens=100)


def model(prompt: str) -> Sample:
    return sample(prompt)


def roots() -> ListRoots:
    return ListRoots()


User = Annotated[Person, Resolve(user)]
Model = Annotated[CreateMessageResult, Resolve(model)]
Roots = Annotated[ListRootsResult, Resolve(roots)]


def model_on_user(user: User) -> Sample:
    return sample(user.name)


@server.tool()
def echo(text: str) -> str:
    return text


@server.tool()
def route(region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})], text: str) -> str:
    return f"{region}: {text}"


@server.tool()
async def count(steps: int, ctx: Context) -> str:
    for step in range(1, steps + 1):
        await ctx.report_progress(step, steps, f"step {step}")
    return f"counted to {steps}"


@server.tool()
async def hold(key: str, ctx: Context) -> str:
    await ctx.report_progress(1, 1, "holding")
    await asyncio.wait_for(released[key].wait(), WAIT_LIMIT)
    return f"released {key}"


@server.tool()
async def release(key: str) -> str:
    released[key].set()
    return f"releasing {key}"


@server.tool()
async def sleep(key: str) -> str:
    sleeps[key] = "open"
    try:
        await anyio.sleep(WAIT_LIMIT)
    except anyio.get_cancelled_exc_class():
        sleeps[key] = "cancelled"
        raise
    sleeps[key] = "done"
    return "overslept"


@server.tool()
def sleep_state(key: str) -> str:
    return sleeps.get(key, "unknown")


@server.tool()
async def log(text: str, ctx: Context) -> str:
    for level in LEVELS:
        await ctx.log(level, f"{text} {level}")
    return f"logged {len(LEVELS)}"


@server.tool()
def ask_user(question: str, user: User) -> str:
    return said(user)


@server.tool()
def ask_model(prompt: str, model: Model) -> str:
    return f"{model.model} said: {model.content.text}"


@server.tool()
def ask_roots(roots: Roots) -> str:
    return ", ".join(f"{root.uri} {root.name}" for root in roots.roots)


@server.tool()
def ask_both(question: str, prompt: str, user: User, model: Model) -> str:
    return f"{said(user)}; {model.model} said: {model.content.text}"


@server.tool()
def ask_twice(question: str, user: User, model: Annotated[CreateMessageResult, Resolve(model_on_user)]) -> str:
    return f"{said(user)}; {model.model} said: {model.content.text}"


@server.tool()
async def change_tools(ctx: Context) -> str:
    if ctx.protocol_version == "2026-07-28":
        await ctx.notify_tools_changed()
    else:
        await ctx.session.send_tool_list_changed()
    return "changed"


@server.tool()
async def touch(uri: str, ctx: Context) -> str:
    await ctx.notify_resource_updated(uri)
    return "touched"


@server.resource("eras://greeting", mime_type="text/plain")
def greeting() -> str:
    return "grüße \u2028 \U0001f44b"


@server.resource("eras://fails/{code}")
def fails(code: str) -> str:
    raise MCPError(-int(code), "Out of ink")


@server.prompt()
def introduce(name: str) -> str:
    return f"Please introduce {name}."


def said(person: Person) -> str:
    return f"accept: {person.name} is {person.age}"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Returns the server, which reports new sessions and requests with wrong headers."""

    async def watched(message: Any) -> None:
        if message["type"] == "http.response.start":
            session = dict(message["headers"]).get(SESSION)
            if session is not None and SESSION not in dict(scope["headers"]):
                print("session:", session.decode(), flush=True)
        if message["type"] == "http.response.body" and HEADER_MISMATCH in message["body"]:
            print("improper:", message["body"].decode(), flush=True)
        await send(message)

    await served(scope, receive, watched if scope["type"] == "http" else send)


served = server.streamable_http_app()
if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]))
