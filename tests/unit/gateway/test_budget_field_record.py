"""What users of other gateways report of their budgets, each as a scenario that must not happen here.

The numbers are issues of BerriAI/litellm. Holds are the store in memory; what the log says is folded into it as the
sink would, with whatever delay a scenario asks for.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from api.providers.errors import UpstreamError
from api.providers.upstream import Call
from processors.budgets import window_of
from processors.control import Limit
from schemas.events import BudgetEvent, BudgetKind
from tests.support.gateway_answers import chat_answer, error_answer
from tests.support.gateway_world import TENANT, Answering, World, chat, control_state, limit

CALLS = 40


class Applied:
    """The sink's part: folds the budget events of a world's log into its holds, from where it was."""

    def __init__(self, world: World) -> None:
        """Nothing is applied yet."""
        self._world, self._done = world, 0

    def catch_up(self) -> None:
        """Apply what is new."""
        events = [event for event in self._world.events("budgets") if isinstance(event, BudgetEvent)]
        for event in events[self._done :]:
            self._world.holds.apply(TENANT, event)
        self._done = len(events)


def world_of(tmp_path: Path, *limits: Limit, answer: Answering | None = None) -> World:
    """A gateway under these limits."""
    return World(tmp_path, answer, state=control_state(limits=limits))


async def cost_of_a_call(tmp_path: Path, **fields: object) -> tuple[int, int]:
    """What a call holds, and what it is charged."""
    async with world_of(tmp_path / "cost", limit(10**12)) as world:
        await world.call(body=chat(**fields))
    kinds = BudgetKind.PLACED, BudgetKind.COMMITTED
    held, charged = (world.one(BudgetEvent, kind=kind).amount_nano for kind in kinds)
    return held, charged


def statuses(answers: list[int]) -> dict[int, int]:
    """How many answered with what."""
    return dict(Counter(answers))


async def test_concurrent_requests_do_not_pass_a_session_limit(tmp_path: Path) -> None:
    """#34732: many calls of one run at once, checked and then counted; here a hold is both."""
    held, _ = await cost_of_a_call(tmp_path)
    session = msgspec.structs.replace(limit(5 * held, "lim_run", "run", "*"), window="total")
    async with world_of(tmp_path, session) as world:
        headers = {"x-quaestor-run-id": "agent-1"}
        answers = await asyncio.gather(*(world.call(headers=headers) for _ in range(CALLS)))

    assert statuses([answer.status for answer in answers]) == {200: 5, 429: CALLS - 5}


async def test_the_first_requests_of_an_unknown_end_user_meet_their_limit(tmp_path: Path) -> None:
    """#40095: first calls of a user nobody had seen, at once, passed the default budget; here nothing is made first."""
    held, _ = await cost_of_a_call(tmp_path, user="nobody-yet")
    each_user = msgspec.structs.replace(limit(2 * held, "lim_user", "user", "*"), window="total")
    async with world_of(tmp_path, each_user) as world:
        answers = await asyncio.gather(*(world.call(body=chat(user="nobody-yet")) for _ in range(8)))
        other = await world.call(body=chat(user="somebody-else"))

    assert (statuses([answer.status for answer in answers]), other.status) == ({200: 2, 429: 6}, 200)


async def test_a_leaked_reservation_does_not_refuse_later_calls(tmp_path: Path) -> None:
    """#27639: calls that failed kept their room, until a budget at nothing spent refused everybody."""
    held, _ = await cost_of_a_call(tmp_path)
    broken = True

    def answering(_: Call) -> object:
        return error_answer(500) if broken else chat_answer()

    async with world_of(tmp_path, limit(3 * held), answer=answering) as world:  # type: ignore[arg-type]  # either answer
        applied = Applied(world)
        failed = []
        for _ in range(CALLS):
            failed.append((await world.call()).status)
            applied.catch_up()
        broken = False
        after = await world.call()

    assert (statuses(failed), after.status) == ({502: CALLS}, 200)


async def test_a_cancelled_call_leaks_nothing(tmp_path: Path) -> None:
    """#30522, #28472: the caller left, the cancellation passed by every handler, and its room was gone for good.

    Its provider was called and may have worked: the hold is charged by estimate, not released.
    """
    held, _ = await cost_of_a_call(tmp_path)
    under_way, never = asyncio.Event(), asyncio.Event()
    hangs = True

    class Hanging:
        """A provider that does not answer."""

        async def send(self, call: Call) -> object:
            if not hangs:
                return chat_answer()
            under_way.set()
            await never.wait()
            raise UpstreamError("unreachable")

    async with world_of(tmp_path, limit(2 * held)) as world:
        applied = Applied(world)
        world.parts.upstream = Hanging()  # type: ignore[assignment]  # as much of it as is called
        task = asyncio.create_task(world.call())
        await under_way.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await world.journal.stop()
        applied.catch_up()

    moved = [(event.kind, event.estimated) for event in world.events("budgets") if isinstance(event, BudgetEvent)]
    assert moved == [(BudgetKind.PLACED, False), (BudgetKind.COMMITTED, True)]
    assert sum(sums.held_nano for sums in world.holds.sums(TENANT).values()) == 0
    assert world.holds.unconfirmed(TENANT) == frozenset()


async def test_two_replicas_do_not_spend_twice(tmp_path: Path) -> None:
    """#39390: each replica counted for itself, so two of them spent a model's budget twice."""
    held, _ = await cost_of_a_call(tmp_path)
    model = msgspec.structs.replace(limit(6 * held, "lim_model", "model", "default"), window="total")
    async with world_of(tmp_path / "a", model) as one, world_of(tmp_path / "b", model) as two:
        two.parts.holds = one.holds
        answers = await asyncio.gather(*(world.call() for world in (one, two) for _ in range(CALLS // 2)))

    assert statuses([answer.status for answer in answers]) == {200: 6, 429: CALLS - 6}


async def test_estimates_do_not_pin_a_budget_at_its_limit(tmp_path: Path) -> None:
    """#38647: the worst case stayed reserved, and an unspent budget refused; here the rest is freed with the answer."""
    held, charged = await cost_of_a_call(tmp_path, max_tokens=1_000)
    assert charged < held
    async with world_of(tmp_path, limit(held + 9 * charged)) as world:
        applied, answers = Applied(world), []
        for _ in range(11):
            answers.append((await world.call(body=chat(max_tokens=1_000))).status)
            applied.catch_up()

    assert statuses(answers) == {200: 10, 429: 1}


async def test_a_call_that_can_not_be_estimated_is_held_all_the_same(tmp_path: Path) -> None:
    """#35524: without an estimate nothing was reserved; here the most that the model can give is."""
    body = chat()
    del body["max_tokens"]
    async with world_of(tmp_path, limit(1_000)) as world:
        answer = await world.call(body=body)

    assert (answer.status, world.upstream.calls) == (429, [])


async def test_the_end_of_a_window_loses_no_spend(tmp_path: Path) -> None:
    """#34733: a reset overwrote what calls under way were about to add; here each belongs to the window it began in."""
    held, charged = await cost_of_a_call(tmp_path)
    daily = msgspec.structs.replace(limit(2 * held), window="day")
    async with world_of(tmp_path, daily) as world:
        today = window_of("day", world.parts.now())
        clock = [today[1] - 1]
        world.parts.now = lambda: clock[0]
        under_way, passed_midnight = asyncio.Event(), asyncio.Event()

        class Slow:
            """A provider that answers after midnight."""

            async def send(self, call: Call) -> object:
                under_way.set()
                await passed_midnight.wait()
                return chat_answer()

        world.parts.upstream = Slow()  # type: ignore[assignment]  # as much of it as is called
        late = asyncio.create_task(world.call())
        await under_way.wait()
        clock[0] = today[1] + 1
        passed_midnight.set()
        early = [await world.call() for _ in range(2)]
        answers = [(await late).status, *(answer.status for answer in early)]
        Applied(world).catch_up()

    spent = {counter.window_start: sums.posted_nano for counter, sums in world.holds.sums(TENANT).items()}
    assert (answers, spent) == ([200, 200, 200], {today[0]: charged, today[1]: 2 * charged})
