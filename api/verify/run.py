"""Runs the checks of some scopes against the running stores."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from typing import Literal, get_args

from api.audit.local import layout_of
from api.settings import Settings
from api.times import MICROS_PER_SECOND
from api.verify.content import ContentComparison
from api.verify.expected import Expected, ExpectedContent
from api.verify.kept import KeptEntries, KeptEvents, control_range, events_kept_from
from api.verify.log_scan import Barrier, LogScan, Taker, take_barrier
from api.verify.parity import (
    Follower,
    NamedStore,
    compare_totals,
    reach,
    reach_all,
    rollup_agrees,
    unread_records_are_kept,
)
from processors.parity.checks import Check, Due, empty, equal, log_checks
from processors.parity.digest import KEY_BYTES, RowHasher
from schemas.topics import ATTEMPTS, BUDGETS, CONTROL, COSTS, LEDGER, REQUESTS, TOPICS
from sinks.audit.files import LogFiles
from sinks.audit.key_ring import KeyRing
from sinks.audit.keys import load_salts
from sinks.audit.layout import AUDITED_TOPICS
from sinks.audit.lock import FileLockStore
from sinks.audit.reads import AuditReads
from sinks.audit.verify import verify_audit
from sinks.clickhouse.client import ClickHouse
from sinks.clickhouse.reads import ClickHouseReads
from sinks.clickhouse.sink import PROJECTION as CLICKHOUSE
from sinks.clickhouse.tables import TABLES as CLICKHOUSE_TABLES
from sinks.postgres.audit import PostgresAuditStore
from sinks.postgres.ledger_figures import InvariantResult
from sinks.postgres.plans import PostgresPlanStore
from sinks.postgres.reads import PostgresReads
from sinks.postgres.tables import PROJECTION as POSTGRES
from sinks.redis.check import BudgetCheck, check_budgets, read_states
from sinks.redis.keys import PROJECTION as REDIS
from sinks.redis.reads import RedisReads, TenantState
from streams.codec import Codec
from streams.kafka import KafkaReader
from streams.log import Partition
from streams.registry import RegistrySchemas

Scope = Literal["parity", "budgets", "ledger", "audit"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
#: What the ledger is made of and judged by.
BOOKED = tuple(topic.name for topic in (REQUESTS, ATTEMPTS, BUDGETS, COSTS, LEDGER, CONTROL))
LEDGER_TRIES = 5
LEDGER_PAUSE_SECONDS = 1.0
#: How the names of checks end that say how much there is to compare; `processors.parity.checks` has the one of parity.
IN_THE_LOG = "in the log"
#: Told what is being done, how far it is and how far it goes.
OnProgress = Callable[[str, int, int], None]


class Verification:
    """One run of `quaestor verify`; every method raises LogUnavailableError or StoreUnavailableError."""

    def __init__(self, settings: Settings, on_progress: OnProgress) -> None:
        """Connects at first use."""
        self._settings = settings
        self._progress = on_progress
        self._codec = Codec(RegistrySchemas(settings.registry_url))

    async def run(
        self, scopes: Collection[Scope], answers: Collection[str] | None, *, deep: bool = False
    ) -> list[Check]:
        """All checks of the scopes; `deep` compares every field of every row too, not only ids and money."""
        checks: list[Check] = []
        if "parity" in scopes:
            checks += await self.parity(answers, deep=deep)
        if "ledger" in scopes:
            checks += await self.ledger()
        if "budgets" in scopes:
            checks += await self.budgets()
        if "audit" in scopes:
            checks += await self.audit()
        return checks

    async def parity(self, answers: Collection[str] | None, *, deep: bool = False) -> list[Check]:
        """The log against itself, against the client's answers and against every store."""
        reader = KafkaReader(self._settings.kafka_bootstrap, "quaestor-verify")
        try:
            scan = await asyncio.to_thread(LogScan, reader, self._codec)
            due = due_at(time.time_ns() // 1_000, self._settings)
            barrier = await asyncio.to_thread(take_barrier, reader)
            since = await asyncio.to_thread(self._events_kept_from, scan, barrier)
            async with self._stores(since) as (postgres, clickhouse, stores):
                checks = await self._parity(scan, barrier, due, postgres, stores, answers, deep=deep)
                return checks + [rollup_agrees(each) for each in await clickhouse.rollups()]
        finally:
            reader.close()

    def _events_kept_from(self, scan: LogScan, barrier: Barrier) -> int:
        return events_kept_from(scan.read(control_range(barrier)), self._codec)

    async def _parity(
        self,
        scan: LogScan,
        barrier: Barrier,
        due: Due,
        postgres: PostgresReads,
        stores: Sequence[NamedStore],
        answers: Collection[str] | None,
        *,
        deep: bool,
    ) -> list[Check]:
        """What stores lack is known once they are at the barrier: only then is it known what they set aside."""
        lagging = await reach_all(stores, barrier, lambda name, left: self._progress(f"{name} lags", 0, left))
        asides = [await postgres.set_aside(store.projection) if store.projection else {} for store in stores]
        expected = {
            store.name: Expected(aside, store.kept.is_gone) for store, aside in zip(stores, asides, strict=True)
        }
        hasher = RowHasher(secrets.token_bytes(KEY_BYTES))
        contents = {store.name: ExpectedContent(store.content, expected[store.name], hasher) for store in stores}
        takers: list[Taker] = [contents[name].take if deep else each.take for name, each in expected.items()]
        fold = await asyncio.to_thread(scan.fold, barrier, takers, lambda done, all_: self._progress("log", done, all_))
        checks = log_checks(fold, answers, due)
        for store in stores:
            if store.name in lagging:
                checks.append(lagging[store.name])
                continue
            checks += await compare_totals(store, barrier, fold, expected[store.name])
            if store.projection:
                checks.append(unread_records_are_kept(store, expected[store.name]))
            if deep:
                checks += await self._compare_content(store, contents[store.name], store.part(barrier), scan)
        return checks

    async def _compare_content(
        self, store: NamedStore, of_log: ExpectedContent, barrier: Barrier, scan: LogScan
    ) -> list[Check]:
        rows = sum(digest.count for ranges in of_log.digests.values() for digest in ranges.values())
        comparison = ContentComparison(store.name, of_log, barrier, scan.read)
        return await comparison.checks(lambda done: self._progress(f"{store.name}, every field", done, rows))

    @asynccontextmanager
    async def _stores(self, since: int) -> AsyncIterator[tuple[PostgresReads, ClickHouseReads, list[NamedStore]]]:
        dsn = self._settings.postgres_dsn
        layout = layout_of(self._settings)
        kept = await asyncio.to_thread(LogFiles(layout.directory).kept)
        postgres = PostgresReads(dsn, since)
        plans = PostgresPlanStore(dsn, "verify")
        clickhouse = ClickHouseReads(ClickHouse(self._settings.clickhouse_url), plans, events_since=since)
        audit = PostgresAuditStore(dsn, layout.log)
        entries = AuditReads(audit, load_salts(layout.salt_file), kept.minimum_index)
        months = KeptEvents(since)
        stores = [
            NamedStore("postgres", tuple(topic.name for topic in TOPICS), postgres, postgres, POSTGRES, months),
            NamedStore("clickhouse", tuple(CLICKHOUSE_TABLES), clickhouse, clickhouse, CLICKHOUSE, months),
            NamedStore("audit", AUDITED_TOPICS, entries, entries, "", KeptEntries(kept)),
        ]
        try:
            await plans.open()
            await audit.open()
            yield postgres, clickhouse, stores
        finally:
            for store in (postgres, clickhouse, plans, audit):
                await store.close()

    async def ledger(self) -> list[Check]:
        """The named invariants of the double-entry ledger, once Postgres has what was recorded when this began."""
        barrier = await asyncio.to_thread(self._end_of, BOOKED)
        booked = {at: end for at, end in barrier.items() if at.topic != CONTROL.name}
        postgres = PostgresReads(self._settings.postgres_dsn)
        try:
            lags = await self._reach("postgres", postgres, barrier)
            results = await self._settled(postgres)
        finally:
            await postgres.close()
        return [_in_the_log("events to be booked", booked), *lags, *(_invariant(each) for each in results)]

    async def budgets(self) -> list[Check]:
        """Under traffic: Redis against the log's fold at each tenant's cursor, and the ledger against its holds.

        What was recorded when it began must be applied, or be so within a minute.
        """
        barrier = await asyncio.to_thread(self._end_of, [BUDGETS.name])
        reads = RedisReads(self._settings.redis_url)
        try:
            await reads.open()
            lags = await self._reach("redis", reads, barrier)
            states = await read_states(reads)
        finally:
            await reads.close()
        applied = {} if lags else barrier
        postgres = PostgresReads(self._settings.postgres_dsn)
        try:
            lags += await self._reach("postgres", postgres, barrier)
            set_aside = await postgres.set_aside(REDIS)
            booked = await self._settled(postgres, under_traffic=True)
        finally:
            await postgres.close()
        found = await asyncio.to_thread(self._check_budgets, states, set_aside, applied)
        words = [f"{each.what}: expected {each.expected}, found {each.actual}" for each in found.differences]
        redis = empty("redis budgets = fold of the log", words, max(found.events, len(words)), "tenant")
        return [_in_the_log("budget events", barrier), *lags, redis, *(_invariant(each) for each in booked)]

    async def _settled(self, postgres: PostgresReads, *, under_traffic: bool = False) -> list[InvariantResult]:
        """What differs in every one of several looks: what is under way differs in one of them at most."""
        overdue = self._overdue_before()
        results = await postgres.verify_ledger(under_traffic=under_traffic, overdue_before=overdue)
        for _ in range(LEDGER_TRIES - 1):
            if all(each.ok for each in results):
                break
            await asyncio.sleep(LEDGER_PAUSE_SECONDS)
            again = await postgres.verify_ledger(under_traffic=under_traffic, overdue_before=overdue)
            results = [now.lasting(before) for now, before in zip(again, results, strict=True)]
        return results

    async def _reach(self, name: str, follower: Follower, barrier: Barrier) -> list[Check]:
        lags = await reach(name, follower, barrier, lambda what, left: self._progress(f"{what} lags", 0, left))
        return [] if lags is None else [lags]

    def _end_of(self, topics: Sequence[str]) -> dict[Partition, int]:
        with closing(KafkaReader(self._settings.kafka_bootstrap, "quaestor-verify-budgets")) as reader:
            return take_barrier(reader, topics)

    def _check_budgets(
        self, states: dict[str, TenantState], set_aside: dict[Partition, set[int]], applied: Mapping[Partition, int]
    ) -> BudgetCheck:
        now, overdue = time.time_ns() // 1_000, self._overdue_before()
        with closing(KafkaReader(self._settings.kafka_bootstrap, "quaestor-verify-budgets")) as reader:
            remembered = self._settings.hold_tombstone_seconds
            return check_budgets(states, reader, self._codec, set_aside, now, applied, overdue, remembered)

    def _overdue_before(self) -> int:
        """A hold whose lease ended before this must have ended."""
        return time.time_ns() // 1_000 - self._settings.late_seconds * MICROS_PER_SECOND

    async def audit(self) -> list[Check]:
        """Every entry, chain, tile, row and signature of the audit log, derived again."""
        layout = layout_of(self._settings)
        store = PostgresAuditStore(self._settings.postgres_dsn, layout.log)
        keys = KeyRing(layout).load().chain
        await store.open()
        try:
            report = await verify_audit(
                store,
                LogFiles(layout.directory),
                FileLockStore(layout.lock_file),
                keys,
                lambda done, all_: self._progress("audit log", done, all_),
            )
        finally:
            await store.close()
        since = f" from entry {report.minimum_index} on" if report.minimum_index else ""
        entries = Check(f"audit: entries {IN_THE_LOG}", ok=True, expected=report.sequenced, actual=report.sequenced)
        return [entries] + [
            Check(f"audit: {each.name}{since}", each.ok, each.expected, each.actual, each.first_difference)
            for each in report.checks
        ]


def due_at(now: int, settings: Settings) -> Due:
    """What must stand in a log that is read up to where it ends at `now`, microseconds since the epoch."""
    story_micros = int(settings.story_seconds * MICROS_PER_SECOND)
    return Due(ended_before=now - story_micros, completed_before=now - settings.late_seconds * MICROS_PER_SECOND)


def nothing_was_compared(checks: Sequence[Check]) -> bool:
    """Whether a scope found nothing in the log: that all of nothing agrees proves nothing."""
    return any(each.name.endswith(IN_THE_LOG) and each.actual == 0 for each in checks)


def _in_the_log(what: str, barrier: Barrier) -> Check:
    records = sum(barrier.values())
    return Check(f"{what} {IN_THE_LOG}", ok=True, expected=records, actual=records)


def _invariant(result: InvariantResult) -> Check:
    return equal(f"ledger: {result.name.replace('_', ' ')}", 0, result.differences, result.first_difference)
