"""Notes of how limits stood at the end of each hour: Redis serves them, Postgres keeps them, so either may be lost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import structlog

from processors.control import Limit
from processors.guardrails.hours import Standing, hour_of
from schemas.errors import StoreUnavailableError
from sinks.redis.hours import HourStore, ServedHours, still_kept

log = structlog.get_logger(__name__)


class Series:
    """What is known of one limit."""

    def __init__(self, standings: dict[int, Standing]) -> None:
        """As Redis has it."""
        self.standings = standings
        #: Whether it has what Postgres has.
        self.is_joined = False
        #: Hours that Postgres is not known to have.
        self.unkept = set(standings)

    def join(self, kept: Mapping[int, Standing]) -> None:
        """Take in what Postgres has; what was served stays as it was."""
        self.standings = {**kept, **self.standings}
        self.unkept -= kept.keys()
        self.is_joined = True

    def add(self, hour: int, standing: Standing) -> None:
        """One more hour; those that are too old by now go."""
        self.standings = still_kept({**self.standings, hour: standing}, hour)
        self.unkept = (self.unkept | {hour}) & self.standings.keys()


class HourNotes:
    """Of the limits that are watched. Postgres may be away: what it lacks is kept once it is back. One loop owns it."""

    def __init__(self, served: ServedHours, kept: HourStore) -> None:
        """Knows nothing that the stores do not."""
        self._served, self._kept = served, kept
        self._series: dict[str, Series] = {}
        self._is_away = False

    def forget(self) -> None:
        """Somebody else may have noted hours meanwhile."""
        self._series.clear()

    def begin(self, watched: Iterable[str]) -> None:
        """A look at these limits alone; Postgres is tried again."""
        for limit_id in self._series.keys() - set(watched):
            self._series.pop(limit_id, None)
        self._is_away = False

    async def read(self, limit: Limit, now_micros: int) -> Series:
        """What is known of a limit; Redis lacks none of it then. Raises StoreUnavailableError for Redis alone."""
        series = self._series.get(limit.limit_id)
        ended_hour = hour_of(now_micros) - 1
        if series is None:
            served = await self._served.standings(limit.tenant_id, limit.limit_id)
            series = self._series[limit.limit_id] = Series(still_kept(served, ended_hour))
        if not series.is_joined and not self._is_away:
            with self._absence_noticed():
                kept = await self._kept.standings(limit.tenant_id, limit.limit_id)
                series.join(still_kept(kept, ended_hour))
        if await self._served.count(limit.tenant_id, limit.limit_id) < len(series.standings):
            await self._served.put(limit.tenant_id, limit.limit_id, series.standings)
        return series

    async def note(self, limit: Limit, series: Series, hour: int, standing: Standing) -> None:
        """One hour more of a limit; raises StoreUnavailableError. Postgres gets it with `keep`."""
        await self._served.put(limit.tenant_id, limit.limit_id, {hour: standing})
        series.add(hour, standing)

    async def keep(self, limits: Iterable[Limit]) -> None:
        """Give Postgres what it lacks, unless it is away."""
        for limit in limits:
            series = self._series.get(limit.limit_id)
            if series is not None and series.is_joined and series.unkept and not self._is_away:
                with self._absence_noticed():
                    await self._keep(limit, series)

    async def _keep(self, limit: Limit, series: Series) -> None:
        given = {hour: series.standings[hour] for hour in series.unkept}
        await self._kept.put(limit.tenant_id, limit.limit_id, given)
        series.unkept -= given.keys()

    @contextmanager
    def _absence_noticed(self) -> Iterator[None]:
        """Say so once per look: each call to a server that does not answer takes its time."""
        try:
            yield
        except StoreUnavailableError as error:
            self._is_away = True
            log.warning("hours_not_kept", error=str(error))
