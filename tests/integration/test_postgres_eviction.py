"""A process that is stopped in the middle of COPY keeps its row locks until the next owner ends its session."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from sinks.postgres.connect import APP_ROLE, connect
from sinks.postgres.evict import evict
from sinks.postgres.migrations import migrate
from sinks.postgres.sink import PostgresSink
from streams.log import Partition
from tests.support.postgres_server import PostgresServer

pytestmark = [pytest.mark.stack]
PARTITION = Partition("quaestor.requests", 0)
TOPIC_IDS = {"quaestor.requests": "one"}
TOUCH = "UPDATE quaestor.stream_cursor SET claimed_at = now()"
WAITING = """
SELECT count(*) FROM pg_stat_activity
WHERE wait_event_type = $1 AND application_name = 'quaestor' AND xact_start < now()
"""
SECONDS = 20.0


@pytest.fixture(scope="module")
def dsn() -> Iterator[str]:
    """A migrated database of this module's own."""
    server = PostgresServer()
    server.start()
    asyncio.run(migrate(server.dsn("eviction")))
    yield server.dsn("eviction")
    server.remove()


async def sessions_waiting(dsn: str, what: str) -> None:
    """Return when a session of ours waits for something."""
    connection = await connect(dsn, None)
    try:
        async with asyncio.timeout(SECONDS):
            while not await connection.fetchval(WAITING, what):  # noqa: ASYNC110 - the server does not tell
                await asyncio.sleep(0.02)
    finally:
        await connection.close()


@pytest.fixture
async def frozen(dsn: str) -> AsyncIterator[asyncio.Task[None]]:
    """An owner that has touched its cursors and stopped within COPY."""
    sink = PostgresSink(dsn, "frozen")
    await sink.claim([PARTITION], TOPIC_IDS)
    await sink.close()
    connection = await connect(dsn, APP_ROLE)

    async def rows() -> AsyncIterator[bytes]:
        yield b"1\n"
        await asyncio.Event().wait()

    async def write() -> None:
        async with connection.transaction():
            await connection.execute(TOUCH)
            await connection.execute("CREATE TEMPORARY TABLE rows (id integer)")
            await connection.copy_to_table("rows", source=rows())

    task = asyncio.create_task(write())
    await sessions_waiting(dsn, "Client")
    yield task
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        await task
    connection.terminate()


async def test_the_next_owner_claims_after_the_silent_session_is_ended(dsn: str, frozen: asyncio.Task[None]) -> None:
    """Its transaction is rolled back; a session that waits for a lock, as the claim does, is left alone."""
    assert not frozen.done()
    sink = PostgresSink(dsn, "next")
    claim = asyncio.create_task(sink.claim([PARTITION], TOPIC_IDS))
    await sessions_waiting(dsn, "Lock")

    ended = await evict(dsn, "quaestor.stream_cursor", silent_seconds=0)

    assert ended == 1
    assert {PARTITION: 0} == await asyncio.wait_for(claim, SECONDS)
    await sink.close()


async def test_a_session_that_is_silent_for_a_moment_is_left_alone(dsn: str, frozen: asyncio.Task[None]) -> None:
    """Only one that was silent for as long as a claim waits for its lock is ended."""
    assert await evict(dsn, "quaestor.stream_cursor") == 0
    assert not frozen.done()
