"""Times as they are told: microseconds UTC within, ISO 8601 outside."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

MICROS_PER_SECOND = 1_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def time_text(micros: int) -> str:
    """ISO 8601 to the second."""
    return datetime.fromtimestamp(micros // MICROS_PER_SECOND, UTC).isoformat(timespec="seconds")


def micros_of(moment: datetime) -> int:
    """Microseconds since the epoch of a moment in any time zone."""
    return (moment - EPOCH) // MICROSECOND
