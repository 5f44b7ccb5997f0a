"""Takes locks from a process that was stopped in the middle of a transaction, so that the next owner can claim.

Postgres ends a transaction whose client says nothing, except within COPY FROM STDIN: there no time-out of the server is
looked at until the client sends more. A process stopped there (SIGSTOP, a frozen machine) would keep its cursors' row
locks for ever, and its partitions would stall. Only pg_terminate_backend ends such a session.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import structlog

from schemas.errors import StoreUnavailableError
from sinks.postgres import queries
from sinks.postgres.connect import LOCK_SECONDS, connect, passing_errors

log = structlog.get_logger()


@asynccontextmanager
async def evicting(dsn: str, relation: str) -> AsyncIterator[None]:
    """Around a claim: when its lock never came, end the sessions of ours that hold locks on the relation in silence.

    The claim's StoreUnavailableError passes on; repeated, it succeeds.
    """
    try:
        yield
    except StoreUnavailableError as error:
        if isinstance(error.__cause__, asyncpg.LockNotAvailableError):
            await evict(dsn, relation)
        raise


async def evict(dsn: str, relation: str, silent_seconds: float = LOCK_SECONDS) -> int:
    """End our sessions that hold a lock on the relation and have waited for their client for so long; how many."""
    # Under the login's own role, the one whose sessions it may end.
    connection = await connect(dsn, None)
    try:
        with passing_errors():
            ended = len(await connection.fetch(queries.EVICT, relation, silent_seconds))
    finally:
        connection.terminate()
    log.warning("silent_sessions_ended", relation=relation, sessions=ended)
    return ended
