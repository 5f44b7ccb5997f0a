"""What the nightly report reads of Postgres: a day's figures and what does not match, all on one snapshot."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, TypeVar

import asyncpg

from processors.control import Limit
from processors.report.budgets import COUNTERS_PER_LIMIT_MAX, limits_of, windows_of
from processors.report.day import Span
from processors.report.figures import (
    AttemptCount,
    Charge,
    DecisionCount,
    Findings,
    HoldMovement,
    HourCharge,
    LateCommit,
    LedgerMovement,
    Mismatch,
    OwnerCharge,
    RequestCount,
    Row,
    SetAside,
    TenantFigures,
    WindowSpend,
)
from schemas.errors import StoreError
from sinks.postgres import read_queries
from sinks.postgres import report_queries as queries
from sinks.postgres.connect import READER_ROLE, connect, passing_errors, use_log_types
from sinks.postgres.invariants import Invariant
from sinks.postgres.reconciliation import RULES, of_day
from sinks.postgres.tables import PROJECTION
from streams.log import Partition

#: One statement over a day of many millions of events.
STATEMENT_SECONDS = 600.0
#: Rows of one rule that are shown per tenant; all are counted.
SHOWN_MAX = 20
#: Told what is read, how many steps are done and how many there are.
OnStep = Callable[[str, int, int], None]
R = TypeVar("R", bound=Row)

#: Name of the rule and what it claims.
CLAIMS: Mapping[str, str] = {rule.name: rule.claim for rule in RULES}
_FIGURES: tuple[tuple[str, str, type[Row]], ...] = (
    ("requests", queries.REQUESTS, RequestCount),
    ("decisions", queries.DECISIONS, DecisionCount),
    ("attempts", queries.ATTEMPTS, AttemptCount),
    ("charges", queries.CHARGES, Charge),
    ("owners", queries.OWNERS, OwnerCharge),
    ("hours", queries.HOURS, HourCharge),
    ("holds", queries.HOLDS, HoldMovement),
    ("set_aside", queries.SET_ASIDE, SetAside),
)
#: The rules, these figures, and late commits, ledger, limits, windows and totals.
STEPS = len(RULES) + len(_FIGURES) + 5


class DayRead:
    """What was read: per tenant, and where the projection stood."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.figures: defaultdict[str, TenantFigures] = defaultdict(TenantFigures)
        self.cursors: dict[Partition, int] = {}

    def add(self, name: str, rows: list[asyncpg.Record], row_type: type[Row]) -> None:
        """Put rows into the figure of this name, each in its tenant's."""
        for tenant_id, *values in rows:
            getattr(self.figures[tenant_id], name).append(row_type(*map(_exact, values)))


async def read_day(dsn: str, span: Span, tenant: str | None, on_step: OnStep) -> DayRead:
    """Everything of a day, of one tenant or of all, on one snapshot, under the reader's role.

    Raises StoreUnavailableError, and StoreError when there is more than a report can hold.
    """
    connection = await connect(dsn, READER_ROLE, STATEMENT_SECONDS)
    try:
        with passing_errors():
            await use_log_types(connection)
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                return await _Reading(connection, span, tenant, on_step).run()
    finally:
        connection.terminate()


class _Reading:
    """One reading of one day."""

    def __init__(self, connection: asyncpg.Connection, span: Span, tenant: str | None, on_step: OnStep) -> None:
        self._connection, self._span, self._tenant, self._on_step = connection, span, tenant, on_step
        self._found = DayRead()
        self._done = 0
        #: Those that have a late commit; they are read whole, whenever they began.
        self._late_requests: list[str] = []

    async def run(self) -> DayRead:
        day = self._span.day
        rows = await self._connection.fetch(read_queries.CURSORS, PROJECTION)
        self._found.cursors = {Partition(row["topic"], row["partition"]): row["next_offset"] for row in rows}
        for name, sql, row_type in _FIGURES:
            self._found.add(name, await self._rows(name, sql, day.starts_at, day.ends_at), row_type)
        await self._across_midnight()
        await self._budgets()
        for rule in RULES:
            await self._judge(rule)
        return self._found

    async def _across_midnight(self) -> None:
        """Figures of the day that need what stands beside it."""
        span, day = self._span, self._span.day
        rows = await self._connection.fetch(queries.LATE_REQUESTS, span.since, span.late_until, self._tenant)
        self._late_requests = [request_id for (request_id,) in rows]
        late = await self._rows(
            "late commits", queries.LATE_COMMITS, span.late_since, span.late_until, day.starts_at, day.ends_at,
            self._late_requests,
        )  # fmt: skip
        self._found.add("late_commits", late, LateCommit)
        moved = await self._rows("ledger", queries.LEDGER, day.starts_at, day.ends_at, span.since)
        self._found.add("ledger", moved, LedgerMovement)

    async def _budgets(self) -> None:
        day = self._span.day
        bodies = await self._rows("limits", queries.LIMITS, day.starts_at, day.ends_at)
        for tenant_id, body in bodies:
            self._found.figures[tenant_id].limits.append(body)
        limits = limits_of([body for _, body in bodies], day)
        await self._windows([limit for limit in limits if limit.window != "total"])
        await self._totals([limit for limit in limits if limit.window == "total"])

    async def _windows(self, limits: list[Limit]) -> None:
        """The fullest windows of the day; transfers are read from the oldest of all on."""
        day, asked = self._span.day, [windows_of(limit, self._span.day) for limit in limits]
        since = min((first for first, _ in asked), default=day.starts_at)
        firsts, lasts = [first for first, _ in asked], [last for _, last in asked]
        found = await self._rows(
            "windows", queries.WINDOWS, since, self._span.until, COUNTERS_PER_LIMIT_MAX, day.ends_at,
            *_names(limits), firsts, lasts,
        )  # fmt: skip
        self._found.add("windows", found, WindowSpend)

    async def _totals(self, limits: list[Limit]) -> None:
        """Counters that have no window."""
        day, each = self._span.day, [limit.is_each for limit in limits]
        found = await self._rows(
            "totals", queries.TOTALS, day.starts_at, day.ends_at, COUNTERS_PER_LIMIT_MAX, *_names(limits), each
        )
        self._found.add("windows", found, WindowSpend)

    async def _judge(self, rule: Invariant) -> None:
        span, late = self._span, self._late_requests
        more = (late, span.late_since, span.late_until) if late else ()
        rows = await self._rows(
            rule.name, of_day(rule, has_late=bool(late)), span.since, span.until,
            span.day.starts_at, span.judged_until, SHOWN_MAX, *more,
        )  # fmt: skip
        shown: defaultdict[str, list[Mismatch]] = defaultdict(list)
        totals: dict[str, int] = {}
        for tenant_id, total, at, what, request_id, difference in rows:
            totals[tenant_id] = total
            shown[tenant_id].append(Mismatch(what, request_id, at, difference))
        for tenant_id, mismatches in shown.items():
            findings = self._found.figures[tenant_id].findings
            findings.append(Findings(rule.name, totals[tenant_id], tuple(mismatches)))

    async def _rows(self, what: str, sql: str, since: int, until: int, *more: Any) -> list[asyncpg.Record]:
        self._on_step(what.replace("_", " "), self._done, STEPS)
        self._done += 1
        bounded = f"{sql}LIMIT {queries.GROUPS_MAX + 1}"
        rows: list[asyncpg.Record] = await self._connection.fetch(bounded, since, until, self._tenant, *more)
        if len(rows) > queries.GROUPS_MAX:
            raise StoreError(f"more than {queries.GROUPS_MAX:,} groups of {what} in one day: ask for one --tenant")
        return rows


def _names(limits: list[Limit]) -> tuple[list[str], list[str]]:
    """Tenants and ids."""
    return [limit.tenant_id for limit in limits], [limit.limit_id for limit in limits]


def _exact(value: Any) -> Any:
    """Sums come as decimals without a fraction."""
    return int(value) if isinstance(value, Decimal) else value
