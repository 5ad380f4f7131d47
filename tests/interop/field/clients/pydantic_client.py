"""The client of Pydantic AI; steps.py describes plans and reports."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastmcp.client.transports import SSETransport, StdioTransport, StreamableHttpTransport
from mcp.types import ElicitResult
from pydantic_ai.mcp import MCPToolset

from steps import PERSON, Framework, main


class PydanticAi(Framework):
    """The operations of a dialogue with a toolset of Pydantic AI."""

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        if "launch" in self.dialogue:
            transport = StdioTransport(**self.dialogue["launch"], keep_alive=False)
        else:
            kind = SSETransport if self.dialogue["transport"] == "sse" else StreamableHttpTransport
            transport = kind(self.dialogue["url"])
        async with MCPToolset(
            transport,
            tool_error_behavior="error",
            log_handler=self.log,
            message_handler=self.message,
            progress_handler=self.progress,
            elicitation_handler=self.elicit,
        ) as self.toolset:
            yield

    async def about(self) -> Any:
        return [self.toolset.server_info, self.toolset.capabilities, self.toolset.instructions]

    async def tools(self) -> Any:
        return await self.toolset.list_tools()

    async def resources(self) -> Any:
        return await self.toolset.list_resources()

    async def templates(self) -> Any:
        return await self.toolset.list_resource_templates()

    async def prompts(self) -> Any:
        return await self.toolset.list_prompts()

    async def call(self, tool: str, arguments: dict[str, Any], progress: bool) -> Any:
        return await self.toolset.direct_call_tool(tool, arguments)

    async def read(self, uri: str) -> Any:
        return await self.toolset.read_resource(uri)

    async def prompt(self, prompt: str, arguments: dict[str, str]) -> Any:
        return await self.toolset.get_prompt(prompt, arguments)

    async def progress(self, progress: float, total: float | None, message: str | None) -> None:
        self.saw("progress", progress, total, message)

    async def elicit(self, message: str, response_type: Any, params: Any, context: Any) -> Any:
        self.saw("elicitation", message)
        return ElicitResult(action="accept", content=PERSON)


if __name__ == "__main__":
    main(PydanticAi)
