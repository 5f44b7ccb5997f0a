"""What a run of the fault suite says: one row per fault."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from dataclasses import asdict, dataclass, field
from typing import Any

from schemas.errors import QuaestorError
from tests.faults.verdict import Verdict
from tests.faults.world import StuckError


@dataclass
class Row:
    """One fault."""

    fault: str
    rounds: int = 0
    lost: int = 0
    doubled: int = 0
    seconds: float = 0.0
    first_difference: str = ""
    #: What else was counted.
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing was lost, doubled or stuck."""
        return not (self.lost or self.doubled or self.first_difference)

    def take(self, verdict: Verdict) -> None:
        """Add what a verification found."""
        self.lost += verdict.lost
        self.doubled += verdict.doubled
        self.first_difference = self.first_difference or verdict.first_difference

    def worded(self) -> str:
        """For a line of its own."""
        what = f"{self.fault}: {self.rounds} rounds, {self.lost} lost, {self.doubled} doubled, {self.seconds:.0f} s"
        what += "".join(f"; {name} {count}" for name, count in self.counts.items())
        return what if self.ok else f"{what}; {self.first_difference}"

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        return {**asdict(self), "seconds": round(self.seconds, 1), "ok": self.ok}


async def measured(row: Row, rounds: int, work: Awaitable[None]) -> None:
    """Await some rounds of a fault; what gets stuck is a difference too."""
    started = time.monotonic()
    try:
        await work
        row.rounds += rounds
    except (StuckError, TimeoutError, QuaestorError) as error:
        row.first_difference = row.first_difference or f"{type(error).__name__}: {error}"
    finally:
        row.seconds += time.monotonic() - started
