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


async def finish(desk: Desk, retained: RetainedClass, on_progress: OnProgress) -> str | None:
    """Carry out what is recorded of a class, as far as that is not done; None without a cut.

    Raises RetentionStoppedError, LogError, StoreUnavailableError.
    """
    state = await asyncio.to_thread(desk.refresh)
    retention = state.retention.get(retained.name)
    if retention is None or retention.cut is None:
        return None
    return await retained.carry_out(state, retention.cut, desk.next_offset, on_progress)


async def cut(
    desk: Desk, retained: RetainedClass, plan: Plan, planned: ControlState, checkpoint: Checkpoint, reason: str | None
) -> None:
    """Record a planned cut; refused when policy or holds changed since. Nothing is dropped yet; raises as `finish`."""
    await retained.check()
    made = Cut(
        begin=plan.begin,
        end=plan.end,
        keep_days=plan.keep_days or 0,
        size=checkpoint.size,
        root=base64.b64encode(checkpoint.root).decode("ascii"),
    )
    await asyncio.to_thread(
        desk.change, lambda state, origin: prune(state, plan.name, made, planned.holds, origin), reason
    )
