"""Which alerts follow from what moved."""

from __future__ import annotations

import msgspec
import pytest

from api.alerts.watcher import Watcher
from processors.budgets import Counter
from processors.control import Limit, Threshold
from processors.guardrails import AlertBook
from schemas.errors import StoreUnavailableError
from schemas.events import Alert, AlertKind, BudgetEvent, BudgetKind
from sinks.redis.posted import MemorySums
from tests.budget_world import NOW_MICROS, TENANT
from tests.budget_world import limit_on as limit
from tests.support import events

TEAM = limit("team", "search", 100, window="total", thresholds=(Threshold(percent=50), Threshold(percent=90)))
RUNS = limit("run", "*", 10, window="total", thresholds=(Threshold(percent=50),))
OTHER = limit("team", "ads", 100, window="total", thresholds=(Threshold(percent=50),))


def counter(of: Limit, suffix: str = "") -> Counter:
    """A limit's counter in the one window it has."""
    return Counter(of.limit_id + suffix, of.currency, 0, 0)


def moved(*limit_ids: str, kind: BudgetKind = BudgetKind.COMMITTED) -> BudgetEvent:
    """An event that charges these limits."""
    return events.budget(kind, "h1", "e1", *(events.leg(limit_id, 1) for limit_id in limit_ids))


class World:
    """A watcher over sums that the test sets."""

    def __init__(self, *limits: Limit, touched_max: int = 100) -> None:
        """It has looked at every tenant once: what follows is what moved."""
        self.sums, self.book = MemorySums(), AlertBook()
        self.watcher = Watcher(self.sums, touched_max)
        self.limits = {one.limit_id: one for one in limits}

    async def settle(self) -> None:
        """The limits are known, and nothing is charged."""
        self.sums.put(TENANT, 0, {})
        self.watcher.note_limits(self.limits)
        assert [] == await self.look()

    async def look(self, *, tell: bool = True) -> list[tuple[str, str | None]]:
        """Counter and threshold of the alerts; told ones are known from then on."""
        found: list[Alert] = await self.watcher.look(self.book, NOW_MICROS)
        for alert in found if tell else ():
            self.book.apply(alert)
        return sorted(((alert.subject.partition("|")[0], alert.threshold) for alert in found), key=str)


async def test_a_charge_that_reaches_a_threshold_is_told_once() -> None:
    """And the next threshold when it is reached."""
    world = World(TEAM)
    await world.settle()
    told = []
    for offset, posted in enumerate((49, 50, 60, 95, 99)):
        world.watcher.note(moved(TEAM.limit_id), offset)
        world.sums.put(TENANT, offset + 1, {counter(TEAM): posted})
        told.append(await world.look())
    assert [[], [(TEAM.limit_id, "50%")], [], [(TEAM.limit_id, "90%")], []] == told


async def test_what_a_hold_does_is_not_told() -> None:
    """Held money is not spent."""
    world = World(TEAM)
    await world.settle()
    world.sums.put(TENANT, 1, {counter(TEAM): 99})
    for kind in (BudgetKind.PLACED, BudgetKind.EXTENDED, BudgetKind.RELEASED, BudgetKind.REFUSED):
        world.watcher.note(moved(TEAM.limit_id, kind=kind), 0)
    assert [] == await world.look()


async def test_an_expired_hold_is_a_charge() -> None:
    """Its estimate counts."""
    world = World(TEAM)
    await world.settle()
    world.sums.put(TENANT, 1, {counter(TEAM): 55})
    world.watcher.note(moved(TEAM.limit_id, kind=BudgetKind.EXPIRED), 0)
    assert [(TEAM.limit_id, "50%")] == await world.look()


async def test_a_sum_that_is_not_applied_yet_is_waited_for() -> None:
    """The cursor must be past the event."""
    world = World(TEAM)
    await world.settle()
    world.watcher.note(moved(TEAM.limit_id), 7)
    world.sums.put(TENANT, 7, {counter(TEAM): 40})
    before = await world.look()
    world.sums.put(TENANT, 8, {counter(TEAM): 60})
    assert ([], [(TEAM.limit_id, "50%")]) == (before, await world.look())


async def test_a_sum_is_judged_though_there_is_always_more_to_apply() -> None:
    """Under traffic that does not rest the live state is never quite where the log is."""
    world = World(TEAM)
    await world.settle()
    told = []
    for offset, posted in enumerate((40, 50, 60)):
        world.watcher.note(moved(TEAM.limit_id), offset)
        world.sums.put(TENANT, offset, {counter(TEAM): posted})
        told.append(await world.look())
    assert [[], [(TEAM.limit_id, "50%")], []] == told


async def test_what_was_not_looked_at_is_read_again_by_the_next_one() -> None:
    """By partition: up to where each tenant's events are applied and were looked at."""
    world = World(TEAM)
    await world.settle()
    unseen = []
    for offset in (7, 9):
        world.watcher.note(moved(TEAM.limit_id), offset, partition=3)
        unseen.append(world.watcher.unseen())
    for cursor in (5, 8, 10):
        world.sums.put(TENANT, cursor, {counter(TEAM): 40})
        await world.look()
        unseen.append(world.watcher.unseen())
    assert [{3: 7}, {3: 7}, {3: 7}, {3: 8}, {}] == unseen


async def test_what_is_not_whole_is_looked_at_again() -> None:
    """A live state that is being put back shows less than was charged."""
    world = World(TEAM)
    await world.settle()
    world.watcher.note(moved(TEAM.limit_id), 7)
    world.sums.put(TENANT, 9, {counter(TEAM): 10}, is_open=False)
    before = await world.look()
    world.sums.put(TENANT, 9, {counter(TEAM): 60})
    assert ([], [(TEAM.limit_id, "50%")]) == (before, await world.look())


async def test_each_one_of_a_kind_is_told_apart() -> None:
    """Two runs, two alerts."""
    world = World(RUNS)
    await world.settle()
    world.sums.put(TENANT, 2, {counter(RUNS, ".aa"): 5, counter(RUNS, ".bb"): 6, counter(RUNS, ".cc"): 1})
    world.watcher.note(moved(f"{RUNS.limit_id}.aa", f"{RUNS.limit_id}.bb", f"{RUNS.limit_id}.cc"), 0)
    assert [(f"{RUNS.limit_id}.aa", "50%"), (f"{RUNS.limit_id}.bb", "50%")] == await world.look()


async def test_what_stood_above_a_threshold_before_is_told_at_first_sight() -> None:
    """A process that takes over, or a limit that is lowered, looks at whole tenants."""
    world = World(TEAM)
    world.sums.put(TENANT, 5, {counter(TEAM): 60})
    world.watcher.note_limits(world.limits)
    first = await world.look()
    lowered = limit("team", "search", 65, window="total", thresholds=TEAM.thresholds)
    world.watcher.note_limits({lowered.limit_id: lowered})
    assert ([(TEAM.limit_id, "50%")], [(TEAM.limit_id, "90%")]) == (first, await world.look())


async def test_a_tenant_whose_state_is_being_rebuilt_is_looked_at_again() -> None:
    """Until it is whole."""
    world = World(TEAM)
    world.watcher.note_limits(world.limits)
    world.sums.put(TENANT, 1, {counter(TEAM): 10}, is_open=False)
    before = await world.look()
    world.sums.put(TENANT, 9, {counter(TEAM): 60})
    assert ([], [(TEAM.limit_id, "50%")]) == (before, await world.look())


async def test_a_window_that_is_over_is_told_when_it_moved() -> None:
    """Once, as told late; at first sight of a whole tenant only what is on is judged."""
    day = limit("team", "search", 100, window="day")
    world = World(day)
    past = Counter(day.limit_id, "USD", NOW_MICROS - 10, NOW_MICROS - 1)
    world.sums.put(TENANT, 1, {past: 99})
    world.watcher.note_limits(world.limits)
    at_first = await world.look()
    leg = msgspec.structs.replace(
        events.leg(day.limit_id, 1), window_start=past.window_start, window_end=past.window_end
    )
    told = []
    for _ in range(2):
        world.watcher.note(events.budget(BudgetKind.COMMITTED, "h1", "e1", leg), 0)
        told.append(await world.look())
    assert ([], [[(day.limit_id, "80%")], []]) == (at_first, told)


async def test_too_many_counters_are_looked_at_by_whole_tenants() -> None:
    """Memory is bounded, and nothing is missed."""
    world = World(RUNS, touched_max=3)
    await world.settle()
    world.sums.put(TENANT, 9, {counter(RUNS, f".{number}"): 6 for number in range(5)})
    for number in range(5):
        world.watcher.note(moved(f"{RUNS.limit_id}.{number}"), number)
    assert 5 == len(await world.look())


@pytest.mark.parametrize("change", ["a changed limit", "every tenant"])
async def test_runs_that_were_forgotten_are_not_told_again(change: str) -> None:
    """Once there were more than the book remembers: one that moves is told, and the tenant's own limits are as ever."""
    world = World(RUNS, TEAM)
    await world.settle()
    runs = [counter(RUNS, f".{number}") for number in range(4)]
    world.book = AlertBook(remembered_max=2)
    world.sums.put(TENANT, 9, dict.fromkeys(runs, 6))
    first = []
    for offset, run in enumerate(runs):
        world.watcher.note(moved(run.limit_id), offset)
        first += await world.look()
    world.sums.put(TENANT, 9, dict.fromkeys([*runs, counter(RUNS, ".new")], 6) | {counter(TEAM): 60})
    if change == "every tenant":
        world.watcher.note_all()
    else:
        world.watcher.note_limits({**world.limits, OTHER.limit_id: OTHER})
    again = await world.look()
    world.watcher.note(moved(f"{RUNS.limit_id}.new"), 8)
    assert (4, [(TEAM.limit_id, "50%")], [(f"{RUNS.limit_id}.new", "50%")]) == (len(first), again, await world.look())


async def test_more_alerts_than_are_remembered_are_told_once() -> None:
    """A few with each look: the first are dropped before the last displace them."""
    world = World(RUNS)
    await world.settle()
    runs = [counter(RUNS, f".{number}") for number in range(5)]
    world.watcher, world.book = Watcher(world.sums, told_max=2), AlertBook(remembered_max=2)
    world.sums.put(TENANT, 9, dict.fromkeys(runs, 6))
    world.watcher.note_limits(world.limits)
    looks = [(len(await world.look()), world.watcher.has_more) for _ in range(4)]
    assert [(2, True), (2, True), (1, False), (0, False)] == looks


async def test_an_alert_that_was_not_told_is_found_again() -> None:
    """Until the book knows it."""
    world = World(TEAM)
    await world.settle()
    world.sums.put(TENANT, 1, {counter(TEAM): 50})
    world.watcher.note(moved(TEAM.limit_id), 0)
    first = await world.look(tell=False)
    assert [(TEAM.limit_id, "50%")] == first == await world.look()
    assert [] == await world.look()


async def test_a_store_that_goes_away_loses_nothing() -> None:
    """What was found before, and what was still to be looked at, come with the next look."""
    world = World(TEAM, OTHER)
    await world.settle()
    world.sums.put(TENANT, 2, {counter(TEAM): 50, counter(OTHER): 50})
    world.watcher.note(moved(TEAM.limit_id, OTHER.limit_id), 0)
    world.watcher.note(moved(TEAM.limit_id, kind=BudgetKind.OVERAGE), 1)
    world.sums.away = True
    with pytest.raises(StoreUnavailableError):
        await world.look()
    world.sums.away = False
    expected = [(OTHER.limit_id, "50%"), (TEAM.limit_id, "50%"), (TEAM.limit_id, None)]
    assert sorted(expected, key=str) == await world.look()


async def test_an_overage_is_told_once_per_window() -> None:
    """However many calls cost more than they held."""
    world = World(TEAM)
    await world.settle()
    told = []
    for offset in range(2):
        world.watcher.note(moved(TEAM.limit_id, kind=BudgetKind.OVERAGE), offset)
        found = await world.watcher.look(world.book, NOW_MICROS)
        told.append([alert.kind for alert in found])
        for alert in found:
            world.book.apply(alert)
    assert [[AlertKind.OVERAGE], []] == told


def refused(of: Limit, reason: str, model: str = "m") -> BudgetEvent:
    """A call that this limit refused."""
    leg = events.leg(of.limit_id, 7)
    return events.budget(
        BudgetKind.REFUSED,
        "h1",
        "e1",
        leg,
        refused_by_limit_id=of.limit_id,
        remaining_nano=3,
        reason=reason,
        model=model,
    )


CHEAPER = (
    Threshold(percent=50, action="cheaper", models=("a", "p/b")),
    Threshold(percent=80, action="cheaper", models=("a",)),
)


async def test_the_threshold_that_does_not_admit_the_model_is_told_of_its_refusal() -> None:
    """Not one below it that admits it, which was told already; a place counts as a name."""
    narrowing = limit("team", "search", 100, window="total", thresholds=CHEAPER)
    world = World(narrowing)
    await world.settle()
    told = []
    for offset, model in enumerate(("c", "b", "c", "b")):
        world.watcher.note(refused(narrowing, "cheaper_models_only", model), offset)
        told.append(await world.look())
    assert [[(narrowing.limit_id, "50%")], [(narrowing.limit_id, "80%")], [], []] == told


async def test_refusals_of_two_models_that_come_together_are_both_told() -> None:
    """Each at the threshold that refused it."""
    narrowing = limit("team", "search", 100, window="total", thresholds=CHEAPER)
    world = World(narrowing)
    await world.settle()
    for offset, model in enumerate(("c", "b")):
        world.watcher.note(refused(narrowing, "cheaper_models_only", model), offset)
    assert [(narrowing.limit_id, "50%"), (narrowing.limit_id, "80%")] == await world.look()


async def test_a_refusal_at_a_threshold_that_is_gone_is_not_told_of_another() -> None:
    """The limit was changed meanwhile, and admits such calls now."""
    narrowing = limit("team", "search", 100, window="total", thresholds=CHEAPER)
    world = World(narrowing)
    await world.settle()
    world.watcher.note(refused(narrowing, "cheaper_models_only", "a"), 0)
    assert [] == await world.look()


@pytest.mark.parametrize(
    ("reason", "told"), [("budget_exceeded", "100%"), ("budget_blocked", "80%"), ("approval_required", "60%")]
)
async def test_the_first_refusal_of_a_window_is_told(reason: str, told: str) -> None:
    """A threshold that holds calls is never reached by what they are charged."""
    thresholds = (Threshold(percent=60, action="approval"), Threshold(percent=80, action="block"))
    guarded = limit("team", "search", 100, window="total", thresholds=thresholds)
    world = World(guarded)
    await world.settle()
    found = []
    for offset in range(2):
        world.watcher.note(refused(guarded, reason), offset)
        found.append(await world.look())
    assert [[(guarded.limit_id, told)], []] == found


async def test_each_window_in_which_calls_were_refused_is_told() -> None:
    """Also when both are read at once, after a while in which nobody watched."""
    usual = limit("team", "search", 100, window="day")
    world = World(usual)
    await world.settle()
    for offset, start in enumerate((10, 20, 20)):
        event = refused(usual, "budget_exceeded")
        legs = (msgspec.structs.replace(event.legs[0], window_start=start, window_end=start + 10),)
        world.watcher.note(msgspec.structs.replace(event, legs=legs), offset)
    assert [(usual.limit_id, "100%")] * 2 == await world.look()


async def test_a_limit_that_only_tells_tells_of_its_refusals_too() -> None:
    """As every limit does by default; a call too large for what is left may never bring its charges there."""
    usual = limit("team", "search", 100, window="day")
    world = World(usual)
    await world.settle()
    world.watcher.note(refused(usual, "budget_exceeded"), 0)
    assert [(usual.limit_id, "100%")] == await world.look()


async def test_a_threshold_is_told_once_by_refusal_or_by_charge() -> None:
    """Both are the same alert."""
    blocked = limit("team", "search", 100, window="total", thresholds=(Threshold(percent=80, action="block"),))
    world = World(blocked)
    await world.settle()
    world.watcher.note(refused(blocked, "budget_blocked"), 0)
    first = await world.look()
    world.sums.put(TENANT, 2, {counter(blocked): 85})
    world.watcher.note(moved(blocked.limit_id), 1)
    assert ([(blocked.limit_id, "80%")], []) == (first, await world.look())


async def test_a_limit_without_thresholds_refuses_in_silence() -> None:
    """Nobody asked to be told."""
    silent = limit("team", "search", 100, window="total", thresholds=())
    world = World(silent)
    await world.settle()
    world.watcher.note(refused(silent, "budget_exceeded"), 0)
    assert [] == await world.look()


async def test_a_limit_that_nobody_knows_tells_nothing() -> None:
    """It was removed meanwhile."""
    world = World(TEAM)
    await world.settle()
    world.sums.put(TENANT, 1, {Counter("lim_gone", "USD", 0, 0): 10**9})
    world.watcher.note(moved("lim_gone"), 0)
    world.watcher.note(moved("lim_gone", kind=BudgetKind.OVERAGE), 0)
    assert [] == await world.look()
