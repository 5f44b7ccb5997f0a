"""The report's plots: bars with their labels and texts, whole numbers all, drawn by whoever renders them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from typing import Literal, NamedTuple

from processors.budgets.usage import Level, level_of, place_of
from processors.calendar import MICROS_PER_SECOND, SECONDS_PER_HOUR, zone_of
from processors.report.figures import Report, TenantReport
from processors.report.words import PERCENT, place
from schemas.money import format_with_unit as money
from schemas.money import unit_name

#: Bars of one plot that lie below each other.
BARS_MAX = 12


class Bar(NamedTuple):
    """One bar of a plot."""

    label: str
    #: How long it is, in a unit that all bars of its plot share.
    value: int
    #: The same for people.
    text: str
    level: Level = "plain"


class Plot(NamedTuple):
    """Bars side by side (columns over time) or below each other (rows)."""

    title: str
    shape: Literal["columns", "rows"]
    bars: tuple[Bar, ...]
    #: As long as the longest bar could be; 0: as the longest is.
    whole: int = 0


def plots(tenant: TenantReport, report: Report) -> Iterator[Plot]:
    """A tenant's plots, empty ones left out."""
    for currency in sorted({each.currency for each in tenant.charges}):
        yield _hours(tenant, report, currency)
        yield _models(tenant, currency)
    used = tuple(
        Bar(f"{place_of(each.scope, each.scope_id, each.counter)}, {each.window}", each.percent, f"{each.percent} %",
            level_of(each.percent))
        for each in tenant.budgets[:BARS_MAX]
    )  # fmt: skip
    broken = tuple(
        Bar(found.rule.replace("_", " "), found.total, f"{found.total:,}", "bad") for found in tenant.mismatches
    )
    yield from (
        plot
        for plot in (
            Plot("Budgets used", "rows", used, PERCENT),
            Plot("Rows that do not match, by rule", "rows", broken),
        )
        if plot.bars
    )


def _hours(tenant: TenantReport, report: Report, currency: str) -> Plot:
    spent = {each.hour: each.amount_nano for each in tenant.hours if each.currency == currency}
    count = (report.ends_at - report.starts_at) // (SECONDS_PER_HOUR * MICROS_PER_SECOND)
    bars = tuple(
        Bar(_hour(report, number), spent.get(number, 0), money(spent.get(number, 0), currency))
        for number in range(count)
    )
    return Plot(f"Charged per hour, {unit_name(currency)}", "columns", bars)


def _hour(report: Report, number: int) -> str:
    seconds = report.starts_at // MICROS_PER_SECOND + number * SECONDS_PER_HOUR
    return datetime.fromtimestamp(seconds, zone_of(report.time_zone)).strftime("%H")


def _models(tenant: TenantReport, currency: str) -> Plot:
    sums: defaultdict[str, int] = defaultdict(int)
    for each in tenant.charges:
        if each.currency == currency:
            sums[place(each.provider_id, each.model)] += each.amount_nano
    ordered = sorted(sums.items(), key=lambda item: (-item[1], item[0]))
    shown = ordered[:BARS_MAX]
    rest = sum(amount for _, amount in ordered[BARS_MAX:])
    if rest:
        shown.append((f"{len(ordered) - BARS_MAX} others", rest))
    bars = tuple(Bar(place, amount, money(amount, currency)) for place, amount in shown)
    return Plot(f"Charged per provider and model, {unit_name(currency)}", "rows", bars)
