"""How far retention may cut the audit log: whole blocks of entries, from the oldest on, none of them young or held."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from processors.audit.entry import Source
from processors.control.kept import LegalHold
from schemas.limits import RETENTION_BLOCK_ENTRIES


class Stop(StrEnum):
    """Why a cut goes no further."""

    #: The entry may not go yet.
    YOUNG = "young"
    #: A legal hold covers the entry.
    HELD = "held"
    #: The newest block stays: a log goes on from its last entries.
    NEWEST = "newest"


class CutPlan(NamedTuple):
    """What may go."""

    #: The minimum index, now and after the cut; equal when nothing may go.
    begin: int
    end: int
    #: Why no more of it.
    stop: Stop
    #: The first entry that must stay, where one was met.
    entry: int | None = None
    #: The hold that covers it.
    hold_id: str = ""


class Cutter:
    """Takes a log's entries in order from its minimum index on, until it knows."""

    def __init__(
        self,
        begin: int,
        size: int,
        before_micros: int,
        holds: Iterable[LegalHold],
        block_entries: int = RETENTION_BLOCK_ENTRIES,
    ) -> None:
        """`size` entries are published, those older than `before_micros` may go; at least one entry stays."""
        self._begin, self._end = begin, begin
        self._position = begin
        self._block_entries = block_entries
        self._limit = max(size - 1, 0) // block_entries * block_entries
        self._before_micros = before_micros
        self._holds = list(holds)
        self._found: CutPlan | None = None

    @property
    def plan(self) -> CutPlan | None:
        """What may go, once it is known."""
        if self._found is None and self._position >= self._limit:
            return CutPlan(self._begin, self._end, Stop.NEWEST)
        return self._found

    def take(self, source: Source) -> None:
        """Take the next entry."""
        covering = (
            hold for hold in self._holds if hold.covers(source.tenant_id, source.request_id, source.time_micros)
        )
        hold = next(covering, None)
        if hold is not None:
            self._found = CutPlan(self._begin, self._end, Stop.HELD, self._position, hold.hold_id)
        elif source.time_micros >= self._before_micros:
            self._found = CutPlan(self._begin, self._end, Stop.YOUNG, self._position)
        self._position += 1
        if self._found is None and self._position % self._block_entries == 0:
            self._end = self._position
