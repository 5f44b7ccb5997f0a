"""Runs the checks of one scope against the running stores."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Literal

from api.settings import Settings
from api.verify.log_scan import Barrier, scan, take_barrier
from api.verify.parity import NamedStore, compare_all
from processors.parity.checks import Check, empty, equal, log_checks
from processors.parity.totals import LogFold
from schemas.topics import TOPICS
from sinks.audit.files import LogFiles
from sinks.audit.keys import load_verifier
from sinks.audit.layout import AUDITED_TOPICS, AuditLayout
from sinks.audit.lock import FileLockStore
from sinks.audit.verify import verify_audit
from sinks.clickhouse.client import ClickHouse
from sinks.clickhouse.reads import ClickHouseReads
from sinks.clickhouse.tables import TABLES as CLICKHOUSE_TABLES
from sinks.postgres.audit import PostgresAuditStore
from sinks.postgres.plans import PostgresPlanStore
from sinks.postgres.reads import PostgresReads
from sinks.redis.check import BudgetCheck, check_budgets, read_states
from sinks.redis.reads import RedisReads, TenantState
from streams.codec import Codec
from streams.kafka import KafkaReader
from streams.registry import RegistrySchemas

Scope = Literal["parity", "audit", "ledger", "budgets", "all"]
#: Told what is being done, how far it is and how far it goes.
OnProgress = Callable[[str, int, int], None]


class Verification:
    """One run of `quaestor verify`; every method raises LogUnavailableError or StoreUnavailableError."""

    def __init__(self, settings: Settings, on_progress: OnProgress) -> None:
        """Connects at first use."""
        self._settings = settings
        self._progress = on_progress
        self._codec = Codec(RegistrySchemas(settings.registry_url))

    async def run(self, scope: Scope, answers: Collection[str] | None) -> list[Check]:
        """All checks of a scope; on an empty log, one check that says so."""
        checks: list[Check] = []
        if scope in {"parity", "all"}:
            checks += await self.parity(answers)
        if scope in {"ledger", "all"}:
            checks += await self.ledger()
        if scope in {"budgets", "all"}:
            checks.append(await self.budgets())
        if scope in {"audit", "all"}:
            checks += await self.audit()
        return checks

    async def parity(self, answers: Collection[str] | None) -> list[Check]:
        """The log against itself, against the client's answers and against every store."""
        barrier, fold = await asyncio.to_thread(self._fold)
        checks = log_checks(fold, answers)
        return checks + await self._compare_stores(barrier, fold)

    def _fold(self) -> tuple[Barrier, LogFold]:
        reader = KafkaReader(self._settings.kafka_bootstrap, "quaestor-verify")
        try:
            barrier = take_barrier(reader)
            return barrier, scan(reader, self._codec, barrier, lambda done, all_: self._progress("log", done, all_))
        finally:
            reader.close()

    async def _compare_stores(self, barrier: Barrier, fold: LogFold) -> list[Check]:
        dsn = self._settings.postgres_dsn
        postgres = PostgresReads(dsn)
        plans = PostgresPlanStore(dsn, "verify")
        clickhouse = ClickHouseReads(ClickHouse(self._settings.clickhouse_url), plans)
        audit = PostgresAuditStore(dsn, self._layout().log)
        stores = [
            NamedStore("postgres", tuple(topic.name for topic in TOPICS), postgres),
            NamedStore("clickhouse", tuple(CLICKHOUSE_TABLES), clickhouse),
            NamedStore("audit", AUDITED_TOPICS, audit),
        ]
        try:
            await plans.open()
            await audit.open()
            return await compare_all(stores, barrier, fold, lambda name, left: self._progress(f"{name} lags", 0, left))
        finally:
            for store in (postgres, clickhouse, plans, audit):
                await store.close()

    async def ledger(self) -> list[Check]:
        """The named invariants of the double-entry ledger."""
        reads = PostgresReads(self._settings.postgres_dsn)
        try:
            results = await reads.verify_ledger()
        finally:
            await reads.close()
        return [
            equal(f"ledger: {each.name.replace('_', ' ')}", 0, each.differences, each.first_difference)
            for each in results
        ]

    async def budgets(self) -> Check:
        """Live counters in Redis against the fold of the log, each tenant at its own cursor, under traffic."""
        reads = RedisReads(self._settings.redis_url)
        try:
            await reads.open()
            states = await read_states(reads)
        finally:
            await reads.close()
        found = await asyncio.to_thread(self._check_budgets, states)
        words = [f"{each.what}: expected {each.expected}, found {each.actual}" for each in found.differences]
        return empty("redis budgets = fold of the log", words, found.events, "")

    def _check_budgets(self, states: dict[str, TenantState]) -> BudgetCheck:
        reader = KafkaReader(self._settings.kafka_bootstrap, "quaestor-verify-budgets")
        try:
            return check_budgets(states, reader, self._codec)
        finally:
            reader.close()

    async def audit(self) -> list[Check]:
        """Every entry, chain, tile, row and signature of the audit log, derived again."""
        layout = self._layout()
        store = PostgresAuditStore(self._settings.postgres_dsn, layout.log)
        verifier = load_verifier(layout.key_file, layout.origin)
        await store.open()
        try:
            report = await verify_audit(
                store,
                LogFiles(layout.directory),
                FileLockStore(layout.lock_file),
                verifier,
                lambda done, all_: self._progress("audit log", done, all_),
            )
        finally:
            await store.close()
        return [
            Check(f"audit: {each.name}", each.ok, each.expected, each.actual, each.first_difference)
            for each in report.checks
        ]

    def _layout(self) -> AuditLayout:
        return AuditLayout(self._settings.data, self._settings.audit_log, self._settings.audit_origin)
