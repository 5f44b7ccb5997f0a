"""`quaestor budget status`: how far each limit is used up now, from the live counters."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated

import msgspec
import typer
from rich.text import Text

from api.cli.control_session import control_session
from api.cli.terminal import DataOption, JsonOption, bar, print_json, table, terminal
from api.cli.times import now_micros
from api.control.shown import standing_shown
from api.control.standings import LimitStanding, standings_of
from api.settings import load_settings
from api.times import time_text
from processors.budgets.usage import LimitUsage, level_of, place_of
from processors.control import Limit
from processors.guardrails.forecast import Projection
from schemas.money import format_amount, unit_name
from sinks.redis.reads import RedisReads

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
    used = asyncio.run(live_standings(settings.redis_url, limits, now))
    if as_json:
        print_json(msgspec.to_builtins({"limits": [standing_shown(*one) for one in used]}))
        return
    columns = ("tenant", "on", "until (UTC)", "charged", "of", "", "%", "by the end")
    shown = table("Budgets now", columns, (), numbers=(3, 6, 7))
    for one in used[:ROWS_SHOWN]:
        shown.add_row(*_cells(*one))
    terminal().print(shown)
    if len(used) > ROWS_SHOWN:
        terminal().print(f"{len(used) - ROWS_SHOWN} more; --tenant or --json shows them")


async def live_standings(redis_url: str, limits: Sequence[Limit], now: int) -> list[LimitStanding]:
    """What is used of limits at a moment, microseconds since the epoch; raises StoreUnavailableError."""
    reads = RedisReads(redis_url)
    try:
        await reads.open()
        return await standings_of(reads, limits, now)
    finally:
        await reads.close()


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
