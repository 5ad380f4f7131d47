"""The same tools on FastMCP 1.x (part of the Python SDK 1.x), 2.x, 3.x or 4.x, whichever is installed.

Run it as `fastmcp_server.py PORT` for Streamable HTTP at http://127.0.0.1:PORT/mcp, or as `fastmcp_server.py stdio`.
"""

import sys
import warnings
from typing import Any

from pydantic import BaseModel

warnings.simplefilter("ignore")
try:
    import fastmcp
    from fastmcp import Context, FastMCP

    VERSION = int(fastmcp.__version__.split(".")[0])
except ImportError:
    from mcp.server.fastmcp import Context, FastMCP

    VERSION = 1

server = FastMCP("field", instructions="Tools that frameworks have in common.")


class Person(BaseModel):
    """What the user is asked for."""

    name: str
    age: int


@server.tool()
def echo(text: str) -> str:
    """Answer with the text, verbatim."""
    return text


@server.tool()
def describe(name: str) -> dict[str, Any]:
    """Answer with an object."""
    return {"name": name, "length": len(name), "nested": {"list": [1, 2.5, None, True]}}


@server.tool()
def repeat(text: str, times: int) -> str:
    """A large answer to a small question."""
    return text * times


@server.tool()
async def count(steps: int, ctx: Context) -> str:
    """Report progress from 1 to steps, then answer."""
    for step in range(1, steps + 1):
        await ctx.report_progress(step, steps, f"step {step}")
    return f"counted to {steps}"


@server.tool()
def fail(reason: str) -> str:
    """Fail for this reason."""
    raise ValueError(reason)


@server.tool()
async def log(text: str, ctx: Context) -> str:
    """Log the text at three levels."""
    await ctx.info(text)
    await ctx.warning(text)
    await ctx.error(text)
    return "logged"


@server.tool()
async def ask(question: str, ctx: Context) -> str:
    """Ask the client's user."""
    answer = await ctx.elicit(question, Person)
    return f"{answer.data.name} is {answer.data.age}" if answer.action == "accept" else answer.action


@server.tool()
async def change(ctx: Context) -> str:
    """Tell the client that the tools have changed."""
    if VERSION == 4:
        from mcp.types import ToolListChangedNotification

        await ctx.send_notification(ToolListChangedNotification())
    else:
        await ctx.session.send_tool_list_changed()
    return "changed"


@server.resource("field://greeting", mime_type="text/plain")
def greeting() -> str:
    """A text with characters that need care."""
    return "grüße \u2028 \U0001f44b"


@server.resource("field://people/{name}", mime_type="application/json")
def person(name: str) -> str:
    """A template."""
    return f'{{"name": "{name}"}}'


@server.prompt()
def introduce(name: str) -> str:
    """A prompt with one argument."""
    return f"Please introduce {name}."


if VERSION == 1:

    @server._mcp_server.set_logging_level()
    async def set_logging_level(level: str) -> None:
        """FastMCP 1.x has no decorator for this, and offers no logging without a handler."""


if __name__ == "__main__":
    port = 0 if sys.argv[1] == "stdio" else int(sys.argv[1])
    if VERSION == 1:
        server.settings.port = port
        server.run("streamable-http" if port else "stdio")
    elif port:
        server.run("http", host="127.0.0.1", port=port, show_banner=False)
    else:
        server.run("stdio", show_banner=False)
