"""People's side of the quarantine in Postgres, for `quaestor dlq`: each change is one transaction with its event."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from processors.quarantine.events import follow_up, resumed
from schemas.events import QuarantinedRecord, QuarantineKind
from sinks.dead_letters import UNRESOLVED, DeadLetter, DeadLetters, PausedPartition, Selection
from sinks.postgres import dead_letter_queries as queries
from sinks.postgres.kept_events import first_event
from sinks.postgres.quarantine import Pooled, tell
from streams.log import Partition


class PostgresDeadLetters(Pooled, DeadLetters):
    """DeadLetters over Postgres. Raises StoreUnavailableError."""

    async def find(self, selection: Selection, rows_max: int) -> list[DeadLetter]:
        """As the seam says."""
        async with self._transaction() as connection:
            rows = await connection.fetch(
                queries.FIND,
                list(selection.event_ids) or None,
                list(selection.states) or None,
                selection.sink,
                selection.topic,
                selection.tenant_id,
                selection.fingerprint,
                selection.since_micros,
                selection.until_micros,
                rows_max,
            )
        return [_letter(row) for row in rows]

    async def show(self, event_id: str) -> tuple[DeadLetter, QuarantinedRecord] | None:
        """As the seam says."""
        async with self._transaction() as connection:
            row = await connection.fetchrow(queries.SHOW, event_id)
        return None if row is None else (_letter(row), first_event(row))

    async def request(self, event_ids: Sequence[str], actor: str, *, again: bool = False) -> int:
        """As the seam says."""
        states = [*UNRESOLVED, "REDRIVEN"] if again else list(UNRESOLVED)
        async with self._transaction() as connection:
            return _count(await connection.execute(queries.REQUEST, list(event_ids), actor, states))

    async def park(self, event_ids: Sequence[str], actor: str, note: str) -> int:
        """As the seam says."""
        async with self._transaction() as connection:
            rows = await connection.fetch(queries.PARK, list(event_ids), note)
            await _tell(connection, rows, QuarantineKind.PARKED, actor, note)
        return len(rows)

    async def discard(self, event_ids: Sequence[str], actor: str, note: str) -> int:
        """As the seam says."""
        async with self._transaction() as connection:
            rows = await connection.fetch(queries.DISCARD, list(event_ids), note, actor)
            await connection.execute(queries.FREE_FOLLOWERS, [row["event_id"] for row in rows], actor)
            await _tell(connection, rows, QuarantineKind.DISCARDED, actor, note)
        return len(rows)

    async def pauses(self) -> list[PausedPartition]:
        """As the seam says."""
        async with self._transaction() as connection:
            rows = await connection.fetch(queries.PAUSES)
        return [PausedPartition(row[0], Partition(row[1], row[2]), *list(row.values())[3:]) for row in rows]

    async def resume(self, projection: str, partition: Partition, actor: str, lifted_until: int) -> bool:
        """As the seam says."""
        words = f"A person resumed it; limits count from offset {lifted_until} on." if lifted_until else "Resumed."
        event = resumed(projection, str(partition), actor, time.time_ns() // 1_000, words)
        async with self._transaction() as connection:
            done = _count(await connection.execute(queries.RESUME, projection, *partition, actor, lifted_until))
            if done:
                await tell(connection, [event])
        return bool(done)


async def _tell(connection: Any, rows: Sequence[Any], kind: QuarantineKind, actor: str, note: str) -> None:
    now_micros = time.time_ns() // 1_000
    firsts = [first_event(row) for row in rows]
    await tell(connection, [follow_up(first, kind, actor, now_micros, str(now_micros), note) for first in firsts])


def _letter(row: Any) -> DeadLetter:
    values = list(row.values())[:18]
    return DeadLetter(values[0], values[1], Partition(values[2], values[3]), *values[4:])


def _count(status: str) -> int:
    return int(status.rsplit(" ", 1)[1])
