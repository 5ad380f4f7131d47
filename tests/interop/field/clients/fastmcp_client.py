"""The client of FastMCP 2.x and 4.x; steps.py describes plans and reports."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastmcp import Client
from fastmcp.client.elicitation import ElicitResult
from fastmcp.client.transports import SSETransport, StdioTransport, StreamableHttpTransport

from steps import PERSON, Framework, main


class FastMcp(Framework):
    """The operations of a dialogue with FastMCP's own methods."""

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        if "launch" in self.dialogue:
            transport = StdioTransport(**self.dialogue["launch"], keep_alive=False)
        else:
            kind = SSETransport if self.dialogue["transport"] == "sse" else StreamableHttpTransport
            transport = kind(self.dialogue["url"])
        # FastMCP 2.x has no modes.
        mode = {"mode": self.dialogue["mode"]} if self.dialogue["mode"] else {}
        async with Client(
            transport,
            log_handler=self.log,
            message_handler=self.message,
            progress_handler=self.progress,
            elicitation_handler=self.elicit,
            **mode,
        ) as self.client:
            yield

    async def about(self) -> Any:
        if not self.dialogue["mode"]:
            return self.client.initialize_result
        client = self.client
        return [client.protocol_version, client.server_info, client.server_capabilities, client.instructions]

    async def tools(self) -> Any:
        return await self.client.list_tools()

    async def resources(self) -> Any:
        return await self.client.list_resources()

    async def templates(self) -> Any:
        return await self.client.list_resource_templates()

    async def prompts(self) -> Any:
        return await self.client.list_prompts()

    async def call(self, tool: str, arguments: dict[str, Any], progress: bool) -> Any:
        result = await self.client.call_tool_mcp(tool, arguments)
        return result

    async def read(self, uri: str) -> Any:
        return await self.client.read_resource(uri)

    async def prompt(self, prompt: str, arguments: dict[str, str]) -> Any:
        return await self.client.get_prompt(prompt, arguments)

    async def ping(self) -> Any:
        return await self.client.ping()

    async def level(self, level: str) -> Any:
        await self.client.set_logging_level(level)

    async def progress(self, progress: float, total: float | None, message: str | None) -> None:
        self.saw("progress", progress, total, message)

    async def elicit(self, message: str, response_type: Any, params: Any, context: Any) -> Any:
        self.saw("elicitation", message)
        return ElicitResult(action="accept", content=PERSON)


if __name__ == "__main__":
    main(FastMcp)
