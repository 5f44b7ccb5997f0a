"""Folds of what the live store keeps: the rule once more, snapshots of it, and slots restored from them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from processors.budgets import BudgetFold, ClosedHold
from processors.budgets.live import MINUTE_DIGITS, Ended, LiveFold
from schemas.errors import GapError, StoreUnavailableError
from schemas.events import BudgetEvent
from sinks.redis import restore
from sinks.redis.client import RedisClient
from sinks.redis.connection import texts
from sinks.redis.keys import slot_keys
from sinks.redis.reads import RedisReads, compare
from sinks.redis.recall import Recall
from sinks.redis.restore import AppliedState, Restorer
from sinks.redis.scripts import Script
from sinks.redis.slot_event import SlotEvent, slot_event
from sinks.redis.slots import Ownership, Slots
from sinks.redis.snapshots import MemorySnapshots
from sinks.redis.snapshotter import Draft
from tests.budget_world import TENANT, fields_of
from tests.support.budget_histories import STEPS, events_of, is_unsound
from tests.valkey import Valkey, running

Steps = list[tuple[str, int, int, str]]
History = Sequence[tuple[int, BudgetEvent]]
#: A tenant whose slot is applied to from the first event on.
FROM_ZERO = "zero"
CUTS = st.lists(st.integers(0, 25), min_size=1, max_size=4)
#: What happens at which call of a restore: the server loses everything, or the process dies before or after it.
FAULTS = st.tuples(st.sampled_from(["flush", "die before", "die after"]), st.integers(0, 9))


def history_of(steps: Steps) -> History:
    """Sound events with their offsets."""
    return list(enumerate(event for event in events_of(steps) if not is_unsound(event)))


def moves_of(history: History) -> list[SlotEvent]:
    """What they move."""
    return [move for offset, event in history if (move := slot_event(offset, fields_of(event))) is not None]


@given(steps=STEPS)
def test_the_live_fold_is_the_fold(steps: Steps) -> None:
    """Equal sums, equal open holds, the same holds resolved in the same way."""
    fold, live = BudgetFold(), LiveFold()
    live.apply(TENANT, [], 0)
    for offset, event in history_of(steps):
        fold.apply(event)
        live.apply(TENANT, moves_of([(offset, event)]), offset + 1)

    mine = live.tenants[TENANT]
    sums = {str(counter): each for counter, each in fold.sums.items()}
    assert mine.held == {name: each.held_nano for name, each in sums.items() if each.held_nano}
    posted = {name: each.posted_nano for name, each in sums.items() if each.posted_nano}
    assert {name: amount for name, amount in mine.posted.items() if amount} == posted
    held = {hold_id: hold.held for hold_id, hold in fold.open_holds.items()}
    assert {hold_id: " ".join(words) for hold_id, words in mine.holds.items()} == {
        hold_id: " ".join(f"{counter} {amount}" for counter, amount in body) for hold_id, body in held.items()
    }
    ends = {hold_id: how[0] for ended in live.ended.values() for hold_id, how in ended[TENANT].items()}
    known = {hold_id: fold.status(hold_id) for _, event in history_of(steps) for hold_id in [event.hold_id]}
    closed = {hold_id: each.kind for hold_id, each in known.items() if isinstance(each, ClosedHold)}
    assert ends == {hold_id: {"C": "c", "R": "r", "E": "x"}[kind[0]] for hold_id, kind in closed.items()}


@given(steps=STEPS, cuts=CUTS)
def test_a_fold_that_goes_on_from_its_snapshots_is_the_fold(steps: Steps, cuts: list[int]) -> None:
    """Packed, kept and unpacked any number of times, with no ended hold in memory but those of minutes asked for."""
    history = history_of(steps)
    whole = LiveFold()
    whole.apply(TENANT, moves_of(history), len(history))

    state = asyncio.run(state_after(history, cuts))

    assert (state.tenants[TENANT], state.cursor) == (whole.tenants[TENANT], len(history))
    assert asyncio.run(ended_of(state)) == {minute: ended for minute, ended in whole.ended.items() if ended[TENANT]}


async def ended_of(state: AppliedState) -> dict[str, Ended]:
    """Everything a state says about holds that ended."""
    return {minute: await state.ended(minute) for minute in state.minutes}


async def state_after(history: History, cuts: Sequence[int]) -> AppliedState:
    """The state at the end of a history, through a snapshot at each cut and at the end."""
    store = MemorySnapshots()
    recall, end = Recall(store, no_end, None, ""), len(history)
    draft = Draft("topic", (), LiveFold())
    for cut in sorted({*(cut for cut in cuts if cut < end), end}):
        moves = moves_of(history[draft.cursor : cut])
        for minute in {move.hold_id[:MINUTE_DIGITS] for move in moves} & draft.minutes.keys():
            draft.fold.load(minute, await recall.minute(0, draft.minutes[minute]))
        draft.fold.apply(TENANT, moves, cut)
        draft.cursor = cut
        snapshot, chunks = draft.packed(0, 1)
        await store.put(snapshot, 1, chunks)
        draft.kept()
        draft.fold.unload(list(draft.fold.ended))
    (newest, *_) = await store.newest(0, "topic")
    return await recall.state(newest)


async def no_end(_: Any) -> int:
    """Nobody asks."""
    raise AssertionError


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    """A real server over a Unix socket."""
    with running() as server:
        yield server


class Faulty:
    """A client on which something happens at the n-th call."""

    def __init__(self, client: RedisClient, fault: str, number: int, flush: Callable[[], object]) -> None:
        """Calls are counted from 0."""
        self._client = client
        self._fault = fault
        self._left = number
        self._flush = flush

    async def evaluate(self, program: Script, keys: tuple[str, ...], arguments: tuple[str, ...]) -> Any:
        """Run a script, or not."""
        self._left -= 1
        if self._left == -1 and self._fault == "flush":
            self._flush()
        if self._left < 0 and self._fault == "die before":
            raise StoreUnavailableError("dead")
        answer = await self._client.evaluate(program, keys, arguments)
        if self._left < 0 and self._fault == "die after":
            raise StoreUnavailableError("dead")
        return answer


def owner(epoch: int) -> Ownership:
    """A sink of this epoch; every one has a generation of its own."""
    return Ownership(epoch, f"run:{epoch}", "topic", is_open=False)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, tries=st.lists(st.tuples(st.integers(0, 25), FAULTS), max_size=3), cut=st.integers(0, 25))
def test_a_slot_that_was_restored_goes_on_as_one_that_was_applied_to(
    valkey: Valkey,
    monkeypatch: pytest.MonkeyPatch,
    steps: Steps,
    tries: list[tuple[int, tuple[str, int]]],
    cut: int,
) -> None:
    """Whatever was restored half before, and lost, by whom: every field is that of the fold from zero."""
    valkey.command("FLUSHALL")
    monkeypatch.setattr(restore, "PAIRS_PER_CALL", 1)
    history = history_of(steps)

    found, expected, differences = asyncio.run(restored(valkey, history, tries, cut))

    assert found == expected
    assert differences == []


async def restored(valkey: Valkey, history: History, tries: Sequence[tuple[int, tuple[str, int]]], cut: int) -> Any:
    """The slot after all of it and the rest of the log, the slot from zero, and what differs from BudgetFold."""
    client, reads = RedisClient(valkey.url), RedisReads(valkey.url)
    await client.open()
    await reads.open()
    for epoch, (at, (fault, number)) in enumerate(tries, 1):
        broken: Any = Faulty(client, fault, number, lambda: valkey.command("FLUSHALL"))
        try:
            await Restorer(broken).write(owner(epoch), await state_after(history[:at], [at // 2]))
        except (GapError, StoreUnavailableError):
            continue
    last = owner(len(tries) + 1)
    await Restorer(client).write(last, await state_after(history[:cut], [cut // 2]))
    slots = Slots(client)
    # What the new owner does with a slot that was as far already.
    await slots.claim(TENANT, last, generation=last.generation, open_word="0")
    for tenant_id, first in ((TENANT, min(cut, len(history))), (FROM_ZERO, 0)):
        for _ in range(2):
            await slots.apply(tenant_id, moves_of(history[first:]), last, 0, len(history))
    fold = BudgetFold()
    for _, event in history:
        fold.apply(event)
    differences = compare(fold.sums, fold.open_holds, await reads.tenant_state(TENANT))
    answer = await fields(client, TENANT), await fields(client, FROM_ZERO), differences
    await client.close()
    await reads.close()
    return answer


async def fields(client: RedisClient, tenant_id: str) -> dict[str, dict[str, str]]:
    """Every hash of a slot but its housekeeping; a sum that is zero is none."""
    found: dict[str, dict[str, str]] = {}
    prefix = slot_keys(tenant_id).state.removesuffix("state")
    for key in texts(await client.call("KEYS", prefix.replace("{", r"\{") + "*")):
        words = texts(await client.call("HGETALL", key))
        pairs = dict(zip(words[::2], words[1::2], strict=True))
        if key.endswith("state"):
            pairs = {name: value for name, value in pairs.items() if name[:2] in {"p:", "h:"} and value != "0"}
        found[key.removeprefix(prefix)] = pairs
    return {name: pairs for name, pairs in found.items() if pairs}
