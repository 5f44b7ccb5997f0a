"""Faust's consumer, but for what costs more than all it does with a record (docs/decisions/0112, 0147).

There is a setting for none of it: a fetch waits for enough records, what nothing holds up makes no tasks, and the
records of a partition that came together go through Faust as one message, their run.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from faust.transport.drivers import aiokafka
from mode import Service
from mode.services import WaitResults

#: A fetch waits for this much, or for its time. Faust leaves the client's default of one byte, with which every record
#: travels alone.
FETCH_BYTES_MIN = 256 * 1024
FETCH_WAIT_MILLISECONDS = 500
#: Most records of a run: the loop does nothing else while an agent takes one.
RUN_RECORDS_MAX = 500


class PromptService(Service):
    """A service whose `wait_first` first looks whether there is anything to wait for.

    Faust waits so for each record to be put into its queue, or for the flow to stop: four tasks are made, and three of
    them cancelled, for a step that nearly always ends at once.
    """

    async def wait_first(self, *coros: Any, timeout: Any = None) -> Any:  # noqa: ASYNC109 - mode's own signature
        """As mode has it; the first coroutine begins before there are tasks."""
        first, *others = coros
        if not asyncio.iscoroutine(first):
            return await super().wait_first(*coros, timeout=timeout)
        try:
            held_up_by = first.send(None)
        except StopIteration as end:
            _close(others)
            return WaitResults([first], [end.value], False)
        except BaseException:  # whatever it is, nobody waits for the others any more
            _close(others)
            raise
        return await super().wait_first(_rest(first, held_up_by), *others, timeout=timeout)


def _close(others: list[Any]) -> None:
    for other in others:
        if asyncio.iscoroutine(other):
            other.close()


async def _rest(begun: Coroutine[Any, Any, Any], held_up_by: Any) -> Any:
    return await _resumed(begun, held_up_by)


@types.coroutine
def _resumed(begun: Coroutine[Any, Any, Any], held_up_by: Any) -> Generator[Any, Any, Any]:
    """Go on with a coroutine that has begun, and waits for this."""
    try:
        while True:
            try:
                answer = yield held_up_by
            except BaseException as fault:  # noqa: BLE001 - a cancellation too is the coroutine's to meet
                held_up_by = begun.throw(fault)
            else:
                held_up_by = begun.send(answer)
    except StopIteration as end:
        return end.value


def runs_of(records: Sequence[Any]) -> list[Any]:
    """Records of one partition, in their order, as runs: each is the last of its records, with the values of all."""
    pieces = (records[first : first + RUN_RECORDS_MAX] for first in range(0, len(records), RUN_RECORDS_MAX))
    return [replace(run[-1], key=None, value=[record.value for record in run], headers=()) for run in pieces]


class _FetchingThread(aiokafka.AIOKafkaConsumerThread):
    """Has its fetches wait, and hands runs over."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_min_bytes = FETCH_BYTES_MIN  # noqa: SLF001 - read when the consumer starts
        consumer._fetch_max_wait_ms = FETCH_WAIT_MILLISECONDS  # noqa: SLF001 - likewise
        return consumer

    async def _fetch_records(self, *given: Any, **named: Any) -> Mapping[Any, list[Any]]:
        fetched = await super()._fetch_records(*given, **named)
        return {partition: runs_of(records) for partition, records in fetched.items()}


class RunConsumer(PromptService, aiokafka.Consumer):
    """Both, and commits behind runs.

    Faust takes the offsets between two messages for gaps, and searches them for the last that is done with all before
    it. Here it is the last that is done: an agent takes one run after another (CONCURRENCY), a partition's in order.
    """

    def _new_consumer_thread(self) -> Any:
        return _FetchingThread(self, loop=self.loop, beacon=self.beacon)

    async def _add_gap(self, tp: Any, offset_from: int, offset_to: int) -> None:
        """There is nothing to remember."""

    def _new_offset(self, tp: Any) -> int | None:
        """Where to commit a partition; None when nothing of it was done since it was asked last."""
        done = self._acked[tp]
        if not done:
            return None
        offset: int = max(done) + 1
        done.clear()
        self._acked_index[tp].clear()
        return offset


class Transport(aiokafka.Transport):
    """What an application is given as its transport."""

    Consumer = RunConsumer
