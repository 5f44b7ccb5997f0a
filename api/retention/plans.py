"""What a class of what is stored would give up, and why no more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from processors.control import ControlState, Cut
from schemas.errors import QuaestorError
from sinks.audit.retention import OnProgress


class RetentionStoppedError(QuaestorError):
    """Retention can't go on; what is done stays done, and applying again goes on from there."""


@dataclass(frozen=True)
class Drop:
    """One piece of storage that would go."""

    store: str
    what: str
    rows: int
    bytes: int

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        return {"store": self.store, "what": self.what, "rows": self.rows, "bytes": self.bytes}


@dataclass(frozen=True)
class Plan:
    """What retention would do to one class."""

    name: str
    #: None: it stays for ever.
    keep_days: int | None
    #: Where what stays begins, before and after, as `Cut` counts; equal when nothing new may go.
    begin: int
    end: int
    #: The same for people.
    kept_from: str
    drops: tuple[Drop, ...]
    #: Why no more goes, for people.
    why: str
    #: The legal hold that keeps it back; empty without one.
    hold_id: str = ""
    #: Whether an earlier cut is recorded and not carried out to its end.
    unfinished: bool = False

    @property
    def is_due(self) -> bool:
        """Whether a new cut would be made."""
        return self.end > self.begin

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        return {
            "class": self.name,
            "keep_days": self.keep_days,
            "from": self.begin,
            "to": self.end,
            "kept_from": self.kept_from,
            "rows": sum(drop.rows for drop in self.drops),
            "bytes": sum(drop.bytes for drop in self.drops),
            "drops": [drop.as_json() for drop in self.drops],
            "why_no_more": self.why,
            "hold": self.hold_id or None,
            "unfinished": self.unfinished,
        }


class RetainedClass(Protocol):
    """One class of what is stored. Every call raises StoreUnavailableError when a store is away."""

    @property
    def name(self) -> str:
        """As its policy is named."""

    async def plan(self, state: ControlState, now_micros: int) -> Plan:
        """What would go now; nothing changes. Raises IntegrityError."""

    async def check(self) -> None:
        """Refuse to cut what is not sound; raises RetentionStoppedError."""

    async def carry_out(self, state: ControlState, cut: Cut, control_end: int, on_progress: OnProgress) -> str:
        """Drop what a recorded cut gave up, or finish that; answers in words what is gone.

        `control_end` is the end of the control topic, behind the cut's own event. What a legal hold covers by now
        stays. Raises RetentionStoppedError.
        """

    async def close(self) -> None:
        """Let go."""
