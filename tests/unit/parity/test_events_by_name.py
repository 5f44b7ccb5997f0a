"""Which event a record is: what can't say so is left to quarantine, and tenants share no ids."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from api.verify.expected import Expected
from processors.parity.totals import TopicTotals
from schemas.topics import TOPICS
from streams.log import OutgoingRecord, Partition
from tests.support.parity_world import CODEC, ParityWorld, RowStore, audited
from tests.support.stories import outgoing, request_story

REQUESTS, COSTS = "quaestor.requests", "quaestor.costs"
STORIES = [event for number in range(4) for event in request_story(number)]


def received(**changes: Any) -> OutgoingRecord:
    """A record of a request of its own, with these fields."""
    (record,) = outgoing(CODEC, [replace(request_story(77)[0], **changes)])
    return record


def places(world: ParityWorld, record: OutgoingRecord) -> dict[Partition, set[int]]:
    """Where a record stands."""
    return {
        at: found
        for at, records in world.log.records.items()
        if (found := {each.offset for each in records if each.value == record.value})
    }


#: Each is SEMANTIC to every sink.
NAMELESS: list[dict[str, Any]] = [
    {"event_id": "not-a-uuid"},
    {"event_id": ""},
    {"event_id": STORIES[0].event_id.upper()},
    {"event_id": STORIES[0].event_id.replace("-", "")},
    {"tenant_id": "no name"},
]


@pytest.mark.parametrize("changes", NAMELESS)
async def test_what_does_not_say_which_event_it_is_stands_in_no_store(changes: dict[str, Any]) -> None:
    """The record that every sink set aside for its id is no difference, also where its bytes are another's id."""
    broken = received(**changes)
    world = ParityWorld()
    world.produce([broken, *outgoing(CODEC, STORIES)])
    aside = places(world, broken)
    expected = Expected(aside)

    fold = world.fold(expected)

    assert not await world.difference(RowStore(world.rows()), aside)
    totals = expected.totals(REQUESTS, fold)
    assert (2 * 4, 4 * 1_500) == (totals.records, totals.amount_nano)
    assert [] == expected.lost


@pytest.mark.parametrize("changes", NAMELESS)
def test_what_does_not_say_which_event_it_is_must_be_in_quarantine(changes: dict[str, Any]) -> None:
    """Passed over by a sink that kept nothing of it, it is lost, and named by its place."""
    broken = received(**changes)
    world = ParityWorld(STORIES)
    world.produce([broken])
    expected = Expected({})

    world.fold(expected)

    ((partition, (offset,)),) = places(world, broken).items()
    assert [(partition, offset)] == expected.lost


@pytest.mark.parametrize("changes", NAMELESS)
async def test_the_audit_log_counts_no_event_that_it_can_not_name(changes: dict[str, Any]) -> None:
    """It has entries of their bytes, under no id, and verification asks for nothing else."""
    world = ParityWorld()
    world.produce([received(**changes), *outgoing(CODEC, STORIES)])
    reads = await audited(world)
    expected = Expected({})

    fold = world.fold(expected)

    stored = await reads.totals({at: world.log.end(at) for at in world.log.records})
    for topic in (topic.name for topic in TOPICS if topic.name in stored):
        found = stored[topic]
        assert expected.totals(topic, fold) == TopicTotals(found.records, found.id_digest, found.amount_nano)
    assert not await world.difference(reads)
