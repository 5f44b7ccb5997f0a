"""What is folded apart, how far, and by how many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from processors.quarantine.order import Waiting
from schemas.errors import StoreUnavailableError
from sinks.redis.apart import Apart, Aparts, Folder, begun
from sinks.redis.errands import Errand
from sinks.redis.processes import shares
from sinks.runner.seam import Standing
from streams.log import Partition

PROJECTION = "redis@v1"


class Noting(Folder):
    """Folds nothing, and keeps what it was asked."""

    def __init__(self) -> None:
        """Nothing was asked."""
        self.asked: list[Errand] = []

    def begin(self, errands: Sequence[Errand]) -> list[Apart]:
        """As the seam says."""
        self.asked += errands
        return begun(errands)

    async def close(self) -> None:
        """As the seam says."""


class Quarantine:
    """Answers what stands in it, or that it is away."""

    def __init__(self, standings: Mapping[int, Standing] | None) -> None:
        """By partition; None: away."""
        self._standings = standings

    async def standings(self, _: str, cursors: Mapping[Partition, int]) -> dict[Partition, Standing]:
        """As the seam says."""
        if self._standings is None:
            raise StoreUnavailableError
        return {place: self._standings.get(place.number, Standing()) for place in cursors}


async def asked(ends: Mapping[int, int], standings: Any = None, records_min: int = 1) -> list[Errand]:
    """What is asked of a folder when these partitions begin at 10."""

    async def ends_of(places: Sequence[Partition]) -> Mapping[Partition, int]:
        return {place: ends[place.number] for place in places}

    folder = Noting()
    quarantine: Any = None if standings is None else Quarantine(standings)
    aparts = Aparts(folder, ends_of, quarantine, PROJECTION, records_min)
    await aparts.begin(dict.fromkeys(ends, 10), "topic", 60)
    return folder.asked


def waits(offset: int) -> Waiting:
    """A record that waits for a person."""
    return Waiting(f"e{offset}", offset, "hold", b"acme", 0)


async def test_all_that_is_there_is_folded() -> None:
    """Up to where the log ends; a partition without records is not asked for."""
    assert [(each.partition, each.first, each.end) for each in await asked({0: 50, 1: 10, 2: 90})] == [
        (0, 10, 50),
        (2, 10, 90),
    ]


async def test_a_short_log_is_not_worth_it() -> None:
    """All partitions of a claim count together."""
    assert await asked({0: 50, 1: 49}, records_min=80) == []
    assert len(await asked({0: 50, 1: 50}, records_min=80)) == 2


async def test_it_ends_before_the_first_record_that_waits_for_a_person() -> None:
    """Whether a later one must wait behind it, the runner decides; what was discarded is passed over."""
    standing = Standing((waits(40), waits(30)), {20: None, 30: waits(30), 40: waits(40)})
    (errand,) = await asked({0: 50}, {0: standing})

    assert (errand.end, errand.set_aside, errand.is_strict) == (30, (20, 30, 40), True)


async def test_a_partition_that_stands_still_is_left_alone() -> None:
    """Nobody would wait for it."""
    assert await asked({0: 50}, {0: Standing(paused="too much")}) == []


async def test_nothing_is_folded_while_the_quarantine_is_away() -> None:
    """What is set aside is not known then."""
    folder = Noting()

    async def ends_of(places: Sequence[Partition]) -> Mapping[Partition, int]:
        return dict.fromkeys(places, 50)

    quarantine: Any = Quarantine(None)
    assert await Aparts(folder, ends_of, quarantine, PROJECTION, 1).begin({0: 0}, "topic", 60) == []
    assert folder.asked == []


@pytest.mark.parametrize(
    ("sizes", "processes_max", "shared"),
    [
        ((33, 23, 16, 15, 10, 3), 2, [[33, 15, 3], [23, 16, 10]]),
        ((5,), 8, [[5]]),
        ((5, 4), 1, [[5, 4]]),
    ],
)
def test_the_longest_goes_to_who_has_least(sizes: tuple[int, ...], processes_max: int, shared: list[list[int]]) -> None:
    """So that all are done at about the same time; nobody is begun for nothing."""
    errands = [Errand(number, "topic", 0, size, (), True, 60) for number, size in enumerate(sizes)]

    assert [[each.end for each in share] for share in shares(errands, processes_max)] == shared
