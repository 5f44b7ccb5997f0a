"""Forecaster: notes what limits charged hour by hour, and tells when a window will not last or an hour is unusual."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from api.alerts.notes import HourNotes
from processors.budgets import Counter
from processors.control import Limit
from processors.guardrails import AlertBook
from processors.guardrails.forecast import anomaly_alert, burn_rate_alert, outlier, projection
from processors.guardrails.hours import MICROS_PER_HOUR, Standing, charged_by_hour, counter_at, hour_of, is_projected
from schemas.events import Alert
from sinks.redis.posted import SumsReader

#: An hour is noted within so much after its end, or not at all: what was charged since would count for it.
NOTED_MICROS_MAX = 120_000_000


class Forecaster:
    """Asked once a minute. One loop owns it."""

    def __init__(self, sums: SumsReader, notes: HourNotes) -> None:
        """Knows nothing that the notes do not."""
        self._sums, self._notes = sums, notes

    def forget(self) -> None:
        """Somebody else may have noted hours meanwhile."""
        self._notes.forget()

    async def look(self, limits: Iterable[Limit], book: AlertBook, now_micros: int) -> list[Alert]:
        """The alerts that are to be told; the same again until the book knows them. Raises StoreUnavailableError."""
        watched = {limit.limit_id: limit for limit in limits if is_projected(limit, now_micros)}
        self._notes.begin(watched)
        found: list[Alert] = []
        for limit in watched.values():
            found += await self._look_at(limit, now_micros)
        await self._notes.keep(watched.values())
        return [alert for alert in found if not book.knows(alert.event_id)]

    async def _look_at(self, limit: Limit, now_micros: int) -> list[Alert]:
        series = await self._notes.read(limit, now_micros)
        hour_began = now_micros - now_micros % MICROS_PER_HOUR
        ended, present = counter_at(limit, hour_began - 1), counter_at(limit, now_micros)
        sums = await self._sums.posted(limit.tenant_id, [ended, present])
        if not sums.is_open:
            return []
        hour = hour_of(now_micros) - 1
        is_as_it_ended = ended != present or now_micros - hour_began <= NOTED_MICROS_MAX
        if is_as_it_ended and hour not in series.standings:
            standing = Standing(ended.window_start, sums.posted_nano.get(ended, 0))
            await self._notes.note(limit, series, hour, standing)
        posted_nano = sums.posted_nano.get(present, 0)
        return list(_alerts(limit, present, posted_nano, charged_by_hour(series.standings), now_micros))


def _alerts(
    limit: Limit, counter: Counter, posted_nano: int, charged: Mapping[int, int], now_micros: int
) -> Iterator[Alert]:
    projected = projection(charged, posted_nano, counter.window_end, now_micros)
    burning = projected and burn_rate_alert(limit, counter, posted_nano, projected, now_micros)
    if burning:
        yield burning
    unusual = outlier(charged, limit, now_micros)
    if unusual:
        yield anomaly_alert(limit, unusual, now_micros)
