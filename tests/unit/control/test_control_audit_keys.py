"""The audit log's keys in the control plane: recorded once when they begin and once when they end."""

from __future__ import annotations

import msgspec

from processors import control
from processors.control import AuditKey, ControlState, Origin, Refusal, RefusalCode, evolve
from schemas.events import ControlAction, ControlEvent, EntityKind

KEY = AuditKey(key_id="0a1b2c3d", origin="quaestor.local/audit/test", vkey="name+0a1b2c3d+AQ==", hand_over="note\n")
ORIGIN = Origin(event_id="018bcfe5-6800-7000-8000-000000000001", now_micros=1_700_000_000_000_000, actor="cli/0")

LATER = msgspec.structs.replace(ORIGIN, now_micros=ORIGIN.now_micros + 1)


def event(decided: ControlEvent | Refusal) -> ControlEvent:
    """What was decided, which is no refusal."""
    assert isinstance(decided, ControlEvent), decided
    return decided


def test_a_key_is_recorded_once() -> None:
    """The hand-over stands in the event; recording it again changes nothing."""
    created = event(control.add_audit_key(ControlState(), KEY, ORIGIN))
    state = evolve(ControlState(), created)
    again = control.add_audit_key(state, KEY, ORIGIN)

    assert (EntityKind.AUDIT_KEY, ControlAction.CREATED, "_system") == (
        created.entity_kind,
        created.action,
        created.tenant_id,
    )
    assert KEY == msgspec.json.decode(created.after or "", type=AuditKey) == state.audit_keys[KEY.origin, KEY.key_id]
    assert isinstance(again, Refusal)
    assert again.code is RefusalCode.UNCHANGED


def test_a_removed_key_stays_known() -> None:
    """Its end is recorded once, with what was known of it, also of a first key that was never recorded."""
    known = evolve(ControlState(), event(control.add_audit_key(ControlState(), KEY, ORIGIN)))
    bare = msgspec.structs.replace(KEY, hand_over="")
    for state, kept in ((known, KEY), (ControlState(), bare)):
        removed = event(control.remove_audit_key(state, bare, ORIGIN))
        after = evolve(state, removed)
        again = control.remove_audit_key(after, bare, LATER)

        assert ControlAction.REMOVED is removed.action
        assert msgspec.structs.replace(kept, removed_at=ORIGIN.now_micros) == after.audit_keys[KEY.origin, KEY.key_id]
        assert isinstance(again, Refusal)
        assert again.code is RefusalCode.UNCHANGED
