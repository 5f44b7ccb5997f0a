"""Changes of retention and legal holds: the event to publish, or a refusal that says why. Nothing is dropped here."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from processors.control import check
from processors.control.check import Refusal, RefusalCode
from processors.control.decide import Origin, _changed, _Place
from processors.control.kept import RETENTION_CLASSES, Cut, LegalHold, Retention
from processors.control.state import ControlState
from schemas.events import ControlAction, ControlEvent, EntityKind
from schemas.limits import LEGAL_HOLDS_MAX, RETENTION_KEEP_DAYS_MAX, RETENTION_KEEP_DAYS_MIN
from schemas.topics import SYSTEM_TENANT


def set_retention(state: ControlState, name: str, keep_days: int | None, origin: Origin) -> ControlEvent | Refusal:
    """How long a class stays from now on; None: for ever. Nothing is dropped by it."""
    known = next((each for each in RETENTION_CLASSES if each == name), None)
    if known is None:
        message = f"there is no class {name!r}; choose {', '.join(RETENTION_CLASSES)}"
        return Refusal(RefusalCode.INVALID_VALUE, message)
    if keep_days is not None and not RETENTION_KEEP_DAYS_MIN <= keep_days <= RETENTION_KEEP_DAYS_MAX:
        message = f"a class stays for {RETENTION_KEEP_DAYS_MIN} to {RETENTION_KEEP_DAYS_MAX} days, or for ever"
        return Refusal(RefusalCode.INVALID_VALUE, message)
    before = state.retention.get(name)
    after = msgspec.structs.replace(before or Retention(name=known), keep_days=keep_days)
    return _changed(_Place(EntityKind.RETENTION, SYSTEM_TENANT, name), before, after, origin)


def prune(
    state: ControlState, name: str, cut: Cut, holds: Mapping[str, LegalHold], origin: Origin
) -> ControlEvent | Refusal:
    """Give up what is before a cut's end; refused when policy or holds are not those that it was planned with."""
    before = state.retention.get(name)
    if before is None or before.keep_days != cut.keep_days:
        message = f"the policy of {name} is not the one this was planned with; plan again"
        return Refusal(RefusalCode.INVALID_VALUE, message)
    if state.holds != holds:
        return Refusal(RefusalCode.INVALID_VALUE, "a legal hold was placed or released in between; plan again")
    if cut.end <= before.kept_from:
        return Refusal(RefusalCode.UNCHANGED, f"{name} is cut there or further already")
    after = msgspec.structs.replace(before, cut=cut)
    place = _Place(EntityKind.RETENTION, SYSTEM_TENANT, name)
    return _changed(place, before, after, origin, action=ControlAction.PRUNED)


def add_hold(state: ControlState, hold: LegalHold, origin: Origin) -> ControlEvent | Refusal:
    """Place a legal hold; created_at is set from the origin."""
    named = {"hold": hold.hold_id, "request": hold.request_id, "subject handle": hold.subject_handle or ""}
    wrong = (
        check.tenant(hold.tenant_id)
        or check.names(**{what: name for what, name in named.items() if name})
        or check.text("reason", hold.reason)
        or _wrong_hold(state, hold)
    )
    placed = msgspec.structs.replace(hold, created_at=origin.now_micros)
    return wrong or _changed(_Place(EntityKind.LEGAL_HOLD, hold.tenant_id, hold.hold_id), None, placed, origin)


def _wrong_hold(state: ControlState, hold: LegalHold) -> Refusal | None:
    if not hold.reason:
        return Refusal(RefusalCode.INVALID_VALUE, "a legal hold needs a reason: the case it is for")
    if hold.hold_id in state.holds:
        return Refusal(RefusalCode.TAKEN, f"hold {hold.hold_id} exists already")
    if hold.request_id and (hold.since, hold.until) != (None, None):
        return Refusal(RefusalCode.INVALID_VALUE, "a hold on a request covers all of it, whatever the time")
    if hold.since is not None and hold.until is not None and hold.since >= hold.until:
        return Refusal(RefusalCode.INVALID_VALUE, "a hold begins before it ends")
    if len(state.holds) >= LEGAL_HOLDS_MAX:
        return Refusal(RefusalCode.TOO_MANY, f"there are {len(state.holds)} holds already, the most there may be")
    return None


def release_hold(state: ControlState, hold_id: str, origin: Origin) -> ControlEvent | Refusal:
    """End a legal hold: from now on retention and erasure go by their own rules again."""
    before = state.holds.get(hold_id)
    if before is None:
        message = f"there is no hold {hold_id!r}; `quaestor audit hold list` shows them"
        return Refusal(RefusalCode.UNKNOWN_HOLD, message)
    return _changed(_Place(EntityKind.LEGAL_HOLD, before.tenant_id, hold_id), before, None, origin)
