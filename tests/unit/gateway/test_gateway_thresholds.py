"""Thresholds with an action, as callers meet them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from processors.control import Approval, Limit, Threshold
from schemas.events import BudgetEvent, BudgetKind, RequestEvent, RequestKind
from tests.support.gateway_world import World, control_state, limit

#: A call of the world holds less than this, and more than half of it.
HOLD_NANO = 400_000


def guarded(*thresholds: Threshold, amount_nano: int = HOLD_NANO, **fields: Any) -> Limit:
    """A limit with room for one call, were it not for its thresholds."""
    return msgspec.structs.replace(limit(amount_nano), thresholds=thresholds, **fields)


@pytest.mark.parametrize(
    ("threshold", "code", "says"),
    [
        (Threshold(percent=1, action="block"), "budget_blocked", "It is blocked from 1% of its amount on."),
        (Threshold(percent=1, action="approval"), "approval_required", "x-quaestor-approval"),
        (Threshold(percent=1, action="cheaper", models=("small",)), "cheaper_models_only", "these models pass: small."),
    ],
)
async def test_a_call_that_a_threshold_holds_is_refused_with_the_way_out(
    tmp_path: Path, threshold: Threshold, code: str, says: str
) -> None:
    """429 with a code of its own; REFUSED says the same."""
    async with World(tmp_path, state=control_state(limits=(guarded(threshold),))) as world:
        response = await world.call()
        refused = [event for event in world.events("budgets") if isinstance(event, BudgetEvent)]

    assert (429, code, "1%") == (response.status, response.error["code"], response.error["threshold"])
    assert says in response.error["message"]
    assert {(BudgetKind.REFUSED, code)} == {(event.kind, event.reason) for event in refused}
    assert [] == world.upstream.calls


async def test_a_threshold_with_room_refuses_nothing(tmp_path: Path) -> None:
    """It acts on what would go past it."""
    blocked = guarded(Threshold(percent=50, action="block"), amount_nano=10 * HOLD_NANO)
    async with World(tmp_path, state=control_state(limits=(blocked,))) as world:
        response = await world.call()

    assert 200 == response.status


@pytest.mark.parametrize(("code", "status"), [("qc_right", 200), ("qc_wrong", 429)])
async def test_an_approval_code_in_the_header_passes(tmp_path: Path, code: str, status: int) -> None:
    """Only the right one; neither goes to the provider or into an event."""
    right = hashlib.sha256(b"qc_right").hexdigest()
    approval = Approval(code_hash=right, valid_until=1 << 62, approval_code="CFO-1")
    asking = guarded(Threshold(percent=1, action="approval"), approvals=(approval,))
    async with World(tmp_path, state=control_state(limits=(asking,))) as world:
        response = await world.call(headers={"x-quaestor-approval": code})
        recorded = b"".join(one.value or b"" for records in world.log.records.values() for one in records)

    assert status == response.status
    assert code.encode() not in recorded + b"".join(call.body for call in world.upstream.calls)


async def test_the_next_candidate_is_taken_when_it_is_cheap_enough(tmp_path: Path) -> None:
    """The router's second choice passes; the decision's first was refused, and the log says why."""
    cheaper = guarded(Threshold(percent=1, action="cheaper", models=("two/two-big",)))
    async with World(tmp_path, state=control_state(limits=(cheaper,))) as world:
        response = await world.call()
        budgets = [event for event in world.events("budgets") if isinstance(event, BudgetEvent)]
        completed = world.one(RequestEvent, kind=RequestKind.COMPLETED)

    assert (200, ["http://two.test/v1/chat/completions"]) == (
        response.status,
        [call.url for call in world.upstream.calls],
    )
    movements = [
        (event.kind, event.provider_id, event.attempt_number)
        for event in budgets
        if event.kind is not BudgetKind.OVERAGE  # the made-up answer used more than it could
    ]
    assert [
        (BudgetKind.REFUSED, "one", 1),
        (BudgetKind.PLACED, "two", 1),
        (BudgetKind.COMMITTED, "two", 1),
    ] == movements
    assert (1, "1") == (completed.attempt_count, response.headers["x-quaestor-attempts"])


async def test_a_candidate_whose_provider_has_no_room_is_passed_over(tmp_path: Path) -> None:
    """A limit on one provider is no reason to refuse what another can serve."""
    full = limit(1, scope="provider", scope_id="one")
    async with World(tmp_path, state=control_state(limits=(full,))) as world:
        response = await world.call()

    assert (200, 1) == (response.status, len(world.upstream.calls))


async def test_the_refusal_told_is_that_of_the_first_candidate(tmp_path: Path) -> None:
    """It is the one that the caller would have got first."""
    limits = (
        limit(1, "lim_one", scope="provider", scope_id="one"),
        limit(2, "lim_two", scope="provider", scope_id="two"),
    )
    async with World(tmp_path, state=control_state(limits=limits)) as world:
        response = await world.call()

    assert (429, "lim_one") == (response.status, response.error["limit_id"])


async def test_a_candidate_that_asks_as_much_of_a_full_limit_is_not_tried(tmp_path: Path) -> None:
    """The log says once that there is no room."""
    async with World(tmp_path, state=control_state(limits=(limit(1),))) as world:
        response = await world.call()

    assert (429, ["budgets REFUSED"]) == (response.status, [kind for kind in world.kinds() if "budgets" in kind])
