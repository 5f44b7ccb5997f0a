"""The stream runtime: consume, decide, produce, commit, on a thread of its own.

At least once with deterministic ids: a partition's position is committed only after everything decided from the records
before it is acknowledged, so what a crash repeats has the ids it had before, and every consumer drops it by id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol, TypeVar

from schemas.events import Event
from streams.codec import Codec
from streams.log import GroupReader, Publisher
from streams.monitor import Monitor

State = TypeVar("State")


class Processor(Protocol[State]):
    """A pure decider over one or more topics. One state per partition of each topic.

    For every record: `decide(state, event)` first, its events are published; then `evolve(state, event)`. When a
    partition is taken over, the records of the last `warm_up_seconds` before the committed position are only evolved.
    """

    @property
    def name(self) -> str:
        """Names the consumer group `stream-<name>`."""

    @property
    def topics(self) -> tuple[str, ...]:
        """Topics read."""

    @property
    def warm_up_seconds(self) -> int:
        """How much of the past makes the state whole; 0 for a stateless processor."""

    def initial(self, partition: int) -> State:
        """The state of a partition number before any record."""

    def evolve(self, state: State, event: Event) -> State:
        """The state after an event."""

    def decide(self, state: State, event: Event) -> Sequence[Event]:
        """The events that follow from an event; their ids are derived from it."""

    def tick(self, state: State, now_micros: int, caught_up: bool) -> Sequence[Event]:
        """The events that follow from time alone, asked about once a second per partition.

        `caught_up`: everything the partition held a moment ago, our own last events included, is in the state.
        """


class StreamRuntime:
    """Runs one processor over one reader and one publisher; the harness of tests runs it over MemoryLog."""

    def __init__(
        self, processor: Processor[State], reader: GroupReader, publisher: Publisher, codec: Codec, monitor: Monitor
    ) -> None:
        """Nothing happens before run."""
        raise NotImplementedError


async def run_stream(
    processor: Processor[State],
    *,
    bootstrap: str,
    codec: Codec,
    monitor: Monitor,
    stop: asyncio.Event,
) -> None:
    """Run a processor on Kafka until `stop`; raises IntegrityError when an offset it needs is gone."""
    raise NotImplementedError
