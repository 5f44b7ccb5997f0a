"""The log of a simulation: records of every kind, events produced twice, poison, holes, and what sinks owe for it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import StrEnum

import msgspec

from schemas import events
from schemas.errors import IntegrityError
from schemas.topics import key_of
from sinks.clickhouse.ranges import RangeReader
from sinks.runner.seam import Decoded
from streams.log import LogRecord, Partition
from tests.budget_world import NOW_MICROS, Events, hold_id, leg
from tests.support.stories import START_MICROS, codec, event_id

CODEC = codec()
TENANTS = ("acme", "beta", "core")
#: What a store refuses in a record that reads well.
REFUSED_MODEL = "refused"
#: What the sink's own code fails on, in a record that reads well.
FAILING_MODEL = "failing"
YEAR_2300_MICROS = 10_413_792_000_000_000


class Kind(StrEnum):
    """What is produced next."""

    EVENT = "event"
    #: An event of this partition again, at another offset.
    AGAIN = "again"
    UNDECODABLE = "undecodable"
    #: Reads well, but its key is another's.
    FOREIGN_KEY = "foreign key"
    #: Reads well, and no store takes it.
    REFUSED = "refused"
    #: Reads well, and a fault of the sink's code lies in wait for it.
    FAILING = "failing"
    #: An offset without a record.
    HOLE = "hole"


POISON = frozenset({Kind.UNDECODABLE, Kind.FOREIGN_KEY, Kind.REFUSED, Kind.FAILING})


class FailingError(Exception):
    """A fault of the sink's code, made for the simulation."""


def fail_on(records: Iterable[Decoded]) -> None:
    """Raise FailingError when one of these is what the sink's code fails on."""
    if any(record.fields.get("model") == FAILING_MODEL for record in records):
        raise FailingError


class SimulatedLog:
    """Partitions of records; offsets may be missing."""

    def __init__(self, partitions: Collection[Partition]) -> None:
        """Empty."""
        self.records: dict[Partition, list[LogRecord]] = {partition: [] for partition in partitions}
        self.ends = dict.fromkeys(partitions, 0)
        #: Offsets that must end in quarantine, and never in a row.
        self.poison: dict[Partition, set[int]] = {partition: set() for partition in partitions}
        self._holds: dict[Partition, list[events.BudgetEvent]] = {partition: [] for partition in partitions}
        self._sound: dict[Partition, list[Decoded]] = {partition: [] for partition in partitions}
        self._made = 0

    def topic_id(self, topic: str) -> str:
        """The UUID of a topic."""
        return f"id-of-{topic}"

    def produce(self, partition: Partition, kind: Kind, pick: int) -> None:
        """Write one record of this kind; `pick` chooses among what there is."""
        if kind is Kind.HOLE:
            self.ends[partition] += 1
            return
        known = [each for each in self.records[partition] if each.offset not in self.poison[partition]]
        if kind is Kind.AGAIN and known:
            record = known[pick % len(known)]
            self._append(partition, record.key or b"", record.value or b"")
            return
        event = self._event(partition, pick, is_refused=kind is Kind.REFUSED)
        if kind is Kind.FAILING:
            event = msgspec.structs.replace(event, model=FAILING_MODEL)
        key, value = key_of(event).encode(), CODEC.encode(event)
        if kind is Kind.UNDECODABLE:
            value = value[: 5 + pick % 7]
        if kind is Kind.FOREIGN_KEY:
            key += b"x"
        if kind in POISON:
            self.poison[partition].add(self.ends[partition])
        self._append(partition, key, value)

    def end(self, partition: Partition) -> int:
        """The offset behind the last record: holes at the end come only from transactions, which nobody of us makes."""
        records = self.records[partition]
        return records[-1].offset + 1 if records else 0

    def read(self, partition: Partition, first: int, records_max: int) -> list[LogRecord]:
        """The records from an offset on."""
        return [each for each in self.records[partition] if each.offset >= first][:records_max]

    def sound(self, partition: Partition, after: int | None = None) -> list[Decoded]:
        """Records that are no poison, below an offset."""
        end = self.ends[partition] if after is None else after
        return [each for each in self._sound[partition] if each.offset < end]

    def _append(self, partition: Partition, key: bytes, value: bytes) -> None:
        offset = self.ends[partition]
        self.ends[partition] = offset + 1
        record = LogRecord(*partition, offset, START_MICROS // 1_000, key, value, ())
        self.records[partition].append(record)
        if offset not in self.poison[partition]:
            self._sound[partition].append(Decoded(offset, CODEC.decode(record.topic, value), record))

    def _event(self, partition: Partition, pick: int, *, is_refused: bool) -> events.Event:
        self._made += 1
        if partition.topic == "quaestor.budgets":
            return self._movement(partition, pick, is_refused=is_refused)
        # Tenants are spread so that each has its own partitions, as its keys' hashes would have it.
        tenant_id = TENANTS[(partition.number + pick) % len(TENANTS)]
        return events.CostEvent(
            event_id=event_id(self._made, "cost"),
            occurred_at=YEAR_2300_MICROS if is_refused else START_MICROS + self._made,
            tenant_id=tenant_id,
            request_id=f"request-{partition.number}-{pick % 4}",
            actor="gateway/test",
            attempt_id=event_id(self._made, "attempt"),
            kind=events.CostKind.CHARGE,
            provider_id="p1",
            model=REFUSED_MODEL if is_refused else "m1",
            meter=events.Meter.INPUT_TOKENS,
            quantity=1,
            unit_price_pico=1,
            price_id="price_1",
            price_version="1",
            provider_amount_nano=self._made,
            provider_currency="USD",
            amount_nano=self._made,
            currency="USD",
        )

    def _movement(self, partition: Partition, pick: int, *, is_refused: bool) -> events.BudgetEvent:
        """The next movement of one of this partition's holds, or a new hold; the tenant is the partition's own."""
        make = Events(TENANTS[partition.number], NOW_MICROS)
        make_id = hold_id(500_000 + self._made)
        placed = self._holds[partition]
        if is_refused:
            event = make.placed("0" * 36, leg(1))
        elif pick % 3 == 0 or not placed:
            event = make.placed(hold_id(self._made), leg(self._made, f"limit_{pick % 2}"))
            placed.append(event)
        else:
            of = placed[pick % len(placed)]
            moves = (make.committed(of, pick % 5), make.released(of), make.expired(of))
            event = moves[pick % len(moves)]
        return msgspec.structs.replace(event, event_id=make_id)


class SimulatedRanges(RangeReader):
    """RangeReader on a simulated log."""

    def __init__(self, log: SimulatedLog) -> None:
        """Read from this log."""
        self._log = log

    async def read(self, partition: Partition, first: int, after: int, excluded: Collection[int]) -> list[Decoded]:
        """As the seam says."""
        if self._log.ends[partition] < after:
            raise IntegrityError(f"{partition} ends before {after}")
        found = [each for each in self._log.records[partition] if first <= each.offset < after]
        return [
            Decoded(each.offset, CODEC.decode(each.topic, each.value or b""), each)
            for each in found
            if each.offset not in excluded
        ]
