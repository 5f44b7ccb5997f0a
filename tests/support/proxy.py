"""A TCP proxy that does to a connection what networks do: loses an answer, delays, cuts a message in two."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from dataclasses import dataclass, field
from enum import StrEnum

CHUNK_BYTES = 64 * 1024
START_SECONDS = 10.0


class NetworkFault(StrEnum):
    """What happens to one exchange."""

    #: The request arrives and is carried out; its answer never comes back and the connection is gone.
    LOSE_ANSWER = "lost acknowledgement"
    #: The request and its answer come late.
    DELAY = "delay"
    #: Half of what follows the request arrives, then the connection is gone.
    CUT = "cut half-way"
    #: Half of what follows the request arrives, then nothing any more, and nobody is told.
    HANG = "hangs half-way"


@dataclass
class _Armed:
    """The next fault and the words in a request that set it off."""

    fault: NetworkFault
    trigger: bytes
    seconds: float


@dataclass(eq=False)
class _Connection:
    """Both directions of one connection."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    #: Close instead of handing the next answer back.
    loses_answer: bool = False
    #: Hand half of the next chunk on, then close, or be silent for ever.
    cuts_next: bool = False
    hangs_next: bool = False
    delay_seconds: float = 0.0
    closed: bool = False

    def close(self) -> None:
        """Drop both sides at once, as a network does."""
        self.closed = True
        for writer in (self.client, self.server):
            writer.transport.abort()


@dataclass(eq=False)
class Proxy:
    """Forwards a loopback port to a server; `arm` makes the next fitting request fail. Runs on a thread of its own."""

    target_port: int
    port: int = 0
    #: Faults that happened.
    hits: int = 0
    #: Set when one happens, cleared when one is armed.
    met: threading.Event = field(default_factory=threading.Event)
    _armed: list[_Armed] = field(default_factory=list)
    _thread: threading.Thread | None = None
    #: Set by nobody: who waits for it is silent until the proxy stops.
    _silent: asyncio.Event = field(default_factory=asyncio.Event)
    _connections: set[_Connection] = field(default_factory=set)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)

    def start(self) -> int:
        """Listen; returns the port."""
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(ready,), name="proxy", daemon=True)
        self._thread.start()
        if not ready.wait(START_SECONDS):
            raise TimeoutError("the proxy does not listen")
        return self.port

    def stop(self) -> None:
        """Drop everything and stop listening."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        if self._thread is not None:
            self._thread.join(START_SECONDS)

    def drop(self) -> None:
        """Drop the connections there are, hanging ones too; new ones are taken."""
        self._loop.call_soon_threadsafe(self._drop)

    def _drop(self) -> None:
        for connection in list(self._connections):
            connection.close()

    def arm(self, fault: NetworkFault, trigger: bytes, seconds: float = 0.0) -> None:
        """The next request that contains `trigger` meets this fault; `seconds` is how late a delayed one comes."""
        self.met.clear()
        self._armed.append(_Armed(fault, trigger, seconds))

    @property
    def armed(self) -> bool:
        """Whether a fault still waits for its request."""
        return bool(self._armed)

    def _serve(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port = int(server.sockets[0].getsockname()[1])
        ready.set()
        try:
            self._loop.run_forever()
        finally:
            server.close()
            self._loop.run_until_complete(self._end())
            self._loop.close()

    async def _end(self) -> None:
        """Let every connection end by itself: asyncio prints a traceback for each whose task is cancelled."""
        self._silent.set()
        self._drop()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=START_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            writer.transport.abort()
            return
        connection = _Connection(writer, server_writer)
        self._connections.add(connection)
        try:
            await asyncio.gather(
                self._requests(reader, connection), self._answers(server_reader, connection), return_exceptions=True
            )
        finally:
            connection.close()
            self._connections.discard(connection)

    async def _requests(self, reader: asyncio.StreamReader, connection: _Connection) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                if connection.cuts_next or connection.hangs_next:
                    connection.server.write(data[: len(data) // 2])
                    await connection.server.drain()
                    if connection.hangs_next:
                        await self._silent.wait()
                    break
                self._meet(data, connection)
                await asyncio.sleep(connection.delay_seconds)
                connection.server.write(data)
                await connection.server.drain()
        connection.close()

    def _meet(self, data: bytes, connection: _Connection) -> None:
        """Set off the next fault when this is the request it waits for."""
        connection.delay_seconds = 0.0
        if not self._armed or self._armed[0].trigger not in data:
            return
        armed = self._armed.pop(0)
        self.hits += 1
        self.met.set()
        if armed.fault is NetworkFault.LOSE_ANSWER:
            connection.loses_answer = True
        elif armed.fault is NetworkFault.CUT:
            connection.cuts_next = True
        elif armed.fault is NetworkFault.HANG:
            connection.hangs_next = True
        else:
            connection.delay_seconds = armed.seconds

    async def _answers(self, reader: asyncio.StreamReader, connection: _Connection) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                if connection.loses_answer:
                    break
                if connection.hangs_next:
                    await self._silent.wait()
                await asyncio.sleep(connection.delay_seconds)
                connection.client.write(data)
                await connection.client.drain()
        connection.close()
