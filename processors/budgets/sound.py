"""Which budget events can be counted. An unsound one is quarantined by the sink and passed over by every fold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from schemas import limits
from schemas.events import BudgetEvent, BudgetKind
from schemas.ids import is_name, is_uuid
from schemas.money import NANO_PER_UNIT

#: Most nano-units that one leg may move and one limit may allow: below it every comparison in the live store is exact.
AMOUNT_NANO_MAX = limits.LIMIT_UNITS_MAX * NANO_PER_UNIT
#: Kinds that move counters; others may say what they like.
MOVING = frozenset(
    {BudgetKind.PLACED, BudgetKind.EXTENDED, BudgetKind.COMMITTED, BudgetKind.RELEASED, BudgetKind.EXPIRED}
)
CURRENCY_LETTERS = 3
UUID_VERSION_AT = 14
#: limit_id, currency, amount_nano, window_start, window_end.
Movement = tuple[str, str, int, int, int]


def problem_of(event: BudgetEvent) -> str | None:
    """Why an event can't be counted, or None."""
    if event.kind not in MOVING:
        return None
    legs = ((leg.limit_id, leg.currency, leg.amount_nano, leg.window_start, leg.window_end) for leg in event.legs)
    return _problem(event.hold_id, tuple(legs))


def problem_of_fields(fields: Mapping[str, Any]) -> str | None:
    """`problem_of` for a record as decoded."""
    if fields["kind"] not in MOVING:
        return None
    names = ("limit_id", "currency", "amount_nano", "window_start", "window_end")
    return _problem(fields["hold_id"], tuple(tuple(leg[name] for name in names) for leg in fields["legs"]))


def _problem(hold_id: str, legs: tuple[Movement, ...]) -> str | None:
    if not is_uuid(hold_id) or hold_id[UUID_VERSION_AT] != "7":
        return "hold_id is not a uuid7"
    if len(legs) > limits.LEGS_MAX:
        return f"more than {limits.LEGS_MAX} legs"
    if len({(leg[0], leg[1], leg[3], leg[4]) for leg in legs}) < len(legs):
        return "two legs move the same counter"
    return next(_problems(legs), None)


def _problems(legs: Iterable[Movement]) -> Iterator[str]:
    for limit_id, currency, amount_nano, window_start, window_end in legs:
        if not is_name(limit_id):
            yield "limit_id is not a name"
        if len(currency) != CURRENCY_LETTERS or not currency.isalnum() or not currency.isascii():
            yield "currency is not a three-letter code"
        if not 0 <= amount_nano <= AMOUNT_NANO_MAX:
            yield "amount_nano is out of range"
        if window_start < 0 or window_end < 0:
            yield "the window begins or ends before 1970"
