"""Hold stores, folds and gateways that are broken on purpose: the auditor must catch each, or it sees nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from processors.budgets import ExpiredCharge, expired_event, fold
from processors.budgets.fold import ClosedHold, Effect, OpenHold
from processors.reaper import reaper
from schemas.events import BudgetEvent, BudgetKind
from sinks.redis.memory import MemoryHoldStore
from tests.support.hold_auditor import AuditError
from tests.support.hold_grounds import MemoryGround
from tests.support.hold_machine import STEPS, machine_on
from tests.support.hold_mutants import STORES
from tests.support.simulation_run import simulate

SEED = 1
EXAMPLES = 200


class OpensEarly(MemoryGround):
    """Opens a generation before its barrier."""

    async def beat(self, tenant_id: str) -> None:
        """As the protocol says, but for the barrier."""
        self._claim(tenant_id)
        self.closed[tenant_id] = 0
        self._open(tenant_id)


class OldGeneration(MemoryGround):
    """Goes on under the generation of before."""

    def _claim(self, tenant_id: str) -> None:
        self._generations = iter([0] * 1_000)
        super()._claim(tenant_id)


def caught(ground: Callable[[], MemoryGround]) -> str:
    """What the auditor says."""
    with pytest.raises(AuditError) as found:
        simulate(machine_on(ground), EXAMPLES, SEED, STEPS, shortens=False)
    return str(found.value)


def on(store: type[MemoryHoldStore]) -> MemoryGround:
    """A ground with this store."""
    ground = MemoryGround()
    ground.holds = store(ground.holds._now_millis)
    return ground


@pytest.mark.parametrize("store", STORES)
def test_a_store_that_breaks_a_rule_is_caught(store: type[MemoryHoldStore]) -> None:
    """By an answer that was not allowed, or by what became of it."""
    assert caught(partial(on, store))


@pytest.mark.parametrize("ground", [OpensEarly, OldGeneration])
def test_a_sink_that_breaks_a_rule_is_caught(ground: type[MemoryGround]) -> None:
    """By what it opens, or goes on with."""
    assert caught(ground)


def keeps_the_estimate(_hold: ClosedHold, event: BudgetEvent) -> Effect:
    """A late commit on top of what EXPIRED charged."""
    return Effect(fold._posted(event), ClosedHold(BudgetKind.COMMITTED))


def frees_nothing(_hold: OpenHold, _event: BudgetEvent) -> Effect:
    """A release that leaves what is held."""
    return Effect((), ClosedHold(BudgetKind.RELEASED))


@pytest.mark.parametrize(
    ("name", "rule"),
    [("_commit_late", keeps_the_estimate), ("_release", frees_nothing)],
)
def test_a_fold_that_breaks_a_rule_is_caught(monkeypatch: pytest.MonkeyPatch, name: str, rule: Any) -> None:
    """By sums that are not what the log says."""
    monkeypatch.setattr(fold, name, rule)
    monkeypatch.setitem(fold._ON_OPEN, BudgetKind.RELEASED, fold._release)
    assert caught(MemoryGround)


def test_a_fold_that_expires_what_is_committed_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first resolution wins."""
    known = fold.effect

    def effect(status: OpenHold | ClosedHold | None, event: BudgetEvent) -> Effect | None:
        if isinstance(status, ClosedHold) and event.kind is BudgetKind.EXPIRED:
            return Effect(fold._posted(event), status)
        return known(status, event)

    monkeypatch.setattr(fold, "effect", effect)
    assert caught(MemoryGround)


def test_a_reaper_that_charges_nothing_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call whose gateway died is charged what it may have used."""

    def charges_nothing(placed: BudgetEvent, *, actor: str, policy: ExpiredCharge) -> BudgetEvent:
        assert policy is ExpiredCharge.FULL
        return expired_event(placed, actor=actor, policy=ExpiredCharge.NOTHING)

    monkeypatch.setattr(reaper, "expired_event", charges_nothing)
    assert caught(MemoryGround).startswith("uncharged")
