"""The client of LangChain's adapters; steps.py describes plans and reports."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from langchain_mcp_adapters.callbacks import Callbacks
from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_mcp_adapters.prompts import load_mcp_prompt
from langchain_mcp_adapters.resources import load_mcp_resources
from langchain_mcp_adapters.tools import load_mcp_tools
from mcp.types import ElicitResult

from steps import PERSON, Framework, main


class LangChain(Framework):
    """The operations of a dialogue with the tools, messages and blobs of LangChain."""

    hears = ("progress", "log", "elicitation")

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        if "launch" in self.dialogue:
            connection = {"transport": "stdio", **self.dialogue["launch"]}
        else:
            transport = "sse" if self.dialogue["transport"] == "sse" else "streamable_http"
            connection = {"transport": transport, "url": self.dialogue["url"]}
        callbacks = Callbacks(on_logging_message=self.logged, on_progress=self.progress, on_elicitation=self.elicit)
        client = MultiServerMCPClient({"field": connection}, callbacks=callbacks)
        async with client.session("field") as self.session:
            self.loaded = {tool.name: tool for tool in await load_mcp_tools(self.session, callbacks=callbacks)}
            yield

    async def tools(self) -> Any:
        return [[tool.name, tool.description, tool.args_schema] for tool in self.loaded.values()]

    async def call(self, tool: str, arguments: dict[str, Any], progress: bool) -> Any:
        said = {"type": "tool_call", "id": "call", "name": tool, "args": arguments}
        message = await self.loaded[tool].ainvoke(said)
        # LangChain assigns its own ids to blocks.
        blocks = [
            {key: value for key, value in block.items() if key != "id"} if isinstance(block, dict) else block
            for block in ([message.content] if isinstance(message.content, str) else message.content)
        ]
        return [message.status, blocks, message.artifact]

    async def read(self, uri: str) -> Any:
        return [blob.as_string() for blob in await load_mcp_resources(self.session, uris=uri)]

    async def prompt(self, prompt: str, arguments: dict[str, str]) -> Any:
        messages = await load_mcp_prompt(self.session, prompt, arguments=arguments)
        return [[message.type, message.content] for message in messages]

    async def logged(self, params: Any, context: Any) -> None:
        await self.log(params)

    async def progress(self, progress: float, total: float | None, message: str | None, context: Any) -> None:
        self.saw("progress", progress, total, message)

    async def elicit(self, mcp_context: Any, params: Any, context: Any) -> ElicitResult:
        self.saw("elicitation", params.message)
        return ElicitResult(action="accept", content=PERSON)


if __name__ == "__main__":
    main(LangChain)
