"""Limits on poison: how much of a partition may be set aside before a person must look (docs/decisions/0091)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from schemas import limits
from schemas.events import QuarantineKind
from sinks.runner.seam import Poison, Standing

PER_CENT = 100


class Pause(NamedTuple):
    """A partition stands still before this record."""

    offset: int
    reason: str


class Watch:
    """Counts what is set aside in one partition. Costs nothing for records that are applied.

    Records are known by their offsets, so "the last 5,000 records" are the last 5,000 offsets. Counts begin anew with
    each owner and each resumption; a pause itself is kept in the store.
    """

    def __init__(self, standing: Standing) -> None:
        """Begin with what is unresolved already."""
        self._lifted_until = standing.lifted_until
        self._unresolved = len(standing.unresolved)
        self._in_a_row = 0
        self._last_offset = -1
        self._recent: deque[int] = deque(
            maxlen=limits.POISON_WINDOW_RECORDS * limits.POISON_PERCENT_MAX // PER_CENT + 1
        )

    def first_too_many(self, poison: Iterable[Poison]) -> Pause | None:
        """Where the partition must stop if these, in the order of offsets, were set aside; None when it need not."""
        return self._copy().count(poison)

    def count(self, poison: Iterable[Poison]) -> Pause | None:
        """Count these in; answers the first that is too many, and counts none behind it."""
        for each in poison:
            why = self._count(each) if each.offset >= self._lifted_until else None
            if why is not None:
                return Pause(each.offset, why)
        return None

    def _count(self, poison: Poison) -> str | None:
        self._unresolved += 1
        if self._unresolved > limits.UNRESOLVED_RECORDS_MAX:
            return f"{limits.UNRESOLVED_RECORDS_MAX:,} records of it are set aside and wait for somebody"
        if poison.event.kind is QuarantineKind.PARKED:
            return None
        self._in_a_row = self._in_a_row + 1 if poison.offset == self._last_offset + 1 else 1
        self._last_offset = poison.offset
        if self._in_a_row > limits.POISON_IN_A_ROW_MAX:
            return f"more than {limits.POISON_IN_A_ROW_MAX} records in a row can't be applied ({_named(poison)})"
        self._recent.append(poison.offset)
        full = len(self._recent) == self._recent.maxlen
        if full and poison.offset - self._recent[0] < limits.POISON_WINDOW_RECORDS:
            share = f"more than {limits.POISON_PERCENT_MAX} % of {limits.POISON_WINDOW_RECORDS:,} records"
            return f"{share} can't be applied ({_named(poison)})"
        return None

    def _copy(self) -> Watch:
        made = Watch(Standing(lifted_until=self._lifted_until))
        made._unresolved, made._in_a_row = self._unresolved, self._in_a_row
        made._last_offset, made._recent = self._last_offset, self._recent.copy()
        return made


def _named(poison: Poison) -> str:
    return f"the last one {poison.event.reason.value}: {poison.event.detail}"
