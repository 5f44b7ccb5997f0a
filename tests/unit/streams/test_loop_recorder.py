"""LoopRecorder: events written down as records, and the wait for their acknowledgement."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from schemas.errors import CodecError, LogUnavailableError, RecordRefusedError
from streams.codec import Codec, LocalSchemas
from streams.kafka.batches import Written
from streams.kafka.loop_recorder import LoopRecorder
from streams.log import Done
from tests.support.events import alert, attempt

SECONDS = 10.0


class Waiting:
    """A publisher whose groups end when a test says so."""

    def __init__(self) -> None:
        """Nothing was handed over."""
        self.groups: list[tuple[Sequence[Written], Done]] = []

    def hand_over(self, records: Sequence[Written], done: Done) -> None:
        """Keep the group."""
        self.groups.append((records, done))


@pytest.fixture
def publisher() -> Waiting:
    """Ends nothing by itself."""
    return Waiting()


@pytest.fixture
def recorder(publisher: Waiting) -> LoopRecorder:
    """On that publisher."""
    return LoopRecorder(publisher, Codec(LocalSchemas()))


async def begin(recorder: LoopRecorder, publisher: Waiting) -> asyncio.Task[None]:
    """Record a group of two; returns when it is handed over."""
    task = asyncio.create_task(recorder.record([alert("a"), attempt("b")]))
    await asyncio.sleep(0)
    assert len(publisher.groups) == 1
    return task


async def test_it_returns_when_the_group_is_acknowledged(recorder: LoopRecorder, publisher: Waiting) -> None:
    """Not before; the group was handed over whole and in order."""
    task = await begin(recorder, publisher)
    ((records, done),) = publisher.groups
    assert ["quaestor.alerts", "quaestor.attempts"] == [topic for topic, _, _ in records]
    assert not task.done()

    done(None)

    await asyncio.wait_for(task, SECONDS)


@pytest.mark.parametrize("fault", [LogUnavailableError(), RecordRefusedError()])
async def test_a_fault_is_raised(
    recorder: LoopRecorder, publisher: Waiting, fault: LogUnavailableError | RecordRefusedError
) -> None:
    """What the publisher said."""
    task = await begin(recorder, publisher)
    publisher.groups[0][1](fault)

    with pytest.raises(type(fault)):
        await task


async def test_an_acknowledgement_after_a_cancelled_call_is_dropped(recorder: LoopRecorder, publisher: Waiting) -> None:
    """Nobody waits for it any more."""
    task = await begin(recorder, publisher)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    publisher.groups[0][1](LogUnavailableError())


async def test_an_event_that_does_not_fit_keeps_the_whole_group_back(
    recorder: LoopRecorder, publisher: Waiting
) -> None:
    """Nothing of it was handed over."""
    with pytest.raises(CodecError):
        await recorder.record([alert("a"), attempt("b", duration_micros="1")])

    assert [] == publisher.groups
