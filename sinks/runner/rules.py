"""The rules of processors/quarantine on columns: which records surely break none. The others are asked one by one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from processors.quarantine.rules import OCCURRED_MICROS_MAX, OCCURRED_MICROS_MIN, RESOLVING, RULES, TIME_MICROS_MAX
from schemas.events import CostKind
from schemas.ids import is_name, is_uuid
from schemas.topics import COSTS, HEALTH, LEDGER
from streams.columns import Column, Columns, Flags
from streams.pieces import UnusualError, ranges, uuids
from streams.texts import texts_of

#: By byte: whether a name may begin with it, and whether it may stand behind that.
_FIRST: Flags = np.array([is_name(chr(byte)) for byte in range(256)])
_FURTHER: Flags = np.array([is_name("_" + chr(byte)) for byte in range(256)])
NAME_CHARACTERS_MAX = 64


def rules_hold(topic: str, columns: Columns) -> Flags:
    """Which records break no rule of their topic; False also where that takes a closer look: not sound, or doubtful."""
    rules, fields = RULES[topic], columns.fields
    occurred = fields["occurred_at"].values
    # The texts of a doubtful record may be none at all.
    good: Flags = columns.sound & ~columns.doubtful
    good &= (occurred >= OCCURRED_MICROS_MIN) & (occurred < OCCURRED_MICROS_MAX)
    good &= _named(columns, good)
    for name in rules.uuids:
        good &= _are_uuids(columns, name, good)
    for name in rules.times:
        values = fields[name].values
        good &= _or_null(fields[name], (values >= 0) & (values < TIME_MICROS_MAX))
    for name in rules.counts:
        good &= _or_null(fields[name], fields[name].values >= 0)
    relation = _RELATIONS.get(topic)
    if relation is not None:
        good &= relation(columns)
    elif rules.relation is not None:
        good &= False
    return good


def _or_null(column: Column, holds: Flags) -> Flags:
    return holds if column.present is None else holds | ~column.present


def _named(columns: Columns, asked: Flags) -> Flags:
    """Whether the tenant of each is a name; all of them are looked at once more when one seems to be none."""
    column = columns.fields["tenant_id"]
    lengths = column.lengths
    if lengths is None:
        raise UnusualError
    holds: Flags = asked & (lengths > 0) & (lengths <= NAME_CHARACTERS_MAX)
    rows = np.flatnonzero(holds)
    sizes = lengths[rows]
    begins = column.values[rows]
    further = _FURTHER.take(columns.bytes.take(ranges(begins, sizes)))
    if not (further.all() and _FIRST.take(columns.bytes.take(begins)).all()):
        texts = texts_of(columns, "tenant_id", rows=rows)
        names = {text: text is not None and is_name(text) for text in set(texts)}
        holds[rows] = [names[text] for text in texts]
    return holds


def _are_uuids(columns: Columns, name: str, asked: Flags) -> Flags:
    column = columns.fields[name]
    there = asked if column.present is None else asked & column.present
    rows = np.flatnonzero(there)
    try:
        if asked.all():
            columns.uuids(column)
        else:
            uuids(columns.bytes, column.values[rows], None if column.lengths is None else column.lengths[rows])
    except UnusualError:
        holds = ~there
        holds[rows] = [text is not None and is_uuid(text) for text in texts_of(columns, name, rows=rows)]
        return holds
    return np.ones(len(columns), np.bool_)


def _is(column: Column, symbols: frozenset[str]) -> Flags:
    return np.isin(column.values, [place for place, symbol in enumerate(column.symbols) if symbol in symbols])


def _cost(columns: Columns) -> Flags:
    fields = columns.fields
    holds = ~_is(fields["kind"], frozenset((CostKind.CORRECTION.value,)))
    for name in ("quantity", "amount_nano", "provider_amount_nano"):
        holds &= fields[name].values >= 0
    return holds


def _transfer(columns: Columns) -> Flags:
    fields = columns.fields
    pending = fields["pending_id"].present
    resolves = np.ones(len(columns), np.bool_) if pending is None else pending
    debit, credit = fields["debit_account"], fields["credit_account"]
    if debit.lengths is None or credit.lengths is None:
        raise UnusualError
    fits = _is(fields["kind"], RESOLVING) == resolves
    differ: Flags = debit.lengths != credit.lengths
    for row in np.flatnonzero(~differ & columns.sound).tolist():
        one, other, size = int(debit.values[row]), int(credit.values[row]), int(debit.lengths[row])
        differ[row] = columns.buffer[one : one + size] != columns.buffer[other : other + size]
    holds: Flags = fits & differ
    return holds


def _window(columns: Columns) -> Flags:
    holds: Flags = columns.fields["window_start"].values <= columns.fields["window_end"].values
    return holds


_RELATIONS: dict[str, Callable[[Columns], Flags]] = {
    COSTS.name: _cost,
    LEDGER.name: _transfer,
    HEALTH.name: _window,
}
