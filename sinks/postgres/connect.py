"""Connections to Postgres: time-outs, roles, types as the log has them, and its errors as ours."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import asyncpg
import structlog

from schemas.errors import StoreUnavailableError

log = structlog.get_logger()

APP_ROLE = "quaestor_app"
READER_ROLE = "quaestor_reader"
VAULT_ROLE = "quaestor_vault"

CONNECT_SECONDS = 5.0
#: Server-side bounds, seconds. A stopped process (SIGSTOP) in the middle of a transaction must not keep its row locks
#: for longer than a session time-out, or the new owner could not claim.
STATEMENT_SECONDS = 30.0
LOCK_SECONDS = 15.0
IDLE_IN_TRANSACTION_SECONDS = 10.0
#: A client that went silent in the middle of COPY keeps its locks through all of these: Postgres reads on, and neither
#: statement_timeout nor transaction_timeout interrupts it there. Whoever waited for such a lock ends that session.
END_STALLED = """
SELECT count(*) FILTER (WHERE pg_terminate_backend(pid))
FROM pg_stat_activity
WHERE application_name = 'quaestor' AND datname = current_database() AND usename = session_user
    AND state = 'active' AND wait_event = 'ClientRead' AND xact_start < clock_timestamp() - make_interval(secs => $1)
"""

#: Microseconds between the Unix epoch and Postgres' own, 2000-01-01.
POSTGRES_EPOCH_MICROS = 946_684_800_000_000

#: Errors that pass: the server is away, going, full, or chose this transaction to end.
PASSING = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.InvalidAuthorizationSpecificationError,
    # Not migrated yet: `quaestor migrate` brings it.
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.UndefinedFunctionError,
    asyncpg.InvalidSchemaNameError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.UndefinedObjectError,
    OSError,
    TimeoutError,
)


@contextmanager
def passing_errors() -> Iterator[None]:
    """Raise StoreUnavailableError for whatever passes by itself or by an operator's hand."""
    try:
        yield
    except PASSING as error:
        raise StoreUnavailableError(f"Postgres: {type(error).__name__}: {error}") from error


@asynccontextmanager
async def freeing_locks(dsn: str) -> AsyncIterator[None]:
    """Where a lock could not be had in time, end the sessions of stalled clients; the fault goes on, to be retried."""
    try:
        yield
    except StoreUnavailableError as error:
        if isinstance(error.__cause__, asyncpg.LockNotAvailableError):
            await end_stalled(dsn)
        raise


async def end_stalled(dsn: str) -> int:
    """End sessions of ours whose client stalled in the middle of a statement; how many. Raises StoreUnavailableError.

    As the user that logs in, not as the application's role: a user may end sessions of its own.
    """
    connection = await connect(dsn, None)
    try:
        with passing_errors():
            ended = int(await connection.fetchval(END_STALLED, LOCK_SECONDS))
    finally:
        connection.terminate()
    if ended:
        log.warning("stalled_sessions_ended", sessions=ended)
    return ended


async def connect(dsn: str, role: str | None, statement_seconds: float = STATEMENT_SECONDS) -> asyncpg.Connection:
    """A connection under a role; raises StoreUnavailableError, and InvalidCatalogNameError without the database."""
    try:
        with passing_errors():
            connection = await asyncpg.connect(
                dsn,
                timeout=CONNECT_SECONDS,
                command_timeout=statement_seconds + CONNECT_SECONDS,
                server_settings=server_settings(role, statement_seconds),
            )
    except asyncpg.InvalidParameterValueError as error:
        raise StoreUnavailableError(f"Postgres: {error}; run `quaestor migrate`") from error
    except StoreUnavailableError as error:
        if isinstance(error.__cause__, asyncpg.InvalidCatalogNameError):
            raise error.__cause__ from None
        raise
    return connection


def server_settings(role: str | None, statement_seconds: float = STATEMENT_SECONDS) -> dict[str, str]:
    """Session settings: names, role and bounds."""
    settings = {
        "application_name": "quaestor",
        "statement_timeout": str(int(statement_seconds * 1_000)),
        "lock_timeout": str(int(LOCK_SECONDS * 1_000)),
        "idle_in_transaction_session_timeout": str(int(IDLE_IN_TRANSACTION_SECONDS * 1_000)),
        "search_path": "quaestor_v1, quaestor",
        "timezone": "UTC",
    }
    return settings | ({"role": role} if role else {})


async def use_log_types(connection: asyncpg.Connection) -> None:
    """Speak times as integers of microseconds since the Unix epoch, as events do."""
    await connection.set_type_codec(
        "timestamptz", schema="pg_catalog", encoder=_encode_micros, decoder=_decode_micros, format="tuple"
    )


def _encode_micros(micros: int) -> tuple[int]:
    return (micros - POSTGRES_EPOCH_MICROS,)


def _decode_micros(value: tuple[Any, ...]) -> int:
    return int(value[0]) + POSTGRES_EPOCH_MICROS


async def create_pool(dsn: str, role: str, connections_max: int) -> asyncpg.Pool:
    """A bounded pool under a role with the log's types; connects lazily."""
    with passing_errors():
        return await asyncpg.create_pool(
            dsn,
            min_size=0,
            max_size=connections_max,
            timeout=CONNECT_SECONDS,
            command_timeout=STATEMENT_SECONDS + CONNECT_SECONDS,
            server_settings=server_settings(role),
            init=use_log_types,
        )
