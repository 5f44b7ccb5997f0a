"""Retention and legal holds in the control plane: what is decided, what is refused, what the fold makes of it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from processors.control import (
    ControlState,
    Cut,
    LegalHold,
    Origin,
    Refusal,
    RefusalCode,
    Retention,
    add_hold,
    evolve,
    held_by,
    prune,
    release_hold,
    set_retention,
)
from processors.control.check import not_held
from processors.control.kept import MARGIN_MICROS
from schemas.events import ControlAction, ControlEvent, EntityKind
from schemas.ids import uuid7

ORIGIN = Origin(event_id="00000000-0000-7000-8000-000000000001", now_micros=5, actor="cli/0", reason="case 7")
HOLD = LegalHold(hold_id="hold_1", tenant_id="acme", reason="case 7")


def cut(end: int, begin: int = 0, keep_days: int = 400) -> Cut:
    """A cut."""
    return Cut(begin=begin, end=end, keep_days=keep_days, size=100_000, root="cm9vdA==")


def after(state: ControlState, decided: ControlEvent | Refusal) -> ControlState:
    """The state after a change that was not refused."""
    assert isinstance(decided, ControlEvent), decided
    return evolve(state, decided)


def with_policy(state: ControlState | None = None, days: int | None = 400) -> ControlState:
    """A state where entries stay for a while."""
    return after(state or ControlState(), set_retention(state or ControlState(), "audit", days, ORIGIN))


def refused(decided: ControlEvent | Refusal) -> RefusalCode:
    """Why not."""
    assert isinstance(decided, Refusal)
    return decided.code


def test_a_policy_is_an_event() -> None:
    """It says before and after, and the fold knows it."""
    event = set_retention(ControlState(), "events", 400, ORIGIN)

    assert isinstance(event, ControlEvent)
    assert (EntityKind.RETENTION, ControlAction.CREATED, "events", "case 7") == (
        event.entity_kind, event.action, event.entity_id, event.reason,
    )  # fmt: skip
    assert Retention(name="events", keep_days=400) == evolve(ControlState(), event).retention["events"]


@pytest.mark.parametrize(("name", "days"), [("audit", 29), ("audit", 36_501), ("payload", 400), ("audit", -1)])
def test_a_policy_that_may_not_be(name: str, days: int) -> None:
    """Too short, too long, or of nothing there is."""
    assert RefusalCode.INVALID_VALUE is refused(set_retention(ControlState(), name, days, ORIGIN))


def test_a_cut_is_recorded_as_what_it_gave_up() -> None:
    """PRUNED, with the policy it followed and the root at that time; the policy stays."""
    state = with_policy()
    event = prune(state, "audit", cut(65_536), {}, ORIGIN)

    assert isinstance(event, ControlEvent)
    assert (ControlAction.PRUNED, "_system") == (event.action, event.tenant_id)
    assert msgspec.json.decode(event.after or "")["cut"] == {
        "from": 0, "to": 65_536, "keep_days": 400, "size": 100_000, "root": "cm9vdA==",
    }  # fmt: skip
    found = evolve(state, event).retention["audit"]
    assert (400, 65_536) == (found.keep_days, found.kept_from)


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda _: ControlState(), RefusalCode.INVALID_VALUE),
        (lambda state: with_policy(state, 500), RefusalCode.INVALID_VALUE),
        (lambda state: after(state, add_hold(state, HOLD, ORIGIN)), RefusalCode.INVALID_VALUE),
        (lambda state: after(state, prune(state, "audit", cut(131_072), {}, ORIGIN)), RefusalCode.UNCHANGED),
    ],
    ids=["no policy", "another policy", "a hold in between", "cut further already"],
)
def test_a_cut_of_another_time_is_refused(spoil: Callable[[ControlState], ControlState], code: RefusalCode) -> None:
    """What was planned with is compared with what is so now."""
    assert code is refused(prune(spoil(with_policy()), "audit", cut(65_536), {}, ORIGIN))


def test_a_policy_set_beside_a_cut_does_not_take_it_back() -> None:
    """The fold keeps the further cut and the newer policy, whoever knew of what."""
    before = with_policy()
    pruned, policy = prune(before, "audit", cut(65_536), {}, ORIGIN), set_retention(before, "audit", 500, ORIGIN)
    older = prune(before, "audit", cut(131_072), {}, ORIGIN)
    assert isinstance(pruned, ControlEvent)
    assert isinstance(policy, ControlEvent)
    assert isinstance(older, ControlEvent)

    state = evolve(evolve(evolve(before, older), policy), pruned)
    assert (500, 131_072) == (state.retention["audit"].keep_days, state.retention["audit"].kept_from)


def test_a_hold_comes_and_goes() -> None:
    """Placed with its time, released by its id."""
    state = after(ControlState(), add_hold(ControlState(), HOLD, ORIGIN))

    assert {"hold_1": msgspec.structs.replace(HOLD, created_at=5)} == state.holds
    assert {} == after(state, release_hold(state, "hold_1", ORIGIN)).holds
    assert RefusalCode.UNKNOWN_HOLD is refused(release_hold(state, "hold_2", ORIGIN))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"tenant_id": "_system"}, RefusalCode.INVALID_NAME),
        ({"tenant_id": "a b"}, RefusalCode.INVALID_NAME),
        ({"request_id": "a b"}, RefusalCode.INVALID_NAME),
        ({"subject_handle": "a b"}, RefusalCode.INVALID_NAME),
        ({"reason": ""}, RefusalCode.INVALID_VALUE),
        ({"reason": "x" * 300}, RefusalCode.INVALID_VALUE),
        ({"since": 9, "until": 9}, RefusalCode.INVALID_VALUE),
        ({"request_id": "r", "since": 9}, RefusalCode.INVALID_VALUE),
    ],
)
def test_a_hold_that_may_not_be(change: dict[str, object], code: RefusalCode) -> None:
    """A hold has a tenant, a reason, and bounds in order."""
    wrong = msgspec.structs.replace(HOLD, **change)

    assert code is refused(add_hold(ControlState(), wrong, ORIGIN))


def test_a_hold_stands_once() -> None:
    """The same id again is refused."""
    state = after(ControlState(), add_hold(ControlState(), HOLD, ORIGIN))

    assert RefusalCode.TAKEN is refused(add_hold(state, HOLD, ORIGIN))


@pytest.mark.parametrize(
    ("change", "tenant", "handle", "held"),
    [
        ({}, "acme", "sub_1", True),
        ({}, "globex", "sub_1", False),
        ({"since": 7}, "acme", "sub_1", True),
        ({"subject_handle": "sub_1"}, "acme", "sub_1", True),
        ({"subject_handle": "sub_1"}, "acme", "sub_2", False),
        ({"request_id": "r"}, "acme", "sub_1", True),
        ({"request_id": "r", "subject_handle": ""}, "acme", "sub_1", False),
        ({"request_id": "r", "subject_handle": "sub_2"}, "acme", "sub_1", False),
    ],
)
def test_whose_erasure_a_hold_stands_against(change: dict[str, object], tenant: str, handle: str, held: bool) -> None:
    """Everybody's of its tenant, unless it says whose."""
    hold = msgspec.structs.replace(HOLD, **change)

    assert (hold if held else None) == held_by({"hold_1": hold}, tenant, handle)
    refusal = not_held({"hold_1": hold}, tenant, handle)
    assert held is (refusal is not None and refusal.code is RefusalCode.HELD)


@pytest.mark.parametrize(
    ("change", "record", "covered"),
    [
        ({}, ("acme", "r", 5), True),
        ({}, ("globex", "r", 5), False),
        ({}, ("_system", "", 5), True),
        ({}, ("_log", "", 5), False),
        ({"subject_handle": "sub_1"}, ("acme", "", 5), True),
        ({"request_id": "r"}, ("acme", "r", 5), True),
        ({"request_id": "r"}, ("acme", "q", 5), False),
        ({"request_id": "r"}, ("globex", "r", 5), False),
        ({"since": 5}, ("acme", "r", 5), True),
        ({"since": 6}, ("acme", "r", 5), False),
        ({"until": 5}, ("acme", "r", 5), False),
        ({"until": 6}, ("acme", "r", 5), True),
    ],
)
def test_which_records_a_hold_covers(change: dict[str, object], record: tuple[str, str, int], covered: bool) -> None:
    """By what public fields say; what they can't tell is covered."""
    assert covered is msgspec.structs.replace(HOLD, **change).covers(*record)


def test_how_far_back_a_hold_goes() -> None:
    """To its bound, or to a day before its request was made; with neither to the beginning."""
    made = msgspec.structs.replace(HOLD, request_id=uuid7(1_700_000_000_000_000, bytes(10)))

    assert 0 == HOLD.begins_micros
    assert 7 == msgspec.structs.replace(HOLD, since=7).begins_micros
    assert 1_700_000_000_000_000 - MARGIN_MICROS == made.begins_micros
    assert 0 == msgspec.structs.replace(HOLD, request_id="named-by-its-caller").begins_micros
