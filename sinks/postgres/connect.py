"""Connections to Postgres: time-outs, roles, types as the log has them, and its errors as ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg

from schemas.errors import StoreUnavailableError

APP_ROLE = "quaestor_app"
READER_ROLE = "quaestor_reader"
VAULT_ROLE = "quaestor_vault"

CONNECT_SECONDS = 5.0
#: Server-side bounds, seconds. A stopped process (SIGSTOP) in the middle of a transaction must not keep its row locks
#: for longer than a session time-out, or the new owner could not claim.
STATEMENT_SECONDS = 30.0
LOCK_SECONDS = 15.0
IDLE_IN_TRANSACTION_SECONDS = 10.0

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
