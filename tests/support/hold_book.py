"""What a log of holds says, told by the rule of docs/concepts/budgets.md and by none of the product's code.

Amounts are nano-units; a counter is named as in the live store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

#: Counter and amount, in the order of the hold's limits.
Legs = tuple[tuple[str, int], ...]
#: What a hold ended by so far, and what takes its place.
ENDS = {("", "RELEASED"), ("", "EXPIRED"), ("", "COMMITTED"), ("EXPIRED", "COMMITTED")}


class Fact(NamedTuple):
    """An event of the log."""

    kind: str
    hold: str
    legs: Legs


@dataclass(slots=True)
class Book:
    """What a log says of each hold; sums are added up from the holds whenever somebody asks."""

    placed: dict[str, Legs] = field(default_factory=dict)
    open: dict[str, Legs] = field(default_factory=dict)
    #: What a hold held when it ended.
    ended: dict[str, Legs] = field(default_factory=dict)
    #: Which of them ended by the reaper's hand alone.
    expired: set[str] = field(default_factory=set)
    charged: dict[str, Legs] = field(default_factory=dict)

    def read(self, fact: Fact) -> None:
        """One more event."""
        hold = fact.hold
        if fact.kind == "PLACED":
            if hold not in self.placed:
                self.placed[hold] = self.open[hold] = fact.legs
        elif hold in self.open:
            self._read_open(fact)
        elif fact.kind == "COMMITTED" and hold in self.expired:
            self.expired.remove(hold)
            self.charged[hold] = fact.legs

    def _read_open(self, fact: Fact) -> None:
        hold, asked = fact.hold, dict(fact.legs)
        if fact.kind == "EXTENDED":
            self.open[hold] = tuple((name, max(asked.get(name, 0), amount)) for name, amount in self.open[hold])
            return
        self.ended[hold] = self.open.pop(hold)
        self.charged[hold] = () if fact.kind == "RELEASED" else fact.legs
        if fact.kind == "EXPIRED":
            self.expired.add(hold)

    def held(self) -> Counter[str]:
        """By counter."""
        return added(self.open.values())

    def posted(self) -> Counter[str]:
        """By counter."""
        return added(self.charged.values())


def due(log: Iterable[Fact]) -> Counter[str]:
    """What is to be charged for all of a log, hold by hold: an answer that needs no running state."""
    ends: dict[str, Fact] = {}
    for fact in log:
        known = ends.get(fact.hold)
        if (known.kind if known else "", fact.kind) in ENDS:
            ends[fact.hold] = fact
    return added(fact.legs for fact in ends.values() if fact.kind != "RELEASED")


def added(many: Iterable[Legs]) -> Counter[str]:
    """Amounts by counter."""
    found = Counter[str]()
    for legs in many:
        found.update(dict(legs))
    return found


def nonzero(sums: Mapping[str, int]) -> dict[str, int]:
    """Without what is zero."""
    return {counter: amount for counter, amount in sums.items() if amount}


def limit_name(counter: str) -> str:
    """The limit that a counter counts for."""
    return counter.partition("|")[0]
