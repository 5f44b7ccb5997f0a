"""Limits by what they stand on, and sets of them that are put on a tenant together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from processors.control.check import Refusal, RefusalCode
from processors.control.entities import Limit, Threshold, Window, limit_id_of
from schemas.money import parse_amount


class Profile(NamedTuple):
    """Limits on a tenant as a whole."""

    currency: str
    time_zone: str
    #: Most per window, decimals of the currency, and the per cents from which on somebody is told.
    amounts: tuple[tuple[Window, str, tuple[int, ...]], ...]


PROFILES: Mapping[str, Profile] = {
    "eu-default": Profile("EUR", "Europe/Brussels", (("day", "450", (80,)), ("month", "12000", (85, 95)))),
}


def identified(limit: Limit) -> Limit:
    """The limit under the id that follows from what it stands on and counts; whatever id it has is replaced."""
    place = (limit.tenant_id, limit.scope, limit.scope_id, limit.window, limit.currency, limit.name)
    return msgspec.structs.replace(limit, limit_id=limit_id_of(*place, hard=limit.hard))


def profile_limits(name: str, tenant_id: str, time_zone: str | None) -> tuple[Limit, ...] | Refusal:
    """The limits of a profile on a tenant; days begin where the profile says unless a zone is given."""
    profile = PROFILES.get(name)
    if profile is None:
        return Refusal(RefusalCode.INVALID_VALUE, f"there is no profile {name!r}: {', '.join(PROFILES)}")
    return tuple(
        identified(
            Limit(
                limit_id="",
                tenant_id=tenant_id,
                scope="tenant",
                scope_id=tenant_id,
                amount_nano=parse_amount(amount, profile.currency),
                currency=profile.currency,
                window=window,
                time_zone=time_zone or profile.time_zone,
                name=name,
                thresholds=tuple(Threshold(percent=percent) for percent in percents),
            )
        )
        for window, amount, percents in profile.amounts
    )
