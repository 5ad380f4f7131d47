"""The Python SDK 2.x as a client of the bridge; dialogue.py describes plans and reports."""

import asyncio
import contextlib
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

from mcp import Client, MCPDeprecationWarning, MCPError, StdioServerParameters, stdio_client
from mcp.types import LOG_LEVEL_META_KEY

from dialogue import Callbacks, Dialogue, Outcome, main

# Features that the newest revision dropped are deprecated here, but earlier servers have them.
warnings.simplefilter("ignore", MCPDeprecationWarning)


async def talk(dialogue: Dialogue) -> None:
    """Launches the bridge, negotiates, does the dialogue, closes."""
    plan, callbacks = dialogue.plan, Callbacks(dialogue)
    with open(plan["stderr"], "a") as stderr:
        async with Client(
            stdio_client(StdioServerParameters(**plan["launch"]), errlog=stderr),
            mode=plan["mode"],
            sampling_callback=callbacks.sampling,
            elicitation_callback=callbacks.elicitation,
            list_roots_callback=callbacks.roots,
            logging_callback=callbacks.log,
            message_handler=callbacks.message,
        ) as client:
            dialogue.report["protocol"] = client.protocol_version
            dialogue.report["server"] = client.server_info and client.server_info.name
            await dialogue.run(Sdk2(client, modern=client.protocol_version == "2026-07-28"))


class Sdk2:
    """The operations of a dialogue with the client of the SDK 2.x; `modern` is revision 2026-07-28."""

    def __init__(self, client: Client, *, modern: bool) -> None:
        self.client = client
        self.modern = modern
        self.meta: dict[str, Any] | None = None
        self.listening: dict[str, contextlib.AsyncExitStack] = {}

    async def list_tools(self) -> list[str]:
        return [tool.name for tool in (await self.client.list_tools()).tools]

    async def call(
        self, tool: str, arguments: dict[str, Any], on_progress: Callable[..., Awaitable[None]] | None
    ) -> Outcome:
        result = await self.client.call_tool(tool, arguments, progress_callback=on_progress, meta=self.meta)
        return {"tool_error" if result.is_error else "text": "".join(part.text for part in result.content)}

    async def read(self, uri: str) -> str:
        return (await self.client.read_resource(uri)).contents[0].text

    async def prompt(self, name: str, arguments: dict[str, str]) -> str:
        return (await self.client.get_prompt(name, arguments)).messages[0].content.text

    async def ping(self) -> None:
        # session.discover() would return the cached answer.
        session = self.client.session
        await (session.send_discover("2026-07-28") if self.modern else session.send_ping())

    async def set_log_level(self, level: str) -> None:
        if self.modern:
            self.meta = {LOG_LEVEL_META_KEY: level}
        else:
            await self.client.set_logging_level(level)

    async def watch_tools(self) -> None:
        # Earlier servers notify without a subscription.
        if self.modern:
            await self.listen("tools", tools_list_changed=True)

    async def subscribe(self, uri: str) -> None:
        if self.modern:
            await self.listen(uri, resource_subscriptions=[uri])
        else:
            await self.client.subscribe_resource(uri)

    async def unsubscribe(self, uri: str) -> None:
        if self.modern:
            await self.listening.pop(uri).aclose()
        else:
            await self.client.unsubscribe_resource(uri)

    async def listen(self, name: str, **what: Any) -> None:
        """Opens a subscription. Its notifications also reach the message handler."""
        self.listening[name] = contextlib.AsyncExitStack()
        await self.listening[name].enter_async_context(self.client.listen(**what))

    async def cancel(self, call: "asyncio.Task[Outcome]") -> None:
        # The SDK sends the cancellation to the server.
        call.cancel()
        await asyncio.wait([call])

    def rpc_error(self, error: Exception) -> Outcome | None:
        if isinstance(error, MCPError):
            return {"error": error.code, "message": error.message}
        return None

    def sign_in_url(self, error: MCPError) -> str:
        return error.data["url"]


if __name__ == "__main__":
    main(talk)
