"""Which event a record is: what can't say so is left to quarantine, and tenants share no ids."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from api.verify.expected import Expected
from processors.parity.checks import Due, log_checks
from schemas.events import RequestEvent
from schemas.topics import PARTITIONS
from streams.log import OutgoingRecord, Partition
from streams.partitioner import partition_of
from tests.support.parity_world import CODEC, ParityWorld, RowStore, audited
from tests.support.stories import event_id, outgoing, request_story

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

    assert {} == await world.compare(reads)
    assert not await world.difference(reads)


def neighbour_of(tenant_id: str) -> str:
    """A tenant whose request of the same id is in the same partition."""
    request_id = event_id(1, "request")
    names = [tenant_id, *(f"{tenant_id}_{number}" for number in range(1_000))]
    numbers = [partition_of(f"{name}/{request_id}".encode(), PARTITIONS) for name in names]
    return names[numbers.index(numbers[0], 1)]


#: Every id of one's request is one of the other's too.
ACME, GLOBEX = request_story(1, "acme"), request_story(1, neighbour_of("acme"))


def test_two_tenants_with_one_id_are_two_events() -> None:
    """Both are counted, and neither's request takes the other's costs for its own."""
    world = ParityWorld([*ACME, *GLOBEX])
    expected = Expected({})

    fold = world.fold(expected)

    totals = expected.totals(COSTS, fold)
    assert (2, 2 * 1_500, 0) == (totals.records, totals.amount_nano, totals.repeated)
    answers, due = [event.request_id for event in ACME[:1] if isinstance(event, RequestEvent)], Due(2**62, 2**62)
    assert [] == [check.name for check in log_checks(fold, [each for each in answers if each], due) if not check.ok]


@pytest.mark.parametrize("lost", ["acme", neighbour_of("acme")])
async def test_the_event_of_one_of_two_tenants_is_missed(lost: str) -> None:
    """The other's row of the same id does not stand for it, whichever is in the log first."""
    world = ParityWorld([*ACME, *GLOBEX])
    rows = [row for row in world.rows() if (row.partition.topic, row.tenant_id) != (COSTS, lost)]

    difference = await world.difference(RowStore(rows))

    assert not await world.difference(RowStore(world.rows()))
    assert difference.endswith("missing in store")


async def test_an_event_produced_twice_is_missed_beside_another_tenants() -> None:
    """Either of its records may be the row, but no row of somebody else."""
    world = ParityWorld([*ACME, *GLOBEX])
    rows = [row for row in world.rows() if (row.partition.topic, row.tenant_id) != (COSTS, "acme")]
    world.produce(outgoing(CODEC, ACME))

    assert (await world.difference(RowStore(rows))).endswith("store has it 0 times")


async def test_the_audit_log_is_asked_for_both_tenants() -> None:
    """An entry of one tenant is none of the other's event."""
    world = ParityWorld([*ACME, *GLOBEX])

    assert {} == await world.compare(await audited(world))
    missed = await world.compare(await audited(ParityWorld(ACME)))
    assert "1 distinct events are missing" == missed[COSTS]
