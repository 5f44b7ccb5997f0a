"""Months of events: which partitions a batch needs, and which times no partition is made for."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime

MICROS_PER_SECOND = 1_000_000
MICROS_PER_DAY = 86_400 * MICROS_PER_SECOND
#: The bounds of quaestor.ensure_month, microseconds since the epoch.
EARLIEST_MICROS = int(datetime(2020, 1, 1, tzinfo=UTC).timestamp()) * MICROS_PER_SECOND
LATEST_MICROS = int(datetime(2100, 1, 1, tzinfo=UTC).timestamp()) * MICROS_PER_SECOND


def has_month(occurred_at: int) -> bool:
    """Whether a partition may be made for this time."""
    return EARLIEST_MICROS <= occurred_at < LATEST_MICROS


def months_of(times: Iterable[int]) -> set[date]:
    """First days of the months (UTC) of these times, microseconds since the epoch."""
    days = {time // MICROS_PER_DAY for time in times}
    return {datetime.fromtimestamp(day * 86_400, UTC).date().replace(day=1) for day in days}
