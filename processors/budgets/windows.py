"""Windows of limits, and which limits a request stands under. Bounds are microseconds UTC, [start, end)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Protocol, TypeVar

from schemas.errors import ConfigurationError
from schemas.events import HoldLeg

MICROS_PER_SECOND = 1_000_000
MICROS_PER_DAY = 24 * 3600 * MICROS_PER_SECOND
MONTHS_PER_YEAR = 12
#: Bounds of a limit without a window.
TOTAL = (0, 0)


class LimitLike(Protocol):
    """What budgets need to know of a limit; `processors.control.Limit` is one."""

    @property
    def limit_id(self) -> str:
        """Identity of the limit."""

    @property
    def tenant_id(self) -> str:
        """The tenant whose budget it is."""

    @property
    def scope(self) -> str:
        """'tenant' or 'key'."""

    @property
    def scope_id(self) -> str:
        """The tenant or key it stands on."""

    @property
    def amount_nano(self) -> int:
        """Most that may be held and spent in one window, nano-units of currency."""

    @property
    def currency(self) -> str:
        """ISO 4217 code."""

    @property
    def window(self) -> str:
        """'total', 'day' or 'month', in UTC."""


AnyLimit = TypeVar("AnyLimit", bound=LimitLike)


def window_of(limit: LimitLike, now_micros: int) -> tuple[int, int]:
    """The window of a limit that holds this moment; (0, 0) for a total. Raises ConfigurationError on an unknown window.

    Days and months are those of UTC. A time zone of the limit's own will be one more argument of `_day` and `_month`:
    nothing outside this function knows how bounds are found, since every event carries them.
    """
    if limit.window == "total":
        return TOTAL
    if limit.window == "day":
        return _day(now_micros)
    if limit.window == "month":
        return _month(now_micros)
    raise ConfigurationError(f"limit {limit.limit_id}: window {limit.window!r} is not total, day or month")


def _day(now_micros: int) -> tuple[int, int]:
    start = now_micros - now_micros % MICROS_PER_DAY
    return start, start + MICROS_PER_DAY


def _month(now_micros: int) -> tuple[int, int]:
    now = datetime.fromtimestamp(now_micros // MICROS_PER_SECOND, UTC)
    start = datetime(now.year, now.month, 1, tzinfo=UTC)
    following = now.year * MONTHS_PER_YEAR + now.month
    end = datetime(following // MONTHS_PER_YEAR, following % MONTHS_PER_YEAR + 1, 1, tzinfo=UTC)
    return int(start.timestamp()) * MICROS_PER_SECOND, int(end.timestamp()) * MICROS_PER_SECOND


def applicable_limits(limits: Iterable[AnyLimit], tenant_id: str, key_id: str | None) -> tuple[AnyLimit, ...]:
    """The limits a request of this tenant and key stands under, the narrowest scope first, then by id."""
    found = [limit for limit in limits if limit.tenant_id == tenant_id and _covers(limit, tenant_id, key_id)]
    return tuple(sorted(found, key=lambda limit: (limit.scope != "key", limit.limit_id)))


def _covers(limit: LimitLike, tenant_id: str, key_id: str | None) -> bool:
    if limit.scope == "tenant":
        return limit.scope_id == tenant_id
    return limit.scope == "key" and key_id is not None and limit.scope_id == key_id


def legs_for(limits: Iterable[LimitLike], amount_nano: int, currency: str, now_micros: int) -> tuple[HoldLeg, ...]:
    """One leg per limit for a hold of this amount; raises ConfigurationError when a limit keeps another currency."""
    return tuple(_leg(limit, amount_nano, currency, now_micros) for limit in limits)


def _leg(limit: LimitLike, amount_nano: int, currency: str, now_micros: int) -> HoldLeg:
    if limit.currency != currency:
        raise ConfigurationError(f"limit {limit.limit_id} keeps {limit.currency}, the tenant is charged in {currency}")
    start, end = window_of(limit, now_micros)
    return HoldLeg(
        limit_id=limit.limit_id,
        amount_nano=amount_nano,
        held_nano=amount_nano,
        currency=currency,
        window_start=start,
        window_end=end,
    )
