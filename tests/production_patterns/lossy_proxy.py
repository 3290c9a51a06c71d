"""A network between client and server that can be cut, frozen or made to vanish, at will."""

import asyncio
import ctypes
import re
import socket
import struct
from contextlib import suppress
from typing import Any, Literal, Self

from sqlalchemy import URL

WRITE = re.compile(rb"INSERT|UPDATE")  # before it a driver commits its own settings
Loss = Literal["before", "after", "late"]
SO_ATTACH_FILTER = 26  # Linux
DROP_ALL = ctypes.create_string_buffer(
    struct.pack("HBBI", 6, 0, 0, 0)
)  # return 0: no packet passes


class LossyProxy:
    """Forward TCP to the server of a URL; `url` leads through the proxy, unencrypted.

    `lose_commit`: what happens to the next COMMITs of writes, one entry each. "before": it never
    gets to the server. "after": the server has committed, its answer is lost. "late": the client
    is cut off, and the COMMIT gets to the server when `release_commits` is called.
    """

    def __init__(self, url: URL) -> None:
        self._target = url
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._commits_released = asyncio.Event()
        self.lose_commit: list[Loss] = []
        self.lost: list[Loss] = []
        self.connections = 0
        self.serverless = False  # accept clients, then leave them

    async def __aenter__(self) -> Self:
        # It holds the port while nobody listens: else another test might be given it.
        self._holder = socket.socket()
        self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._holder.bind(("127.0.0.1", 0))
        self._port = self._holder.getsockname()[1]
        await self.accept()
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._holder.close()
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.cut()

    @property
    def url(self) -> URL:
        plain = self._target.difference_update_query(["host", "port", "unix_socket"])
        if plain.get_driver_name() == "asyncpg":
            plain = plain.update_query_dict({"ssl": "disable"})
        if plain.get_driver_name() == "psycopg":
            plain = plain.update_query_dict({"sslmode": "disable"})
        return plain.set(host="127.0.0.1", port=self._port)

    def cut(self, *, reset: bool = False) -> None:
        """Close all connections; `reset`: as a router or a crashed machine does it."""
        for writer in list(self._writers):
            if reset:
                linger = struct.pack("ii", 1, 0)
                sock = writer.get_extra_info("socket")
                if sock.family == socket.AF_INET:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        self._writers.clear()

    def freeze(self) -> None:
        """Forward nothing, close nothing; the client's packets are still acknowledged."""
        self._flowing.clear()

    def thaw(self) -> None:
        self._flowing.set()

    def vanish(self) -> None:
        """Drop each packet of the connected clients, as a network does that has lost its way."""
        program = struct.pack("HL", 1, ctypes.addressof(DROP_ALL))
        for writer in self._writers:
            sock = writer.get_extra_info("socket")
            if sock.family == socket.AF_INET and sock.getsockname()[1] == self._port:
                sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)

    def release_commits(self) -> None:
        self._commits_released.set()

    async def refuse(self) -> None:
        """Let nobody connect, as a server that is down."""
        self._server.close()

    async def accept(self) -> None:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", self._port)

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.serverless:
            raise ConnectionRefusedError
        query = self._target.query
        host = self._target.host or query.get("host") or query.get("unix_socket")
        default = 5432 if self._target.get_backend_name() == "postgresql" else 3306
        port = self._target.port or int(query.get("port") or default)  # type: ignore[arg-type]
        if isinstance(host, str) and host.startswith("/"):
            path = host if query.get("unix_socket") else f"{host}/.s.PGSQL.{port}"
            return await asyncio.open_unix_connection(path)
        return await asyncio.open_connection(host, port)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own: asyncio's logs an error when it is cancelled.
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        upstream = None
        try:
            with suppress(OSError):
                up_reader, upstream = await self._open()
                self._writers.add(upstream)
                link = _Link(self, writer, upstream)
                pumps = [
                    asyncio.create_task(link.to_server(reader)),
                    asyncio.create_task(link.to_client(up_reader)),
                ]
                try:
                    await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for pump in pumps:
                        pump.cancel()
                    await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            for each in filter(None, (writer, upstream)):
                each.close()
                self._writers.discard(each)


class _Link:
    def __init__(
        self, proxy: LossyProxy, client: asyncio.StreamWriter, server: asyncio.StreamWriter
    ) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._wrote = False
        self._answer_lost = False

    async def to_server(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(65536):
            await self._proxy._flowing.wait()
            self._wrote = self._wrote or WRITE.search(data) is not None
            if self._wrote and b"COMMIT" in data and self._proxy.lose_commit:
                loss = self._proxy.lose_commit.pop(0)
                self._proxy.lost.append(loss)
                if loss == "before":
                    return
                self._answer_lost = True
                if loss == "late":
                    self._client.transport.abort()
                    await self._proxy._commits_released.wait()
            self._server.write(data)
            await self._server.drain()
            if self._answer_lost:
                await asyncio.Event().wait()  # until the answer has come, and is lost

    async def to_client(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(65536):
            await self._proxy._flowing.wait()
            if self._answer_lost:
                return
            self._client.write(data)
            await self._client.drain()
