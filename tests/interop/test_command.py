"""The bridge's own behaviour, with the Python SDK 1.x: options, secrets, sessions, lanes."""

import asyncio
import contextlib
import json
import urllib.request
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import mcp.types as types
import pytest
from mcp import ClientSession, McpError, StdioServerParameters, stdio_client

import servers
from bridge import Launch
from servers import START_LIMIT, Server, open_url

WAIT_LIMIT = 20.0


@pytest.fixture
def launch(binary: str, tmp_path: Path, keep_log: Any) -> Any:
    """A function that returns a launch of the bridge with these arguments."""
    launched = Launch(binary, tmp_path, [])
    keep_log(launched.stderr)

    def prepare(*args: str, env: dict[str, str] | None = None) -> Launch:
        launched.args, launched.env = list(args), env or {}
        return launched

    yield prepare
    launched.kill()


def test_flags_of_the_gateways_wrapper(running: Any, launch: Any) -> None:
    """The flags of the gateway's own wrapper have the same effect here, and no log contains the token."""
    server = running["gateway-stateless-json"]
    flags = ["--url", server.url, "--auth", server.authorization, "--timeout", "30", "--log-level", "DEBUG"]
    launched = launch(*flags)

    async def dialogue() -> str:
        async with connect(launched) as session:
            return await call(session, "interop-echo", text="by flags")

    assert asyncio.run(dialogue()) == "by flags"
    assert launched.status() == "0"
    logs = launched.stderr.read_text()
    assert logs, "nothing was logged at level DEBUG"
    assert_untold(server, logs)


def test_environment_of_the_gateways_wrapper(running: Any, launch: Any) -> None:
    """Its environment variables work as well."""
    server = running["gateway-stateless-json"]
    environment = {
        "MCP_SERVER_URL": server.url,
        "MCP_AUTH": server.authorization,
        "MCP_TOOL_CALL_TIMEOUT": "30",
        "MCP_WRAPPER_LOG_LEVEL": "DEBUG",
        "CONCURRENCY": "2",
    }
    launched = launch(env=environment)

    async def dialogue() -> list[str]:
        async with connect(launched) as session:
            texts = [f"text {number}" for number in range(5)]
            return await asyncio.gather(*[call(session, "interop-echo", text=text) for text in texts])

    assert asyncio.run(dialogue()) == [f"text {number}" for number in range(5)]
    assert launched.status() == "0"
    logs = launched.stderr.read_text()
    assert logs, "nothing was logged at level DEBUG"
    assert_untold(server, logs)


def test_refused_token(running: Any, launch: Any) -> None:
    """A token that the gateway refuses leads to an error that says so, not to a hang or an exit, and is not shown."""
    server = running["gateway-stateless-json"]
    refused = Server(server.url, server.log, server.authorization[:-12] + "A" * 12)
    launched = launch(env={"MCP_SERVER_URL": refused.url, "MCP_AUTH": refused.authorization, "LOG_LEVEL": "DEBUG"})

    async def dialogue() -> types.ErrorData:
        async with connect(launched, initialize=False) as session:
            for _ in range(2):
                with pytest.raises(McpError) as raised:
                    await session.initialize()
            return raised.value.error

    error = asyncio.run(dialogue())
    assert error.code == -32603
    assert error.data["source"] == "mcp-gangway"
    assert error.data["httpStatus"] == 401
    assert launched.status() == "0"
    assert_untold(refused, error.model_dump_json() + launched.stderr.read_text())


def test_requests_of_the_server_with_a_concurrency_of_one(running: Any, launch: Any) -> None:
    """With a limit of one request, the client's responses to the server still pass."""
    launched = launch("--concurrency", "1", running["python-sse"].url)

    async def dialogue() -> list[str]:
        async with connect(launched) as session:
            questions = [call(session, "ask_model", prompt="Rain"), call(session, "ask_user", question="Who?")]
            return await asyncio.gather(*questions, call(session, "ask_roots"))

    assert asyncio.run(dialogue()) == ["parrot said: Rain? Yes.", "accept: Ada is 36", "file:///srv/interop interop"]
    assert launched.status() == "0"


def test_ping_and_cancel_with_a_concurrency_of_one(running: Any, launch: Any) -> None:
    """With a limit of one request, a ping and a cancel pass an open call, and the next call takes its place."""
    launched = launch("--concurrency", "1", running["python-sse"].url)
    key = uuid.uuid4().hex

    async def dialogue() -> str:
        async with connect(launched) as session:
            request_id = session._request_id
            sleeping = asyncio.create_task(call(session, "sleep", key=key))
            await asyncio.sleep(0)
            await session.send_ping()
            params = types.CancelledNotificationParams(requestId=request_id)
            await session.send_notification(types.ClientNotification(types.CancelledNotification(params=params)))
            with pytest.raises(McpError, match="Request cancelled"):
                await sleeping
            return await call(session, "sleep_state", key=key)

    assert asyncio.run(dialogue()) == "cancelled"
    assert launched.status() == "0"


@pytest.mark.parametrize("server", ["python-sse", "python-json", "everything"])
def test_session_ends_with_the_client(running: Any, launch: Any, server: str) -> None:
    """The server receives one DELETE for the session."""
    log = running[server].log
    before = deletions(log)
    launched = launch(running[server].url)

    async def dialogue() -> None:
        async with connect(launched) as session:
            await session.send_ping()

    asyncio.run(dialogue())
    assert launched.status() == "0"
    assert deletions(log) - before == 1


@pytest.mark.parametrize(
    ("server", "content_type"),
    [
        ("everything", "text/event-stream"),
        ("python-sse", "text/event-stream"),
        ("python-json", "application/json"),
        ("gateway-stateless-json", "application/json"),
        ("gateway-stateless-sse", "text/event-stream"),
        ("gateway-stateful-json", "application/json"),
        ("gateway-stateful-sse", "text/event-stream"),
    ],
)
def test_servers_answer_as_named(running: Any, server: str, content_type: str) -> None:
    """Without the bridge, the servers use the content types and sessions that their names promise."""
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    if running[server].authorization:
        headers["Authorization"] = running[server].authorization
    params = {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "interop", "version": "1.0.0"},
    }
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}).encode()
    with open_url(urllib.request.Request(running[server].url, body, headers), timeout=WAIT_LIMIT) as answer:
        assert answer.headers.get_content_type() == content_type
        assert ("Mcp-Session-Id" in answer.headers) == ("stateless" not in server)


def test_client_that_starts_before_its_server(launch: Any, tmp_path: Path) -> None:
    """A client gets its session before there is a server. Its call waits, also while the server moves to another port."""
    address = tmp_path / "address"
    launched = launch("--url-file", str(address), "--hold", str(START_LIMIT), "--no-cache")

    async def dialogue() -> None:
        changed = asyncio.Event()

        async def heard(message: Any) -> None:
            if isinstance(getattr(message, "root", None), types.ToolListChangedNotification):
                changed.set()

        async with connect(launched, limit=3 * START_LIMIT, heard=heard) as session:
            assert (await session.list_tools()).tools == []
            for folder in ("first", "second"):
                waiting = asyncio.create_task(call(session, "echo", text=folder))
                await asyncio.sleep(0.5)
                assert not waiting.done()
                (tmp_path / folder).mkdir()
                running = servers.python_server(tmp_path / folder)
                server = await asyncio.to_thread(running.__enter__)
                try:
                    address.write_text(server.url)
                    assert await waiting == folder
                    await changed.wait()
                    assert "echo" in {tool.name for tool in (await session.list_tools()).tools}
                finally:
                    await asyncio.to_thread(running.__exit__, None, None, None)

    asyncio.run(dialogue())
    assert launched.status() == "0"


@contextlib.asynccontextmanager
async def connect(
    launched: Launch, *, initialize: bool = True, limit: float = WAIT_LIMIT, heard: Any = None
) -> AsyncIterator[ClientSession]:
    """Connects a client through the bridge, with responses for the server. ``heard`` gets other messages."""

    async def sampling(_: Any, params: types.CreateMessageRequestParams) -> types.CreateMessageResult:
        content = types.TextContent(type="text", text=f"{params.messages[0].content.text}? Yes.")
        return types.CreateMessageResult(role="assistant", content=content, model="parrot")

    async def elicitation(_: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        return types.ElicitResult(action="accept", content={"name": "Ada", "age": 36})

    async def roots(_: Any) -> types.ListRootsResult:
        return types.ListRootsResult(roots=[types.Root(uri="file:///srv/interop", name="interop")])

    with launched.stderr.open("a") as stderr, anyio.fail_after(limit):
        async with (
            stdio_client(StdioServerParameters(**launched.parameters()), errlog=stderr) as (read, write),
            ClientSession(
                read,
                write,
                sampling_callback=sampling,
                elicitation_callback=elicitation,
                list_roots_callback=roots,
                message_handler=heard,
            ) as session,
        ):
            if initialize:
                await session.initialize()
            yield session


async def call(session: ClientSession, tool: str, **arguments: Any) -> str:
    """Returns the text of a tool's answer."""
    result = await session.call_tool(tool, arguments)
    assert not result.isError, result
    return "".join(part.text for part in result.content)


def deletions(log: Path) -> int:
    """Returns how often the server logged the end of a session."""
    text = log.read_text()
    return text.count('"DELETE /mcp') + text.count("Received session termination request")


def assert_untold(server: Server, text: str) -> None:
    """Asserts that the text contains neither the token nor its signature alone."""
    assert server.authorization.split()[-1] not in text
    assert server.authorization.split(".")[-1] not in text
