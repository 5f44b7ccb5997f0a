"""Poison: records that no sink, or one of them, can take, scattered, at edges and in rows."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random

import msgspec

from schemas.events import RequestEvent
from schemas.topics import REQUESTS, TOPICS, key_of
from sinks.postgres.connect import READER_ROLE, connect
from streams.codec import Codec
from streams.log import OutgoingRecord
from streams.registry import RegistrySchemas
from tests.faults.kills import Tick
from tests.faults.load import honest
from tests.faults.report import Row, measured
from tests.faults.verdict import Verdict, judge
from tests.faults.world import STORES, TOPICS_OF, World
from tests.support.stories import event_id, request_story

#: One record in so many is broken.
ONE_IN = 1_000
IN_A_ROW = 100
#: An id that no registry gives.
UNKNOWN_SCHEMA_ID = 2_000_000_000
FRAME_BYTES = 5
#: Sinks that put what they can't take into quarantine; the audit log enters it.
KEEPING = ("postgres", "clickhouse", "redis")
#: Records applied in one round.
RECORDS_PER_ROUND = 2_000
#: Story numbers of broken events, far from those of the load.
FIRST_NUMBER = 50_000_000


class Way(StrEnum):
    """How a record is broken."""

    UNDECODABLE = "UNDECODABLE"
    SCHEMA_UNKNOWN = "SCHEMA_UNKNOWN"
    SEMANTIC = "SEMANTIC"
    SINK_REJECT = "SINK_REJECT"


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

    def broken(self, way: Way, like: OutgoingRecord) -> OutgoingRecord:
        """A record that is broken in this way; its key is of nobody else, so that nothing honest waits behind it."""
        self._number += 1
        record = _BREAK[way](self, like)
        self.made[way, record.topic] += 1
        return record

    def expected(self, store: str) -> Counter[str]:
        """How many records of each reason a sink must have put into quarantine."""
        counts: Counter[str] = Counter()
        for (way, topic), made in self.made.items():
            if topic in TOPICS_OF[store] and (way != Way.SINK_REJECT or store == "postgres"):
                counts[way] += made
        return counts

    def in_a_row(self, way: Way) -> list[OutgoingRecord]:
        """As many as stand in a row, all in one partition."""
        like = self.honest()
        return [self.broken(way, like) for _ in range(IN_A_ROW)]

    def honest(self) -> OutgoingRecord:
        """A record of a request of its own, sound."""
        return self._record(self._event())

    def _event(self) -> RequestEvent:
        self._number += 1
        received = request_story(self._number, "tenant_poison")[0]
        assert isinstance(received, RequestEvent)
        return received

    def _record(self, event: RequestEvent) -> OutgoingRecord:
        return OutgoingRecord(REQUESTS.name, key_of(event).encode(), self.codec.encode(event), ())

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
        """A sound event under a key that is not its own."""
        return self.honest()._replace(key=self._key(like))

    def sink_reject(self, _: OutgoingRecord) -> OutgoingRecord:
        """A text with a zero character, which Postgres alone refuses."""
        return self._record(msgspec.structs.replace(self._event(), team_id="a\0b"))


_BREAK: Mapping[Way, Callable[[Poisoner, OutgoingRecord], OutgoingRecord]] = {
    Way.UNDECODABLE: Poisoner.undecodable,
    Way.SCHEMA_UNKNOWN: Poisoner.schema_unknown,
    Way.SEMANTIC: Poisoner.semantic,
    Way.SINK_REJECT: Poisoner.sink_reject,
}


async def poison(world: World, rounds: int, tick: Tick) -> list[Row]:
    """At the beginning of partitions, scattered under load while sinks are killed, in rows of a hundred, at the end."""
    poisoner = Poisoner(Codec(RegistrySchemas(world.settings.registry_url)), world.random)
    rows = [Row("poison: first records of partitions"), Row(f"poison: 1 in {ONE_IN:,}, sinks killed meanwhile")]
    rows += [Row(f"poison: {IN_A_ROW} in a row, {way}") for way in Way]
    rows.append(Row("poison: last records of partitions"))
    first, scattered, *in_a_row, last = rows
    await measured(first, 1, _edges(world, poisoner))
    for store in STORES:
        world.keep(store)
    world.load.spoil = poisoner.spoil
    await measured(scattered, rounds, _scattered(world, rounds, tick))
    await _judged(world, poisoner, [first, scattered])
    for way, row in zip(Way, in_a_row, strict=True):
        world.load.publish(poisoner.in_a_row(way))
        await measured(row, 1, world.grows("postgres", RECORDS_PER_ROUND))
        await _judged(world, poisoner, [row])
        tick()
    await measured(last, 1, _edges(world, poisoner))
    await _judged(world, poisoner, [last])
    world.load.spoil = honest
    tick()
    return rows


def poison_rounds(rounds: int) -> int:
    """How many rounds `poison` runs in all."""
    return rounds + len(Way) + 1


async def _edges(world: World, poisoner: Poisoner) -> None:
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
        for way, made in poisoner.expected(store).items():
            rows, distinct = kept.get((f"{store}@v1", way), (0, 0))
            if (rows, distinct) != (made, made):
                words = f"{store}: {distinct} of {made} {way} records are in quarantine, {rows} rows"
                verdict += Verdict(max(0, made - distinct), max(0, rows - made), words)
    return verdict
