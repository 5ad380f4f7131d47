"""The client of the OpenAI Agents SDK; steps.py describes plans and reports."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from agents.mcp import MCPServerSse, MCPServerStdio, MCPServerStreamableHttp

from steps import Framework, main


class OpenAiAgents(Framework):
    """The operations of a dialogue with a server of the OpenAI Agents SDK."""

    hears = ("tools changed", "updated")

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        if "launch" in self.dialogue:
            kind, params = MCPServerStdio, self.dialogue["launch"]
        else:
            kind = MCPServerSse if self.dialogue["transport"] == "sse" else MCPServerStreamableHttp
            params = {"url": self.dialogue["url"]}
        async with kind(params, name="field", message_handler=self.message) as self.server:
            yield

    async def about(self) -> Any:
        return self.server.server_initialize_result

    async def tools(self) -> Any:
        return await self.server.list_tools()

    async def resources(self) -> Any:
        return await self.server.list_resources()

    async def templates(self) -> Any:
        return await self.server.list_resource_templates()

    async def prompts(self) -> Any:
        return await self.server.list_prompts()

    async def call(self, tool: str, arguments: dict[str, Any], progress: bool) -> Any:
        return await self.server.call_tool(tool, arguments)

    async def read(self, uri: str) -> Any:
        return await self.server.read_resource(uri)

    async def prompt(self, prompt: str, arguments: dict[str, str]) -> Any:
        return await self.server.get_prompt(prompt, arguments)


if __name__ == "__main__":
    main(OpenAiAgents)
