"""The ways to do the same task that are compared.

Rule: each way has the inputs and outputs of real use. A message goes in as an object, a response comes out as an
object, and an event's data comes out as text.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx
import httpx_sse
import mcp_gangway
import niquests
import orjson
import pyreqwest.client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

#: The limit of open and kept connections. It exceeds the concurrent calls, so no call waits or reconnects.
CONNECTIONS = 100
HEADERS = {"Accept": "application/json, text/event-stream"}


class Gangway:
    """This package."""

    def __init__(self) -> None:
        limits = mcp_gangway.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
        self._client = mcp_gangway.AsyncClient(headers=HEADERS, limits=limits, timeout=60)

    async def call(self, url: str, message: dict[str, Any]) -> Any:
        return (await self._client.post(url, json=message)).json()

    async def events(self, url: str, message: dict[str, Any]) -> AsyncIterator[str]:
        async with self._client.stream("POST", url, json=message) as response:
            async for event in response.aiter_sse():
                yield event.data

    async def close(self) -> None:
        await self._client.aclose()


class Httpx:
    """httpx over h11, with httpx-sse for events."""

    def __init__(self, **options: Any) -> None:
        limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
        self._client = httpx.AsyncClient(headers=HEADERS, limits=limits, timeout=60, **options)

    async def call(self, url: str, message: dict[str, Any]) -> Any:
        return (await self._client.post(url, json=message)).json()

    async def events(self, url: str, message: dict[str, Any]) -> AsyncIterator[str]:
        async with self._client.stream("POST", url, json=message) as response:
            async for event in httpx_sse.EventSource(response).aiter_sse():
                yield event.data

    async def close(self) -> None:
        await self._client.aclose()


class Transport(Httpx):
    """httpx over this package's transport."""

    def __init__(self) -> None:
        limits = mcp_gangway.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
        super().__init__(transport=mcp_gangway.AsyncHTTPTransport(limits=limits))


class Aiohttp:
    """aiohttp, with hand-written code for events."""

    def __init__(self) -> None:
        # A session belongs to the running loop.
        connector = aiohttp.TCPConnector(limit=CONNECTIONS)
        timeout = aiohttp.ClientTimeout(total=60)
        self._session = aiohttp.ClientSession(connector=connector, headers=HEADERS, timeout=timeout)

    async def call(self, url: str, message: dict[str, Any]) -> Any:
        async with self._session.post(url, json=message) as response:
            return await response.json()

    async def events(self, url: str, message: dict[str, Any]) -> AsyncIterator[str]:
        async with self._session.post(url, json=message) as response:
            async for data in _data_of(response.content.iter_any()):
                yield data

    async def close(self) -> None:
        await self._session.close()


class Niquests:
    """niquests, with hand-written code for events."""

    def __init__(self) -> None:
        self._session = niquests.AsyncSession(pool_connections=CONNECTIONS, pool_maxsize=CONNECTIONS)
        self._session.headers.update(HEADERS)

    async def call(self, url: str, message: dict[str, Any]) -> Any:
        return (await self._session.post(url, json=message, timeout=60)).json()

    async def events(self, url: str, message: dict[str, Any]) -> AsyncIterator[str]:
        response = await self._session.post(url, json=message, timeout=60, stream=True)
        async for data in _data_of(await response.iter_content(-1)):
            yield data
        await response.close()

    async def close(self) -> None:
        await self._session.close()


class Pyreqwest:
    """pyreqwest, with hand-written code for events."""

    def __init__(self) -> None:
        builder = pyreqwest.client.ClientBuilder().default_headers(HEADERS).timeout(timedelta(seconds=60))
        self._client = builder.max_connections(CONNECTIONS).build()

    async def call(self, url: str, message: dict[str, Any]) -> Any:
        response = await self._client.post(url).body_json(message).build().send()
        return await response.json()

    async def events(self, url: str, message: dict[str, Any]) -> AsyncIterator[str]:
        async with self._client.post(url).body_json(message).build_streamed() as response:
            reader = response.body_reader

            async def chunks() -> AsyncIterator[bytes]:
                while chunk := await reader.read_chunk():
                    yield bytes(chunk)

            async for data in _data_of(chunks()):
                yield data

    async def close(self) -> None:
        await self._client.close()


async def _data_of(chunks: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """Yields the data of events, each on one line, as a program without a parser would."""
    rest = b""
    async for chunk in chunks:
        *events, rest = (rest + chunk).split(b"\n\n")
        for event in events:
            yield event.partition(b"data: ")[2].decode()


class Raw:
    """An asyncio socket with only the HTTP that this server needs: the minimum for any client."""

    def __init__(self) -> None:
        self._idle: list[_Connection] = []

    async def call(self, url: str, message: dict[str, Any]) -> Any:
        async with self._connection(url) as connection:
            connection.send(message)
            return json.loads(await connection.whole())

    async def events(self, url: str, message: dict[str, Any]) -> AsyncIterator[str]:
        async with self._connection(url) as connection:
            connection.send(message)
            # The server ends its chunked body like this.
            rest = b""
            while not rest.endswith(b"\r\n0\r\n\r\n"):
                *events, rest = (rest + await connection.receive()).split(b"\n\n")
                for event in events:
                    yield event.partition(b"data: ")[2].decode()

    async def close(self) -> None:
        for connection in self._idle:
            connection.transport.close()

    @asynccontextmanager
    async def _connection(self, url: str) -> AsyncIterator[_Connection]:
        if self._idle:
            connection = self._idle.pop()
        else:
            parts = httpx.URL(url)
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(lambda: _Connection(parts), parts.host, parts.port or 80)
        yield connection
        self._idle.append(connection)


class _Connection(asyncio.Protocol):
    def __init__(self, url: httpx.URL) -> None:
        self._before = (
            f"POST {url.path} HTTP/1.1\r\nHost: {url.netloc.decode()}\r\nAccept: {HEADERS['Accept']}\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        )
        self._received = b""
        self._waiter: asyncio.Future[None] | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._received = self._received + data if self._received else data
        if self._waiter is not None:
            self._waiter.set_result(None)
            self._waiter = None

    def send(self, message: dict[str, Any]) -> None:
        body = json.dumps(message, separators=(",", ":"))
        self.transport.write(f"{self._before}{len(body)}\r\n\r\n{body}".encode())

    async def receive(self) -> bytes:
        if not self._received:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        data, self._received = self._received, b""
        return data

    async def whole(self) -> bytes:
        data = await self.receive()
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
        while len(body) < length:
            body += await self.receive()
        return body


#: The module of each client, for the time to import it.
MODULES = {
    "mcp_gangway": "mcp_gangway.Client",
    "httpx": "httpx.Client",
    "aiohttp": "aiohttp.ClientSession",
    "niquests": "niquests.AsyncSession",
    "pyreqwest": "pyreqwest.client.Client",
}

CLIENTS: dict[str, Callable[[], Any]] = {
    "mcp_gangway": Gangway,
    "httpx": Httpx,
    "httpx over mcp_gangway": Transport,
    "aiohttp": Aiohttp,
    "niquests": Niquests,
    "pyreqwest": Pyreqwest,
    "raw socket": Raw,
}


def gangway_parser(chunks: Iterable[bytes]) -> int:
    """This package's parser."""
    length = 0
    parser = mcp_gangway.SseParser()
    for chunk in chunks:
        for event in parser.feed(chunk):
            length += len(event.data)
    return length


def httpx_sse_parser(chunks: Iterable[bytes]) -> int:
    """httpx-sse, with bytes as from httpx."""
    length = 0
    response = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=chunks)
    for event in httpx_sse.EventSource(response).iter_sse():
        length += len(event.data)
    return length


def by_hand(chunks: Iterable[bytes]) -> int:
    """Hand-written code: splits events at empty lines, and lines into fields."""
    length = 0
    buffer = b""
    for chunk in chunks:
        buffer += chunk
        while (end := buffer.find(b"\n\n")) >= 0:
            event, buffer = buffer[:end], buffer[end + 2 :]
            fields = {"event": "message", "id": ""}
            data = []
            for line in event.decode().split("\n"):
                name, _, value = line.partition(":")
                if name == "data":
                    data.append(value.removeprefix(" "))
                elif name in fields:
                    fields[name] = value.removeprefix(" ")
                elif name == "retry":
                    with suppress(ValueError):
                        fields["retry"] = str(int(value))
            if data:
                length += len("\n".join(data))
    return length


def _sum(messages: Iterable[Any]) -> int:
    return sum(message["params"]["progress"] for message in messages)


def gangway_objects(chunks: Iterable[bytes]) -> int:
    """This package's messages as objects, which are validated first."""
    parser = mcp_gangway.MessageParser("text/event-stream", parsed=True)
    return sum(_sum(parser.feed(chunk)) for chunk in chunks)


def gangway_data(chunks: Iterable[bytes]) -> int:
    """This package's objects, without event objects."""
    parser = mcp_gangway.SseParser(parsed=True)
    return sum(_sum(parser.feed(chunk)) for chunk in chunks)


def gangway_events(chunks: Iterable[bytes]) -> int:
    """This package's events, each parsed with its ``json`` method."""
    parser = mcp_gangway.SseParser()
    return sum(_sum([event.json() for event in parser.feed(chunk)]) for chunk in chunks)


def gangway_orjson(chunks: Iterable[bytes]) -> int:
    """This package's events, parsed with orjson."""
    parser = mcp_gangway.SseParser()
    return sum(_sum([orjson.loads(event.data_bytes) for event in parser.feed(chunk)]) for chunk in chunks)


def httpx_sse_json(chunks: Iterable[bytes]) -> int:
    """httpx-sse's events, each parsed with its ``json`` method."""
    response = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=chunks)
    return _sum(event.json() for event in httpx_sse.EventSource(response).iter_sse())


def httpx_sse_orjson(chunks: Iterable[bytes]) -> int:
    """httpx-sse's events, parsed with orjson."""
    response = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=chunks)
    return _sum(orjson.loads(event.data) for event in httpx_sse.EventSource(response).iter_sse())


#: Each parses the progress notifications in all events, and returns the sum of their progress.
OBJECTS: dict[str, Callable[[Iterable[bytes]], int]] = {
    "mcp_gangway, data": gangway_data,
    "mcp_gangway, messages": gangway_objects,
    "mcp_gangway, events": gangway_events,
    "mcp_gangway + orjson": gangway_orjson,
    "httpx-sse + json": httpx_sse_json,
    "httpx-sse + orjson": httpx_sse_orjson,
}

#: Each reads the data of all events as text, and returns its total length.
PARSERS: dict[str, Callable[[Iterable[bytes]], int]] = {
    "mcp_gangway": gangway_parser,
    "httpx-sse": httpx_sse_parser,
    "by hand": by_hand,
}
