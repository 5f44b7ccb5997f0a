"""What is used of limits at this moment, from the live counters, and where it is going."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from processors.budgets.usage import LimitUsage, usage_of
from processors.control import Limit
from processors.guardrails.forecast import Projection, projection
from processors.guardrails.hours import Standings, charged_by_hour, is_projected

if TYPE_CHECKING:  # the console knows the shapes long before it asks Redis
    from sinks.redis.hours import HourStore
    from sinks.redis.reads import TenantState


class LiveReads(Protocol):
    """What is read of Redis; all of it raises StoreUnavailableError."""

    @property
    def hours(self) -> HourStore:
        """What limits had charged at the end of each hour."""

    async def tenant_state(self, tenant_id: str) -> TenantState:
        """A tenant's slot at one moment."""


class LimitStanding(NamedTuple):
    """What is used of a limit, and what will be at the window's end where enough hours are known."""

    usage: LimitUsage
    projected: Projection | None


def in_order(limits: Iterable[Limit]) -> list[Limit]:
    """Limits as people read them: by tenant, scope and window."""
    return sorted(limits, key=lambda one: (one.tenant_id, one.scope, one.scope_id, one.window, one.limit_id))


async def standings_of(reads: LiveReads, limits: Sequence[Limit], now_micros: int) -> list[LimitStanding]:
    """Every counter of the limits in force, by tenant, scope and window."""
    order = in_order(limits)
    used: list[LimitUsage] = []
    for tenant_id in sorted({limit.tenant_id for limit in order}):
        state = await reads.tenant_state(tenant_id)
        own = [limit for limit in order if limit.tenant_id == tenant_id]
        used += usage_of(own, state.sums, state.unconfirmed_sums, now_micros)
    series = [one for one in order if is_projected(one, now_micros)]
    hours = {one.limit_id: await reads.hours.standings(one.tenant_id, one.limit_id) for one in series}
    return [LimitStanding(one, _projected(one, hours, now_micros)) for one in used]


def _projected(one: LimitUsage, hours: Mapping[str, Standings], now_micros: int) -> Projection | None:
    standings = hours.get(one.counter.limit_id)
    if standings is None:
        return None
    return projection(charged_by_hour(standings), one.posted_nano, one.counter.window_end, now_micros)
