"""Whether a change that is asked for again is the one that was made: the event remembers what was asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from processors.control.check import Refusal
from processors.control.decide import Origin
from processors.control.state import ControlState, evolve
from schemas.events import ControlAction, ControlEvent

#: How people name fields that are named otherwise within.
NAMES = {"amount_nano": "amount", "rate_nano": "rate", "code_hash": "token"}
#: What follows from other fields.
DERIVED = frozenset({"limit_id", "rate_id"})


def state_before(state: ControlState, made: ControlEvent) -> ControlState:
    """What the decision for an event needs to know, as it was: its entity, and keys, which never go away."""
    undo = msgspec.structs.replace(made, after=made.before, action=ControlAction.UPDATED)
    return evolve(ControlState(keys=state.keys), undo)


def origin_of(made: ControlEvent, reason: str | None) -> Origin:
    """Where an event came from, had this reason been given."""
    return Origin(event_id=made.event_id, now_micros=made.occurred_at, actor=made.actor, reason=reason)


def difference(made: ControlEvent, again: ControlEvent | Refusal) -> str | None:
    """The field in which a change asked for again differs from the one made; None when it is the same.

    `again` is what is decided on `state_before` with `origin_of`. `operation` when something else is to be done.
    """
    if isinstance(again, Refusal) or (made.entity_kind, made.action) != (again.entity_kind, again.action):
        return "operation"
    if made.tenant_id != again.tenant_id:
        return "tenant"
    field = _differing(_fields(made.after), _fields(again.after))
    if field is None and made.entity_id != again.entity_id:
        return "id"
    return field or (None if made.reason == again.reason else "reason")


def _fields(text: str | None) -> Any:
    return {} if text is None else msgspec.json.decode(text)


def _differing(before: Any, after: Any, name: str = "") -> str | None:
    """The name of the first field, innermost, in which two documents differ; without one, that of what is around it."""
    if before == after:
        return None
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        keys = sorted((before.keys() | after.keys()) - DERIVED)
        parts = [(before.get(key), after.get(key), NAMES.get(key, key)) for key in keys]
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        parts = [(one, other, name) for one, other in zip(before, after, strict=True)]
    else:
        return name or None
    return next((found for one, other, inner in parts if (found := _differing(one, other, inner))), None)
