"""Rollups brought back to what their facts say, where an insert's way into them is in doubt.

A view writes in the very insert that brings the facts, but the two are not one step: a view may fail beside facts that
landed, and facts that were lost are inserted again under another token, which a view counts again. Rollups do not say
which rows they counted, so what was repeated is compared: hour by hour and tenant by tenant with the view's own query
over the facts, and an hour that differs is made anew. See docs/decisions/0156-rollups-follow-their-facts.md.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from schemas.errors import StoreUnavailableError
from schemas.topics import COSTS, REQUESTS
from sinks.clickhouse import queries
from sinks.clickhouse.client import STATEMENT_SECONDS, ClickHouse
from sinks.clickhouse.plans import Piece
from sinks.clickhouse.tables import TABLES
from sinks.retention import RETAINED_TOPICS
from sinks.runner.seam import Decoded

log = structlog.get_logger()

#: An insert's facts are seen a moment before its view's, and another owner may be about to repeat one: what differs is
#: looked at again before it is believed.
LOOK_AGAIN_SECONDS = 5.0
#: What was under way while a rollup was made anew has ended by then, or its owner repeats and compares it.
CALM_SECONDS = STATEMENT_SECONDS + 1.0
TRIES_MAX = 4
#: Hours that are made anew in one go; their names travel in an address.
BUCKETS_MAX = 500
MICROS_PER_SECOND = 1_000_000
SECONDS_PER_HOUR = 3_600
#: No month is cut before it is over for so long (migration 0133 of Postgres).
CUT_AFTER = timedelta(days=30)


@dataclass(frozen=True)
class Rollup:
    """A table that a view fills from one table of facts."""

    name: str
    topic: str
    #: What its rows are sorted and summed by.
    keys: tuple[str, ...]
    sums: tuple[str, ...]

    @property
    def facts(self) -> str:
        """The table of its facts."""
        return TABLES[self.topic].name


#: A tenant and the start of an hour, seconds since the epoch.
Bucket = tuple[str, int]
_MODEL = ("hour", "tenant_id", "team_id", "project_id", "provider_id", "model", "currency")
_TOKENS = ("input_tokens", "cached_input_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")
ROLLUPS: Mapping[str, Rollup] = {
    each.topic: each
    for each in (
        Rollup(
            "rollup_cost_hourly",
            COSTS.name,
            (*_MODEL, "meter", "kind", "estimated"),
            ("quantity", "amount", "events"),
        ),
        Rollup(
            "rollup_requests_hourly",
            REQUESTS.name,
            _MODEL,
            ("requests", "completed", "failed", "refused", *_TOKENS, "amount"),
        ),
    )
}


class Rollups:
    """The rollups of one database; one at a time is looked at."""

    def __init__(
        self,
        clickhouse: ClickHouse,
        now_seconds: Callable[[], float] = time.time,
        look_again_seconds: float = LOOK_AGAIN_SECONDS,
        calm_seconds: float = CALM_SECONDS,
    ) -> None:
        """`now_seconds` says which months retention may have cut by now."""
        self._clickhouse = clickhouse
        self._now_seconds = now_seconds
        self._look_again_seconds = look_again_seconds
        self._calm_seconds = calm_seconds
        self._mending = asyncio.Lock()

    async def mend(self, topic: str, pieces: Sequence[Piece]) -> None:
        """Bring the hours of these facts, all of which are in their table, to what the facts say.

        Raises StoreUnavailableError; when an hour keeps differing too.
        """
        rollup = ROLLUPS.get(topic)
        if rollup is not None:
            await self._mend_whole(rollup, await self._buckets(rollup, pieces))

    async def mend_records(self, topic: str, records: Sequence[Decoded]) -> None:
        """The same for records that may lie far from each other."""
        rollup = ROLLUPS.get(topic)
        if rollup is not None:
            await self._mend_whole(rollup, sorted({_bucket(record.fields) for record in records}))

    async def mend_all(self, since: int) -> dict[str, int]:
        """Every hour of every rollup; how many were made anew, by the rollup's name.

        `since`: microseconds; facts of before may be cut (sinks/retention.py). Raises StoreUnavailableError.
        """
        found = {}
        for rollup in ROLLUPS.values():
            begin = since // MICROS_PER_SECOND if rollup.topic in RETAINED_TOPICS else 0
            async with self._mending:
                wrong = await self._differing_since(rollup, begin)
                for first in range(0, len(wrong), BUCKETS_MAX):
                    await self._mend(rollup, wrong[first : first + BUCKETS_MAX])
            found[rollup.name] = len(wrong)
        return found

    async def _mend_whole(self, rollup: Rollup, buckets: Sequence[Bucket]) -> None:
        async with self._mending:
            buckets = self._whole(rollup, buckets)
            for first in range(0, len(buckets), BUCKETS_MAX):
                await self._mend(rollup, buckets[first : first + BUCKETS_MAX])

    async def _mend(self, rollup: Rollup, buckets: Sequence[Bucket]) -> None:
        wrong = await self._surely_differing(rollup, buckets)
        for _ in range(TRIES_MAX):
            if not wrong:
                return
            log.error("rollup_made_anew", rollup=rollup.name, hours=len(wrong), first=wrong[0])
            await self._make_anew(rollup, wrong)
            await asyncio.sleep(self._calm_seconds)
            wrong = await self._surely_differing(rollup, buckets)
        if wrong:
            raise StoreUnavailableError(f"{rollup.name} keeps differing from its facts: {wrong[0]}")

    async def _surely_differing(self, rollup: Rollup, buckets: Sequence[Bucket]) -> list[Bucket]:
        """What differs twice, since an insert under way makes a difference for a moment."""
        for _ in range(2):
            if not buckets:
                break
            buckets = await self._differing(rollup, buckets)
            if buckets:
                await asyncio.sleep(self._look_again_seconds)
        return list(buckets)

    async def _differing(self, rollup: Rollup, buckets: Sequence[Bucket]) -> list[Bucket]:
        sql = queries.differing(self._clickhouse.database, rollup, await self._view(rollup), queries.IN_BUCKETS)
        return _buckets(await self._clickhouse.query(sql, _named(buckets)))

    async def _differing_since(self, rollup: Rollup, begin: int) -> list[Bucket]:
        sql = queries.differing(self._clickhouse.database, rollup, await self._view(rollup), queries.SINCE_HOUR)
        return _buckets(await self._clickhouse.query(sql, {"begin": begin}))

    async def _make_anew(self, rollup: Rollup, buckets: Sequence[Bucket]) -> None:
        """Until the second statement is done, whoever reads these hours finds nothing."""
        view = await self._view(rollup)
        await self._clickhouse.command(queries.clear_buckets(self._clickhouse.database, rollup), _named(buckets))
        await self._clickhouse.command(queries.fill_buckets(self._clickhouse.database, rollup, view), _named(buckets))

    async def _view(self, rollup: Rollup) -> str:
        """The query of its view, as the server has it."""
        rows = await self._clickhouse.query(queries.VIEW, {"of": self._clickhouse.database, "name": rollup.name})
        if not rows:
            raise StoreUnavailableError(f"ClickHouse has no view of {rollup.name}; run `quaestor migrate`")
        return str(rows[0][0])

    async def _buckets(self, rollup: Rollup, pieces: Sequence[Piece]) -> list[Bucket]:
        sql = queries.buckets_of(self._clickhouse.database, rollup)
        found: set[Bucket] = set()
        for piece in pieces:
            found.update(_buckets(await self._clickhouse.query(sql, piece.named())))
        return sorted(found)

    def _whole(self, rollup: Rollup, buckets: Sequence[Bucket]) -> list[Bucket]:
        """Without hours whose other facts retention may have cut: made anew, they would lose them."""
        if rollup.topic not in RETAINED_TOPICS:
            return list(buckets)
        youngest = datetime.fromtimestamp(self._now_seconds(), UTC) - CUT_AFTER
        begin = datetime(youngest.year, youngest.month, 1, tzinfo=UTC).timestamp()
        left = [bucket for bucket in buckets if bucket[1] < begin]
        if left:
            log.warning("rollup_not_compared", rollup=rollup.name, hours=len(left), first=left[0])
        return [bucket for bucket in buckets if bucket[1] >= begin]


def _named(buckets: Sequence[Bucket]) -> dict[str, Any]:
    return {"tenants": [tenant for tenant, _ in buckets], "hours": [hour for _, hour in buckets]}


def _bucket(fields: Mapping[str, Any]) -> Bucket:
    seconds = fields["occurred_at"] // MICROS_PER_SECOND
    return fields["tenant_id"], seconds - seconds % SECONDS_PER_HOUR


def _buckets(rows: Sequence[tuple[Any, ...]]) -> list[Bucket]:
    return [(str(tenant), int(hour)) for tenant, hour in rows]
