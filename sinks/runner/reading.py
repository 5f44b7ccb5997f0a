"""The log's side of the runner: consuming, decoding, moving the reader, and telling how far we are."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Literal

from schemas import limits
from schemas.errors import LogUnavailableError
from schemas.topics import REQUESTS
from sinks.runner.ages import Ages
from sinks.runner.assembler import Assembler
from sinks.runner.backoff import Backoff
from sinks.runner.priority import Courtesy
from sinks.runner.seam import BatchPolicy, Progress, Sink
from sinks.runner.tending import Tending
from streams.log import GroupReader, Partition

#: How long one look at the log's metadata may take, seconds.
METADATA_SECONDS = 10.0
#: How often it is told how far we are, at least, seconds.
TELL_SECONDS = 1.0
#: Between two looks for a log that is away, and between two polls while fetching is paused, seconds.
LOG_RETRY_SECONDS = 0.5
HOLD_POLL_SECONDS = 0.05
#: What a sink may wait for, beside a store that does not take a batch.
Away = Literal["log", "registry", "store"]


class Reading:
    """Used by the consuming thread."""

    def __init__(
        self,
        sink: Sink,
        reader: GroupReader,
        assembler: Assembler,
        tending: Tending,
        progress: Progress,
        random: Random,
        courtesy: Courtesy | None = None,
    ) -> None:
        """Nothing is owned."""
        self._sink = sink
        self._reader = reader
        self._assembler = assembler
        self._tending = tending
        self._progress = progress
        self._random = random
        self._courtesy = courtesy
        self._stopping = threading.Event()
        #: Partitions assigned since the last step.
        self._given: set[Partition] = set()
        #: Where the reader must go, once it can.
        self._seeks: dict[Partition, int] = {}
        #: Owned partitions and where the store stands.
        self._applied: dict[Partition, int] = {}
        #: Owned partitions that stopped because two things disagree, and where the store stands.
        self._stuck: dict[Partition, int] = {}
        #: What is away now.
        self._away: set[Away] = set()
        self._ages = Ages()
        self._told_at = 0.0

    def _take(self, timeout_seconds: float) -> None:
        """Consume once."""
        try:
            runs = self._reader.consume_runs(limits.CONSUME_BATCH_RECORDS, timeout_seconds)
        except LogUnavailableError as error:
            self._trouble("log", str(error))
            self._stopping.wait(LOG_RETRY_SECONDS)
            return
        self._assembler.enqueue(runs)
        self._ages.note(runs)
        if runs or not self._applied:
            # A log that is away may give out nothing without a word: who owns something asks it for its ends.
            self._fine("log")

    def _screen(self) -> None:
        """Decode the open batch; a schema that can't be asked for is waited for, never a reason to quarantine."""
        backoff = Backoff(self._random)
        while self._assembler.unscreened and not self._stopping.is_set():
            try:
                self._assembler.screen(now_micros())
            except LogUnavailableError as error:
                self._trouble("registry", str(error))
                again_at = time.monotonic() + backoff.next_seconds()
                self._hold(lambda at=again_at: time.monotonic() >= at)  # type: ignore[misc]  # a default binds the value
        self._fine("registry")

    def _move(self) -> None:
        """Send the reader where partitions must be read from; one that can't be moved yet is moved in a later step."""
        if self._given:
            self._reader.resume([partition for partition in self._given if partition in self._applied])
            self._reader.pause([partition for partition in self._given if partition in self._stuck])
            self._given.clear()
        if self._tending.silent:
            self._reader.pause(list(self._tending.silent))
            self._tending.silent.clear()
        self._seeks.update(self._assembler.rereads)
        self._assembler.rereads.clear()
        for partition in list(self._seeks):
            if partition not in self._applied:
                del self._seeks[partition]
        if self._seeks:
            try:
                self._reader.seek(self._seeks)
                self._reader.resume(list(self._seeks))
            except LogUnavailableError as error:
                self._trouble("log", str(error))
            else:
                self._seeks.clear()

    def _at_end(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        """Where the reader keeps partitions of which nothing is read, since they can't be claimed: nothing is there.

        Their store does not say where it stands. The group's last hint does, well enough to tell how far behind it is.
        Raises LogUnavailableError.
        """
        if not partitions:
            return {}
        begins = self._reader.begin_offsets(partitions, METADATA_SECONDS)
        self._stuck |= begins | self._reader.committed(partitions, METADATA_SECONDS)
        return self._reader.end_offsets(partitions, METADATA_SECONDS)

    def _hold(self, until: Callable[[], bool]) -> None:
        """Keep our place in the group without fetching until a condition holds or we stop."""
        paused = list(self._assembler.owned)
        self._reader.pause(paused)
        try:
            while not until() and not self._stopping.is_set():
                self._take(HOLD_POLL_SECONDS)
                self._tell_in_time()
        finally:
            self._reader.resume([partition for partition in paused if partition in self._assembler.owned])

    def _trouble(self, what: Away, detail: str) -> None:
        """Something is away, and is asked again."""
        self._away.add(what)
        self._progress.retry()
        self._progress.waiting(detail)

    def _fine(self, what: Away) -> None:
        """It answered; what else is away still is."""
        if what in self._away:
            self._away.discard(what)
            if not self._away:
                self._progress.running()

    def _tell_in_time(self) -> None:
        """Say how far we are also while a store is away or a backlog is worked off, and no beat comes."""
        if time.monotonic() >= self._told_at + TELL_SECONDS:
            self._tell()

    def _tell(self) -> Mapping[Partition, int] | None:
        """Say how far we are; answers the end offsets of what is owned, or None while the log is away."""
        self._told_at = time.monotonic()
        stands = self._applied | self._tending.still | self._stuck
        try:
            ends = self._reader.end_offsets(list(stands), METADATA_SECONDS) if stands else {}
        except LogUnavailableError as error:
            self._trouble("log", str(error))
            return None
        if stands:
            self._fine("log")
        lag_events = {each: max(0, ends[each] - cursor) for each, cursor in stands.items()}
        waited_seconds = self._waited_seconds(stands, ends)
        self._progress.lag(lag_events, waited_seconds)
        self._give_way(ends)
        return ends

    def _waited_seconds(self, stands: Mapping[Partition, int], ends: Mapping[Partition, int]) -> float:
        oldest_millis = self._ages.oldest_millis(stands, ends)
        return 0.0 if oldest_millis is None else max(0.0, time.time() - oldest_millis / 1_000)

    def _batch_policy(self) -> BatchPolicy:
        """How batches are cut now."""
        return self._sink.policy if self._courtesy is None else self._courtesy.policy(self._sink.policy)

    def _give_way(self, ends: Mapping[Partition, int]) -> None:
        """Let others go first while we are far behind; what stands still for other reasons does not count."""
        if self._courtesy is not None:
            lag_events = sum(max(0, ends[each] - cursor) for each, cursor in self._applied.items())
            calls = {each: ends[each] for each in self._applied if each.topic == REQUESTS.name}
            self._courtesy.look(time.monotonic(), lag_events, self._waited_seconds(self._applied, ends), calls)


def now_micros() -> int:
    """The wall clock."""
    return time.time_ns() // 1_000
