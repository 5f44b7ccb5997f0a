"""What retention left in the stores, so that they are compared with the log on that and nothing else.

Months of events are those that the log's own cuts leave (topic quaestor.control); the audit log says itself where it
begins. What is gone is passed over on both sides: here by these rules, in the stores by what their reads are told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from api.times import MICROS_PER_SECOND
from processors.audit.kept import Kept
from processors.control import ControlState, evolve_all
from schemas.errors import UndecodableError
from schemas.events import ControlEvent
from schemas.topics import CONTROL
from sinks.content import LogRow
from sinks.retention import RETAINED_TOPICS
from streams.codec import Codec
from streams.log import Partition
from streams.records import event_of


def control_range(barrier: Mapping[Partition, int]) -> dict[Partition, tuple[int, int]]:
    """The records of the control topic below a barrier: from the first on, none ever goes."""
    return {each: (0, end) for each, end in barrier.items() if each.topic == CONTROL.name}


def events_kept_from(pages: Iterable[list[LogRow]], codec: Codec) -> int:
    """From when on months of events stay, microseconds since the epoch, by the records of the control topic."""
    state = ControlState()
    for page in pages:
        state = evolve_all(state, _events(page, codec))
    retention = state.retention.get("events")
    return 0 if retention is None else retention.kept_from


def _events(rows: Iterable[LogRow], codec: Codec) -> Iterable[ControlEvent]:
    for row in rows:
        try:
            event = event_of(codec, row.record)
        except UndecodableError:
            continue
        if isinstance(event, ControlEvent):
            yield event


class Whole:
    """A store of which nothing is gone."""

    def is_gone(self, _row: LogRow) -> bool:
        """Never."""
        return False

    def words(self, _topic: str) -> str:
        """Nothing to say."""
        return ""


class KeptEvents(Whole):
    """What is left in a store of months."""

    def __init__(self, since_micros: int) -> None:
        """Rows of retained topics stay from this time on."""
        self._since_micros = since_micros

    def words(self, topic: str) -> str:
        """From when on a topic is compared, for people."""
        if not self._since_micros or topic not in RETAINED_TOPICS:
            return ""
        return f" from {datetime.fromtimestamp(self._since_micros // MICROS_PER_SECOND, UTC):%Y-%m} on"

    def is_gone(self, row: LogRow) -> bool:
        """Whether retention gave up the record's row."""
        is_old = row.fields is not None and row.fields["occurred_at"] < self._since_micros
        return is_old and row.record.topic in RETAINED_TOPICS


class KeptEntries(Whole):
    """What is left of the audit log."""

    def __init__(self, kept: Kept) -> None:
        """What the log says that it still has."""
        self._next_offsets = kept.next_offsets
        self._minimum_index = kept.minimum_index

    def words(self, _topic: str) -> str:
        """From which entry on a topic is compared, for people."""
        return f" from entry {self._minimum_index} on" if self._minimum_index else ""

    def is_gone(self, row: LogRow) -> bool:
        """Whether retention gave up the record's entry."""
        key = (row.record.topic, row.topic_id, row.record.partition)
        return row.record.offset < self._next_offsets.get(key, 0)
