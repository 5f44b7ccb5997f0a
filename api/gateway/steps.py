"""Steps: the hold of a stream without a bound, which grows while the answer comes.

    extend the hold -> record EXTENDED -> confirm it -> the text that it covers may be forwarded

The next step is asked for in the background while half of the present one is left. When the hold is used up the stream
waits: for the step under way, then for another try; while Redis or Kafka is away for STREAM_EXTEND_SECONDS_MAX.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, NamedTuple

import structlog

from api.gateway.attempt import Attempt
from api.gateway.errors import LOG_AWAY, budget_exceeded
from api.gateway.parts import Parts
from processors.estimation import OutputHold
from schemas.errors import LogUnavailableError
from schemas.events import BudgetEvent, Event
from schemas.limits import STREAM_EXTEND_SECONDS_MAX
from sinks.redis.holds import Closed, Confirmation, Placed, Refused

log = structlog.get_logger(__name__)

AGAIN_SECONDS_MIN = 0.02
AGAIN_SECONDS_MAX = 0.5


class Stop(NamedTuple):
    """Why a stream gets no further step."""

    #: For programs: an error code, or the reason why budgets can't be checked.
    reason: str
    #: Whether it may pass by itself within seconds.
    passes: bool = False
    #: What a refusal says of its limit.
    details: dict[str, Any] | None = None
    #: REFUSED, to be recorded when the stream ends for it.
    event: BudgetEvent | None = None


class Steps:
    """The growing hold of one attempt."""

    def __init__(self, parts: Parts, attempt: Attempt, traceparent: bytes | None) -> None:
        """The hold stands and covers `attempt.output`."""
        self._parts, self._attempt, self._traceparent = parts, attempt, traceparent
        self._task: asyncio.Task[Stop | None] | None = None
        #: Set when an extension is in the log that can't be counted on: there is no further one.
        self._over: Stop | None = None
        #: An EXTENDED of which nobody knows whether the log has it, or the REFUSED that the stream ends for.
        self._events: list[Event] = []
        self._enough_bytes = 0
        self._covered_bytes: int | None = 0
        self._cover(attempt.output)

    def covers(self, text_bytes: int, read_bytes: int) -> bool:
        """Whether so much text is held for. With little left it asks, once, for a step that covers what was read."""
        if self._covered_bytes is None:
            return True
        if text_bytes > self._enough_bytes and self._task is None:
            self._task = asyncio.create_task(self._grow(read_bytes), name="hold-step")
        return text_bytes <= self._covered_bytes

    async def reach(self, text_bytes: int) -> Stop | None:
        """Wait until so much text is held for; says why it can't be."""
        wait_seconds, until = AGAIN_SECONDS_MIN, time.monotonic() + STREAM_EXTEND_SECONDS_MAX
        if self._task is not None:
            await self._task
        while not self._is_covered(text_bytes):
            stop = await self._grow(text_bytes)
            if stop is None:
                continue
            if not stop.passes or time.monotonic() >= until:
                return self._stopped(stop)
            await asyncio.sleep(wait_seconds)
            wait_seconds = min(2 * wait_seconds, AGAIN_SECONDS_MAX)
        return None

    async def end(self) -> list[Event]:
        """The stream is over: stop asking. Answers the events that go with its end."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            for fault in await asyncio.gather(task, return_exceptions=True):
                if isinstance(fault, Exception):
                    log.error("step_failed", hold_id=self._attempt.hold.hold_id, exc_info=fault)
        return self._events

    def _is_covered(self, text_bytes: int) -> bool:
        return self._covered_bytes is None or text_bytes <= self._covered_bytes

    def _cover(self, output: OutputHold) -> None:
        self._attempt.output = output
        self._covered_bytes = output.text_bytes
        self._enough_bytes = (output.text_bytes or 0) - output.step_tokens // 2
        self._task = None

    def _stopped(self, stop: Stop) -> Stop:
        self._parts.meters.extension("stopped")
        if stop.event is not None:
            self._events.append(stop.event)
        return stop

    async def _grow(self, text_bytes: int) -> Stop | None:
        """One try to cover so much text and not less than a step more; None when it is."""
        if self._over is not None:
            return self._over
        attempt, parts = self._attempt, self._parts
        output = attempt.output.covering(text_bytes)
        extended = attempt.extended(output, parts.now())
        if attempt.placed is not None and extended.legs == attempt.placed.legs:  # what it costs is held already
            self._cover(output)
            return None
        if parts.journal.away:
            return self._counted("closed", Stop(LOG_AWAY.code, passes=True))
        ask = attempt.ask_more(extended, parts.control.state, parts.now())
        answer = await parts.holds.extend(ask)
        if isinstance(answer, Placed):
            return await self._record(extended, output, answer.generation)
        if isinstance(answer, Refused):
            return self._counted("refused", self._refusal(extended, answer))
        if isinstance(answer, Closed):
            return self._counted("closed", Stop(answer.reason.value, passes=True))
        log.error("hold_not_extended", hold_id=ask.hold_id, answer=str(answer))
        return self._lost("hold_lost")

    def _refusal(self, extended: BudgetEvent, refused: Refused) -> Stop:
        attempt, now = self._attempt, self._parts.now()
        held_to = attempt.held_to(refused.limit_id)
        problem = budget_exceeded(refused, attempt.more(extended, refused.limit_id), now, held_to)
        cause = attempt.placed.event_id if attempt.placed is not None else None
        event = attempt.refused(now, cause, refused, extended)
        return Stop(problem.code, details=problem.extra, event=event)

    async def _record(self, extended: BudgetEvent, output: OutputHold, generation: str) -> Stop | None:
        """From here the log may have it, so it is what the hold stands by, and is not asked for again."""
        attempt, parts = self._attempt, self._parts
        attempt.placed, self._events = extended, [extended]
        self._over = Stop("hold_lost")
        try:
            await parts.journal.begin([extended], self._traceparent)
        except LogUnavailableError:
            return self._lost(LOG_AWAY.code)
        self._events = []
        confirmation = await self._confirm(generation)
        if confirmation is not Confirmation.CONFIRMED:
            return self._lost(f"hold_{confirmation.value.lower()}")
        if parts.now() >= (extended.lease_until or 0):  # the reaper may have decided without it
            return self._lost("hold_lease_over")
        self._over = None
        self._cover(output)
        parts.meters.extension("granted")
        return None

    async def _confirm(self, generation: str) -> Confirmation:
        """As the store says; while it is away it is asked again, which changes nothing."""
        ask, until = self._attempt.ask, time.monotonic() + STREAM_EXTEND_SECONDS_MAX
        while True:
            confirmation = await self._parts.holds.confirm(ask.tenant_id, ask.hold_id, generation)
            if confirmation is not Confirmation.UNREACHABLE or time.monotonic() >= until:
                return confirmation
            await asyncio.sleep(AGAIN_SECONDS_MAX)

    def _lost(self, reason: str) -> Stop:
        self._over = Stop(reason)
        return self._counted("lost", self._over)

    def _counted(self, outcome: str, stop: Stop) -> Stop:
        self._parts.meters.extension(outcome)
        return stop
