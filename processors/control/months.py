"""How far retention may cut months of events."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from processors.control.kept import LegalHold

MICROS_PER_SECOND = 1_000_000
MICROS_PER_DAY = 86_400 * MICROS_PER_SECOND


def month_start(micros: int) -> int:
    """The first moment of a time's month (UTC), microseconds since the epoch."""
    first = datetime.fromtimestamp(micros // MICROS_PER_SECOND, UTC).replace(day=1, hour=0, minute=0, second=0)
    return int(first.timestamp()) * MICROS_PER_SECOND


def oldest_pin(holds: Iterable[LegalHold]) -> LegalHold | None:
    """The hold that goes furthest back; None without holds."""
    return min(holds, key=lambda hold: (hold.begins_micros, hold.hold_id), default=None)


def cut_of_months(keep_days: int, now_micros: int, holds: Iterable[LegalHold]) -> int:
    """Where months begin that must stay: whole months before it are older than the policy, and no hold reaches them."""
    pin = oldest_pin(holds)
    before = now_micros - keep_days * MICROS_PER_DAY
    return max(month_start(before if pin is None else min(before, pin.begins_micros)), 0)
