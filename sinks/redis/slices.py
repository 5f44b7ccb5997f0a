"""Slices of a budgets partition as movements: how every fold of the log beside or apart from the sink reads it.

The sink itself decides what is set aside. A fold of what it has decided about before only takes note of that: offsets
that are set aside are passed over, and whatever can't be counted without being among them is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sinks.redis.movements import Movements, movements
from sinks.runner.screen import Screen
from sinks.runner.seam import Decoded
from streams.codec import Codec
from streams.log import Partition
from streams.runs import Run, runs_of


class Slice(NamedTuple):
    """What consecutive records of a partition move."""

    movements: Movements
    #: Offsets that can't be counted and are not set aside, in order; they move nothing.
    unknown: list[int]


class Slices:
    """Reads slices; used by one thread. Raises LogUnavailableError while a schema can't be asked for."""

    def __init__(self, codec: Codec, projection: str) -> None:
        """`projection` is the sink's."""
        self._screen = Screen(codec, projection)

    def read(self, place: Partition, runs: Sequence[Run], topic_id: str, aside: frozenset[int]) -> Slice:
        """What the records of one partition move, but for those set aside."""
        left = _without(runs, aside)
        if not left:
            return Slice(Movements([], {}), [])
        screened = self._screen.screen_runs(left, topic_id, 0, together=True)[place]
        unknown = [each.offset for each in screened.poison]
        made = movements(place.number, place.topic, screened.records)
        if made.refused:
            refused = {each.offset for each in made.refused}
            sound: list[Decoded] = [record for record in screened.records if record.offset not in refused]
            made = movements(place.number, place.topic, sound)
            unknown += refused
        return Slice(made, sorted(unknown))


def _without(runs: Sequence[Run], aside: frozenset[int]) -> Sequence[Run]:
    """The same records as runs, without some."""
    if not aside or all(aside.isdisjoint(run.offsets) for run in runs):
        return runs
    return runs_of([record for run in runs for record in run if record.offset not in aside])
