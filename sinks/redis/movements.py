"""Movements of a batch of budget events: what each tenant's slot must apply, from columns where a record has them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice

import numpy as np

from processors.budgets.sound import AMOUNT_NANO_MAX, MOVING, UUID_VERSION_AT, problem_of_fields
from schemas import limits
from schemas.errors import Rejection
from schemas.ids import is_name
from sinks.redis.slots import SlotEvent, slot_event
from sinks.runner.columns import Selection, selections
from sinks.runner.seam import Decoded
from streams.columns import Column, Columns, Flags, texts_of
from streams.pieces import UnusualError, uuids

COUNTERS_CACHED_MAX = 10_000
CURRENCY_LETTERS = 3


def refused(partition: int, topic: str, records: Sequence[Decoded]) -> Iterator[Rejection]:
    """Records that can't be counted."""
    chosen, plain = selections(records)
    suspects = [*plain, *(record for each in chosen if not _sound(each.columns) for record in each.records)]
    for record in suspects:
        problem = problem_of_fields(record.fields)
        if problem is not None:
            yield Rejection(topic, partition, record.offset, problem, semantic=True)


def movements(records: Sequence[Decoded]) -> dict[str, list[SlotEvent]]:
    """Slot events of records that can be counted, by tenant."""
    chosen, plain = selections(records)
    found: dict[str, list[SlotEvent]] = {}
    for each in chosen:
        for tenant_id, event in _moving(each):
            found.setdefault(tenant_id, []).append(event)
    for record in plain:
        movement = slot_event(record.offset, record.fields)
        if movement is not None:
            found.setdefault(record.fields["tenant_id"], []).append(movement)
    if plain and chosen:
        for events in found.values():
            events.sort(key=lambda event: event.offset)
    return found


def _moving(selection: Selection) -> Iterator[tuple[str, SlotEvent]]:
    columns = selection.columns
    legs = columns.fields["legs"]
    words = iter(_legs(columns, legs))
    tenants, kinds, holds = (texts_of(columns, name) for name in ("tenant_id", "kind", "hold_id"))
    for record, tenant_id, kind, hold_id, count in zip(
        selection.records, tenants, kinds, holds, legs.values.tolist(), strict=True
    ):
        mine = list(islice(words, 2 * count))
        if kind in MOVING and tenant_id is not None and hold_id is not None:
            yield tenant_id, SlotEvent(record.offset, kind, hold_id, mine)


def _legs(columns: Columns, legs: Column) -> Iterable[str]:
    """counter, amount, counter, amount, … of every leg of every record."""
    if not legs.items:
        return
    limit_ids, currencies = _items(columns, legs, "limit_id"), _items(columns, legs, "currency")
    starts, ends = legs.items["window_start"].values.tolist(), legs.items["window_end"].values.tolist()
    amounts = legs.items["amount_nano"].values.tolist()
    for limit_id, currency, start, end, amount in zip(limit_ids, currencies, starts, ends, amounts, strict=True):
        yield _counter(limit_id, currency, start, end)
        yield str(amount)


def _items(columns: Columns, legs: Column, name: str) -> list[str]:
    return [text or "" for text in texts_of(columns, name, legs.items)]


@lru_cache(maxsize=COUNTERS_CACHED_MAX)
def _counter(limit_id: str, currency: str, window_start: int, window_end: int) -> str:
    return f"{limit_id}|{currency}|{window_start}|{window_end}"


def _sound(columns: Columns) -> bool:
    """Whether every record can be counted, as far as one look tells: the rules of processors/budgets/sound.py."""
    kind, hold, legs = (columns.fields[name] for name in ("kind", "hold_id", "legs"))
    moving: Flags = np.isin(kind.values, [place for place, symbol in enumerate(kind.symbols) if symbol in MOVING])
    begins = hold.values[moving]
    try:
        uuids(columns.bytes, begins, None if hold.lengths is None else hold.lengths[moving])
    except UnusualError:
        return False
    if (columns.bytes[begins + UUID_VERSION_AT] != ord("7")).any():
        return False
    return int(legs.values.max(initial=0)) <= limits.LEGS_MAX and _legs_sound(columns, legs)


def _legs_sound(columns: Columns, legs: Column) -> bool:
    if not legs.items:
        return True
    amounts = legs.items["amount_nano"].values
    if ((amounts < 0) | (amounts > AMOUNT_NANO_MAX)).any():
        return False
    if any((legs.items[name].values < 0).any() for name in ("window_start", "window_end")):
        return False
    if not all(map(_is_currency, set(_items(columns, legs, "currency")))):
        return False
    counters = list(islice(_legs(columns, legs), 0, None, 2))
    if not all(is_name(limit_id) for limit_id in set(_items(columns, legs, "limit_id"))):
        return False
    position = iter(counters)
    return all(
        count < 2 or len(set(mine)) == count  # noqa: PLR2004 - one leg has no other
        for count in legs.values.tolist()
        for mine in (list(islice(position, count)),)
    )


def _is_currency(text: str) -> bool:
    return len(text) == CURRENCY_LETTERS and text.isalnum() and text.isascii()
