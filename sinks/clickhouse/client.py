"""One client of ClickHouse over HTTP: bounded, off the event loop, its errors ours.

clickhouse-connect encodes columns in Python and blocks on the network, so every call runs on a thread of this client's
own pool. Loopback and server alike get uncompressed Native: the encoding is the limit, compression only costs more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import clickhouse_connect
from clickhouse_connect import common
from clickhouse_connect.driver import options
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError

from schemas.errors import ConfigurationError, IntegrityError, StoreUnavailableError

T = TypeVar("T")

CONNECT_SECONDS = 5
#: Longest statement, and a little more for the answer to arrive; both far below the window of deduplication.
STATEMENT_SECONDS = 30
ANSWER_SECONDS = STATEMENT_SECONDS + 10
THREADS_MAX = 4
DATABASE = "quaestor"
#: Codes that say a statement or its rows are wrong, whoever repeats it: parse errors, types, columns, ranges.
LASTING = frozenset((6, 10, 16, 27, 41, 43, 44, 47, 49, 53, 62, 69, 70, 72, 117, 131, 321, 349, 376, 407))
#: An insert is one block, counted once here and in every view, and durable when answered.
INSERT_SETTINGS: Mapping[str, Any] = {
    "async_insert": 0,
    "insert_deduplicate": 1,
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    "max_execution_time": STATEMENT_SECONDS,
    "max_partitions_per_insert_block": 0,
}

Guard = Callable[[], None]


def unguarded() -> None:
    """Send whenever."""


class ClickHouse:
    """A lazily opened, bounded connection to one server. Used from one event loop."""

    def __init__(self, url: str, database: str = DATABASE) -> None:
        """`url` is http(s)://[user[:password]@]host:port; raises ConfigurationError when it is not."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigurationError("clickhouse_url must look like http://user:password@host:8123")
        self.database = database
        self._options: dict[str, Any] = {
            "interface": parts.scheme,
            "host": parts.hostname,
            "port": parts.port or (8443 if parts.scheme == "https" else 8123),
            "username": unquote(parts.username or "default"),
            "password": unquote(parts.password or ""),
        }
        self._where = f"{parts.hostname}:{self._options['port']}"
        self._client: Client | None = None
        self._threads = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="clickhouse")
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        """Connect; raises StoreUnavailableError."""
        async with self._opening:
            if self._client is None:
                self._client = await self._run(self._connect)

    async def close(self) -> None:
        """Let go; a statement under way ends by its own time limit."""
        client, self._client = self._client, None
        if client is not None:
            await self._run(client.close)
        self._threads.shutdown(wait=False)

    async def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Rows of a query; raises StoreUnavailableError, IntegrityError when the statement itself is refused."""
        client = await self._opened()
        result = await self._run(partial(client.query, sql, parameters=dict(parameters or {})))
        return [tuple(row) for row in result.result_rows]

    async def command(self, sql: str, parameters: Mapping[str, Any] | None = None) -> None:
        """Run a statement without rows; raises as query does."""
        client = await self._opened()
        await self._run(partial(client.command, sql, parameters=dict(parameters or {}), use_database=False))

    async def insert(
        self,
        table: str,
        names: Sequence[str],
        types: Sequence[str],
        columns: list[Any],
        token: str,
        guard: Guard = unguarded,
    ) -> None:
        """Insert columns as one block under a deduplication token; durable on return. Raises as query does.

        `guard` is called on the client's thread, with nothing left to do but to send; what it raises stops the insert.
        """
        client = await self._opened()
        await self._run(
            _guarded(
                guard,
                client.insert,
                table,
                columns,
                column_names=list(names),
                column_type_names=list(types),
                column_oriented=True,
                database=self.database,
                settings={**INSERT_SETTINGS, "insert_deduplication_token": token},
            )
        )

    async def insert_block(self, table: str, block: bytes, token: str, guard: Guard = unguarded) -> None:
        """`insert` for a block in Native format."""
        client = await self._opened()
        await self._run(
            _guarded(
                guard,
                client.raw_insert,
                f"{self.database}.{table}",
                insert_block=block,
                settings={**INSERT_SETTINGS, "insert_deduplication_token": token},
                fmt="Native",
            )
        )

    async def _opened(self) -> Client:
        if self._client is None:
            await self.open()
        if self._client is None:
            raise StoreUnavailableError(f"ClickHouse at {self._where} was closed")
        return self._client

    def _connect(self) -> Client:
        # Each request of a pool would else carry one session and be refused beside another.
        common.set_setting("autogenerate_session_id", False)
        return clickhouse_connect.get_client(
            **self._options,
            database="default",
            compress=False,
            connect_timeout=CONNECT_SECONDS,
            send_receive_timeout=ANSWER_SECONDS,
            query_retries=0,
        )

    async def _run(self, call: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        except DatabaseError as error:
            if error.code in LASTING:
                raise IntegrityError(f"ClickHouse refuses a statement: {_worded(error)}") from error
            raise StoreUnavailableError(f"ClickHouse at {self._where}: {_worded(error)}") from error
        except (ClickHouseError, OSError, RuntimeError) as error:
            raise StoreUnavailableError(f"ClickHouse at {self._where}: {_worded(error)}") from error


def _guarded(guard: Guard, send: Callable[..., Any], *arguments: Any, **options: Any) -> Callable[[], None]:
    def send_in_time() -> None:
        guard()
        send(*arguments, **options)

    return send_in_time


def leave_data_frames_out() -> None:
    """For a process that only inserts and reads rows: spare it pandas, numpy and pyarrow (80 MB and a second of CPU).

    clickhouse-connect imports them to see whether what it is given is one of theirs; this is the state it is in where
    they are not installed.
    """
    vars(options).update(pd=None, pd_time_test=None, np=None, arrow=None)


def _worded(error: Exception) -> str:
    """One line, without the address and the rows an error may quote."""
    return f"{type(error).__name__}: {str(error).splitlines()[0][:300] if str(error) else ''}"
