"""SlotEvent: a record of quaestor.budgets as a tenant's slot needs it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from processors.budgets.sound import MOVING


class SlotEvent(NamedTuple):
    """A record of quaestor.budgets as the slot needs it."""

    offset: int
    kind: str
    hold_id: str
    #: counter, amount, counter, amount, ... as texts.
    legs: list[str]


def slot_event(offset: int, fields: Mapping[str, Any]) -> SlotEvent | None:
    """The movement in a decoded record, or None when its kind moves nothing."""
    if fields["kind"] not in MOVING:
        return None
    legs: list[str] = []
    for leg in fields["legs"]:
        counter = f"{leg['limit_id']}|{leg['currency']}|{leg['window_start']}|{leg['window_end']}"
        legs += (counter, str(leg["amount_nano"]))
    return SlotEvent(offset, fields["kind"], fields["hold_id"], legs)
