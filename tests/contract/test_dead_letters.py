"""What every quarantine keeps, in memory and in Postgres: standings, redrives that are pinned, people's decisions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest

from schemas.events import (
    Alert,
    AlertKind,
    Event,
    QuarantinedRecord,
    QuarantineKind,
    QuarantineReason,
    Severity,
)
from schemas.ids import derived_id, uuid7
from sinks.dead_letters import STATES, DeadLetters, Selection
from sinks.fake_quarantine import MemoryQuarantine
from sinks.postgres.dead_letters import PostgresDeadLetters
from sinks.postgres.quarantine import PostgresQuarantine
from sinks.runner.screen import Screen
from sinks.runner.seam import Decoded, Failed, QuarantineStore, Standing, Unreadable
from streams.log import LogRecord, Partition
from tests.support.databases import postgres_databases
from tests.support.stories import START_MICROS, TOPIC_ID, codec

SINK = "a@v1"
TOPIC = "quaestor.requests"
AT = Partition(TOPIC, 2)
#: Beyond every record of these tests.
END = 1_000
SCREEN = Screen(codec(), SINK)
PEOPLE = "cli/7"
MILLIS = START_MICROS // 1_000


class Quarantine:
    """One store, from the sinks' side and from people's."""

    def __init__(self, store: QuarantineStore, letters: DeadLetters) -> None:
        """Both are faces of the same rows."""
        self.store = store
        self.letters = letters

    async def states(self, *ids: str) -> list[str]:
        """The states of these records, in the order asked for."""
        found = {each.event_id: each.state for each in await self.letters.find(Selection(), 1_000)}
        return [found[event_id] for event_id in ids]

    async def events(self) -> list[Event]:
        """Everything to be published; all of it can be read."""
        found = await self.store.unpublished(1_000)
        events = [each for each in found if not isinstance(each, Unreadable)]
        assert len(events) == len(found)
        return events


@pytest.fixture(params=["memory", "postgres"])
async def quarantine(request: pytest.FixtureRequest) -> AsyncIterator[Quarantine]:
    """Each store in turn, empty."""
    if request.param == "memory":
        memory = MemoryQuarantine()
        yield Quarantine(memory, memory)
        return
    dsn = await postgres_databases().emptied("letters")
    store, letters = PostgresQuarantine(dsn), PostgresDeadLetters(dsn)
    yield Quarantine(store, letters)
    await store.close()
    await letters.close()


def record(offset: int, key: bytes = b"acme/one") -> LogRecord:
    """A record that can't be read."""
    return LogRecord(TOPIC, AT.number, offset, MILLIS + offset, key, b"\x00\x01", (("ce_id", b"1"),))


def head(offset: int, key: bytes = b"acme/one") -> QuarantinedRecord:
    """The record, quarantined."""
    return SCREEN.poison(record(offset, key), TOPIC_ID, QuarantineReason.UNDECODABLE, f"bad {offset}", 1).event


def follower(offset: int, behind: QuarantinedRecord) -> QuarantinedRecord:
    """A record parked behind it."""
    key = behind.key_bytes or b""
    item = Decoded(offset, {}, record(offset, key))
    return SCREEN.parked(item, TOPIC_ID, behind.event_id, "waits", 1).event


async def chain(quarantine: Quarantine) -> list[QuarantinedRecord]:
    """A head and two followers, kept."""
    first = head(5)
    kept = [first, follower(7, first), follower(9, first)]
    await quarantine.store.put(kept)
    return kept


async def taken(quarantine: Quarantine) -> list[int]:
    """Offsets of the next cut."""
    return [each.source_offset for each in await quarantine.store.take(SINK, AT, END, 100)]


def ids_of(events: Sequence[QuarantinedRecord]) -> list[str]:
    """Their ids."""
    return [event.event_id for event in events]


def kinds(events: Sequence[Event], kind: QuarantineKind) -> list[QuarantinedRecord]:
    """Events of one kind."""
    return [event for event in events if isinstance(event, QuarantinedRecord) and event.kind is kind]


async def test_an_owner_learns_what_is_open(quarantine: Quarantine) -> None:
    """Unresolved records, parked ones told apart, and those from the cursor on as known."""
    kept = await chain(quarantine)
    standing = (await quarantine.store.standings(SINK, {AT: 9}))[AT]
    found = sorted(standing.unresolved, key=lambda each: each.offset)
    assert [(each.offset, each.follows, each.order_key) for each in found] == [
        (5, False, "acme/one"),
        (7, True, "acme/one"),
        (9, True, "acme/one"),
    ]
    assert list(standing.known) == [9]
    assert found[0].event_id == kept[0].event_id


async def test_other_partitions_and_sinks_know_nothing_of_it(quarantine: Quarantine) -> None:
    """A standing is one projection's in one partition."""
    await chain(quarantine)
    other = Partition(TOPIC, 3)
    assert (await quarantine.store.standings("b@v1", {AT: 0}))[AT] == Standing()
    assert (await quarantine.store.standings(SINK, {other: 0}))[other] == Standing()


async def test_nothing_is_redriven_unasked(quarantine: Quarantine) -> None:
    """Without a request there is no call, and nothing to take."""
    await chain(quarantine)
    assert (await quarantine.store.calls(SINK)).redrives == ()
    assert await taken(quarantine) == []


async def test_what_is_parked_behind_a_settled_record_is_asked_for_at_once(quarantine: Quarantine) -> None:
    """The owner parks it not knowing that a person gave up what it waits behind, which nobody will do again."""
    gone = head(5)
    await quarantine.store.put([gone])
    await quarantine.letters.discard([gone.event_id], PEOPLE, "no use")

    await quarantine.store.put([follower(7, gone)])

    assert (await quarantine.store.calls(SINK)).redrives == (AT,)
    assert await taken(quarantine) == [7]


async def test_a_request_takes_the_chain_in_order(quarantine: Quarantine) -> None:
    """The head asked for and its followers are taken together, by offset."""
    kept = await chain(quarantine)
    await quarantine.store.put([head(6, b"acme/other")])
    assert await quarantine.letters.request(ids_of(kept[:1]), PEOPLE) == 1
    assert (await quarantine.store.calls(SINK)).redrives == (AT,)
    assert await taken(quarantine) == [5, 7, 9]


async def test_a_cut_is_pinned_until_it_is_settled(quarantine: Quarantine) -> None:
    """Whoever asks again gets the very same records, whatever was asked for meanwhile."""
    kept = await chain(quarantine)
    await quarantine.store.put([head(6, b"acme/other")])
    await quarantine.letters.request(ids_of(kept[:1]), PEOPLE)
    first = await taken(quarantine)
    await quarantine.letters.request([head(6, b"acme/other").event_id], PEOPLE)
    assert await taken(quarantine) == first


async def test_what_is_kept_comes_back_byte_for_byte(quarantine: Quarantine) -> None:
    """Key, value, headers and place of a taken record are those it was kept with."""
    kept = await chain(quarantine)
    await quarantine.letters.request(ids_of(kept[:1]), PEOPLE)
    assert (await quarantine.store.take(SINK, AT, END, 1))[0] == kept[0]


async def test_a_redriven_record_is_settled_once(quarantine: Quarantine) -> None:
    """Its state and one event say so, however often the outcome is told."""
    kept = await chain(quarantine)
    await quarantine.letters.request(ids_of(kept[:1]), PEOPLE)
    await taken(quarantine)
    for _ in range(2):
        await quarantine.store.settle(SINK, AT, ids_of(kept), [])
    assert await quarantine.states(*ids_of(kept)) == ["REDRIVEN"] * 3
    assert len(kinds(await quarantine.events(), QuarantineKind.REDRIVEN)) == 3
    assert (await quarantine.store.calls(SINK)).redrives == ()
    assert (await quarantine.store.standings(SINK, {AT: 0}))[AT] == Standing()


async def test_a_failed_record_stays_with_one_try_more(quarantine: Quarantine) -> None:
    """It is a head again with its new reason; what was not tried waits on."""
    kept = await chain(quarantine)
    await quarantine.letters.request(ids_of(kept[:1]), PEOPLE)
    await taken(quarantine)
    failure = Failed(kept[0].event_id, QuarantineReason.BUG, "KeyError at x.py:1", "f" * 16)
    await quarantine.store.settle(SINK, AT, [], [failure])
    found = await quarantine.letters.show(kept[0].event_id)
    assert found is not None
    assert (found[0].state, found[0].attempts, found[0].reason) == ("QUARANTINED", 2, "BUG")
    assert (found[0].fingerprint, found[0].requested) == ("f" * 16, False)
    assert await quarantine.states(*ids_of(kept[1:])) == ["PARKED"] * 2
    assert await taken(quarantine) == []


async def test_followers_are_not_forgotten_between_two_cuts(quarantine: Quarantine) -> None:
    """When only the head was in the cut and is applied, its followers are called for."""
    kept = await chain(quarantine)
    await quarantine.letters.request(ids_of(kept[:1]), PEOPLE)
    await quarantine.store.take(SINK, AT, END, 1)
    await quarantine.store.settle(SINK, AT, ids_of(kept[:1]), [])
    assert (await quarantine.store.calls(SINK)).redrives == (AT,)
    assert await taken(quarantine) == [7, 9]


async def test_what_waits_for_several_unread_records_goes_with_the_last(quarantine: Quarantine) -> None:
    """Whichever of them it was parked behind, and though one failed again meanwhile."""
    budgets = Partition("quaestor.budgets", 2)
    first, second, third = (
        LogRecord(budgets.topic, budgets.number, offset, MILLIS, b"acme", b"\x00\x01", ()) for offset in (1, 2, 3)
    )
    heads = [SCREEN.poison(each, TOPIC_ID, QuarantineReason.UNDECODABLE, "bad", 1).event for each in (first, second)]
    item = Decoded(3, {"hold_id": uuid7(START_MICROS, bytes(10))}, third)
    waits = SCREEN.parked(item, TOPIC_ID, heads[0].event_id, "waits", 1).event
    await quarantine.store.put([*heads, waits])
    await quarantine.letters.discard([heads[0].event_id], PEOPLE, "lost")
    assert [] == await quarantine.store.take(SINK, budgets, END, 1)
    await quarantine.letters.request([heads[1].event_id], PEOPLE)
    (again,) = await quarantine.store.take(SINK, budgets, END, 1)
    await quarantine.store.settle(SINK, budgets, [], [Failed(again.event_id, QuarantineReason.BUG, "bad", "f")])
    await quarantine.letters.discard([heads[1].event_id], PEOPLE, "lost too")

    assert budgets in (await quarantine.store.calls(SINK)).redrives
    assert [3] == [each.source_offset for each in await quarantine.store.take(SINK, budgets, END, 100)]


async def test_what_the_cursor_has_not_passed_waits_for_it(quarantine: Quarantine) -> None:
    """An owner died between keeping a record and moving the cursor: it will be read again, so it is not redriven."""
    kept = await chain(quarantine)
    await quarantine.letters.discard(ids_of(kept[:1]), PEOPLE, "lost")

    before = [each.source_offset for each in await quarantine.store.take(SINK, AT, 7, 100)]
    calls = (await quarantine.store.calls(SINK)).redrives

    assert (before, calls, await taken(quarantine)) == ([], (AT,), [7, 9])


async def test_a_request_that_can_do_nothing_ends(quarantine: Quarantine) -> None:
    """A follower asked for alone is not taken, and is not asked for any more."""
    kept = await chain(quarantine)
    await quarantine.letters.request(ids_of(kept[1:2]), PEOPLE)
    assert await taken(quarantine) == []
    assert (await quarantine.store.calls(SINK)).redrives == ()


async def test_discarding_says_who_and_why(quarantine: Quarantine) -> None:
    """One event with the actor and the reason, without the bytes; its followers are called for; no redrive after."""
    kept = await chain(quarantine)
    assert await quarantine.letters.discard(ids_of(kept[:1]), PEOPLE, "test data") == 1
    assert await quarantine.letters.discard(ids_of(kept[:1]), PEOPLE, "again") == 0
    (event,) = kinds(await quarantine.events(), QuarantineKind.DISCARDED)
    assert (event.actor, event.note, event.value_bytes) == (PEOPLE, "test data", None)
    assert event.causation_id == kept[0].event_id
    assert await quarantine.letters.request(ids_of(kept[:1]), PEOPLE) == 0
    assert await taken(quarantine) == [7, 9]


async def test_a_discarded_record_stays_out_when_it_is_read_again(quarantine: Quarantine) -> None:
    """A store that is rebuilt from the log passes over it, and nothing waits behind it."""
    kept = await chain(quarantine)
    await quarantine.letters.discard(ids_of(kept), PEOPLE, "test data")
    standing = (await quarantine.store.standings(SINK, {AT: 0}))[AT]
    assert standing.unresolved == ()
    assert standing.known == {5: None, 7: None, 9: None}


async def test_a_record_in_a_cut_is_nobodys_to_decide_on(quarantine: Quarantine) -> None:
    """While it may be being applied it can't be discarded or parked."""
    kept = await chain(quarantine)
    await quarantine.letters.request(ids_of(kept[:1]), PEOPLE)
    await taken(quarantine)
    assert await quarantine.letters.discard(ids_of(kept), PEOPLE, "no") == 0
    assert await quarantine.letters.park(ids_of(kept), PEOPLE, "no") == 0


async def test_a_record_parked_by_a_person_goes_only_when_asked_for(quarantine: Quarantine) -> None:
    """It keeps its chain; a redrive that names it takes it along."""
    kept = await chain(quarantine)
    assert await quarantine.letters.park(ids_of(kept[:1]), PEOPLE, "waiting for release 2") == 1
    assert await quarantine.states(kept[0].event_id) == ["PARKED"]
    assert await taken(quarantine) == []
    await quarantine.letters.request(ids_of(kept[:1]), PEOPLE)
    assert await taken(quarantine) == [5, 7, 9]


async def test_a_redriven_record_is_applied_again_only_when_told(quarantine: Quarantine) -> None:
    """For a store that lost what it had."""
    kept = await chain(quarantine)
    await quarantine.letters.request(ids_of(kept[:1]), PEOPLE)
    await taken(quarantine)
    await quarantine.store.settle(SINK, AT, ids_of(kept), [])
    assert await quarantine.letters.request(ids_of(kept[:1]), PEOPLE) == 0
    assert await quarantine.letters.request(ids_of(kept[:1]), PEOPLE, again=True) == 1
    assert await taken(quarantine) == [5]


@pytest.mark.parametrize(
    ("selection", "offsets"),
    [
        (Selection(), [5, 7, 9, 11]),
        (Selection(states=("PARKED",)), [7, 9]),
        (Selection(states=STATES, sink=SINK, topic=TOPIC), [5, 7, 9, 11]),
        (Selection(sink="b@v1"), []),
        (Selection(topic="quaestor.costs"), []),
        (Selection(tenant_id="other"), [11]),
        (Selection(fingerprint=head(5).fingerprint), [5, 11]),
        (Selection(event_ids=(head(5).event_id,)), [5]),
        (Selection(since_micros=(MILLIS + 9) * 1_000), [9, 11]),
        (Selection(until_micros=(MILLIS + 9) * 1_000), [5, 7]),
    ],
)
async def test_records_are_found(quarantine: Quarantine, selection: Selection, offsets: list[int]) -> None:
    """By each filter; what failed alike has one fingerprint."""
    await chain(quarantine)
    await quarantine.store.put([head(11, b"other/one")])
    assert [each.offset for each in await quarantine.letters.find(selection, 100)] == offsets


async def test_a_pause_lasts_until_a_person_ends_it(quarantine: Quarantine) -> None:
    """Every owner learns of it, with an alert in the log; resumed, it is called for, with what was lifted."""
    alert = Alert(
        event_id=derived_id("pause", "x", "PARTITION_PAUSED", SINK), occurred_at=START_MICROS, tenant_id="_system",
        actor=SINK, kind=AlertKind.PARTITION_PAUSED, severity=Severity.CRITICAL, subject="s", title="t",
        detail="too much",
    )  # fmt: skip
    await quarantine.store.pause(SINK, AT, TOPIC_ID, 12, alert)
    assert alert in await quarantine.events()
    assert (await quarantine.store.standings(SINK, {AT: 12}))[AT].paused == "too much"
    (paused,) = await quarantine.letters.pauses()
    assert (paused.projection, paused.partition, paused.offset, paused.reason) == (SINK, AT, 12, "too much")
    assert await quarantine.letters.resume(SINK, AT, PEOPLE, 40)
    assert not await quarantine.letters.resume(SINK, AT, PEOPLE, 40)
    standing = (await quarantine.store.standings(SINK, {AT: 12}))[AT]
    assert (standing.paused, standing.lifted_until) == (None, 40)
    assert (await quarantine.store.calls(SINK)).resumed == (AT,)
    assert [event.actor for event in await quarantine.events() if isinstance(event, Alert)] == [SINK, PEOPLE]


async def test_everything_is_published_once(quarantine: Quarantine) -> None:
    """First events and those that follow, in the order they were kept."""
    kept = await chain(quarantine)
    await quarantine.letters.discard(ids_of(kept), PEOPLE, "test data")
    events = await quarantine.events()
    assert len(events) == 6
    assert events[:3] == kept
    await quarantine.store.mark_published([event.event_id for event in events])
    assert await quarantine.events() == []


async def test_of_headers_with_one_name_the_last_is_kept(quarantine: Quarantine) -> None:
    """All of them stay in the log; one without a value is empty, as records are read."""
    bare = (("none", b""), ("twice", b"1"), ("twice", b"2"))
    event = SCREEN.poison(record(5)._replace(headers=bare), TOPIC_ID, QuarantineReason.UNDECODABLE, "bad", 1).event
    await quarantine.store.put([event])
    await quarantine.letters.request(ids_of([event]), PEOPLE)

    (told,) = kinds(await quarantine.events(), QuarantineKind.QUARANTINED)
    (going,) = await quarantine.store.take(SINK, AT, END, 100)

    assert told.headers == going.headers == {"none": b"", "twice": b"2"}
