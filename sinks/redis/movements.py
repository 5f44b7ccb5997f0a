"""Movements of a batch of budget events: what each tenant's slot must apply, from columns where a record has them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate, chain
from typing import NamedTuple

import numpy as np

from processors.budgets.sound import AMOUNT_NANO_MAX, MOVING, UUID_VERSION_AT, problem_of_fields
from schemas import limits
from schemas.errors import Rejection
from schemas.ids import is_name
from schemas.topics import BUDGETS
from sinks.redis.slot_event import SlotEvent, slot_event
from sinks.runner.columns import Selection, selections
from sinks.runner.seam import Decoded, Span
from streams.columns import Columns, Flags
from streams.log import Partition
from streams.pieces import UnusualError
from streams.texts import texts_of

CURRENCY_LETTERS = 3


class Movements(NamedTuple):
    """What becomes of records of one partition."""

    refused: list[Rejection]
    #: Slot events of those that can be counted, by tenant, in the order of offsets.
    by_tenant: dict[str, list[SlotEvent]]


def movements(partition: int, topic: str, records: Sequence[Decoded]) -> Movements:
    """Movements of records, and why some can't be counted; then the others are not told."""
    chosen, plain = selections(records)
    legs = [_Legs(each.columns) for each in chosen]
    sound = [_sound(each.columns, of_each) for each, of_each in zip(chosen, legs, strict=True)]
    suspects = [
        *plain,
        *(record for each, good in zip(chosen, sound, strict=True) if not good for record in each.records),
    ]
    refused = []
    for record in suspects:
        problem = problem_of_fields(record.fields)
        if problem is not None:
            refused.append(Rejection(topic, partition, record.offset, problem, semantic=True))
    found: defaultdict[str, list[SlotEvent]] = defaultdict(list)
    if refused:
        return Movements(refused, found)
    for each, of_each in zip(chosen, legs, strict=True):
        _moving(each, of_each, found)
    for record in plain:
        movement = slot_event(record.offset, record.fields)
        if movement is not None:
            found[record.fields["tenant_id"]].append(movement)
    if len(chosen) + bool(plain) > 1:
        for events in found.values():
            events.sort(key=lambda event: event.offset)
    return Movements(refused, found)


class Foreseen:
    """Movements of the batch being written, and of the one that most likely follows, by partition."""

    def __init__(self) -> None:
        """Nothing is foreseen."""
        self._writing: dict[Partition, tuple[Sequence[Decoded], Movements]] = {}
        #: Set as a whole by the consuming thread.
        self._prepared: dict[Partition, tuple[Sequence[Decoded], Movements]] = {}

    def prepare(self, spans: Sequence[Span]) -> None:
        """Find those of the next batch, beside a write."""
        self._prepared = {each.partition: (each.records, _of_span(each)) for each in spans}

    def begin(self, spans: Sequence[Span]) -> list[Rejection]:
        """Keep those of the batch to be written; answers what of it can't be counted."""
        self._writing = {each.partition: (each.records, self.of(each)) for each in spans}
        return [rejection for _, made in self._writing.values() for rejection in made.refused]

    def of(self, span: Span) -> Movements:
        """Of a span, or of a part of it."""
        for known in (self._writing, self._prepared):
            records, made = known.get(span.partition, (None, None))
            if made is not None and records is span.records:
                return made
        return _of_span(span)


def _of_span(span: Span) -> Movements:
    return movements(span.partition.number, span.partition.topic, span.records)


class _Legs:
    """The legs of all records of some columns, one after the other."""

    def __init__(self, columns: Columns) -> None:
        """Taken apart once."""
        column = columns.fields["legs"]
        self.counts: list[int] = column.values.tolist()
        self.items = column.items
        self.limit_ids: list[str] = []
        self.currencies: list[str] = []
        #: counter, amount, counter, amount, …
        self.words: list[str] = []
        if not self.items:
            return
        self.limit_ids, self.currencies = (
            [text or "" for text in texts_of(columns, name, self.items)] for name in ("limit_id", "currency")
        )
        starts, ends = self.items["window_start"].values.tolist(), self.items["window_end"].values.tolist()
        parts = zip(self.limit_ids, self.currencies, starts, ends, strict=True)
        counters = map(_Counters().__getitem__, parts)
        amounts = map(str, self.items["amount_nano"].values.tolist())
        self.words = list(chain.from_iterable(zip(counters, amounts, strict=True)))

    def of_each(self) -> list[list[str]]:
        """The words of each record."""
        ends = accumulate(2 * count for count in self.counts)
        return [self.words[end - 2 * count : end] for count, end in zip(self.counts, ends, strict=True)]


def _moving(selection: Selection, legs: _Legs, found: defaultdict[str, list[SlotEvent]]) -> None:
    """Put slot events where they belong, in the order of offsets."""
    columns = selection.columns
    tenants, kinds, holds = (texts_of(columns, name) for name in ("tenant_id", "kind", "hold_id"))
    events = map(SlotEvent._make, zip(selection.offsets.tolist(), kinds, holds, legs.of_each(), strict=True))
    for tenant_id, kind, event in zip(tenants, kinds, events, strict=True):
        if kind in MOVING and tenant_id is not None:
            found[tenant_id].append(event)


class _Counters(dict[tuple[str, str, int, int], str]):
    """Counters of a batch by limit, currency and window: there are few, and each is written once."""

    def __missing__(self, parts: tuple[str, str, int, int]) -> str:
        limit_id, currency, window_start, window_end = parts
        found = self[parts] = f"{limit_id}|{currency}|{window_start}|{window_end}"
        return found


def _sound(columns: Columns, legs: _Legs) -> bool:
    """Whether every record can be counted, as far as one look tells: the rules of processors/budgets/sound.py."""
    kind, hold = columns.fields["kind"], columns.fields["hold_id"]
    moving: Flags = np.isin(kind.values, [place for place, symbol in enumerate(kind.symbols) if symbol in MOVING])
    if hold.present is not None and not hold.present[moving].all():
        return False
    try:
        columns.uuids(hold)
    except UnusualError:
        return False
    if (columns.bytes.take(hold.values[moving] + UUID_VERSION_AT) != ord("7")).any():
        return False
    return max(legs.counts, default=0) <= limits.LEGS_MAX and _legs_sound(legs)


def _legs_sound(legs: _Legs) -> bool:
    if not legs.items:
        return True
    amounts = legs.items["amount_nano"].values
    if ((amounts < 0) | (amounts > AMOUNT_NANO_MAX)).any():
        return False
    if any((legs.items[name].values < 0).any() for name in ("window_start", "window_end")):
        return False
    if not all(map(_is_currency, set(legs.currencies))) or not all(map(is_name, set(legs.limit_ids))):
        return False
    # One leg has no other that could move the same counter.
    ends = zip(legs.counts, accumulate(legs.counts), strict=True)
    return all(len(set(legs.words[2 * (end - count) : 2 * end : 2])) == count for count, end in ends if count > 1)


def _is_currency(text: str) -> bool:
    return len(text) == CURRENCY_LETTERS and text.isalnum() and text.isascii()


def of_budgets(spans: Sequence[Span]) -> list[Span]:
    """Those that are of quaestor.budgets."""
    return [span for span in spans if span.partition.topic == BUDGETS.name]
