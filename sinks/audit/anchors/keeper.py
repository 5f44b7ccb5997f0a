"""Gives every anchor the newest published checkpoint, each in its own time and in nobody's way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import structlog

from schemas.errors import IntegrityError, QuaestorError, StoreUnavailableError
from schemas.limits import ANCHOR_LOOK_SECONDS, ANCHOR_RETRY_SECONDS, ANCHOR_RETRY_SECONDS_MAX
from sinks.audit.anchors.seam import Anchor, Anchored
from sinks.audit.anchors.state import AnchorState, AnchorStates
from sinks.audit.files import LogFiles

log = structlog.get_logger(__name__)
MICROS_PER_SECOND = 1_000_000


@dataclass(frozen=True)
class AnchorPlan:
    """An anchor and how it is served."""

    anchor: Anchor
    #: Between two checkpoints that it takes.
    period_seconds: float
    #: Of one try.
    timeout_seconds: float


class AnchorKeeper:
    """A task per anchor. What an anchor does wrong is told in its state and in this process's log, never raised."""

    def __init__(
        self, plans: Sequence[AnchorPlan], files: LogFiles, states: AnchorStates, clock_micros: Callable[[], int]
    ) -> None:
        """`files` are the log's own; the anchors are closed with the run."""
        self._plans = plans
        self._files = files
        self._states = states
        self._clock_micros = clock_micros

    async def run(self) -> None:
        """Serve them until cancelled."""
        try:
            await asyncio.gather(*map(self._serve, self._plans))
        finally:
            for plan in self._plans:
                await plan.anchor.close()

    async def _serve(self, plan: AnchorPlan) -> None:
        while True:
            try:
                pause = await self.step(plan)
            except Exception as fault:  # of one anchor's client, or of this disk: nothing else may fail for it
                log.exception("audit_anchor_failed", anchor=plan.anchor.name, reason=str(fault))
                pause = ANCHOR_RETRY_SECONDS_MAX
            await asyncio.sleep(pause)

    async def step(self, plan: AnchorPlan) -> float:
        """Give it the newest checkpoint if it is time; returns the seconds until it should be tried again."""
        state = await asyncio.to_thread(self._states.load, plan.anchor.name)
        due = state.at_micros + int(plan.period_seconds * MICROS_PER_SECOND)
        now = self._clock_micros()
        if state.at_micros <= now < due and not state.failures:
            return min((due - now) / MICROS_PER_SECOND, plan.period_seconds)
        note = await asyncio.to_thread(self._files.checkpoint)
        if note is None or Anchored(note, now).checkpoint.size == state.size:
            return min(ANCHOR_LOOK_SECONDS, plan.period_seconds)
        state = await self._try(plan, note, state, now)
        await asyncio.to_thread(self._states.save, state)
        return retry_seconds(state.failures) if state.failures else plan.period_seconds

    async def _try(self, plan: AnchorPlan, note: str, state: AnchorState, now: int) -> AnchorState:
        try:
            async with asyncio.timeout(plan.timeout_seconds):
                await plan.anchor.put(note, now)
        except TimeoutError:
            return _failed(state, now, f"no answer within {plan.timeout_seconds:g} seconds")
        except StoreUnavailableError as error:
            return _failed(state, now, str(error))
        except IntegrityError as error:
            log.error("audit_anchor_contradicts", anchor=plan.anchor.name, reason=str(error))  # noqa: TRY400 - told whole
            return _failed(state, now, str(error))
        except QuaestorError as error:
            return _failed(state, now, str(error))
        return AnchorState(state.name, Anchored(note, now).checkpoint.size, now)


def _failed(state: AnchorState, now_micros: int, reason: str) -> AnchorState:
    log.warning("audit_anchor_retried", anchor=state.name, failures=state.failures + 1, reason=reason)
    return replace(state, failures=state.failures + 1, error=reason, error_at_micros=now_micros)


def retry_seconds(failures: int) -> float:
    """The pause after so many failures in a row: 1 s, 2 s, 4 s … up to five minutes."""
    return float(min(ANCHOR_RETRY_SECONDS << min(failures - 1, 32), ANCHOR_RETRY_SECONDS_MAX))
