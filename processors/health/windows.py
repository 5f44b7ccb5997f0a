"""Provider health over windows of 10 s by the time an attempt ended: open windows, and the events of closed ones.

A window's id is a function of what is in it, so that the same window made twice is the same event, and one that lost
what came before a restart is another event rather than the same id with other bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from processors.health.histogram import Histogram
from schemas.events import AttemptOutcome, HealthState, ProviderAttempt, ProviderHealth
from schemas.ids import derived_id, is_uuid
from schemas.topics import SYSTEM_TENANT

HEALTH = "health"
MICROS_PER_SECOND = 1_000_000
WINDOW_MICROS = 10 * MICROS_PER_SECOND
#: How long after its end a window waits for attempts that are still on their way.
GRACE_MICROS = 2 * MICROS_PER_SECOND
#: More pairs of provider and model than these at once are not watched.
WINDOWS_OPEN_MAX = 10_000
NO_REGION = "-"
DEGRADED_PERCENT, DOWN_PERCENT = 5, 50
#: Outcomes that are the provider's fault.
ERRORS = frozenset(
    {
        AttemptOutcome.PROVIDER_ERROR,
        AttemptOutcome.RATE_LIMITED,
        AttemptOutcome.TIMEOUT,
        AttemptOutcome.CONNECTION_ERROR,
        AttemptOutcome.INVALID_RESPONSE,
        AttemptOutcome.TRUNCATED,
    }
)
#: Outcomes that say nothing about the provider.
SILENT = frozenset({AttemptOutcome.ABANDONED, AttemptOutcome.UNKNOWN})


class WindowKey(NamedTuple):
    """One window of one model of one provider."""

    provider_id: str
    model: str
    region: str
    window_start: int


@dataclass(slots=True)
class _Window:
    errors: int = 0
    timeouts: int = 0
    #: Exclusive or of the ids of what is in it.
    contents: int = 0
    seen: set[str] = field(default_factory=set)
    durations: Histogram = field(default_factory=Histogram)
    first_chunks: Histogram = field(default_factory=Histogram)


class HealthWindows:
    """The open windows. Time comes in; nothing here reads a clock."""

    def __init__(self) -> None:
        """None are open."""
        self._open: dict[WindowKey, _Window] = {}
        #: Attempts whose window had closed, for which there was no room, or that could not be read or told apart.
        self.missed = 0

    def observe(self, attempt: ProviderAttempt, now_micros: int) -> None:
        """Count an attempt into its window; one seen already in it, or too late for it, changes nothing."""
        if attempt.outcome in SILENT:
            return
        if not is_uuid(attempt.event_id):
            self.missed += 1
            return
        start = attempt.occurred_at - attempt.occurred_at % WINDOW_MICROS
        key = WindowKey(attempt.provider_id, attempt.model, NO_REGION, start)
        window = self._open.get(key)
        if window is None:
            if _due(key, now_micros) or len(self._open) >= WINDOWS_OPEN_MAX:
                self.missed += 1
                return
            window = self._open[key] = _Window()
        if attempt.event_id not in window.seen:
            _count(window, attempt)

    def close(self, now_micros: int) -> list[ProviderHealth]:
        """The health of every window that is over, oldest first; each is given once."""
        over = sorted((key for key in self._open if _due(key, now_micros)), key=lambda key: key.window_start)
        return [_health(key, self._open.pop(key)) for key in over]


def _due(key: WindowKey, now_micros: int) -> bool:
    return key.window_start + WINDOW_MICROS + GRACE_MICROS <= now_micros


def _count(window: _Window, attempt: ProviderAttempt) -> None:
    window.seen.add(attempt.event_id)
    window.contents ^= UUID(attempt.event_id).int
    window.errors += attempt.outcome in ERRORS
    window.timeouts += attempt.outcome is AttemptOutcome.TIMEOUT
    window.durations.add(attempt.duration_micros)
    if attempt.first_chunk_micros is not None:
        window.first_chunks.add(attempt.first_chunk_micros)


def _health(key: WindowKey, window: _Window) -> ProviderHealth:
    attempts = window.durations.count
    name = f"{key.provider_id}/{key.model}/{key.region}/{key.window_start}"
    return ProviderHealth(
        event_id=derived_id(HEALTH, f"{window.contents:032x}", "WINDOW", name),
        occurred_at=key.window_start + WINDOW_MICROS,
        tenant_id=SYSTEM_TENANT,
        actor=HEALTH,
        provider_id=key.provider_id,
        model=key.model,
        region=key.region,
        window_start=key.window_start,
        window_end=key.window_start + WINDOW_MICROS,
        attempts=attempts,
        errors=window.errors,
        timeouts=window.timeouts,
        latency_p50_micros=window.durations.percentile(50),
        latency_p95_micros=window.durations.percentile(95),
        first_chunk_p50_micros=window.first_chunks.percentile(50) if window.first_chunks.count else None,
        state=state_of(attempts, window.errors),
    )


def state_of(attempts: int, errors: int) -> HealthState:
    """DEGRADED from 5 % errors, DOWN from 50 %."""
    percent = 100 * errors
    if attempts and percent >= DOWN_PERCENT * attempts:
        return HealthState.DOWN
    if attempts and percent >= DEGRADED_PERCENT * attempts:
        return HealthState.DEGRADED
    return HealthState.HEALTHY
