"""Stores under the contract of sinks (tests/contract/test_sink_contract.py): how each is made, and what it holds.

To put another sink under the contract, give it a class here and a name in HARNESSES.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from processors.audit.entry import is_own
from processors.budgets import BudgetFold
from schemas.events import BudgetEvent, Event, ProviderHealth
from schemas.topics import topic_of
from sinks.audit.layout import AuditLayout
from sinks.audit.memory import MemoryAuditStore
from sinks.audit.process import make_sink
from sinks.audit.store import AuditStore
from sinks.fake import MemorySink, MemoryStore
from sinks.postgres.audit import PostgresAuditStore
from sinks.postgres.reads import PostgresReads
from sinks.postgres.sink import PostgresSink
from sinks.redis.keys import slot_keys
from sinks.redis.reads import RedisReads, compare
from sinks.redis.sink import RedisSink
from sinks.runner import Sink
from sinks.totals import NO_TOTALS, StoreTotals, totals_of
from streams.log import Partition
from tests.support.databases import postgres_databases
from tests.support.stories import codec, outgoing
from tests.valkey import Valkey

ENCODER = codec()
FAR = 1_000_000
#: Records are decoded side by side, as in a large batch, or each by itself.
WAYS = ("columns", "one by one")
#: Whose stories they are.
TENANT = "acme"
#: Topics whose totals are compared.
TOPICS = ("quaestor.requests", "quaestor.costs", "quaestor.ledger", "quaestor.budgets", "quaestor.decisions")
Stories = Sequence[Sequence[Event]]


class Harness:
    """One store, and the processes of a sink on it."""

    #: Clauses of the contract (names of tests) that do not apply to the sink, and why.
    excused: Mapping[str, str] = MappingProxyType({})

    def sink(self, owner: str) -> Sink:
        """A new process."""
        raise NotImplementedError

    async def assert_holds(self, stories: Stories) -> None:
        """The store holds what these events come to, each once, and nothing else."""
        raise NotImplementedError

    async def kept_poison(self) -> int:
        """How many records the store keeps in quarantine."""
        raise NotImplementedError

    async def close(self) -> None:
        """Let go of what reads the store."""

    def taken(self, story: Sequence[Event]) -> list[Event]:
        """The events of a story that the sink projects."""
        topics = self.sink("asked").topics
        return [event for event in story if topic_of(event).name in topics]


class CountedHarness(Harness):
    """A store of rows, which can be counted by topic."""

    async def totals(self, topic: str) -> StoreTotals:
        """Everything the store has of a topic."""
        raise NotImplementedError

    async def assert_holds(self, stories: Stories) -> None:
        """Each topic's distinct ids, digest and money are those of the events."""
        for topic in TOPICS:
            assert await self.totals(topic) == expected(topic, stories)


def expected(topic: str, stories: Stories) -> StoreTotals:
    """What a store must hold of these events."""
    chosen = [event for story in stories for event in story]
    names = [record.topic for record in outgoing(ENCODER, chosen)]
    return totals_of(
        (event.tenant_id, event.event_id, getattr(event, "amount_nano", 0))
        for event, name in zip(chosen, names, strict=True)
        if name == topic
    )


def everything(topic: str) -> dict[Partition, int]:
    """A barrier that nothing is above."""
    return {Partition(topic, number): FAR for number in range(6)}


class MemoryHarness(CountedHarness):
    """The fake."""

    def __init__(self) -> None:
        """An empty store."""
        self.store = MemoryStore()

    def sink(self, owner: str) -> Sink:
        """As the harness says."""
        return MemorySink(self.store, owner)

    async def totals(self, topic: str) -> StoreTotals:
        """As the harness says."""
        return self.store.totals(topic, everything(topic))

    async def kept_poison(self) -> int:
        """As the harness says."""
        return len(self.store.quarantine.kept)


class PostgresHarness(CountedHarness):
    """Real Postgres, a database of its own."""

    def __init__(self, dsn: str) -> None:
        """A migrated database."""
        self.dsn = dsn
        self.reads = PostgresReads(dsn)

    def sink(self, owner: str) -> Sink:
        """As the harness says."""
        return PostgresSink(self.dsn, owner)

    async def totals(self, topic: str) -> StoreTotals:
        """As the harness says."""
        return (await self.reads.totals(everything(topic))).get(topic, NO_TOTALS)

    async def kept_poison(self) -> int:
        """As the harness says."""
        return await self.reads.quarantined_count()

    async def close(self) -> None:
        """As the harness says."""
        await self.reads.close()


class RedisHarness(Harness):
    """A real Valkey, emptied: live budgets of each tenant, and the last window of each provider."""

    excused = MappingProxyType(
        {
            "test_the_same_id_with_other_bytes_stops": "sums are kept by hold, and no bytes: Postgres compares them",
            "test_one_fenced_partition_keeps_the_whole_batch_out": "a script reaches one slot: each has its own fence",
            "test_a_write_cancelled_anywhere_is_whole_or_absent": "slot by slot, then the gate: its cursor may be "
            "behind a slot's, which passes over what it has (test_a_write_cancelled_anywhere_is_ended_by_the_next)",
            "test_poison_is_kept_with_the_cursor": "the runner keeps it before the sink is given the batch",
        }
    )

    def __init__(self, valkey: Valkey) -> None:
        """Nothing is left of the test before."""
        valkey.command("FLUSHALL")
        self.url = valkey.url
        self.reads = RedisReads(valkey.url)

    def sink(self, owner: str) -> Sink:
        """As the harness says, which was told of the tenant by quaestor.control, as each is before its first hold.

        Fences are in slots: where nobody has made one yet, a zombie's batch makes it, and its owner's passes over that.
        """
        sink = RedisSink(self.url)
        sink.name_tenants([TENANT])
        return sink

    async def assert_holds(self, stories: Stories) -> None:
        """Sums and open holds are the fold of the events; of each provider there is the last window."""
        await self.reads.connect()
        events = [event for story in stories for event in story]
        folds: dict[str, BudgetFold] = {}
        for event in events:
            if isinstance(event, BudgetEvent):
                folds.setdefault(event.tenant_id, BudgetFold()).apply(event)
        for tenant_id in folds.keys() | await self._tenants():
            fold, state = folds.get(tenant_id, BudgetFold()), await self.reads.tenant_state(tenant_id)
            assert compare(fold.sums, fold.open_holds, state) == []
        windows = sorted(
            (each for each in events if isinstance(each, ProviderHealth)), key=lambda each: each.window_end
        )
        last = {(each.provider_id, each.model, each.region): str(each.attempts) for each in windows}
        kept = await self.reads.provider_health()
        assert {(each["provider_id"], each["model"], each["region"]): each["attempts"] for each in kept} == last

    async def _tenants(self) -> set[str]:
        """Whoever has a slot, also one that no gate has heard of."""
        before, after = slot_keys("*").state.split("*")
        found = await self.reads._client.call("KEYS", f"{before}*{after}")
        return {key.decode().removeprefix(before).removesuffix(after) for key in found}

    async def close(self) -> None:
        """As the harness says."""
        await self.reads.close()


class AuditHarness(CountedHarness):
    """A log of its own: rows in memory or in real Postgres, keys and files in a folder."""

    excused = MappingProxyType(
        {
            "test_an_event_produced_twice_counts_once": "every record is an entry: one that stands twice in Kafka is "
            "proved twice (test_an_event_produced_twice_is_two_entries)",
            "test_the_same_id_with_other_bytes_stops": "both records are entered, each with a commitment to its bytes",
        }
    )

    def __init__(self, folder: Path, store_of: Callable[[AuditLayout], AuditStore]) -> None:
        """A new log; `store_of` makes a process's face of its rows."""
        self.layout = AuditLayout(folder, "contract", "quaestor.local/audit/contract")
        self.store_of = store_of
        self.store = store_of(self.layout)

    def sink(self, owner: str) -> Sink:
        """As the harness says."""
        return make_sink(self.layout, self.store_of(self.layout), owner)

    async def totals(self, topic: str) -> StoreTotals:
        """As the harness says."""
        await self.store.open()
        return (await self.store.totals(everything(topic))).get(topic, NO_TOTALS)

    async def assert_holds(self, stories: Stories) -> None:
        """As for all rows; and there is one entry for each event, for totals are of distinct ids."""
        await super().assert_holds(stories)
        for topic in TOPICS:
            counts = await self.store.counts(everything(topic))
            assert counts[topic] == sum(topic_of(event).name == topic for story in stories for event in story)

    async def kept_poison(self) -> int:
        """Entries that only commit to bytes."""
        await self.store.open()
        end = (await self.store.state()).next_seq
        rows = [row async for page in self.store.rows(0, end) for row in page]
        return sum(not row.event_id and not is_own(row.entry) for row in rows)

    async def close(self) -> None:
        """As the harness says."""
        await self.store.close()


class Ground(NamedTuple):
    """What stores are made on."""

    folder: Path
    #: The server that tests share.
    valkey: Callable[[], Valkey]


async def _memory(_ground: Ground) -> Harness:
    return MemoryHarness()


async def _postgres(_ground: Ground) -> Harness:
    return PostgresHarness(await postgres_databases().emptied("sinks"))


async def _redis(ground: Ground) -> Harness:
    return RedisHarness(ground.valkey())


async def _audit(ground: Ground) -> Harness:
    dsn = await postgres_databases().emptied("entries")
    return AuditHarness(ground.folder, lambda layout: PostgresAuditStore(dsn, layout.log))


async def _audit_in_memory(ground: Ground) -> Harness:
    store = MemoryAuditStore()
    return AuditHarness(ground.folder, lambda _layout: store)


class Kind(NamedTuple):
    """A kind of store under the contract."""

    made: Callable[[Ground], Awaitable[Harness]]
    excused: Mapping[str, str]
    #: How its records come. The audit sink's rows never see that: its two stores and the two ways are two pairs.
    ways: Sequence[str] = WAYS


HARNESSES: Mapping[str, Kind] = MappingProxyType(
    {
        "memory": Kind(_memory, MemoryHarness.excused),
        "postgres": Kind(_postgres, PostgresHarness.excused),
        "redis": Kind(_redis, RedisHarness.excused),
        "audit": Kind(_audit, AuditHarness.excused, WAYS[:1]),
        "audit in memory": Kind(_audit_in_memory, AuditHarness.excused, WAYS[1:]),
    }
)
