"""RedisClient: keeps a pipelined connection alive, knows the server's run id, and calls scripts.

Every new connection asks for the run id before anything else is sent on it: a server that restarted or
took over is told apart, and whoever guards a generation compares (docs/concepts/budgets.md).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from redis.asyncio.connection import parse_url

from schemas.errors import ConfigurationError, StoreUnavailableError
from sinks.redis.connection import Argument, PipelinedConnection, ReplyError, text
from sinks.redis.fullness import Fullness, fullness_of
from sinks.redis.scripts import Script, script

log = structlog.get_logger(__name__)

RECONNECT_SECONDS_MIN = 0.02
RECONNECT_SECONDS_MAX = 0.5
WATCH_SECONDS = 0.25


class RedisClient:
    """One server. Calls raise StoreUnavailableError while it is away, at once: nothing waits in a queue."""

    def __init__(self, url: str, *, call_timeout_seconds: float = 2.0, name: str = "quaestor") -> None:
        """Connect nothing yet; raises ConfigurationError when the URL can't be read."""
        try:
            self._address: dict[str, Any] = dict(parse_url(url))
        except ValueError as error:
            raise ConfigurationError(f"redis_url: {error}") from None
        self._secure = url.startswith("rediss:")
        self._timeout_seconds = call_timeout_seconds
        self._name = name
        self._connection: PipelinedConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._first = asyncio.Event()
        self._away = False
        #: How many connections there have been: whoever needs one and the same compares.
        self.connection_number = 0
        #: The server's run id, empty while it is away.
        self.run_id = ""
        #: Eviction policy of the server, empty where it has no memory bound.
        self.eviction = ""
        self.on_connect: Callable[[], Awaitable[None]] | None = None

    @property
    def connected(self) -> bool:
        """Whether calls can be sent now."""
        return self._connection is not None

    async def open(self) -> None:
        """Start connecting; returns after the first attempt, whether it worked or not."""
        if self._task is None:
            self._task = asyncio.create_task(self._keep_connected(), name="redis-connection")
        await self._first.wait()

    async def close(self) -> None:
        """End the connection."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self._lose()

    async def call(self, *command: Argument) -> Any:
        """The reply to one command; raises StoreUnavailableError, and ReplyError when Redis refuses it."""
        return await self._require().call(command)

    async def evaluate(self, program: Script, keys: tuple[str, ...], arguments: tuple[Argument, ...]) -> Any:
        """The answer of a script, in one round trip; raises StoreUnavailableError."""
        connection = self._connection
        if connection is None:
            raise StoreUnavailableError("Redis is away")
        try:
            return await connection.call(("EVALSHA", program.sha, len(keys), *keys, *arguments))
        except ReplyError as error:
            if not str(error).startswith("NOSCRIPT"):
                if str(error).startswith("READONLY"):
                    connection.abort()
                raise
        # On this very connection: a server that took over meanwhile must be compared with the generation first.
        return await connection.call(("EVAL", program.text, len(keys), *keys, *arguments))

    async def run(self, name: str, keys: tuple[str, ...], *arguments: Argument) -> Any:
        """`evaluate` by the script's name."""
        return await self.evaluate(script(name), keys, arguments)

    async def fullness(self) -> Fullness:
        """How full the server is; raises StoreUnavailableError."""
        return fullness_of(_section(await self.call("INFO", "memory")))

    def _require(self) -> PipelinedConnection:
        if self._connection is None:
            raise StoreUnavailableError("Redis is away")
        return self._connection

    async def _keep_connected(self) -> None:
        wait_seconds = RECONNECT_SECONDS_MIN
        while True:
            try:
                connection = await asyncio.wait_for(self._connect(), self._timeout_seconds)
            except (OSError, StoreUnavailableError, TimeoutError) as error:
                self._note_away(error)
                self._first.set()
                await asyncio.sleep(wait_seconds)
                wait_seconds = min(2 * wait_seconds, RECONNECT_SECONDS_MAX)
                continue
            wait_seconds = RECONNECT_SECONDS_MIN
            await self._use(connection)

    async def _use(self, connection: PipelinedConnection) -> None:
        """Offer the connection until it ends or stops answering."""
        self._connection = connection
        self.connection_number += 1
        try:
            if self.on_connect is not None:
                await self.on_connect()
            self._first.set()
            self._away = False
            while not connection.closed.done():
                await asyncio.wait([connection.closed], timeout=WATCH_SECONDS)
                if connection.waiting_seconds() > self._timeout_seconds:
                    connection.abort()
        except StoreUnavailableError as error:
            self._note_away(error)
        finally:
            self._lose()

    def _note_away(self, error: Exception) -> None:
        """Say so once per absence."""
        if not self._away:
            log.warning("redis_away", client=self._name, error=type(error).__name__, detail=str(error))
        self._away = True

    def _lose(self) -> None:
        connection, self._connection, self.run_id = self._connection, None, ""
        if connection is not None:
            connection.abort()

    async def _connect(self) -> PipelinedConnection:
        loop = asyncio.get_running_loop()
        address = self._address
        if "path" in address:
            _, connection = await loop.create_unix_connection(lambda: PipelinedConnection(loop), address["path"])
        else:
            context = ssl.create_default_context() if self._secure else None
            host, port = address.get("host", "127.0.0.1"), address.get("port", 6379)
            _, connection = await loop.create_connection(lambda: PipelinedConnection(loop), host, port, ssl=context)
        try:
            await self._greet(connection)
        except BaseException:  # also when cancelled: the transport must not stay open
            connection.abort()
            raise
        return connection

    async def _greet(self, connection: PipelinedConnection) -> None:
        address = self._address
        if password := address.get("password"):
            await connection.call(("AUTH", address.get("username") or "default", password))
        if database := int(address.get("db") or 0):
            await connection.call(("SELECT", database))
        await connection.call(("CLIENT", "SETNAME", self._name))
        facts = await _facts(connection, "server")
        memory = await _facts(connection, "memory")
        self.eviction = memory.get("maxmemory_policy", "") if memory.get("maxmemory", "0") != "0" else ""
        self.run_id = facts["run_id"]


async def _facts(connection: PipelinedConnection, section: str) -> dict[str, str]:
    """A section of INFO; a server that is still loading its data refuses, which counts as away."""
    facts = _section(await connection.call(("INFO", section)))
    persistence = text(await connection.call(("INFO", "persistence")))
    if "\nloading:1" in persistence:
        raise StoreUnavailableError("Redis is loading its data")
    return facts


def _section(reply: Any) -> dict[str, str]:
    return dict(line.split(":", 1) for line in text(reply).splitlines() if ":" in line)
