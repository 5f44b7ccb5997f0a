"""Thresholds, approvals and channels: what the control plane takes of them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from processors import control
from processors.control import (
    Approval,
    Channel,
    ControlState,
    Increase,
    Limit,
    Origin,
    Refusal,
    RefusalCode,
    Threshold,
    evolve,
    limit_id_of,
)
from schemas.events import ControlEvent

ORIGIN = Origin(event_id="01900000-0000-7000-8000-000000000001", now_micros=1_000, actor="cli/0")
LIMIT = Limit(
    limit_id=limit_id_of("acme", "tenant", "acme", "month"),
    tenant_id="acme",
    scope="tenant",
    scope_id="acme",
    amount_nano=1_000,
    currency="USD",
    window="month",
)
ASKING = (Threshold(percent=90, action="approval"),)
APPROVAL = Approval(code_hash="ab" * 32, valid_until=2_000, approval_code="CFO-1")
CHANNEL = Channel(channel_id="ops", tenant_id="acme", kind="webhook", target_ref="env:HOOK", secret_ref="file:/key")


def after(state: ControlState, change: ControlEvent | Refusal) -> ControlState:
    """The state after a change that must not be refused."""
    assert isinstance(change, ControlEvent), change
    return evolve(state, change)


def set_limit(state: ControlState, **fields: Any) -> ControlState:
    """LIMIT with these fields, set."""
    return after(state, control.set_limit(state, msgspec.structs.replace(LIMIT, **fields), ORIGIN))


def the_limit(state: ControlState) -> Limit:
    """LIMIT as the state has it."""
    return state.limits[LIMIT.limit_id]


@pytest.mark.parametrize(
    "thresholds",
    [
        (Threshold(percent=0),),
        (Threshold(percent=1_001),),
        (Threshold(percent=90), Threshold(percent=80)),
        (Threshold(percent=90), Threshold(percent=90, action="block")),
        (Threshold(percent=90, action="cheaper"),),
        (Threshold(percent=90, models=("small",)),),
        (Threshold(percent=90, action="explode"),),  # type: ignore[arg-type]
        (Threshold(percent=90, action="cheaper", models=("no spaces",)),),
        tuple(Threshold(percent=percent) for percent in range(1, 12)),
    ],
)
def test_thresholds_that_make_no_sense_are_refused(thresholds: tuple[Threshold, ...]) -> None:
    """Each by its own rule."""
    refused = control.set_limit(ControlState(), msgspec.structs.replace(LIMIT, thresholds=thresholds), ORIGIN)
    assert isinstance(refused, Refusal)


def test_a_limit_set_anew_keeps_its_thresholds_unless_it_names_others() -> None:
    """None named is nothing said; an empty list is none."""
    state = set_limit(ControlState(), thresholds=ASKING)
    kept = the_limit(set_limit(state, amount_nano=2_000))
    dropped = the_limit(set_limit(state, thresholds=()))
    assert (ASKING, 2_000, ()) == (kept.guards, kept.amount_nano, dropped.guards)


def test_an_approval_needs_a_threshold_that_asks_for_one() -> None:
    """The usual ones only notify."""
    state = set_limit(ControlState())
    refused = control.approve_limit(state, LIMIT.limit_id, APPROVAL, ORIGIN)
    assert isinstance(refused, Refusal)
    assert "--threshold 95:approval" in refused.message


def test_an_approval_lasts_until_its_end_and_through_other_changes() -> None:
    """A new amount leaves it; after its end the next change drops it."""
    state = set_limit(ControlState(), thresholds=ASKING)
    state = after(state, control.approve_limit(state, LIMIT.limit_id, APPROVAL, ORIGIN))
    state = set_limit(state, amount_nano=2_000)
    assert [True, False] == [the_limit(state).approves(APPROVAL.code_hash, now) for now in (1_999, 2_000)]
    late = msgspec.structs.replace(ORIGIN, now_micros=2_000)
    more = Increase(amount_nano=1, valid_from=2_000, valid_until=3_000, approval_code="A")
    changed = msgspec.structs.replace(LIMIT, amount_nano=5, increases=(more,))
    assert () == the_limit(after(state, control.set_limit(state, changed, late))).approvals


@pytest.mark.parametrize(
    ("approval", "code"),
    [
        (msgspec.structs.replace(APPROVAL, valid_until=1_000), RefusalCode.INVALID_VALUE),
        (msgspec.structs.replace(APPROVAL, approval_code=""), RefusalCode.INVALID_VALUE),
    ],
)
def test_an_approval_ends_in_the_future_and_names_who_allowed_it(approval: Approval, code: RefusalCode) -> None:
    """Both, or it is none."""
    state = set_limit(ControlState(), thresholds=ASKING)
    refused = control.approve_limit(state, LIMIT.limit_id, approval, ORIGIN)
    assert isinstance(refused, Refusal)
    assert code is refused.code


def test_an_approval_of_a_limit_that_is_not_there_is_refused() -> None:
    """By name."""
    refused = control.approve_limit(ControlState(), "lim_none", APPROVAL, ORIGIN)
    assert isinstance(refused, Refusal)
    assert RefusalCode.UNKNOWN_LIMIT is refused.code


def test_a_channel_is_known_from_when_it_was_added() -> None:
    """Changing it leaves that moment."""
    state = after(ControlState(), control.add_channel(ControlState(), CHANNEL, ORIGIN))
    later = msgspec.structs.replace(ORIGIN, now_micros=9_000)
    changed = msgspec.structs.replace(CHANNEL, severity="critical")
    state = after(state, control.add_channel(state, changed, later, replace=True))
    found = state.channels["acme", "ops"]
    assert ("critical", 1_000) == (found.severity, found.created_at)


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "pigeon"},
        {"severity": "loud"},
        {"kind": "slack"},
        {"target_ref": "https://hooks.example.com/secret"},
        {"secret_ref": "whsec_abc"},
        {"channel_id": "no spaces"},
    ],
)
def test_a_channel_that_makes_no_sense_is_refused_without_its_secret(fields: dict[str, str]) -> None:
    """An address is a reference; a URL in its place is not repeated."""
    refused = control.add_channel(ControlState(), msgspec.structs.replace(CHANNEL, **fields), ORIGIN)
    assert isinstance(refused, Refusal)
    assert "hooks.example.com" not in refused.message


def test_a_channel_that_exists_is_changed_only_on_demand() -> None:
    """The same again changes nothing; another needs --replace."""
    state = after(ControlState(), control.add_channel(ControlState(), CHANNEL, ORIGIN))
    same = control.add_channel(state, CHANNEL, ORIGIN)
    other = control.add_channel(state, msgspec.structs.replace(CHANNEL, severity="warning"), ORIGIN)
    assert isinstance(same, Refusal)
    assert isinstance(other, Refusal)
    assert (RefusalCode.UNCHANGED, RefusalCode.TAKEN) == (same.code, other.code)


def test_a_tenant_has_so_many_channels_at_most() -> None:
    """Twenty."""
    state = ControlState()
    for number in range(20):
        channel = msgspec.structs.replace(CHANNEL, channel_id=f"ops-{number}")
        state = after(state, control.add_channel(state, channel, ORIGIN))
    refused = control.add_channel(state, CHANNEL, ORIGIN)
    assert isinstance(refused, Refusal)
    assert RefusalCode.TOO_MANY is refused.code


def test_a_removed_channel_is_gone() -> None:
    """And can't be removed again."""
    state = after(ControlState(), control.add_channel(ControlState(), CHANNEL, ORIGIN))
    state = after(state, control.remove_channel(state, "acme", "ops", ORIGIN))
    again = control.remove_channel(state, "acme", "ops", ORIGIN)
    assert {} == state.channels
    assert isinstance(again, Refusal)
    assert RefusalCode.UNKNOWN_CHANNEL is again.code
