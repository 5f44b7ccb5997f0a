"""Times as people type and read them; microseconds UTC within."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

from api.cli.terminal import fail
from api.times import micros_of

MICROS_PER_SECOND = 1_000_000
NANOS_PER_MICRO = 1_000
SECONDS_PER_UNIT = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def now_micros() -> int:
    """The moment it is."""
    return time.time_ns() // NANOS_PER_MICRO


def ago_or_time(text: str, now: int) -> int:
    """So long ago (2h, 30m, 7d), or ISO 8601, UTC unless it says otherwise; ends the command when it is neither."""
    ago = re.fullmatch(r"(\d+)([smhd])", text)
    if ago is not None:
        return now - int(ago[1]) * SECONDS_PER_UNIT[ago[2]] * MICROS_PER_SECOND
    return _iso(text, f"{text!r} is no time: say 2h, 30m, 7d or 2026-11-21T08:00")


def time_of(text: str, option: str) -> int:
    """ISO 8601, UTC unless it says otherwise; ends the command when it can't be read."""
    return _iso(text, f"{option}: {text!r} is no time: say 2026-11-21 or 2026-11-21T08:00+01:00", 2)


def _iso(text: str, otherwise: str, code: int = 1) -> int:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        fail(otherwise, code)
    return micros_of(found if found.tzinfo else found.replace(tzinfo=UTC))
