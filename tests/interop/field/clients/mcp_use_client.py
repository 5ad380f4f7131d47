"""The client of mcp-use; steps.py describes plans and reports."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from mcp.types import ElicitResult
from mcp_use import MCPClient

from steps import PERSON, Framework, main


class McpUse(Framework):
    """The operations of a dialogue with a session of mcp-use, which detects the server's transport itself."""

    hears = ("log", "elicitation", "tools changed", "updated")

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        config = self.dialogue.get("launch") or {"url": self.dialogue["url"]}
        client = MCPClient(
            {"mcpServers": {"field": config}},
            logging_callback=self.log,
            message_handler=self.message,
            elicitation_callback=self.elicit,
        )
        self.session = await client.create_session("field")
        try:
            yield
        finally:
            await client.close_all_sessions()

    async def tools(self) -> Any:
        return await self.session.list_tools()

    async def resources(self) -> Any:
        return await self.session.list_resources()

    async def prompts(self) -> Any:
        return await self.session.list_prompts()

    async def call(self, tool: str, arguments: dict[str, Any], progress: bool) -> Any:
        return await self.session.call_tool(tool, arguments)

    async def read(self, uri: str) -> Any:
        return await self.session.read_resource(uri)

    async def prompt(self, prompt: str, arguments: dict[str, str]) -> Any:
        return await self.session.get_prompt(prompt, arguments)

    async def elicit(self, context: Any, params: Any) -> ElicitResult:
        self.saw("elicitation", params.message)
        return ElicitResult(action="accept", content=PERSON)


if __name__ == "__main__":
    main(McpUse)
