"""Applies retention to one class: what is recorded is finished, then a new cut is recorded, and carried out.

What is dropped follows from the cut in the log and nothing else: whoever comes after a crash goes on from there.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import Protocol

from api.retention.plans import Plan, RetainedClass
from processors.audit.checkpoint import Checkpoint
from processors.control import ControlState, Cut, Origin, Refusal, prune
from schemas.events import ControlEvent
from sinks.audit.retention import OnProgress


class Desk(Protocol):
    """A sitting at the control plane. Calls block and raise LogError."""

    @property
    def next_offset(self) -> int:
        """The offset after the last record of the control topic that is folded."""

    def refresh(self) -> ControlState:
        """The state as of now."""

    def change(
        self, decide: Callable[[ControlState, Origin], ControlEvent | Refusal], reason: str | None = None
    ) -> ControlEvent:
        """Decide on the newest state and record that; raises QuaestorError when it is refused."""


async def apply(
    desk: Desk,
    retained: RetainedClass,
    now_micros: int,
    checkpoint: Callable[[], Checkpoint],
    confirm: Callable[[Plan], bool],
    on_progress: OnProgress = lambda _done, _total: None,
    reason: str | None = None,
) -> tuple[Plan, list[str]]:
    """Finish what is recorded, and cut what is due if it is confirmed; what was planned, and in words what is gone.

    `checkpoint` gives the published one. Raises RetentionStoppedError, LogError, StoreUnavailableError, IntegrityError,
    and what the desk raises for a change that is refused; whatever is raised, applying again goes on from there.
    """
    gone = [await _finish(desk, retained, on_progress)]
    state = await asyncio.to_thread(desk.refresh)
    plan = await retained.plan(state, now_micros)
    if plan.is_due and confirm(plan):
        await retained.check()
        cut = _cut_of(plan, checkpoint())
        await asyncio.to_thread(
            desk.change, lambda newest, origin: prune(newest, plan.name, cut, state.holds, origin), reason
        )
        gone.append(await _finish(desk, retained, on_progress))
    return plan, [words for words in gone if words]


async def _finish(desk: Desk, retained: RetainedClass, on_progress: OnProgress) -> str | None:
    """Carry out what is recorded of a class, as far as that is not done."""
    state = await asyncio.to_thread(desk.refresh)
    retention = state.retention.get(retained.name)
    if retention is None or retention.cut is None:
        return None
    return await retained.carry_out(state, retention.cut, desk.next_offset, on_progress)


def _cut_of(plan: Plan, checkpoint: Checkpoint) -> Cut:
    return Cut(
        begin=plan.begin,
        end=plan.end,
        keep_days=plan.keep_days or 0,
        size=checkpoint.size,
        root=base64.b64encode(checkpoint.root).decode("ascii"),
    )
