"""`quaestor budget status`: how far each limit is used up now, from the live counters."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.text import Text

from api.cli.control_session import control_session
from api.cli.terminal import DataOption, JsonOption, bar, print_json, table, terminal
from api.cli.times import now_micros, time_text
from api.settings import load_settings
from processors.budgets.usage import LimitUsage, level_of, place_of, usage_of
from processors.control import Limit
from processors.guardrails.forecast import INTERVAL_PERCENT, Projection, projection
from processors.guardrails.hours import Standings, charged_by_hour, is_projected
from schemas.money import format_amount, unit_name
from sinks.redis.reads import RedisReads, TenantState

ROWS_SHOWN = 200


def status(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """How far each limit is used up in its present window: charged, held by calls under way, left."""
    settings = load_settings(data)
    with control_session(settings) as session:
        limits = [limit for limit in session.state.limits.values() if tenant in {None, limit.tenant_id}]
    now = now_micros()
    states, hours = asyncio.run(_read(settings.redis_url, limits, now))
    used = list(_usage(limits, states, now))
    projected = {one.counter: _projection(one, hours, now) for one in used}
    if as_json:
        print_json({"limits": [_row(one, projected[one.counter]) for one in used]})
        return
    columns = ("tenant", "on", "until (UTC)", "charged", "of", "", "%", "by the end")
    shown = table("Budgets now", columns, (), numbers=(3, 6, 7))
    for one in used[:ROWS_SHOWN]:
        shown.add_row(*_cells(one, projected[one.counter]))
    terminal().print(shown)
    if len(used) > ROWS_SHOWN:
        terminal().print(f"{len(used) - ROWS_SHOWN} more; --tenant or --json shows them")


async def _read(redis_url: str, limits: Sequence[Limit], now: int) -> tuple[list[TenantState], dict[str, Standings]]:
    """The state of every tenant that has limits, and the hours of those that can be projected."""
    reads = RedisReads(redis_url)
    await reads.open()
    try:
        states = [await reads.tenant_state(tenant_id) for tenant_id in sorted({one.tenant_id for one in limits})]
        series = [one for one in limits if is_projected(one, now)]
        return states, {one.limit_id: await reads.hours.standings(one.tenant_id, one.limit_id) for one in series}
    finally:
        await reads.close()


def _projection(one: LimitUsage, hours: Mapping[str, Standings], now: int) -> Projection | None:
    """What will be charged by the window's end, where enough hours are known."""
    standings = hours.get(one.counter.limit_id)
    if standings is None:
        return None
    return projection(charged_by_hour(standings), one.posted_nano, one.counter.window_end, now)


def _usage(limits: Sequence[Limit], states: Iterable[TenantState], now: int) -> Iterable[LimitUsage]:
    order = sorted(limits, key=lambda one: (one.scope, one.scope_id, one.window, one.limit_id))
    for state in states:
        own = [limit for limit in order if limit.tenant_id == state.tenant_id]
        yield from usage_of(own, state.sums, state.unconfirmed_sums, now)


def _cells(one: LimitUsage, projected: Projection | None) -> tuple[str | Text, ...]:
    limit = one.limit
    allowed, charged, held = (
        format_amount(amount, limit.currency) for amount in (one.allowed_nano, one.posted_nano, one.held_nano)
    )
    until = time_text(one.counter.window_end)[5:16].replace("T", " ") if one.counter.window_end else "-"
    used = f"{charged} + {held} held" if one.held_nano else charged
    unit = unit_name(limit.currency) + ("" if limit.hard else ", soft")
    place = place_of(limit.scope, limit.scope_id, one.counter.limit_id)
    filled = bar(one.percent, level_of(one.percent))
    cells = (limit.tenant_id, place, Text(until, no_wrap=True), used, f"{allowed} {unit}", filled, str(one.percent))
    return (*cells, _expected(one, projected))


def _expected(one: LimitUsage, projected: Projection | None) -> Text:
    if projected is None:
        return Text("-")
    will_last = projected.expected_nano <= one.allowed_nano
    return Text(format_amount(projected.expected_nano, one.limit.currency), "" if will_last else "red")


def _row(one: LimitUsage, projected: Projection | None) -> dict[str, Any]:
    limit, counter = one.limit, one.counter
    return {
        "id": counter.limit_id,
        "limit": limit.limit_id,
        "tenant": limit.tenant_id,
        "scope": limit.scope,
        "scope_id": limit.scope_id,
        "currency": limit.currency,
        "window": limit.window,
        "hard": limit.hard,
        "window_start": time_text(counter.window_start) if counter.window_end else None,
        "window_end": time_text(counter.window_end) if counter.window_end else None,
        "allowed": format_amount(one.allowed_nano, limit.currency),
        "charged": format_amount(one.posted_nano, limit.currency),
        "held": format_amount(one.held_nano, limit.currency),
        "left": format_amount(one.left_nano, limit.currency),
        "percent": one.percent,
        "projected": projected
        and {
            "expected": format_amount(projected.expected_nano, limit.currency),
            "low": format_amount(projected.low_nano, limit.currency),
            "high": format_amount(projected.high_nano, limit.currency),
            "interval_percent": INTERVAL_PERCENT,
            "hours": projected.hours,
        },
    }
