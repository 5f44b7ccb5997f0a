"""Looking for entries: a window of the log at a time, newest first, so that every statement is bounded."""

# ruff: noqa: S608 - the clauses are those of this file, values are arguments
from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import asyncpg

from processors.audit.entry import LOG_TENANT, Sealed
from sinks.audit.store import EntryFilter, Found

#: As the migration that makes audit_window says.
WINDOW_ENTRIES = 65_536
#: Windows of one look.
WINDOWS_MAX = 16
MICROS_MAX = (1 << 63) - 1
Fetch = Callable[..., Awaitable[list[asyncpg.Record]]]
#: Tenants that have entries in the newest window: (tenant, number of the window).
WindowTenants = frozenset[tuple[str, int]]
NO_TENANTS: WindowTenants = frozenset()

WIDEN_WINDOWS: Final = """
INSERT INTO quaestor.audit_window AS known (log, number, first_micros, last_micros)
SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::bigint[])
ON CONFLICT (log, number) DO UPDATE SET
    first_micros = least(known.first_micros, excluded.first_micros),
    last_micros = greatest(known.last_micros, excluded.last_micros)
"""
ADD_TENANTS: Final = """
INSERT INTO quaestor.audit_window_tenant (log, tenant_id, number)
SELECT $1, * FROM unnest($2::text[], $3::bigint[])
ON CONFLICT DO NOTHING
"""
WINDOWS: Final = """
SELECT number FROM quaestor.audit_window AS span
WHERE log = $1 AND number <= $2 AND last_micros >= $3 AND first_micros < $4
    AND ($5::text IS NULL OR EXISTS (
        SELECT FROM quaestor.audit_window_tenant AS of
        WHERE of.log = $1 AND of.tenant_id = $5 AND of.number = span.number))
ORDER BY number DESC LIMIT $6
"""
TIMES: Final = "quaestor.audit_entry_micros(entry)"
#: A clause per field of the filter; a kind is first looked for as bytes, which is a hundred times faster.
CLAUSES: Final[Mapping[str, str]] = {
    "tenant_id": "tenant_id = {}",
    "topic": "topic = {}",
    "kind": "quaestor.audit_entry_kind(entry) = {}",
    "kind_bytes": "position({}::bytea IN entry) > 0",
    "request_id": "request_id = {}",
    "from_micros": f"{TIMES} >= {{}}",
    "to_micros": f"{TIMES} < {{}}",
    "not_tenant": "tenant_id <> {}",
}


async def widen(
    execute: Callable[..., Awaitable[Any]], log: str, sealed: Sequence[Sealed], known: WindowTenants
) -> WindowTenants:
    """Widen the windows of these entries, which are in order, in the transaction that `execute` runs in.

    `known` need not be written again; what it is next time, if the transaction is committed, is returned.
    """
    parts = list(_by_window(sealed))
    firsts = [min(each.source.time_micros for each in part) for _, part in parts]
    lasts = [max(each.source.time_micros for each in part) for _, part in parts]
    await execute(WIDEN_WINDOWS, log, [number for number, _ in parts], firsts, lasts)
    whose = {(each.source.tenant_id, number) for number, part in parts for each in part}
    if new := sorted(whose - known):
        await execute(ADD_TENANTS, log, [tenant for tenant, _ in new], [number for _, number in new])
    last = parts[-1][0]
    return frozenset(pair for pair in known | whose if pair[1] == last)


def _by_window(sealed: Sequence[Sealed]) -> Iterator[tuple[int, Sequence[Sealed]]]:
    first, end = sealed[0].seq, sealed[-1].seq + 1
    for number in range(first // WINDOW_ENTRIES, (end - 1) // WINDOW_ENTRIES + 1):
        start = max(number * WINDOW_ENTRIES - first, 0)
        yield number, sealed[start : (number + 1) * WINDOW_ENTRIES - first]


async def find(fetch: Fetch, log: str, wanted: EntryFilter, before: int, limit: int) -> Found:
    """As the seam says; `fetch` runs a statement."""
    entries: list[tuple[int, bytes]] = []
    statement, arguments = _statement(wanted)
    numbers = await _windows(fetch, log, wanted, before)
    for number in numbers:
        first, end = number * WINDOW_ENTRIES, min((number + 1) * WINDOW_ENTRIES, before)
        rows = await fetch(statement, log, first, end, limit - len(entries), *arguments)
        entries += [(row["seq"], row["entry"]) for row in rows]
        if len(entries) == limit:
            return Found(entries, entries[-1][0])
    return Found(entries, numbers[-1] * WINDOW_ENTRIES if len(numbers) == WINDOWS_MAX else 0)


async def _windows(fetch: Fetch, log: str, wanted: EntryFilter, before: int) -> list[int]:
    """The windows to look at next, newest first."""
    last = (before - 1) // WINDOW_ENTRIES
    since = -MICROS_MAX if wanted.from_micros is None else wanted.from_micros
    until = MICROS_MAX if wanted.to_micros is None else wanted.to_micros
    rows = await fetch(WINDOWS, log, last, since, until, wanted.tenant_id, WINDOWS_MAX)
    return [row["number"] for row in rows]


def _statement(wanted: EntryFilter) -> tuple[str, list[Any]]:
    """The statement that looks at one span, and its arguments after log, first, end and limit."""
    given = dict(_given(wanted))
    clauses = [CLAUSES[name].format(f"${number}") for number, name in enumerate(given, 5)]
    where = " AND ".join(["log = $1", "seq >= $2", "seq < $3", *clauses])
    sql = f"SELECT seq, entry FROM quaestor.audit_entry WHERE {where} ORDER BY seq DESC LIMIT $4"
    return sql, list(given.values())


def _given(wanted: EntryFilter) -> Iterator[tuple[str, Any]]:
    fields = ("tenant_id", "topic", "request_id", "from_micros", "to_micros", "kind")
    values: Iterable[tuple[str, Any]] = ((name, getattr(wanted, name)) for name in fields)
    yield from ((name, value) for name, value in values if value is not None)
    if wanted.kind is not None:
        text = wanted.kind.encode()
        yield "kind_bytes", len(text).to_bytes(2, "big") + text
    if wanted.tenant_id is None and not wanted.wants_own:
        yield "not_tenant", LOG_TENANT
