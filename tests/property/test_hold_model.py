"""No interleaving of a small world of holds breaks a promise, and the store in memory, the folds and the reaper are it.

Two gateways each try one hold, one on two limits and one on the second of them. First an independent model is searched
(tests/support/hold_search.py): every order of their steps, the sink's, the reaper's, deaths, a lost server, a failover
to an older one and commits that come late. Leaving out any one of its rules must break a promise: otherwise the search
would see nothing. Then the product takes every transition that the search met, and must answer and keep the same.
tests/gateway/test_hold_model_valkey.py does that with the scripts on a real server.
"""

from __future__ import annotations

import sys
from functools import cache, reduce

import pytest

from processors.budgets import BudgetState, evolve
from processors.budgets.live import LiveFold
from processors.reaper import Reaper
from schemas.events import BudgetEvent
from sinks.redis.memory import MemoryHoldStore
from sinks.redis.slot_event import slot_event
from tests.budget_world import NOW_MICROS, TENANT
from tests.support.hold_edges import ENDS, Graph, Names
from tests.support.hold_edges_memory import Walk
from tests.support.hold_model import GROWING, NARROW, PLAIN, Log, Store, folded
from tests.support.hold_mutants import STORES
from tests.support.hold_search import Found, Search

MUCH_LATER_MICROS = NOW_MICROS + 10**12
SCENARIOS = {"plain": PLAIN, "growing": GROWING, "narrow": NARROW}


@cache
def searched(name: str) -> Found:
    """A scenario with all its rules, searched once."""
    return Search(SCENARIOS[name]).run()


@pytest.mark.parametrize(("name", "states"), [("plain", 45_000), ("growing", 90_000), ("narrow", 21_000)])
def test_no_order_of_events_breaks_a_promise(name: str, states: int) -> None:
    """No limit is overspent, no hold stays, no call is uncharged or charged twice: every state is visited."""
    found = searched(name)
    assert found.problem == ""
    assert found.worlds > states


@pytest.mark.parametrize("rule", ["pin", "tombstone", "generation", "barrier"])
def test_each_of_the_four_rules_is_needed(rule: str) -> None:
    """Without it the search finds an overspend."""
    assert Search(PLAIN._replace(faults=1), rule).run().problem == "overspend"


@pytest.mark.parametrize("rule", ["lease", "once", "generation", "barrier"])
def test_each_rule_of_extensions_is_needed(rule: str) -> None:
    """Without it the search finds an overspend."""
    assert Search(GROWING, rule).run().problem == "overspend"


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_store_in_memory_takes_every_transition_of_the_model(name: str) -> None:
    """In every state that a store can tell apart, every question: the same answer, and the same is kept."""
    graph = Graph(searched(name))

    assert Walk(graph).differing() == []
    assert graph.left_out() == []
    sys.stdout.write(graph.worded(name) + "\n")


@pytest.mark.parametrize("kind", STORES)
def test_a_store_that_breaks_a_rule_is_caught(kind: type[MemoryHoldStore]) -> None:
    """Otherwise the comparison would see nothing."""
    assert any(Walk(Graph(searched(name)), kind).differing() for name in ("narrow", "plain"))


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_folds_say_of_every_log_what_the_model_says(name: str) -> None:
    """Of every log that the search met: `evolve`, and the fold of what the live store keeps."""
    found = searched(name)
    names = Names(found.model, NOW_MICROS)
    states: dict[Log, BudgetState] = {(): BudgetState()}
    for log in sorted(found.logs - {()}, key=len):
        states[log] = evolve(states[log[:-1]], names.events[log[-1]])
        assert evolved(names, states[log]) == lived(names, log) == told(names, log)


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_folds_take_every_event_in_every_state(name: str) -> None:
    """Also those that come twice, too late, or out of order."""
    found = searched(name)
    names, logs = Names(found.model, NOW_MICROS), {store.applied for store in Graph(found).made}
    for log in logs:
        state = reduce(evolve, (names.events[entry] for entry in log), BudgetState())
        for entry, event in names.events.items():
            after = (*log, entry)
            assert evolved(names, evolve(state, event)) == lived(names, after) == told(names, after)


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_reaper_charges_what_the_model_charges(name: str) -> None:
    """Of every log that the search met: each open hold, once its lease is over, what it holds."""
    found = searched(name)
    names, reaper = Names(found.model, NOW_MICROS), Reaper()
    for log in found.logs:
        state = reaper.initial(0)
        for entry in log:
            state = reaper.evolve(state, names.events[entry])
        expired = [
            event for event in reaper.tick(state, MUCH_LATER_MICROS, caught_up=True) if isinstance(event, BudgetEvent)
        ]
        charged = {names.holds.index(event.hold_id): {each.amount_nano for each in event.legs} for event in expired}
        assert charged == {number: {hold.held} for number, hold in folded(log).items() if hold.status == "open"}


#: By limit what is posted and what is held, and by hold what it holds, or how it ended.
Told = tuple[dict[str, int], dict[str, int], dict[int, int | str]]


def told(names: Names, log: Log) -> Told:
    """What the model says of a log."""
    view = names.view(Store(applied=log))
    holds = {number: hold.held if hold.status == "open" else hold.status for number, hold in view.holds.items()}
    return dict(view.posted), dict(view.held), holds


def evolved(names: Names, state: BudgetState) -> Told:
    """What `evolve` says."""
    sums = {counter.limit_id: each for counter, each in state.sums.items()}
    holds: dict[int, int | str] = {
        names.holds.index(hold): each.kind.value for hold, each in state.closed_holds.items()
    }
    for hold, open_hold in state.open_holds.items():
        (holds[names.holds.index(hold)],) = {amount for _, amount in open_hold.held}
    posted = {name: each.posted_nano for name, each in sums.items() if each.posted_nano}
    return posted, {name: each.held_nano for name, each in sums.items() if each.held_nano}, holds


def lived(names: Names, log: Log) -> Told:
    """What the fold of what the live store keeps says."""
    fold = LiveFold()
    moves = (slot_event(at, names.fields[entry]) for at, entry in enumerate(log))
    fold.apply(TENANT, [move for move in moves if move is not None], len(log))
    (live,) = fold.tenants.values()
    posted, held = (
        {name.partition("|")[0]: amount for name, amount in sums.items() if amount} for sums in (live.posted, live.held)
    )
    ends = {hold: ENDS[how[0]] for ended in fold.ended.values() for hold, how in ended[TENANT].items()}
    holds: dict[int, int | str] = {names.holds.index(hold): end for hold, end in ends.items()}
    return posted, held, holds | {names.holds.index(hold): int(words[1]) for hold, words in live.holds.items()}
