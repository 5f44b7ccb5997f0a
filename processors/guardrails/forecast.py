"""Where a limit's charges are going: projected to the end of the window, and held against its own past.

Statistics are estimates and use floats; what is charged, allowed and compared in the end are integers of nano-units.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean, median, stdev
from typing import NamedTuple

from processors.budgets.fold import Counter
from processors.budgets.tree import PERCENT
from processors.budgets.usage import place_of
from processors.control.entities import Limit
from processors.guardrails.hours import HOURS_PER_DAY, MICROS_PER_HOUR, hour_of
from processors.guardrails.thresholds import GUARDRAILS, limit_alert
from schemas.events import Alert, AlertKind, Severity
from schemas.ids import derived_id
from schemas.money import format_amount, unit_name

#: The run rate is the mean of so many hours, the last that are known: a whole day, if there was one.
RATE_HOURS_MAX, RATE_HOURS_MIN = HOURS_PER_DAY, 3
#: 80 % of a normal distribution lie within so many standard deviations.
INTERVAL_DEVIATIONS, INTERVAL_PERCENT = 1.2816, 80
#: The baseline of an hour is the same hour of so many days before.
BASELINE_DAYS_MAX, BASELINE_DAYS_MIN = 28, 7
#: An hour is out of the ordinary by so much of what the limit allows a day,
OUTLIER_PERCENT = 10
#: or by so many deviations, unless that is next to nothing; 1.4826 makes the median absolute deviation a standard one.
OUTLIER_DEVIATIONS, MEDIAN_DEVIATION_SCALE, NOISE_PERCENT = 5.0, 1.4826, 1
HOURS_PER_WINDOW = {"day": HOURS_PER_DAY, "week": 7 * HOURS_PER_DAY, "month": 30 * HOURS_PER_DAY}


class Projection(NamedTuple):
    """What will have been charged when the window ends, nano-units; `low` to `high` is the 80 % interval."""

    expected_nano: int
    low_nano: int
    high_nano: int
    #: How many hours the run rate was made of.
    hours: int


class Outlier(NamedTuple):
    """An hour in which more was charged than its past explains, nano-units."""

    hour: int
    charged_nano: int
    expected_nano: int
    #: Of how many days before the same hour is known.
    days: int


def projection(charged: Mapping[int, int], posted_nano: int, window_end: int, now_micros: int) -> Projection | None:
    """Charges so far, and the mean of the last hours for as long as the window lasts; None without enough hours.

    The interval takes hours as independent: half of it is 1.2816 standard deviations times the root of the hours left.
    """
    this_hour = hour_of(now_micros)
    known = [charged[hour] for hour in range(this_hour - RATE_HOURS_MAX, this_hour) if hour in charged]
    if len(known) < RATE_HOURS_MIN:
        return None
    left = max(window_end - now_micros, 0) / MICROS_PER_HOUR
    expected = posted_nano + round(fmean(known) * left)
    spread = round(INTERVAL_DEVIATIONS * stdev(known) * left**0.5)
    return Projection(expected, max(posted_nano, expected - spread), expected + spread, len(known))


def outlier(charged: Mapping[int, int], limit: Limit, now_micros: int) -> Outlier | None:
    """Whether the last whole hour is out of the ordinary; None when not, or when it is not known.

    It is when it lies above what is expected by more than 10 % of what the limit allows a day; what is expected is the
    median of the same hour on the days before, and while fewer than seven are known at least an even share of the day's
    limit. With seven days it also is when it lies above it by more than five robust deviations (and 1 %).
    """
    hour = hour_of(now_micros) - 1
    if hour not in charged:
        return None
    days = range(HOURS_PER_DAY, (BASELINE_DAYS_MAX + 1) * HOURS_PER_DAY, HOURS_PER_DAY)
    before = [charged[hour - back] for back in days if hour - back in charged]
    middle = median(before) if before else 0
    daily_nano = limit.allowed_nano(now_micros) * HOURS_PER_DAY // HOURS_PER_WINDOW[limit.window]
    if len(before) < BASELINE_DAYS_MIN:
        expected, is_unlike = max(middle, daily_nano // HOURS_PER_DAY), False
    else:
        deviation = MEDIAN_DEVIATION_SCALE * median(abs(each - middle) for each in before)
        above = charged[hour] - middle
        expected = middle
        is_unlike = above > OUTLIER_DEVIATIONS * deviation and PERCENT * above > NOISE_PERCENT * daily_nano
    if not is_unlike and PERCENT * (charged[hour] - expected) <= OUTLIER_PERCENT * daily_nano:
        return None
    return Outlier(hour, charged[hour], round(expected), len(before))


def burn_rate_alert(
    limit: Limit, counter: Counter, posted_nano: int, projected: Projection, now_micros: int
) -> Alert | None:
    """The alert that a window will end above its limit at this rate, once per window; None when it will not."""
    allowed_nano = limit.allowed_nano(now_micros)
    if projected.expected_nano <= allowed_nano or posted_nano >= allowed_nano:
        return None
    spent, allowed, expected, low, high = (
        format_amount(nano, limit.currency) for nano in (posted_nano, allowed_nano, *projected[:3])
    )
    place = place_of(limit.scope, limit.scope_id)
    return limit_alert(
        limit,
        counter,
        AlertKind.BURN_RATE,
        derived_id(GUARDRAILS, str(counter), AlertKind.BURN_RATE.value, ""),
        now_micros,
        severity=Severity.CRITICAL if projected.low_nano > allowed_nano else Severity.WARNING,
        title=f"{limit.tenant_id}: the budget of {place} will not last its {limit.window}",
        detail=f"{spent} of {allowed} {unit_name(limit.currency)} are charged; at the rate of the last "
        f"{projected.hours} hours it will be {expected} by its end ({INTERVAL_PERCENT} % interval {low} to {high}). "
        f"Limit {counter.limit_id}.",
        spent_nano=posted_nano,
        allowed_nano=allowed_nano,
        expected_nano=projected.expected_nano,
    )


def anomaly_alert(limit: Limit, found: Outlier, now_micros: int) -> Alert:
    """The alert of an hour that is out of the ordinary, once per hour."""
    charged, expected = (format_amount(nano, limit.currency) for nano in found[1:3])
    whose = "the same hour of the days before has" if found.days >= BASELINE_DAYS_MIN else "expected were at most"
    return Alert(
        event_id=derived_id(GUARDRAILS, f"{limit.limit_id}|{found.hour}", AlertKind.ANOMALY.value, ""),
        occurred_at=now_micros,
        tenant_id=limit.tenant_id,
        actor=GUARDRAILS,
        kind=AlertKind.ANOMALY,
        severity=Severity.WARNING,
        subject=f"{limit.limit_id}|{found.hour}",
        title=f"{limit.tenant_id}: unusual charges to the budget of {place_of(limit.scope, limit.scope_id)}",
        detail=f"{charged} {unit_name(limit.currency)} in one hour; {whose} {expected}. Limit {limit.limit_id}.",
        window_start=found.hour * MICROS_PER_HOUR,
        window_end=(found.hour + 1) * MICROS_PER_HOUR,
        limit_id=limit.limit_id,
        currency=limit.currency,
        spent_nano=found.charged_nano,
        allowed_nano=limit.allowed_nano(now_micros),
        expected_nano=found.expected_nano,
    )
