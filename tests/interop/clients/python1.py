"""The Python SDK 1.x as a client of the bridge; dialogue.py describes plans and reports."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import mcp.types as types
from mcp import ClientSession, McpError, StdioServerParameters, stdio_client
from pydantic import AnyUrl

from dialogue import Callbacks, Dialogue, Outcome, main


async def talk(dialogue: Dialogue) -> None:
    """Launches the bridge, initializes, does the dialogue, closes."""
    plan, callbacks = dialogue.plan, Callbacks(dialogue)
    with open(plan["stderr"], "a") as stderr:
        async with (
            stdio_client(StdioServerParameters(**plan["launch"]), errlog=stderr) as (read, write),
            ClientSession(
                read,
                write,
                sampling_callback=callbacks.sampling,
                elicitation_callback=callbacks.elicitation,
                list_roots_callback=callbacks.roots,
                logging_callback=callbacks.log,
                message_handler=callbacks.message,
            ) as session,
        ):
            initialized = await session.initialize()
            dialogue.report["protocol"] = initialized.protocolVersion
            dialogue.report["server"] = initialized.serverInfo.name
            await dialogue.run(Sdk1(session))


class Sdk1:
    """The operations of a dialogue with the client session of the SDK 1.x."""

    modern = False

    def __init__(self, session: ClientSession) -> None:
        self.session = session
        self.call_ids: dict[asyncio.Task[Any] | None, types.RequestId] = {}

    async def list_tools(self) -> list[str]:
        return [tool.name for tool in (await self.session.list_tools()).tools]

    async def call(
        self, tool: str, arguments: dict[str, Any], on_progress: Callable[..., Awaitable[None]] | None
    ) -> Outcome:
        self.call_ids[asyncio.current_task()] = self.session._request_id
        result = await self.session.call_tool(tool, arguments, progress_callback=on_progress)
        return {"tool_error" if result.isError else "text": "".join(part.text for part in result.content)}

    async def read(self, uri: str) -> str:
        return (await self.session.read_resource(AnyUrl(uri))).contents[0].text

    async def prompt(self, name: str, arguments: dict[str, str]) -> str:
        return (await self.session.get_prompt(name, arguments)).messages[0].content.text

    async def ping(self) -> None:
        await self.session.send_ping()

    async def set_log_level(self, level: str) -> None:
        await self.session.set_logging_level(level)

    async def watch_tools(self) -> None:
        # Servers of earlier revisions notify without a subscription.
        pass

    async def subscribe(self, uri: str) -> None:
        await self.session.subscribe_resource(AnyUrl(uri))

    async def unsubscribe(self, uri: str) -> None:
        await self.session.unsubscribe_resource(AnyUrl(uri))

    async def cancel(self, call: "asyncio.Task[Outcome]") -> None:
        # This SDK has no cancellation of its own, and does not expose the ids of requests.
        params = types.CancelledNotificationParams(requestId=self.call_ids[call], reason="enough")
        await self.session.send_notification(types.ClientNotification(types.CancelledNotification(params=params)))
        call.cancel()
        await asyncio.wait([call])

    def rpc_error(self, error: Exception) -> Outcome | None:
        if isinstance(error, McpError):
            return {"error": error.error.code, "message": error.error.message}
        return None

    def sign_in_url(self, error: McpError) -> str:
        return error.error.data["url"]


if __name__ == "__main__":
    main(talk)
