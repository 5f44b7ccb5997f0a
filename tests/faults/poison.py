"""Poison: records that no sink, or one of them, can take, scattered, at edges, in the middle and in rows."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import Any

import msgspec

from processors.quarantine.rules import OCCURRED_MICROS_MAX, RULES
from schemas.events import Event
from schemas.topics import BUDGETS, DECISIONS, LEDGER, PARTITIONS, REQUESTS, TOPICS, key_of, topic_of
from sinks.postgres.connect import READER_ROLE, connect
from streams.codec import Codec
from streams.log import OutgoingRecord
from streams.partitioner import partition_of
from streams.registry import RegistrySchemas
from tests.faults.faulty import TENANT
from tests.faults.kills import Tick
from tests.faults.load import honest
from tests.faults.report import Row, measured
from tests.faults.verdict import Verdict, judge
from tests.faults.world import STORES, TOPICS_OF, World
from tests.support.stories import event_id, request_story

#: One record in so many is broken.
ONE_IN = 1_000
#: As many as the limits let by.
IN_A_ROW = 100
#: Sound records between two broken ones of a batch that is broken at both ends and in the middle.
BETWEEN = 20
#: An id that no registry gives.
UNKNOWN_SCHEMA_ID = 2_000_000_000
FRAME_BYTES = 5
#: Sinks that put what they can't take into quarantine; the audit log enters it.
KEEPING = ("postgres", "clickhouse", "redis")
#: Records applied in one round.
RECORDS_PER_ROUND = 2_000
#: Story numbers of broken events, far from those of the load.
FIRST_NUMBER = 50_000_000
#: The product's commands with a fault that some records meet.
FAULTY = "tests.faults.faulty"
#: Topics whose rules are broken. Not those of attempts and costs: whatever sinks make of such a record, the log's own
#: checks hold its request to an end.
RULED = (REQUESTS.name, DECISIONS.name, BUDGETS.name, LEDGER.name)
#: Fields by which an event breaks a rule.
Changes = Mapping[str, Any]


class Way(StrEnum):
    """How a record is broken."""

    UNDECODABLE = "UNDECODABLE"
    SCHEMA_UNKNOWN = "SCHEMA_UNKNOWN"
    SEMANTIC = "SEMANTIC"
    SINK_REJECT = "SINK_REJECT"
    BUG = "BUG"


@dataclass
class Poisoner:
    """Makes broken records; remembers how many."""

    codec: Codec
    random: Random
    #: By how they are broken and their topic.
    made: Counter[tuple[str, str]] = field(default_factory=Counter)
    _number: int = FIRST_NUMBER

    def spoil(self, _: int, records: Sequence[OutgoingRecord]) -> list[OutgoingRecord]:
        """A story with a broken record here and there between its own."""
        mixed: list[OutgoingRecord] = []
        for record in records:
            if self.random.randrange(ONE_IN) == 0:
                mixed.append(self.broken(self.random.choice(list(Way)), record))
            mixed.append(record)
        return mixed

    def broken(self, way: Way, like: OutgoingRecord, partition: int | None = None) -> OutgoingRecord:
        """A record that is broken in this way; its key is of nobody else, so that nothing honest waits behind it."""
        record = self._in(partition, lambda: _BREAK[way](self, like))
        self.made[way, record.topic] += 1
        return record

    def expected(self, store: str) -> Counter[str]:
        """How many records of each reason a sink must have put into quarantine."""
        counts: Counter[str] = Counter()
        for (way, topic), made in self.made.items():
            if topic in TOPICS_OF[store] and (way != Way.SINK_REJECT or store == "postgres"):
                counts[way] += made
        return counts

    def in_a_row(self, way: Way, partition: int) -> list[OutgoingRecord]:
        """As many as stand in a row, in one partition, between two sound ones."""
        row = [self.broken(way, self.sound(partition), partition) for _ in range(IN_A_ROW)]
        return [self.sound(partition), *row, self.sound(partition)]

    def at_edges(self, way: Way, partition: int) -> list[OutgoingRecord]:
        """One partition's batch: its first record is broken, one in the middle and the last."""
        batch = [self.broken(way, self.sound(partition), partition)]
        for _ in range(2):
            batch += [self.sound(partition) for _ in range(BETWEEN)]
            batch.append(self.broken(way, self.sound(partition), partition))
        return batch

    def sound(self, partition: int | None = None) -> OutgoingRecord:
        """A record of a request of its own, sound."""
        return self._in(partition, lambda: self._record(self._received()))

    def _in(self, partition: int | None, make: Callable[[], OutgoingRecord]) -> OutgoingRecord:
        """What `make` makes of the next number whose key belongs to the partition."""
        while True:
            self._number += 1
            record = make()
            if partition is None or partition_of(record.key, PARTITIONS) == partition:
                return record

    def _received(self, tenant_id: str = "tenant_poison") -> Event:
        return self._first(REQUESTS.name, tenant_id)

    def _first(self, topic: str, tenant_id: str = "tenant_poison") -> Event:
        """Of the events of a request of its own, the first one of a topic."""
        return next(event for event in request_story(self._number, tenant_id) if topic_of(event).name == topic)

    def _record(self, event: Event) -> OutgoingRecord:
        return OutgoingRecord(topic_of(event).name, key_of(event).encode(), self.codec.encode(event), ())

    def _key(self, like: OutgoingRecord) -> bytes:
        return b"tenant_poison/" + event_id(self._number, like.topic).encode()

    def undecodable(self, like: OutgoingRecord) -> OutgoingRecord:
        """Cut short, or bytes of nothing."""
        value = self.random.choice([like.value[: FRAME_BYTES + 7], like.value[:FRAME_BYTES] + b"\xff" * 40, b"{}", b""])
        return like._replace(key=self._key(like), value=value)

    def schema_unknown(self, like: OutgoingRecord) -> OutgoingRecord:
        """Framed under an id that nobody registered."""
        framed = b"\0" + UNKNOWN_SCHEMA_ID.to_bytes(4, "big") + like.value[FRAME_BYTES:]
        return like._replace(key=self._key(like), value=framed)

    def semantic(self, like: OutgoingRecord) -> OutgoingRecord:
        """An event that breaks any of its topic's rules, or a sound one under a key that is not its own."""
        event = self._first(like.topic if like.topic in RULED else REQUESTS.name)
        changes = self.random.choice([None, *breaking(topic_of(event).name)])
        if changes is None:
            return self._record(event)._replace(key=self._key(like))
        return self._record(msgspec.structs.replace(event, **changes))

    def sink_reject(self, _: OutgoingRecord) -> OutgoingRecord:
        """A text with a zero character, which Postgres alone refuses."""
        return self._record(msgspec.structs.replace(self._received(), team_id="a\0b"))

    def bug(self, like: OutgoingRecord) -> OutgoingRecord:
        """Sound in every way, but a fault of our own code lies in wait for it; a hold where that is the topic."""
        if like.topic == BUDGETS.name:
            return self._record(self._first(BUDGETS.name, TENANT))
        return self._record(self._received(TENANT))


def breaking(topic: str) -> list[Changes]:
    """For each rule of a topic's own fields, what breaks it; the first event of a request's story keeps all of them."""
    rules = RULES[topic]
    return [
        {"occurred_at": OCCURRED_MICROS_MAX},
        {"tenant_id": "no name"},
        *({name: "no UUID"} for name in rules.uuids),
        # The same bytes as a UUID that is none of ours: we write them in small letters.
        {"event_id": "01930000-0000-7000-8000-0000000000AB"},
        *({name: -1} for name in (*rules.times, *rules.counts)),
    ]


_BREAK: Mapping[Way, Callable[[Poisoner, OutgoingRecord], OutgoingRecord]] = {
    Way.UNDECODABLE: Poisoner.undecodable,
    Way.SCHEMA_UNKNOWN: Poisoner.schema_unknown,
    Way.SEMANTIC: Poisoner.semantic,
    Way.SINK_REJECT: Poisoner.sink_reject,
    Way.BUG: Poisoner.bug,
}
Group = Callable[[Poisoner, Way, int], list[OutgoingRecord]]


async def poison(world: World, rounds: int, tick: Tick) -> list[Row]:
    """At the beginning of partitions, scattered under load while sinks are killed, at edges of batches, in rows."""
    poisoner = _poisoner(world)
    first, last = (Row(f"poison: {which} records of partitions") for which in ("first", "last"))
    scattered = Row(f"poison: 1 in {ONE_IN:,}, sinks killed meanwhile")
    await measured(first, 1, _whole_partitions(world, poisoner))
    for store in STORES:
        world.keep(store)
    world.load.spoil = poisoner.spoil
    await measured(scattered, rounds, _scattered(world, rounds, tick))
    await _judged(world, poisoner, [first, scattered])
    edges = await _groups(world, poisoner, "edges and middle of a batch", Poisoner.at_edges, tick)
    in_a_row = await _groups(world, poisoner, f"{IN_A_ROW} in a row", Poisoner.in_a_row, tick)
    await measured(last, 1, _whole_partitions(world, poisoner))
    await _judged(world, poisoner, [last])
    world.load.spoil = honest
    tick()
    return [first, scattered, *edges, *in_a_row, last]


def poison_rounds(rounds: int) -> int:
    """How many rounds `poison` runs in all."""
    return rounds + 2 * len(Way) + 1


async def poison_at_edges(world: World, tick: Tick) -> list[Row]:
    """At the edges and in the middle of a batch alone."""
    poisoner = _poisoner(world)
    for store in STORES:
        world.keep(store)
    return await _groups(world, poisoner, "edges and middle of a batch", Poisoner.at_edges, tick)


def _poisoner(world: World) -> Poisoner:
    """One whose faults of our own code lie in the sinks that are started from now on."""
    world.program = FAULTY
    return Poisoner(Codec(RegistrySchemas(world.settings.registry_url)), world.random)


async def _groups(world: World, poisoner: Poisoner, what: str, group: Group, tick: Tick) -> list[Row]:
    """A batch broken in each way, one partition after the other."""
    rows = [Row(f"poison: {what}, {way}") for way in Way]
    for partition, (way, row) in enumerate(zip(Way, rows, strict=True)):
        await measured(row, 1, _alone(world, poisoner, group(poisoner, way, partition)))
        tick()
    await _judged(world, poisoner, rows)
    return rows


async def _whole_partitions(world: World, poisoner: Poisoner) -> None:
    """Broken records and nothing else, into every partition of every topic a story has."""
    likes = {record.topic: record for record in world.load.story(FIRST_NUMBER)}
    for topic in TOPICS:
        if topic.name in likes:
            ways = (Way.UNDECODABLE, Way.SCHEMA_UNKNOWN)
            world.load.publish([poisoner.broken(way, likes[topic.name]) for way in ways for _ in range(20)])


async def _scattered(world: World, rounds: int, tick: Tick) -> None:
    for _ in range(rounds):
        await world.grows("postgres", RECORDS_PER_ROUND)
        store = world.random.choice(STORES)
        world.keep(store)
        tick()


async def _alone(world: World, poisoner: Poisoner, group: list[OutgoingRecord]) -> None:
    """Publish a group with nothing else in the log before or behind it, so that it is the batch."""
    await asyncio.to_thread(world.load.pause)
    try:
        await asyncio.gather(*(world.reaches(store) for store in STORES))
        world.load.publish(group)
        await asyncio.to_thread(world.load.pause)
        await asyncio.gather(*(world.reaches(store) for store in STORES))
    finally:
        world.load.resume()


async def _judged(world: World, poisoner: Poisoner, rows: Sequence[Row]) -> None:
    """Honest records are in every store, broken ones in quarantine: each once for each sink that met it."""
    verdicts = list((await judge(world)).values())
    await asyncio.to_thread(world.load.pause)
    try:
        await asyncio.gather(*(world.reaches(store) for store in KEEPING))
        verdicts.append(await _quarantined(world, poisoner))
    finally:
        world.load.resume()
    for verdict in verdicts:
        for row in rows:
            row.take(verdict)


async def _quarantined(world: World, poisoner: Poisoner) -> Verdict:
    """Exactly what was broken is in quarantine, for its reason, once for each sink, and nothing else."""
    connection = await connect(world.settings.postgres_dsn, READER_ROLE)
    try:
        found = await connection.fetch(
            "SELECT sink, reason, count(*), count(DISTINCT (source_topic_id, source_partition, source_offset))"
            " FROM quaestor.quarantine_outbox GROUP BY sink, reason"
        )
    finally:
        await connection.close()
    kept = {(row[0], row[1]): (row[2], row[3]) for row in found}
    verdict = Verdict()
    for store in KEEPING:
        expected = {(f"{store}@v1", str(way)): made for way, made in poisoner.expected(store).items()}
        for sink, reason in expected.keys() | {key for key in kept if key[0] == f"{store}@v1"}:
            made, (rows, distinct) = expected.get((sink, reason), 0), kept.get((sink, reason), (0, 0))
            if (rows, distinct) != (made, made):
                words = f"{store}: {distinct} of {made} {reason} records are in quarantine, {rows} rows"
                verdict += Verdict(max(0, made - distinct), max(0, rows - made), words)
    return verdict
