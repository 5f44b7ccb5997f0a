"""`quaestor budget set | list | status | remove | increase | approve | profile`: limits, and each change an event."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Mapping
from typing import Annotated, cast

import msgspec
import typer

from api.cli import control_usage
from api.cli.control_keys import ReasonOption
from api.cli.control_rates import rate_text
from api.cli.control_session import control_session
from api.cli.handles import handle
from api.cli.terminal import DataOption, JsonOption, fail, note, print_json, table, terminal
from api.cli.thresholds import thresholds_of, thresholds_text
from api.cli.times import now_micros, time_of
from api.control.session import ControlRefusedError
from api.control.shown import limit_shown
from api.control.standings import in_order
from api.settings import Settings, load_settings
from api.times import time_text
from processors import control
from processors.budgets import WINDOWS
from processors.budgets.usage import place_of
from processors.calendar import ZONE_USUAL
from processors.control import (
    CURRENCY,
    PROFILES,
    Approval,
    Increase,
    Limit,
    LimitField,
    Refusal,
    check,
    identified,
    profile_limits,
    usual_thresholds,
)
from processors.control.entities import Scope, Window
from schemas.limits import USER_ID_CHARACTERS_MAX
from schemas.money import UNIT_NAMES, currency_of, format_with_unit, parse_amount

APPROVAL_BYTES = 18
#: Takes a bound of a limit's time away.
NO_BOUND = "none"

TenantOption = Annotated[str, typer.Option(help="Whose budget.")]


def app() -> typer.Typer:
    """The group."""
    group = typer.Typer(help="Limits on what may be spent and used.", no_args_is_help=True)
    group.command("set")(set_limit)
    group.command("list")(list_limits)
    group.command("status")(control_usage.status)
    group.command("remove")(remove)
    group.command("increase")(increase)
    group.command("approve")(approve)
    group.command("profile")(profile)
    return group


def set_limit(
    tenant: TenantOption,
    amount: Annotated[str, typer.Option(help="Most per window, for example 100 or 12.50; a whole number of tokens.")],
    team: Annotated[str | None, typer.Option(help="Limit this team; * each team apart.")] = None,
    project: Annotated[str | None, typer.Option(help="Limit this project; * each apart.")] = None,
    key: Annotated[str | None, typer.Option(help="Limit this key (key_…); * each apart.")] = None,
    user: Annotated[str | None, typer.Option(help="Limit this end user, as callers name it; * each apart.")] = None,
    tag: Annotated[str | None, typer.Option(help="Limit calls with this tag, name=value; name=* each value.")] = None,
    model: Annotated[str | None, typer.Option(help="Limit this model or alias; * each model apart.")] = None,
    provider: Annotated[str | None, typer.Option(help="Limit this provider; * each apart.")] = None,
    run: Annotated[str | None, typer.Option(help="Limit this agent run; * each apart.")] = None,
    unit: Annotated[
        str, typer.Option("--unit", "--currency", help="What is counted: USD, EUR, tokens or requests.")
    ] = CURRENCY,
    window: Annotated[str, typer.Option(help=f"One of {', '.join(WINDOWS)}.")] = "month",
    time_zone: Annotated[
        str | None,
        typer.Option(
            "--time-zone", help="Where its days begin, for example Europe/Rome. Default: as before, UTC for a new one."
        ),
    ] = None,
    soft: Annotated[bool, typer.Option("--soft", help="Only watch: count, and refuse nothing.")] = False,
    valid_from: Annotated[
        str | None, typer.Option("--from", help="In force from, ISO 8601; none: always. Default: as before.")
    ] = None,
    valid_until: Annotated[
        str | None, typer.Option("--until", help="In force until, ISO 8601; none: for ever. Default: as before.")
    ] = None,
    name: Annotated[str, typer.Option(help="Tells several limits of one place and window apart.")] = "",
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            help="Tell somebody from so many per cent on, and perhaps do more: 80, 95:block, 90:approval, "
            "85:cheaper=MODEL,MODEL; may be repeated. none; usual: 80 a day, 85 and 95 a month. Default: as before."
        ),
    ] = None,
    reason: ReasonOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set or change a limit. A call that does not fit a hard one is refused before a provider is called."""
    settings = load_settings(data)
    tree = {"team": team, "project": project, "key": key}
    across = {"user": user, "tag": tag, "model": model, "provider": provider, "run": run}
    scope, scope_id = _place(settings, tenant, tree | across)
    currency = currency_of(unit)
    limit = identified(
        Limit(
            limit_id="",
            tenant_id=tenant,
            scope=scope,
            scope_id=scope_id,
            amount_nano=_amount(amount, currency),
            currency=currency,
            window=cast("Window", window),
            hard=not soft,
            time_zone=time_zone or ZONE_USUAL,
            valid_from=_bound(valid_from, "--from"),
            valid_until=_bound(valid_until, "--until"),
            name=name,
            thresholds=thresholds_of(threshold or [], usual_thresholds(window)),
        )
    )
    if sealed := check.tag_counts(limit, settings.tags_allowed):
        raise ControlRefusedError(sealed)
    unsaid = _unsaid(time_zone=time_zone, valid_from=valid_from, valid_until=valid_until)
    with control_session(settings) as session:
        session.settle(lambda state, origin: control.set_limit(state, limit, origin, unsaid), reason)
        state = session.refresh()
    _show_set(state, state.limits.get(limit.limit_id, limit), as_json=as_json)


def _unsaid(**said: str | None) -> list[LimitField]:
    return [cast("LimitField", field) for field, value in said.items() if value is None]


def _bound(text: str | None, option: str) -> int | None:
    """A bound of a limit's time; None where it has none, or nobody says."""
    return None if text is None or text == NO_BOUND else time_of(text, option)


def list_limits(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List limits."""
    with control_session(load_settings(data)) as session:
        limits = [limit for limit in session.state.limits.values() if tenant in {None, limit.tenant_id}]
    order = in_order(limits)
    now = now_micros()
    if as_json:
        print_json(msgspec.to_builtins({"limits": [limit_shown(limit, now) for limit in order]}))
        return
    cells = [
        (
            limit.tenant_id,
            place_of(limit.scope, limit.scope_id),
            f"{_allowed(limit, now)}{_conditions(limit)}",
            thresholds_text(limit, "\n"),
            limit.limit_id,
        )
        for limit in order
    ]
    terminal().print(table("Limits", ("tenant", "on", "allowed", "told at", "limit"), cells))


def remove(
    limit: Annotated[str, typer.Argument(help="Its id, lim_…")], reason: ReasonOption = None, data: DataOption = None
) -> None:
    """Remove a limit; set anew in its time zone, it counts what was spent in the window before."""
    with control_session(load_settings(data)) as session:
        session.change(lambda state, origin: control.remove_limit(state, limit, origin), reason)
    note(f"limit {limit} is removed")


def increase(
    limit: Annotated[str, typer.Argument(help="Its id, lim_…")],
    amount: Annotated[str, typer.Option(help="How much more.")],
    until: Annotated[str, typer.Option(help="Until when, ISO 8601.")],
    approval_code: Annotated[str, typer.Option("--approval-code", help="Who allowed it, as your approvals name it.")],
    valid_from: Annotated[str | None, typer.Option("--from", help="From when, ISO 8601; default now.")] = None,
    reason: ReasonOption = None,
    data: DataOption = None,
) -> None:
    """Allow more for a while; it ends by itself."""
    with control_session(load_settings(data)) as session:
        known = session.state.limits.get(limit)
        added = Increase(
            amount_nano=_amount(amount, known.currency if known else CURRENCY),
            valid_from=now_micros() if valid_from is None else time_of(valid_from, "--from"),
            valid_until=time_of(until, "--until"),
            approval_code=approval_code,
        )
        session.change(lambda state, origin: control.increase_limit(state, limit, added, origin), reason)
    note(f"limit {limit} allows {amount} more until {until}")


def approve(
    limit: Annotated[str, typer.Argument(help="Its id, lim_…")],
    until: Annotated[str, typer.Option(help="Until when, ISO 8601.")],
    approval_code: Annotated[str, typer.Option("--approval-code", help="Who allowed it, as your approvals name it.")],
    reason: ReasonOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a code with which calls go past the limit's approval threshold. It is shown once, and kept as its hash."""
    code = f"qc_{secrets.token_urlsafe(APPROVAL_BYTES)}"
    approval = Approval(
        code_hash=hashlib.sha256(code.encode()).hexdigest(),
        valid_until=time_of(until, "--until"),
        approval_code=approval_code,
    )
    with control_session(load_settings(data)) as session:
        session.change(lambda state, origin: control.approve_limit(state, limit, approval, origin), reason)
    if as_json:
        print_json({"limit": limit, "code": code, "valid_until": time_text(approval.valid_until)})
    else:
        note(f"calls with this code pass the approval threshold of {limit} until {until}; it is not shown again:")
        terminal().print(code)


def profile(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(PROFILES)}.")],
    tenant: TenantOption,
    time_zone: Annotated[
        str | None,
        typer.Option("--time-zone", help="Where its days begin. Default: as before, or as the profile says."),
    ] = None,
    reason: ReasonOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set a tenant's limits as a profile has them."""
    limits = profile_limits(name, tenant, time_zone)
    if isinstance(limits, Refusal):
        fail(limits.message, 2)
    currency = PROFILES[name].currency
    unsaid: list[LimitField] = ["time_zone"] if time_zone is None else []
    with control_session(load_settings(data)) as session:
        for limit in limits:
            session.settle(lambda state, origin, limit=limit: control.set_limit(state, limit, origin, unsaid), reason)  # type: ignore[misc]  # bound now
        state = session.refresh()
    limits = tuple(state.limits.get(limit.limit_id, limit) for limit in limits)
    if as_json:
        print_json(msgspec.to_builtins({"limits": [limit_shown(limit, now_micros()) for limit in limits]}))
    else:
        for limit in limits:
            note(_sentence(limit))
    _tell_rate(state, currency)


def _show_set(state: control.ControlState, limit: Limit, *, as_json: bool) -> None:
    """The limit as it is now, and what it still waits for."""
    if as_json:
        print_json(msgspec.to_builtins(limit_shown(limit, now_micros())))
    else:
        note(_sentence(limit))
    _tell_rate(state, limit.currency)
    if limit.window == "total" and limit.is_each:
        each = place_of(limit.scope, limit.scope_id)
        note(f"{each} keeps a counter for good: below a million in all, or set a window that ends (--window month)")


def _tell_rate(state: control.ControlState, currency: str) -> None:
    """Say at which rate dollars count against a limit in another currency, or that calls are refused without one."""
    if currency in {CURRENCY, *UNIT_NAMES}:
        return
    rate = state.rates.get((CURRENCY, currency))
    if rate is None:
        note(f"calls wait for an exchange rate: quaestor rate set {CURRENCY} {currency} RATE --dated DAY --source WHO")
    else:
        note(f"prices are in {CURRENCY}: {rate_text(rate)}; `quaestor rate import` takes a newer one")


def _place(settings: Settings, tenant: str, given: Mapping[str, str | None]) -> tuple[Scope, str]:
    """What the limit stands on: the tenant, or the one thing that was named. Users go by their handle."""
    named = {scope: value for scope, value in given.items() if value is not None}
    if len(named) > 1:
        fail(f"a limit stands on one thing, not on {' and '.join(named)}", 2)
    if not named:
        return "tenant", tenant
    ((scope, scope_id),) = named.items()
    if scope == "user" and not 0 < len(scope_id) <= USER_ID_CHARACTERS_MAX:
        fail(f"--user: an end user's id has 1 to {USER_ID_CHARACTERS_MAX} characters", 2)
    if scope == "user" and scope_id != control.EACH:
        _whole_user(scope_id)
        with control_session(settings) as session:
            erasures = session.state.erasures
        scope_id = asyncio.run(handle(settings, tenant, scope_id, erasures))
    return cast("Scope", scope), scope_id


def _whole_user(user: str) -> None:
    """Refuse a pattern before it becomes a handle, which would be that of nobody."""
    wrong = check.whole("user", user)
    if wrong is not None:
        fail(f"--user: {wrong.message}", 2)


def _amount(text: str, currency: str) -> int:
    try:
        return parse_amount(text, currency)
    except ValueError as error:
        fail(f"--amount: {error}", 2)


def _sentence(limit: Limit) -> str:
    verb = "may use" if limit.hard else "is watched above"
    told = f", told at {thresholds_text(limit)}" if limit.guards else ""
    place = place_of(limit.scope, limit.scope_id)
    return f"{place} {verb} {_allowed(limit, now_micros())}{_conditions(limit)}{told} ({limit.limit_id})"


def _allowed(limit: Limit, now: int) -> str:
    amount = format_with_unit(limit.allowed_nano(now), limit.currency)
    return f"{amount} in all" if limit.window == "total" else f"{amount} a {limit.window}"


def _conditions(limit: Limit) -> str:
    """What is not so with most limits."""
    found = [] if limit.hard else ["soft"]
    found += [] if limit.time_zone == ZONE_USUAL else [limit.time_zone]
    found += [f"from {time_text(limit.valid_from)}"] if limit.valid_from else []
    found += [f"until {time_text(limit.valid_until)}"] if limit.valid_until else []
    return f" ({', '.join(found)})" if found else ""
