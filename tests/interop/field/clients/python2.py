"""The Python SDK 2.x; steps.py describes plans and reports."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from mcp import Client, StdioServerParameters, stdio_client
from mcp.client.sse import sse_client
from mcp.types import ElicitResult

from steps import PERSON, Framework, main


class Python2(Framework):
    """The operations of a dialogue with the methods of both eras. Also tries those that one era has dropped."""

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        if "launch" in self.dialogue:
            server = stdio_client(StdioServerParameters(**self.dialogue["launch"]))
        else:
            server = sse_client(self.dialogue["url"]) if self.dialogue["transport"] == "sse" else self.dialogue["url"]
        async with Client(
            server,
            mode=self.dialogue["mode"],
            logging_callback=self.log,
            message_handler=self.message,
            elicitation_callback=self.elicit,
        ) as self.client:
            yield

    async def about(self) -> Any:
        client = self.client
        return [client.protocol_version, client.server_info, client.server_capabilities, client.instructions]

    async def tools(self) -> Any:
        return (await self.client.list_tools()).tools

    async def resources(self) -> Any:
        return (await self.client.list_resources()).resources

    async def templates(self) -> Any:
        return (await self.client.list_resource_templates()).resource_templates

    async def prompts(self) -> Any:
        return (await self.client.list_prompts()).prompts

    async def call(self, tool: str, arguments: dict[str, Any], progress: bool) -> Any:
        result = await self.client.call_tool(tool, arguments, progress_callback=self.progress if progress else None)
        return [result.is_error, result.content, result.structured_content]

    async def read(self, uri: str) -> Any:
        return (await self.client.read_resource(uri)).contents

    async def prompt(self, prompt: str, arguments: dict[str, str]) -> Any:
        return (await self.client.get_prompt(prompt, arguments)).messages

    async def ping(self) -> Any:
        await self.client.send_ping()

    async def level(self, level: str) -> Any:
        await self.client.set_logging_level(level)

    async def subscribe(self, uri: str) -> Any:
        await self.client.subscribe_resource(uri)

    async def unsubscribe(self, uri: str) -> Any:
        await self.client.unsubscribe_resource(uri)

    async def progress(self, progress: float, total: float | None, message: str | None) -> None:
        self.saw("progress", progress, total, message)

    async def elicit(self, context: Any, params: Any) -> ElicitResult:
        self.saw("elicitation", params.message)
        return ElicitResult(action="accept", content=PERSON)


if __name__ == "__main__":
    main(Python2)
