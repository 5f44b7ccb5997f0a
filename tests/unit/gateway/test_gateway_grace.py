"""What a gateway lets through while budgets can't be checked."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from api.gateway.grace import MICROS_PER_HOUR, Grace
from schemas.events import BudgetEvent, BudgetKind
from tests.support.gateway_world import World, control_state, limit

#: A call of the world holds less than this, and more than half of it.
HOLD_NANO = 400_000


async def statuses(world: World, *keys: str | None) -> list[int]:
    """Statuses of calls, one after the other; None is the usual key."""
    return [(await (world.call() if key is None else world.call(key=key))).status for key in keys]


async def test_nothing_is_let_through_unless_an_operator_says_so(tmp_path: Path) -> None:
    """503, as ever."""
    async with World(tmp_path, state=control_state(limits=(limit(10**12),))) as world:
        world.holds.away = True
        assert [503] == await statuses(world, None)


async def test_so_much_per_key_is_let_through(tmp_path: Path) -> None:
    """Then the key waits like everybody, and nobody else does for it."""
    state = control_state(limits=(limit(10**12),))
    async with World(tmp_path, state=state, fail_open_nano=2 * HOLD_NANO) as world:
        world.holds.away = True
        found = await statuses(world, None, None, None, None)
        assert [200, 200] == found[:2]
        assert 503 == found[-1]


async def test_workers_and_those_that_come_after_them_draw_on_one_amount(tmp_path: Path) -> None:
    """However many serve, and however often one is started again, no more is let through than one alone would."""
    state, admitted = control_state(limits=(limit(10**12),)), 0
    for _ in range(3):
        async with World(tmp_path, state=state, workers=3, fail_open_nano=3 * HOLD_NANO) as world:
            world.holds.away = True
            admitted += (await statuses(world, None, None)).count(200)

    assert 3 <= admitted <= 5


async def test_each_use_is_an_event(tmp_path: Path) -> None:
    """PLACED says why it stands; its legs are counted like those of any hold."""
    state = control_state(limits=(limit(10**12),))
    async with World(tmp_path, state=state, fail_open_nano=2 * HOLD_NANO) as world:
        world.holds.away = True
        await world.call()
        placed = world.one(BudgetEvent, kind=BudgetKind.PLACED)
        committed = world.one(BudgetEvent, kind=BudgetKind.COMMITTED)

    assert ("fail_open", None, ["lim_a"]) == (placed.reason, placed.generation, [leg.limit_id for leg in placed.legs])
    assert placed.hold_id == committed.hold_id


async def test_a_limit_that_can_be_checked_is(tmp_path: Path) -> None:
    """Grace is for when nobody knows, not for when there is no room."""
    async with World(tmp_path, state=control_state(limits=(limit(1),)), fail_open_nano=2 * HOLD_NANO) as world:
        assert [429] == await statuses(world, None)


@pytest.mark.parametrize(("amount", "admitted"), [(0, []), (10, [5, 5]), (11, [5, 5]), (4, [])])
def test_grace_is_per_hour(amount: int, admitted: list[int], tmp_path: Path) -> None:
    """Full again with the next."""
    grace = Grace(amount, tmp_path / "grace")
    for hour in (7, 8):
        now = hour * MICROS_PER_HOUR
        assert admitted == [5 for second in range(4) if grace.admits("key", 5, now + second)]
    assert grace.admits("other", 4, 8 * MICROS_PER_HOUR) is (amount >= 4)


def test_a_call_of_the_hour_before_does_not_begin_it_anew(tmp_path: Path) -> None:
    """Workers judge calls that began on both sides of the hour in any order."""
    grace = Grace(10, tmp_path / "grace")
    given = [grace.admits("key", 5, hour * MICROS_PER_HOUR) for hour in (8, 8, 7, 8)]

    assert [True, True, False, False] == given


def test_grace_asked_for_at_once_is_given_once(tmp_path: Path) -> None:
    """As by workers, which know nothing of each other."""
    graces = [Grace(10, tmp_path / "grace") for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        given = list(threads.map(lambda number: graces[number % 4].admits("key", 1, MICROS_PER_HOUR), range(40)))

    assert 10 == sum(given)


def test_grace_remembers_so_many_keys_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond them nothing is let through, but to those it knows."""
    monkeypatch.setattr("api.gateway.grace.KEYS_MAX", 3)
    grace = Grace(10, tmp_path / "grace")
    assert 3 == sum(grace.admits(f"key-{number}", 1, MICROS_PER_HOUR) for number in range(5))
    assert grace.admits("key-2", 1, MICROS_PER_HOUR)


@pytest.mark.parametrize("content", [None, b"no database at all" * 100])
def test_grace_that_cant_be_counted_is_not_given(content: bytes | None, tmp_path: Path) -> None:
    """What can't be counted has no bound: a folder stands where the file should, or other bytes."""
    path = tmp_path / "grace"
    path.mkdir() if content is None else path.write_bytes(content)

    assert not Grace(10, path).admits("key", 1, MICROS_PER_HOUR)
