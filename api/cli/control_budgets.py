"""`quaestor budget set | list | remove`: hard limits on what a tenant or a key may spend."""

from __future__ import annotations

from typing import Annotated, Any, cast

import typer

from api.cli.control_keys import ReasonOption
from api.cli.control_session import control_session
from api.cli.terminal import DataOption, JsonOption, fail, note, print_json, table, terminal
from api.settings import load_settings
from processors import control
from processors.control import CURRENCY, Limit, limit_id_of
from processors.control.entities import Window
from schemas.money import format_nano, parse_nano

WINDOWS = ("total", "day", "month")


def app() -> typer.Typer:
    """The group."""
    group = typer.Typer(help="Hard limits on spending.", no_args_is_help=True)
    group.command("set")(set_limit)
    group.command("list")(list_limits)
    group.command("remove")(remove)
    return group


def set_limit(
    tenant: Annotated[str, typer.Option(help="Whose budget.")],
    amount: Annotated[str, typer.Option(help="Most per window, for example 100 or 12.50.")],
    key: Annotated[str | None, typer.Option(help="Limit this key (key_…) instead of the whole tenant.")] = None,
    currency: Annotated[str, typer.Option(help="ISO 4217 code.")] = CURRENCY,
    window: Annotated[str, typer.Option(help="total, day or month, in UTC.")] = "month",
    reason: ReasonOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set or change a hard limit; a call that does not fit what is left is refused before a provider is called."""
    if window not in WINDOWS:
        fail(f"--window takes {', '.join(WINDOWS)}, not {window!r}", 2)
    scope, scope_id = ("key", key) if key else ("tenant", tenant)
    limit = Limit(
        limit_id=limit_id_of(tenant, scope, scope_id, window),
        tenant_id=tenant,
        scope="key" if key else "tenant",
        scope_id=scope_id,
        amount_nano=_amount(amount),
        currency=currency,
        window=cast("Window", window),
    )
    with control_session(load_settings(data)) as session:
        session.settle(lambda state, origin: control.set_limit(state, limit, origin), reason)
    if as_json:
        print_json(_row(limit))
    else:
        note(
            f"{scope} {scope_id} may spend {format_nano(limit.amount_nano)} {currency} per {window} ({limit.limit_id})"
        )


def list_limits(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List limits."""
    with control_session(load_settings(data)) as session:
        limits = [limit for limit in session.state.limits.values() if tenant in {None, limit.tenant_id}]
    rows = [
        _row(limit) for limit in sorted(limits, key=lambda one: (one.tenant_id, one.scope, one.scope_id, one.window))
    ]
    if as_json:
        print_json({"limits": rows})
        return
    columns = ("limit", "tenant", "on", "amount", "currency", "window")
    cells = (
        (row["id"], row["tenant"], f"{row['scope']} {row['scope_id']}", row["amount"], row["currency"], row["window"])
        for row in rows
    )
    terminal().print(table("Limits", columns, cells, numbers=(3,)))


def remove(
    limit: Annotated[str, typer.Argument(help="Its id, lim_…")], reason: ReasonOption = None, data: DataOption = None
) -> None:
    """Remove a limit; set anew, it counts what was spent in the window before."""
    with control_session(load_settings(data)) as session:
        session.change(lambda state, origin: control.remove_limit(state, limit, origin), reason)
    note(f"limit {limit} is removed")


def _amount(text: str) -> int:
    try:
        return parse_nano(text)
    except ValueError as error:
        fail(f"--amount: {error}", 2)


def _row(limit: Limit) -> dict[str, Any]:
    return {
        "id": limit.limit_id,
        "tenant": limit.tenant_id,
        "scope": limit.scope,
        "scope_id": limit.scope_id,
        "amount": format_nano(limit.amount_nano),
        "currency": limit.currency,
        "window": limit.window,
        "hard": limit.hard,
    }
