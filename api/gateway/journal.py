"""The journal: what must be recorded before something else may happen, in Kafka or, for what is running, in the spool.

New requests need Kafka, an empty spool and a folder that a spool can be written to (protocols.md, "Answer and record"):
`closed` says why they can't begin. What runs when the folder fails is recorded in Kafka alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import structlog

from api.gateway.ahead import Ahead, AheadFile
from api.gateway.errors import DRAINING, LOG_AWAY, STARTING, Problem, spool_unwritable
from api.gateway.spool import (
    LATE,
    REFUSED,
    Claim,
    Spool,
    SpoolUnwritableError,
    claims,
    keep_aside,
    make_folder,
    read_groups,
    try_folder,
)
from processors.budgets.horizon import comes_too_late
from schemas import limits
from schemas.errors import CodecError, LogUnavailableError, RecordRefusedError
from schemas.events import BudgetEvent, Event

log = structlog.get_logger(__name__)

DRAIN_SECONDS = 0.25
#: How often files of dead processes are looked for.
CLAIM_SECONDS = 5.0
#: How often a folder that could not be written is tried again.
TRIAL_SECONDS = 1.0
DRAIN_EVENTS_MAX = 500


class Recorder(Protocol):
    """As much of streams.recorder.Recorder as is used here."""

    async def record(self, events: Sequence[Event], traceparent: bytes | None = None) -> None:
        """Return when all are acknowledged; raises LogUnavailableError, RecordRefusedError, CodecError."""


class LogHealth(Protocol):
    """What the follower knows of Kafka."""

    #: Whether Kafka answered when last asked.
    reachable: bool
    #: time.monotonic() of the question that Kafka last answered.
    answered_at: float
    #: Whether the control topic has been read to its end once.
    caught_up: bool


class Journal:
    """Records, and keeps what can't be recorded."""

    def __init__(
        self,
        recorder: Recorder,
        spool: Spool,
        directory: Path,
        health: LogHealth,
        owner: str = "gateway",
        schemas_known: Callable[[], bool] = lambda: True,
        tombstone_seconds: int = limits.HOLD_TOMBSTONE_SECONDS,
        now_micros: Callable[[], int] = lambda: time.time_ns() // 1_000,
    ) -> None:
        """`directory` is the spool's; files of dead processes are claimed there.

        Nothing is encoded before `schemas_known`: asking the registry would block the loop. Folds remember holds for
        `tombstone_seconds`.
        """
        self._tombstone_seconds, self._now_micros = tombstone_seconds, now_micros
        self._recorder, self._spool, self._directory = recorder, spool, directory
        self._schemas_known = schemas_known
        self._ahead = Ahead(directory, owner)
        self._health, self._owner = health, owner
        self._failed_at = 0.0
        self._claims_drained = False
        #: Why the folder can't be written, in the system's words; None while it can.
        self.unwritable: str | None = None
        #: time.monotonic() of the folder's last trial; 0 before the first.
        self._tried_at = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Drain what is left of dead processes, then whatever comes; `closed` opens when the first is done."""
        self._task = asyncio.create_task(self._drain_always(), name="spool-drain")

    async def stop(self) -> None:
        """One last drain when Kafka is there; what is left is the next process's."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._spool.size_bytes and not self.away:
            await self._drain_own()
        self._ahead.close()
        self._spool.close()

    @property
    def away(self) -> bool:
        """Whether Kafka failed us and has not answered since."""
        health = self._health
        return not health.reachable or health.answered_at <= self._failed_at

    @property
    def spooled_bytes(self) -> int:
        """Bytes that wait for Kafka in this process."""
        return self._spool.size_bytes

    def closed(self) -> Problem | None:
        """Why no new request may begin; None when one may."""
        if not self._health.caught_up or not self._schemas_known():
            return STARTING
        if self.away:
            return LOG_AWAY
        if self.unwritable is not None:
            return spool_unwritable(self.unwritable)
        if not self._claims_drained or self._spool.size_bytes or self._ahead.has_left:
            return DRAINING
        return None

    async def begin(self, events: Sequence[Event], traceparent: bytes | None) -> None:
        """Record what must stand before a provider is called; raises LogUnavailableError."""
        try:
            await self._recorder.record(events, traceparent)
        except LogUnavailableError:
            self._failed_at = time.monotonic()
            raise

    async def conclude(self, events: Sequence[Event], traceparent: bytes | None) -> None:
        """Record how something ended: in Kafka, else in the spool. Raises SpoolFullError, and what no retry cures."""
        if self._comes_too_late(events):  # the machine slept
            self._keep_late(events)
            return
        if not self.away and not self._spool.size_bytes and self._schemas_known():
            file = self._write_ahead(events)
            try:
                await self._record_or_spool(events, traceparent)
            except CodecError:  # an event fits no record: the log has nothing of the group, and never will
                self._let_go(file, self._ahead.done)
                raise
            except BaseException:  # refused, cancelled, or no room: the log may have half of it, the file has it whole
                self._let_go(file, self._ahead.leave)
                raise
            self._let_go(file, self._ahead.done)
            return
        await self._append(events)

    def _write_ahead(self, events: Sequence[Event]) -> AheadFile | None:
        """The file that has the group; None where there can be none: a kill in the next moments may halve the group.

        Without Kafka too, the provider's call would be charged by the reaper's estimate.
        """
        try:
            return self._ahead.write(events)
        except SpoolUnwritableError as fault:
            self._note_unwritable(fault)
            return None

    def _let_go(self, file: AheadFile | None, how: Callable[[AheadFile], None]) -> None:
        if file is not None:
            how(file)

    async def _append(self, events: Sequence[Event]) -> None:
        try:
            await self._spool.append(events)
        except SpoolUnwritableError as fault:
            self._note_unwritable(fault)
            raise

    def _note_unwritable(self, fault: SpoolUnwritableError) -> None:
        if self.unwritable is None:
            log.error("spool_unwritable", directory=str(self._directory), error=fault.reason)
        self.unwritable = fault.reason

    async def _record_or_spool(self, events: Sequence[Event], traceparent: bytes | None) -> None:
        try:
            await self._recorder.record(events, traceparent)
        except LogUnavailableError:
            self._failed_at = time.monotonic()
            await self._append(events)

    def conclude_now(self, events: Sequence[Event]) -> None:
        """`conclude` for a process that is being stopped: blocks for one fsync. Raises SpoolFullError, CodecError."""
        self._spool.append_now(events)

    async def _drain_always(self) -> None:
        claimed_at = 0.0
        while True:
            try:
                await self._try_folder()
                if not self.away and self._schemas_known():
                    if time.monotonic() - claimed_at >= CLAIM_SECONDS:
                        await self._drain_claims()
                        claimed_at = time.monotonic()
                    await self._drain_left()
                    if self._spool.size_bytes:
                        await self._drain_own()
            except LogUnavailableError:
                self._failed_at = time.monotonic()
            except SpoolUnwritableError:
                pass  # noted where a group was to be put aside; it is tried again
            except OSError as error:
                log.error("spool_unreadable", error=error.strerror)  # noqa: TRY400 - the trace says no more
            await asyncio.sleep(DRAIN_SECONDS)

    async def _try_folder(self) -> None:
        """At the start, and while the folder can't be written: whether it can."""
        now = time.monotonic()
        if (self._tried_at and self.unwritable is None) or now - self._tried_at < TRIAL_SECONDS:
            return
        try:
            await asyncio.get_running_loop().run_in_executor(None, try_folder, self._directory, self._owner)
        except SpoolUnwritableError as fault:
            self._note_unwritable(fault)
        else:
            if self.unwritable is not None:
                log.info("spool_writable", directory=str(self._directory))
            self.unwritable = None
        self._tried_at = now

    async def _drain_claims(self) -> None:
        found = await asyncio.get_running_loop().run_in_executor(None, claims, self._directory)
        remaining = list(found)
        try:
            for claim in found:
                events = await self._drain(claim.groups())
                claim.discard()
                remaining.remove(claim)
                log.info("spool_claimed", file=claim.path.name, events=events)
        finally:
            _release(remaining)
        self._claims_drained = True

    async def _drain_left(self) -> None:
        await self._drain_files(self._ahead.left(), self._ahead.drained, "left_groups_drained")

    async def _drain_own(self) -> None:
        await self._drain_files(await self._spool.rotate(), self._spool.drained, "spool_drained")

    async def _drain_files(self, paths: Sequence[Path], drained: Callable[[Path], None], told: str) -> None:
        for path in paths:
            events = await self._drain(read_groups(path))
            drained(path)
            log.info(told, file=path.name, events=events)

    async def _drain(self, groups: Iterator[list[Event]]) -> int:
        """Record every group in order, many at a time; ids make a repeated one harmless. What is too late stays out."""
        batch: list[list[Event]] = []
        total = 0
        for group in groups:
            if self._comes_too_late(group):
                self._keep_late(group)
                continue
            batch.append(group)
            if sum(map(len, batch)) >= DRAIN_EVENTS_MAX:
                total += await self._drain_batch(batch)
                batch = []
        return total + (await self._drain_batch(batch) if batch else 0)

    def _comes_too_late(self, group: Sequence[Event]) -> bool:
        """Whether it moves a hold that some fold may have forgotten: some would count it, and others would not."""
        now = self._now_micros()
        return any(
            comes_too_late(event.hold_id, now, self._tombstone_seconds)
            for event in group
            if isinstance(event, BudgetEvent)
        )

    def _keep_late(self, group: Sequence[Event]) -> None:
        """Put it aside: the hold was charged by estimate when its lease was over, and that stands for now."""
        requests = sorted({event.request_id for event in group if isinstance(event, BudgetEvent) and event.request_id})
        log.error("spool_too_late", file=f"{self._owner}{LATE}", events=len(group), requests=requests)
        try:
            make_folder(self._directory)
            keep_aside(self._directory, self._owner, group, LATE)
        except OSError as error:
            fault = SpoolUnwritableError(error)
            self._note_unwritable(fault)
            raise fault from error

    async def _drain_batch(self, groups: list[list[Event]]) -> int:
        events = [event for group in groups for event in group]
        try:
            await self._recorder.record(events)
        except (RecordRefusedError, CodecError) as error:
            log.error("spool_refused", events=len(events), error=str(error))  # noqa: TRY400 - the trace says no more
            for group in groups:
                await self._drain_group(group)
        return len(events)

    async def _drain_group(self, group: list[Event]) -> None:
        """One group: whole or not at all, unless Kafka itself refuses a part of it when it may have the rest."""
        try:
            await self._recorder.record(group)
        except CodecError:
            keep_aside(self._directory, self._owner, group, REFUSED)
        except RecordRefusedError:
            await self._drain_singly(group)

    async def _drain_singly(self, events: list[Event]) -> None:
        for event in events:
            try:
                await self._recorder.record([event])
            except RecordRefusedError:
                keep_aside(self._directory, self._owner, [event], REFUSED)


def _release(remaining: list[Claim]) -> None:
    for claim in remaining:
        claim.release()
