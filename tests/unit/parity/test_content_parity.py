"""Every field of every row against the log: what is equal, and how each kind of difference is named."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec
import pytest

from api.verify.expected import Expected
from processors.parity.digest import KEY_BYTES, RangeDigest, RowHasher
from processors.parity.totals import digest_of
from sinks.content import SchemaContent, StoredRow
from streams.log import LogRecord, OutgoingRecord
from tests.support.parity_world import CODEC, ParityWorld, RowStore, audited
from tests.support.stories import outgoing, request_story

STORIES = [event for number in range(12) for event in request_story(number, amount_nano=1_500 + number)]
COSTS = "quaestor.costs"


def digest(rows: list[list[object]], key: bytes = bytes(KEY_BYTES)) -> RangeDigest:
    """The digest of rows."""
    hasher, made = RowHasher(key), RangeDigest()
    for row in rows:
        made.add(hasher.hash(row))
    return made


ROWS: list[list[object]] = [[number, f"id-{number}", None, 0.5, True, b"x", [[1, "a"], []]] for number in range(50)]


def test_the_digest_knows_no_order() -> None:
    """Rows shuffled have the same digest."""
    shuffled = random.Random(1).sample(ROWS, len(ROWS))
    assert digest(ROWS) == digest(shuffled)


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows[:-1],
        lambda rows: [*rows, rows[0]],
        lambda rows: [*rows, rows[0], rows[0]],
        lambda rows: [[rows[0][0], *rows[1][1:]], *rows[1:]],
        lambda rows: [[0, "id-0", "", *rows[0][3:]], *rows[1:]],
        lambda rows: [[0, "id-0", None, 0.5, 1, *rows[0][5:]], *rows[1:]],
    ],
    ids=["missing", "doubled", "tripled", "other id", "empty for null", "one for true"],
)
def test_the_digest_sees_every_change(change: Callable[[list[list[object]]], list[list[object]]]) -> None:
    """A row lost, doubled, tripled or changed in one value changes it."""
    assert digest(ROWS) != digest(change(ROWS))


def test_two_keys_have_nothing_in_common() -> None:
    """Without the key of the run nobody can prepare rows whose hashes cancel out."""
    assert digest(ROWS).total != digest(ROWS, b"k" * KEY_BYTES).total


def changed(rows: list[StoredRow], topic: str, field: str, value: object) -> tuple[list[StoredRow], StoredRow]:
    """The rows with one field of a topic's last row changed, and that row."""
    index, victim = max((pair for pair in enumerate(rows) if pair[1].partition.topic == topic), key=lambda p: p[1][:2])
    values = list(victim.values)
    values[SchemaContent(topic).names.index(field)] = value
    return [*rows[:index], victim._replace(values=values), *rows[index + 1 :]], victim


async def test_equal_content_is_equal() -> None:
    """A store that took every record once has no difference."""
    world = ParityWorld(STORIES)
    assert not await world.difference(RowStore(world.rows()))


@pytest.mark.parametrize(
    ("topic", "field", "value", "words"),
    [
        (COSTS, "amount_nano", 1_499, "amount_nano is 1499 in store, 150"),
        (COSTS, "model", "m2", "model is 'm2' in store, 'm1' in the log"),
        (COSTS, "exchange_rate_id", "", "exchange_rate_id is '' in store, None in the log"),
        ("quaestor.budgets", "legs", [["limit_1", 1, 1, "USD", 0, 0]], "legs is [['limit_1', 1, 1,"),
        ("quaestor.requests", "tags", [["team", "two"]], "tags is [['team', 'two']] in store"),
    ],
)
async def test_one_changed_field_is_named(topic: str, field: str, value: object, words: str) -> None:
    """Topic, partition, offset, event, field, and both values; one nano-unit is enough."""
    world = ParityWorld(STORIES)
    rows, victim = changed(world.rows(), topic, field, value)

    difference = await world.difference(RowStore(rows))

    assert difference.startswith(f"{victim.partition}@{victim.offset} event {victim.event_id}: {words}")


async def test_a_missing_row_is_named() -> None:
    """One row less than the log."""
    world = ParityWorld(STORIES)
    rows = world.rows()
    lost = rows.pop(17)

    difference = await world.difference(RowStore(rows))

    assert f"{lost.partition}@{lost.offset} event {lost.event_id}: missing in store" == difference


async def test_a_doubled_row_is_named() -> None:
    """The same row twice, in a store without a unique key."""
    world = ParityWorld(STORIES)
    rows = world.rows()
    rows.append(rows[9])

    difference = await world.difference(RowStore(rows))

    assert difference == f"{rows[9].partition}@{rows[9].offset} event {rows[9].event_id}: store has it 2 times"


async def test_a_row_from_nowhere_is_named() -> None:
    """A row whose event is not the one the log has at its offset."""
    world = ParityWorld(STORIES)
    rows = world.rows()
    taken = rows.pop(3)
    rows.append(taken._replace(event_id="0" * 36, values=["0" * 36, *taken.values[1:]]))

    assert f"event {taken.event_id}: event_id is '0000" in await world.difference(RowStore(rows))


async def test_rows_behind_the_barrier_do_not_count() -> None:
    """What arrived after the end offsets were taken is left out on both sides."""
    world = ParityWorld(STORIES)
    rows = world.rows()
    barrier = {at: world.log.end(at) for at in world.log.records}
    world.produce(outgoing(CODEC, request_story(99)))

    checks = await world.checks(RowStore(rows), barrier=barrier)

    assert all(check.ok for check in checks)


@pytest.mark.parametrize("kept", [0, 1])
async def test_of_a_repeated_event_any_record_may_be_kept(kept: int) -> None:
    """An event produced twice is one row, wherever it says it came from."""
    world = ParityWorld(STORIES)
    world.produce(outgoing(CODEC, STORIES[:12]))
    first = {row.event_id: row for row in world.rows()}
    last = {row.event_id: row for row in first.values()}
    if kept:
        for partition, records in world.log.records.items():
            for record in records:
                event_id = CODEC.decode(record.topic, record.value or b"")["event_id"]
                last[event_id] = first[event_id]._replace(partition=partition, offset=record.offset)

    assert not await world.difference(RowStore(list(last.values())))


async def test_a_repeated_event_that_is_kept_twice_is_named() -> None:
    """Both records of an event as rows: that is what a lost id guard looks like."""
    world = ParityWorld(STORIES[:12])
    rows = world.rows()
    world.produce(outgoing(CODEC, STORIES[:1]))
    partition = rows[0].partition
    twice = next(row for row in rows if row.event_id == STORIES[0].event_id)
    rows.append(twice._replace(offset=world.log.end(twice.partition) - 1))

    difference = await world.difference(RowStore(rows))

    assert difference.endswith(f"event {twice.event_id}: store has it 2 times")
    assert partition.topic.startswith("quaestor.")


async def test_a_repeated_event_that_is_kept_nowhere_is_named() -> None:
    """Neither of an event's two records is a row."""
    world = ParityWorld(STORIES[:12])
    world.produce(outgoing(CODEC, STORIES[:1]))
    rows = [row for row in world.rows() if row.event_id != STORIES[0].event_id]

    assert (await world.difference(RowStore(rows))).endswith(f"event {STORIES[0].event_id}: store has it 0 times")


def cost_of(world: ParityWorld) -> StoredRow:
    """One row of a cost."""
    return next(row for row in world.rows() if row.partition.topic == COSTS)


async def test_what_was_set_aside_is_not_due() -> None:
    """A record in quarantine has no row, and must not have one."""
    world = ParityWorld(STORIES)
    rows, aside = world.rows(), cost_of(world)
    positions = {aside.partition: {aside.offset}}

    left_out = await world.difference(RowStore([row for row in rows if row != aside]), positions)
    kept = await world.difference(RowStore(rows), positions)

    assert not left_out
    assert kept.endswith("store has it, though it is in quarantine")


async def test_another_record_of_an_event_set_aside_is_due() -> None:
    """An event whose first record is in quarantine stands in the store by its second."""
    world = ParityWorld(STORIES)
    aside = cost_of(world)
    again = [record for record in outgoing(CODEC, STORIES) if event_of(record) == aside.event_id]
    world.produce(again)
    positions = {aside.partition: {aside.offset}}
    moved = aside._replace(offset=world.log.end(aside.partition) - 1)
    others = [row for row in world.rows() if row != aside]

    assert not await world.difference(RowStore([*others, moved]), positions)
    assert (await world.difference(RowStore(others), positions)).endswith("store has it 0 times")


def event_of(record: OutgoingRecord | LogRecord) -> str:
    """The event id of a record."""
    return str(CODEC.decode(record.topic, record.value or b"")["event_id"])


def test_totals_leave_out_what_was_set_aside() -> None:
    """An event all of whose records are in quarantine is in neither count, id digest nor money."""
    world = ParityWorld(STORIES)
    aside = cost_of(world)
    whole, without = Expected({}), Expected({aside.partition: {aside.offset}})
    fold = world.fold(without)

    log, due = whole.totals(COSTS, fold), without.totals(COSTS, fold)

    amount = aside.values[SchemaContent(COSTS).names.index("amount_nano")]
    assert (1, amount) == (log.records - due.records, log.amount_nano - due.amount_nano)
    assert digest_of("acme", aside.event_id) == log.id_digest - due.id_digest


async def test_the_audit_log_has_every_record_as_its_bytes_are() -> None:
    """Repeated and undecodable records are entries too, and each commits to its bytes."""
    world = ParityWorld(STORIES)
    world.produce([*outgoing(CODEC, STORIES[:3]), OutgoingRecord(COSTS, b"k", b"garbage", ())])
    reads = await audited(world)
    assert not await world.difference(reads)

    records = next(found for at, found in world.log.records.items() if at.topic == COSTS and found)
    other = next(event for event in STORIES if event.event_id == event_of(records[0]))
    records[0] = records[0]._replace(value=CODEC.encode(msgspec.structs.replace(other, actor="another")))

    assert "commitment is" in await world.difference(reads)
