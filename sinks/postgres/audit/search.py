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
#: Windows in one statement where an index leads to the entries.
WINDOWS_INDEXED = 16
#: Statements of one look.
STATEMENTS_MAX = 64
MICROS_MAX = (1 << 63) - 1
Fetch = Callable[..., Awaitable[list[asyncpg.Record]]]

WIDEN_WINDOWS: Final = """
INSERT INTO quaestor.audit_window AS known (log, number, first_micros, last_micros)
SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::bigint[])
ON CONFLICT (log, number) DO UPDATE SET
    first_micros = least(known.first_micros, excluded.first_micros),
    last_micros = greatest(known.last_micros, excluded.last_micros)
"""
WINDOWS: Final = """
SELECT number FROM quaestor.audit_window
WHERE log = $1 AND number <= $2 AND last_micros >= $3 AND first_micros < $4
ORDER BY number DESC LIMIT $5
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


def widened(sealed: Sequence[Sealed]) -> tuple[list[int], list[int], list[int]]:
    """Number, least and greatest time of every window that these entries, in order, lie in."""
    numbers = list(range(sealed[0].seq // WINDOW_ENTRIES, sealed[-1].seq // WINDOW_ENTRIES + 1))
    firsts, lasts = [], []
    for number in numbers:
        start = max(number * WINDOW_ENTRIES - sealed[0].seq, 0)
        times = [each.source.time_micros for each in sealed[start : (number + 1) * WINDOW_ENTRIES - sealed[0].seq]]
        firsts.append(min(times))
        lasts.append(max(times))
    return numbers, firsts, lasts


async def find(fetch: Fetch, log: str, wanted: EntryFilter, before: int, limit: int) -> Found:
    """As the seam says; `fetch` runs a statement."""
    entries: list[tuple[int, bytes]] = []
    statement, arguments = _statement(wanted)
    spans = await _spans(fetch, log, wanted, before)
    for first, end in spans:
        rows = await fetch(statement, log, first, end, limit - len(entries), *arguments)
        entries += [(row["seq"], row["entry"]) for row in rows]
        if len(entries) == limit:
            return Found(entries, entries[-1][0])
    return Found(entries, spans[-1][0] if len(spans) == STATEMENTS_MAX else 0)


async def _spans(fetch: Fetch, log: str, wanted: EntryFilter, before: int) -> list[tuple[int, int]]:
    """The positions [first, end) that the next statements look at, newest first."""
    last = (before - 1) // WINDOW_ENTRIES
    if wanted.from_micros is not None or wanted.to_micros is not None:
        since = -MICROS_MAX if wanted.from_micros is None else wanted.from_micros
        until = MICROS_MAX if wanted.to_micros is None else wanted.to_micros
        rows = await fetch(WINDOWS, log, last, since, until, STATEMENTS_MAX)
        return [_span(row["number"], 1, before) for row in rows]
    step = WINDOWS_INDEXED if wanted.tenant_id or wanted.request_id else 1
    numbers = range(last - last % step, -1, -step)
    return [_span(number, step, before) for number in numbers[:STATEMENTS_MAX]]


def _span(number: int, windows: int, before: int) -> tuple[int, int]:
    return number * WINDOW_ENTRIES, min((number + windows) * WINDOW_ENTRIES, before)


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
