"""`quaestor audit keys | rotate | retire`: which keys sign the audit log, and how it comes to another."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer

from api.audit.local import layout_of
from api.cli.control_keys import ReasonOption
from api.cli.control_session import control_session
from api.cli.terminal import DataOption, JsonOption, note, print_json, table, terminal
from api.cli.times import MICROS_PER_SECOND, now_micros
from api.control.session import ControlSession
from api.settings import Settings, load_settings
from api.times import time_text
from processors import control
from processors.audit.key_chain import KeyState
from processors.audit.note import Verifier
from processors.control import AuditKey, ControlState, Origin, Refusal
from schemas.errors import ConfigurationError
from schemas.events import ControlEvent
from sinks.audit.key_ring import KeyRing
from sinks.audit.lock import FileLockStore
from sinks.audit.rotation import Rotated, Rotation

OVERLAP_DAYS = 30
OVERLAP_DAYS_MAX = 3_650
MICROS_PER_DAY = 86_400 * MICROS_PER_SECOND


def register(audit: typer.Typer) -> None:
    """Add the commands."""
    audit.command("keys")(keys)
    audit.command("rotate")(rotate)
    audit.command("retire")(retire)


def keys(data: DataOption = None, as_json: JsonOption = False) -> None:
    """List the log's keys: which sign, since when, from which size of the log on."""
    states = _rotation(load_settings(data)).states(now_micros())
    rows = [_row(state) for state in states]
    if as_json:
        print_json({"keys": rows})
        return
    columns = ("key", "state", "since", "from entry", "signs until", "vkey")
    cells = ([row[name] or "-" for name in ("id", "state", "since", "from_size", "until", "vkey")] for row in rows)
    terminal().print(table("Audit keys", columns, cells, numbers=(3,)))
    if any(state.state == "due" for state in states):
        note("an overlap is over: `quaestor audit retire` ends the old key")


def rotate(
    overlap_days: Annotated[
        int, typer.Option(min=0, max=OVERLAP_DAYS_MAX, help="How long both keys sign, days.")
    ] = OVERLAP_DAYS,
    reason: ReasonOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a new key and hand over to it; or finish a rotation that was interrupted. The sequencer may run."""
    settings = load_settings(data)
    rotation = _rotation(settings)
    with control_session(settings) as session:
        rotated = _finished(session, rotation) or rotation.rotate(now_micros(), overlap_days * MICROS_PER_DAY)
        session.settle(lambda state, origin: control.add_audit_key(state, _audit_key(rotated), origin), reason)
    made = rotated.hand_over
    until = time_text(made.overlap_until_micros)
    if as_json:
        facts = {"old": made.old.vkey, "new": made.new.vkey, "size": made.size, "overlap_until": until}
        print_json(facts | {"finished": rotated.finished, "hand_over": rotated.note})
        return
    print(made.new.vkey)
    begun = "an interrupted rotation is finished" if rotated.finished else "the log has a new key"
    note(f"{begun}: {made}; both sign until {until}, then run `quaestor audit retire`")


def retire(
    key_id: Annotated[str, typer.Argument(help="Its id; without one, every key whose overlap is over.")] = "",
    reason: ReasonOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a key that handed over: it signs no more and its seed is destroyed. What it signed stays valid."""
    settings = load_settings(data)
    rotation = _rotation(settings)
    states = rotation.states(now_micros())
    wanted = None if not key_id else _id(key_id)
    with control_session(settings) as session:
        chosen = [each.verifier for each in states if each.verifier.key_id == wanted or _is_over(session, each, wanted)]
        if wanted is not None and not chosen:
            raise ConfigurationError(f"the log has no key {key_id}; `quaestor audit keys` shows them")
        for verifier in chosen:
            rotation.retire(verifier.key_id)
            session.settle(partial(_removed, verifier), reason)
    ids = [verifier.key_id.hex() for verifier in chosen]
    if as_json:
        print_json({"retired": ids})
    else:
        note(f"{', '.join(ids)} signs no more" if ids else "no overlap is over")


def _is_over(session: ControlSession, state: KeyState, wanted: bytes | None) -> bool:
    """Whether a key that nobody named is to be retired, or that it is was not recorded."""
    if wanted is not None or state.state not in {"due", "retiring", "retired"}:
        return False
    known = session.state.audit_keys.get((state.verifier.name, state.verifier.key_id.hex()))
    return state.state != "retired" or known is None or known.removed_at is None


def _removed(verifier: Verifier, state: ControlState, origin: Origin) -> ControlEvent | Refusal:
    key = AuditKey(key_id=verifier.key_id.hex(), origin=verifier.name, vkey=verifier.vkey)
    return control.remove_audit_key(state, key, origin)


def _finished(session: ControlSession, rotation: Rotation) -> Rotated | None:
    """The last rotation when all that is missing of it is its event."""
    last = None if rotation.unfinished else rotation.last()
    if last is None:
        return None
    made = last.hand_over
    return None if (made.origin, made.new.key_id.hex()) in session.state.audit_keys else last


def _rotation(settings: Settings) -> Rotation:
    layout = layout_of(settings)
    return Rotation(KeyRing(layout), FileLockStore(layout.lock_file))


def _audit_key(rotated: Rotated) -> AuditKey:
    new = rotated.hand_over.new
    return AuditKey(key_id=new.key_id.hex(), origin=new.name, vkey=new.vkey, hand_over=rotated.note)


def _id(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise ConfigurationError(f"{text!r} is no key id: `quaestor audit keys` shows them") from None


def _row(state: KeyState) -> dict[str, Any]:
    return {
        "id": state.verifier.key_id.hex(),
        "state": state.state,
        "since": None if state.since_micros is None else time_text(state.since_micros),
        "from_size": state.from_size,
        "until": None if state.until_micros is None else time_text(state.until_micros),
        "vkey": state.verifier.vkey,
    }
