"""Up to where ClickHouse may have rows that the plans know nothing of: Postgres went back, to a replica or a backup.

Cursors go back with it, and what follows is planned anew, in other cuts and under tokens that no server has met. Such a
plan says of itself that its rows are counted before they are inserted, so that whoever completes it does that too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from sinks.clickhouse import queries
from sinks.clickhouse.client import ClickHouse
from sinks.clickhouse.plans import Draft, Plan
from sinks.clickhouse.tables import TABLES
from streams.log import Partition


class Reached:
    """What one process knows of its partitions."""

    def __init__(self) -> None:
        """Nothing is known."""
        self._next_offsets: dict[Partition, int] = {}

    def note(self, next_offsets: Mapping[Partition, int]) -> None:
        """There may be rows up to these offsets."""
        for partition, next_offset in next_offsets.items():
            self._next_offsets[partition] = max(next_offset, self._next_offsets.get(partition, 0))

    def sends(self, plan: Plan) -> None:
        """From now on there may be rows of this plan."""
        self.note({piece.partition: piece.next_offset for piece in plan.pieces})

    def marked(self, drafts: Iterable[Draft]) -> Sequence[Draft]:
        """Drafts, told which of them may have rows already."""
        return [
            replace(draft, is_counted=draft.first_offset < self._next_offsets.get(draft.partition, 0))
            for draft in drafts
        ]

    def forget(self, partitions: Iterable[Partition]) -> None:
        """Others own these now."""
        for partition in partitions:
            self._next_offsets.pop(partition, None)


async def behind(
    clickhouse: ClickHouse, cursors: Mapping[Partition, int], topic_ids: Mapping[str, str]
) -> dict[Partition, int]:
    """Behind the last row of each partition that has rows from its cursor on; raises StoreUnavailableError."""
    found: dict[Partition, int] = {}
    for topic in dict.fromkeys(partition.topic for partition in cursors):
        given = {each.number: cursor for each, cursor in cursors.items() if each.topic == topic}
        asked = {"topic_id": topic_ids[topic], "parts": list(given), "firsts": list(given.values())}
        rows = await clickhouse.query(queries.behind(clickhouse.database, TABLES[topic].name), asked)
        found |= {Partition(topic, int(number)): int(last) + 1 for number, last in rows}
    return found
