"""Waiting without tasks where there is nothing to wait for, and records that travel as runs."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka import ConsumerRecord

from streams.agents.consumer import RUN_RECORDS_MAX, PromptService, RunConsumer, runs_of


class Waiting(PromptService):
    """Any service."""


async def answer(number: int, until: asyncio.Event | None = None) -> int:
    """The number, at once or in a while."""
    if until is not None:
        await until.wait()
    return number


async def refuse(until: asyncio.Event | None = None) -> None:
    """A fault, at once or in a while."""
    if until is not None:
        await until.wait()
    raise LookupError


async def test_what_ends_at_once_makes_no_task() -> None:
    """The result is there, and the other coroutine is closed unbegun."""
    tasks = len(asyncio.all_tasks())
    other = asyncio.Event().wait()
    waiting = Waiting().wait_first(answer(7), other)
    with pytest.raises(StopIteration) as end:
        waiting.send(None)
    assert (end.value.value.results, end.value.value.stopped) == ([7], False)
    assert other.cr_frame is None
    assert len(asyncio.all_tasks()) == tasks


async def test_what_waits_goes_on_where_it_began() -> None:
    """Its result is the one of what it waited for."""
    until = asyncio.Event()
    asyncio.get_running_loop().call_soon(until.set)
    found = await Waiting().wait_first(answer(7, until), asyncio.Event().wait())
    assert found.results == [7]


async def test_the_other_may_end_first() -> None:
    """What waits still is cancelled."""
    never, stopped = asyncio.Event(), list[str]()

    async def held_up() -> None:
        try:
            await never.wait()
        except asyncio.CancelledError:
            stopped.append("cancelled")
            raise

    found = await Waiting().wait_first(held_up(), answer(8))
    await asyncio.sleep(0)
    assert (found.results, stopped) == ([8], ["cancelled"])


@pytest.mark.parametrize("later", [False, True])
async def test_a_fault_comes_out(later: bool) -> None:
    """Whether it happens at once or in a while."""
    until = asyncio.Event() if later else None
    if until is not None:
        asyncio.get_running_loop().call_soon(until.set)
    with pytest.raises(LookupError):
        await Waiting().wait_first(refuse(until), asyncio.Event().wait())


def record(offset: int) -> ConsumerRecord[bytes, bytes]:
    """A record as it was fetched."""
    return ConsumerRecord("topic", 3, offset, 1_000 + offset, 0, b"key", b"%d" % offset, None, 3, 1, ())


def test_what_came_together_is_one_run() -> None:
    """It stands at its last record, has that one's time, and all values in their order."""
    (run,) = runs_of([record(offset) for offset in (7, 8, 9)])
    assert (run.offset, run.partition, run.timestamp, run.value) == (9, 3, 1_009, [b"7", b"8", b"9"])


def test_a_long_run_is_cut() -> None:
    """No record is lost or doubled where it is."""
    offsets = range(2 * RUN_RECORDS_MAX + 1)
    runs = runs_of([record(offset) for offset in offsets])
    assert [len(run.value) for run in runs] == [RUN_RECORDS_MAX, RUN_RECORDS_MAX, 1]
    assert [int(value) for run in runs for value in run.value] == list(offsets)


def test_nothing_is_no_run() -> None:
    """A partition that was fetched without records has no message."""
    assert runs_of([]) == []


def test_a_position_is_behind_the_last_run_that_is_done() -> None:
    """However many records lie between two runs; asked again without another, there is nothing to commit."""
    consumer = RunConsumer.__new__(RunConsumer)
    consumer._acked, consumer._acked_index = {"place": [9, 25, 40]}, {"place": {9, 25, 40}}
    assert consumer._new_offset("place") == 41
    assert consumer._new_offset("place") is None
    consumer._acked["place"].append(55)
    assert consumer._new_offset("place") == 56
    assert consumer._acked_index["place"] == set()
