"""No call may meet more limits than a hold has legs: it would be refused for good, so the limit is."""

from __future__ import annotations

from typing import Any

import pytest

from processors.control import ControlState, Limit, Origin, Refusal, RefusalCode, evolve, set_limit
from schemas.events import ControlEvent
from schemas.limits import LEGS_MAX
from tests.budget_world import NOW_MICROS, limit_on

ORIGIN = Origin(event_id="01900000-0000-7000-8000-000000000001", now_micros=NOW_MICROS, actor="cli/0")


def on(scope: str, scope_id: str, count: int = 1, **fields: Any) -> list[Limit]:
    """So many limits on one thing."""
    return [limit_on(scope, scope_id, name=f"n{number}", **fields) for number in range(count)]


def known(*limits: Limit) -> ControlState:
    """A state in which all of these were accepted."""
    state = ControlState()
    for limit in limits:
        event = set_limit(state, limit, ORIGIN)
        assert isinstance(event, ControlEvent), event
        state = evolve(state, event)
    return state


#: As many as a hold has legs, on one call.
FULL = [*on("tenant", "acme", 16), *on("team", "search", 15), *on("team", "*", 1)]
assert len(FULL) == LEGS_MAX

TOO_MANY: dict[str, Limit] = {
    "a project": limit_on("project", "web"),
    "each project": limit_on("project", "*"),
    "each run": limit_on("run", "*"),
    "a tag": limit_on("tag", "environment=test"),
    "a model": limit_on("model", "fast"),
    "one more of the team": limit_on("team", "search", name="more"),
    "from tomorrow on": limit_on("user", "*", valid_from=NOW_MICROS + 1),
}


@pytest.mark.parametrize("name", TOO_MANY)
def test_a_limit_too_many_is_refused_when_it_is_set(name: str) -> None:
    """With how many there would be, and on what."""
    refused = set_limit(known(*FULL), TOO_MANY[name], ORIGIN)

    assert isinstance(refused, Refusal), refused
    assert RefusalCode.TOO_MANY is refused.code
    assert "under 33 limits (tenant 16, team 1" in refused.message


def test_what_no_call_meets_together_is_accepted() -> None:
    """Another team, another time, and a limit that is changed."""
    state = known(*FULL, *on("team", "ads", 15))
    over = limit_on("run", "*", valid_until=NOW_MICROS)
    changed = limit_on("tenant", "acme", 7, name="n0")

    assert all(isinstance(set_limit(state, each, ORIGIN), ControlEvent) for each in (over, changed))


def test_times_that_do_not_overlap_are_not_added_up() -> None:
    """One ends when the other begins."""
    until = on("tenant", "acme", 1, valid_until=NOW_MICROS + 5)
    state = known(*FULL[1:], *until)
    later = limit_on("user", "*", valid_from=NOW_MICROS + 5)

    assert isinstance(set_limit(state, later, ORIGIN), ControlEvent)


def test_a_call_is_served_by_one_model_and_asked_for_by_another_name() -> None:
    """Each of both counts."""
    state = known(*FULL[:29], *on("model", "*"))
    assert isinstance(set_limit(state, limit_on("model", "fast"), ORIGIN), ControlEvent)
    with_one = known(*FULL[:29], *on("model", "*"), *on("model", "fast"))
    assert isinstance(set_limit(with_one, limit_on("model", "big"), ORIGIN), Refusal)


def test_tags_of_different_names_come_together() -> None:
    """Those of one name do not."""
    state = known(*FULL[:31], *on("tag", "environment=test"))

    assert isinstance(set_limit(state, limit_on("tag", "environment=prod"), ORIGIN), ControlEvent)
    assert isinstance(set_limit(state, limit_on("tag", "team=ads"), ORIGIN), Refusal)


def test_another_tenants_limits_are_its_own() -> None:
    """One tenant's tree is full, the other's is empty."""
    other = limit_on("tenant", "globex", tenant_id="globex")
    assert isinstance(set_limit(known(*FULL), other, ORIGIN), ControlEvent)


def test_a_limit_may_be_changed_where_there_were_too_many_before() -> None:
    """Limits of a log from before this rule: what makes it no worse is accepted."""
    state = known(*FULL)
    extra = limit_on("run", "*")
    event = set_limit(ControlState(), extra, ORIGIN)
    assert isinstance(event, ControlEvent)
    crowded = evolve(state, event)

    assert isinstance(set_limit(crowded, limit_on("run", "*", 7), ORIGIN), ControlEvent)
