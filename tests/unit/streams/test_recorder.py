"""Recorder: the asyncio face of a publisher."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from schemas.errors import CodecError, LogUnavailableError, RecordRefusedError
from streams import recorder as recorder_module
from streams.codec import Codec, LocalSchemas
from streams.log import Done, OutgoingRecord
from streams.recorder import Recorder
from tests.support.events import alert, attempt

SECONDS = 10.0


class Waiting:
    """A publisher whose groups end when a test says so."""

    def __init__(self) -> None:
        """Nothing was handed over."""
        self.groups: list[tuple[Sequence[OutgoingRecord], Done]] = []
        self.handed = asyncio.Event()

    def publish(self, records: Sequence[OutgoingRecord], done: Done) -> None:
        """Keep the group."""
        self.groups.append((records, done))
        self.handed.set()

    def flush(self, timeout_seconds: float) -> int:
        """Not asked here."""
        return len(self.groups)

    def close(self) -> None:
        """Not asked here."""


def in_thread(*dones: Done) -> None:
    """End groups from another thread, without the loop running meanwhile."""
    thread = threading.Thread(target=lambda: [done(None) for done in dones])
    thread.start()
    thread.join()


async def begin(recorder: Recorder, publisher: Waiting, groups: int = 1) -> list[asyncio.Task[None]]:
    """Record groups, each in its task, until all are handed over."""
    tasks = [asyncio.create_task(recorder.record([alert(f"{number}")])) for number in range(groups)]
    while len(publisher.groups) < groups:
        publisher.handed.clear()
        await asyncio.wait_for(publisher.handed.wait(), SECONDS)
    return tasks


@pytest.fixture
def publisher() -> Waiting:
    """Ends nothing by itself."""
    return Waiting()


@pytest.fixture
def recorder(publisher: Waiting) -> Recorder:
    """On that publisher."""
    return Recorder(publisher, Codec(LocalSchemas()))


async def test_it_returns_when_the_group_is_acknowledged(recorder: Recorder, publisher: Waiting) -> None:
    """Not before, and from whichever thread."""
    (task,) = await begin(recorder, publisher)
    await asyncio.sleep(0)
    assert not task.done()

    in_thread(publisher.groups[0][1])

    await asyncio.wait_for(task, SECONDS)


async def test_a_group_is_handed_over_whole_and_in_order(recorder: Recorder, publisher: Waiting) -> None:
    """One publish call for all its events."""
    task = asyncio.create_task(recorder.record([alert("a"), attempt("b"), alert("c")]))
    await asyncio.wait_for(publisher.handed.wait(), SECONDS)
    ((records, done),) = publisher.groups
    done(None)
    await task

    ids = [dict(record.headers)["ce_id"] for record in records]
    assert [b"a", b"b", b"c"] == ids


@pytest.mark.parametrize("fault", [LogUnavailableError(), RecordRefusedError()])
async def test_a_fault_is_raised(recorder: Recorder, publisher: Waiting, fault: Exception) -> None:
    """What the publisher said."""
    (task,) = await begin(recorder, publisher)
    publisher.groups[0][1](fault)  # type: ignore[arg-type] # both are log errors

    with pytest.raises(type(fault)):
        await task


async def test_many_groups_wake_the_loop_once(
    recorder: Recorder, publisher: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What finished since the last wake-up is resolved together."""
    tasks = await begin(recorder, publisher, groups=20)
    loop, wakes = asyncio.get_running_loop(), list[object]()
    wake = loop.call_soon_threadsafe
    monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *given: (wakes.append(given), wake(*given))[1])

    in_thread(*(done for _, done in publisher.groups))
    await asyncio.wait_for(asyncio.gather(*tasks), SECONDS)

    assert len(wakes) == 1


async def test_a_cancelled_call_stops_waiting_and_harms_no_other(recorder: Recorder, publisher: Waiting) -> None:
    """Its acknowledgement may come later; the others still get theirs."""
    first, second = await begin(recorder, publisher, groups=2)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first

    for _, done in publisher.groups:
        done(None)

    await asyncio.wait_for(second, SECONDS)
    assert not recorder._waiting


async def test_a_publisher_that_breaks_its_word_is_given_up(
    publisher: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait is bounded."""
    monkeypatch.setattr(recorder_module, "SWEEP_SECONDS", 0.01)
    recorder = Recorder(publisher, Codec(LocalSchemas()), wait_seconds_max=0.02)

    with pytest.raises(LogUnavailableError):
        await asyncio.wait_for(recorder.record([alert("a")]), SECONDS)


async def test_an_event_that_does_not_fit_keeps_the_whole_group_back(recorder: Recorder, publisher: Waiting) -> None:
    """Nothing of it was handed over."""
    with pytest.raises(CodecError):
        await recorder.record([alert("a"), attempt("b", duration_micros="1")])

    assert [] == publisher.groups


async def test_a_traceparent_goes_with_every_record(recorder: Recorder, publisher: Waiting) -> None:
    """As a header."""
    task = asyncio.create_task(recorder.record([alert("a"), alert("b")], b"00-trace"))
    await asyncio.wait_for(publisher.handed.wait(), SECONDS)
    ((records, done),) = publisher.groups
    done(None)
    await task

    assert all(("traceparent", b"00-trace") in record.headers for record in records)


def test_an_acknowledgement_after_the_loop_is_gone_is_dropped(publisher: Waiting) -> None:
    """The poll thread must not die of it."""
    recorder = Recorder(publisher, Codec(LocalSchemas()))

    async def leave() -> None:
        (task,) = await begin(recorder, publisher)
        task.cancel()

    asyncio.run(leave())

    publisher.groups[0][1](None)
