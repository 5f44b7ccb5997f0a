"""`quaestor provider add | list | remove` and `quaestor route set | list | remove`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from api.cli.control_keys import ReasonOption
from api.cli.control_session import control_session
from api.cli.terminal import DataOption, JsonOption, fail, note, print_json, table, terminal
from api.settings import load_settings
from processors import control
from processors.control import ControlState, Provider, Route, RouteCandidate
from processors.control.entities import PROVIDER_TIMEOUT_SECONDS
from schemas.topics import SYSTEM_TENANT


def providers() -> typer.Typer:
    """The group of providers."""
    group = typer.Typer(help="OpenAI-compatible servers that calls are sent to.", no_args_is_help=True)
    group.command("add")(add)
    group.command("list")(list_providers)
    group.command("remove")(remove)
    return group


def routes() -> typer.Typer:
    """The group of routes."""
    group = typer.Typer(help="Aliases, and where calls to them go.", no_args_is_help=True)
    group.command("set")(set_route)
    group.command("list")(list_routes)
    group.command("remove")(remove_route)
    return group


def add(
    provider: Annotated[str, typer.Argument(help="Its name, for example openai.")],
    base_url: Annotated[str, typer.Option(help="Up to and without /chat/completions.")],
    secret: Annotated[
        str | None,
        typer.Option(help="Where the gateway finds the bearer token: env:NAME or file:PATH. Never the token."),
    ] = None,
    region: Annotated[str, typer.Option(help="Region.")] = "-",
    model: Annotated[
        list[str] | None, typer.Option(help="NAME or NAME=ITS-NAME; may be repeated. None: names pass through.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Longest call, seconds.")] = PROVIDER_TIMEOUT_SECONDS,
    insecure: Annotated[bool, typer.Option("--insecure", help="Allow plain http to a public address.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Change a provider that exists.")] = False,
    reason: ReasonOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a provider, or change it with --replace."""
    added = Provider(
        provider_id=provider,
        base_url=base_url,
        secret_ref=secret,
        region=region,
        models=_mapping(model or []),
        timeout_seconds=timeout,
    )
    with control_session(load_settings(data)) as session:
        session.change(
            lambda state, origin: control.add_provider(state, added, origin, insecure=insecure, replace=replace), reason
        )
        priced = session.state.books.get(provider)
    if as_json:
        print_json(_provider_row(added, len(priced.prices) if priced else 0))
        return
    note(f"provider {provider} is added with {len(priced.prices) if priced else 'no'} priced models")
    if priced is None:
        note("calls to it are refused until it has prices: `quaestor price import` or `quaestor price set`")


def list_providers(data: DataOption = None, as_json: JsonOption = False) -> None:
    """List providers."""
    with control_session(load_settings(data)) as session:
        state = session.state
    rows = [_provider_row(one, _priced(state, one.provider_id)) for _, one in sorted(state.providers.items())]
    if as_json:
        print_json({"providers": rows})
        return
    columns = ("provider", "base URL", "secret", "region", "models", "priced", "timeout (s)")
    cells = (
        (
            row["id"],
            row["base_url"],
            row["secret"] or "-",
            row["region"],
            ", ".join(row["models"]) or "pass through",
            row["priced_models"],
            row["timeout_seconds"],
        )
        for row in rows
    )
    terminal().print(table("Providers", columns, cells, numbers=(5, 6)))


def remove(
    provider: Annotated[str, typer.Argument(help="Its name.")], reason: ReasonOption = None, data: DataOption = None
) -> None:
    """Remove a provider; routes that name it pass it over."""
    with control_session(load_settings(data)) as session:
        session.change(lambda state, origin: control.remove_provider(state, provider, origin), reason)
    note(f"provider {provider} is removed")


def set_route(
    alias: Annotated[str, typer.Argument(help="The name that callers use as the model.")],
    candidate: Annotated[list[str], typer.Option(help="PROVIDER/MODEL; repeated in the order they are tried.")],
    tenant: Annotated[str, typer.Option(help="Whose alias; everybody's when not given.")] = SYSTEM_TENANT,
    reason: ReasonOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set where an alias goes; the next candidate is tried when one fails."""
    route = Route(alias=alias, tenant_id=tenant, candidates=tuple(_candidate(text) for text in candidate))
    with control_session(load_settings(data)) as session:
        session.settle(lambda state, origin: control.set_route(state, route, origin), reason)
        rows = _candidate_rows(session.state, route)
    if as_json:
        print_json(_route_row(route))
    else:
        note(f"{alias} goes to {', then '.join(candidate)}")
    for row in rows:
        if not row[1]:
            note(f"{row[0]} has no price: it is passed over until it has one")


def list_routes(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's own.")] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List aliases and where they go."""
    with control_session(load_settings(data)) as session:
        found = [route for _, route in sorted(session.state.routes.items()) if tenant in {None, route.tenant_id}]
    if as_json:
        print_json({"routes": [_route_row(route) for route in found]})
        return
    cells = (
        (route.alias, "everybody" if route.tenant_id == SYSTEM_TENANT else route.tenant_id, _joined(route))
        for route in found
    )
    terminal().print(table("Routes", ("alias", "tenant", "candidates, in order"), cells))


def remove_route(
    alias: Annotated[str, typer.Argument(help="The alias.")],
    tenant: Annotated[str, typer.Option(help="Whose alias; everybody's when not given.")] = SYSTEM_TENANT,
    reason: ReasonOption = None,
    data: DataOption = None,
) -> None:
    """Remove an alias."""
    with control_session(load_settings(data)) as session:
        session.change(lambda state, origin: control.remove_route(state, tenant, alias, origin), reason)
    note(f"route {alias} is removed")


def _mapping(models: list[str]) -> dict[str, str]:
    pairs = (model.partition("=") for model in models)
    return {name: own or name for name, _, own in pairs}


def _candidate(text: str) -> RouteCandidate:
    provider_id, _, model = text.partition("/")
    if not provider_id or not model:
        fail(f"{text!r} is no candidate: write PROVIDER/MODEL", 2)
    return RouteCandidate(provider_id, model)


def _candidate_rows(state: ControlState, route: Route) -> list[tuple[str, bool]]:
    """Each candidate and whether it has a price."""
    rows = []
    for one in route.candidates:
        provider = state.provider(one.provider_id)
        own = provider.resolve(one.model) if provider else None
        rows.append((f"{one.provider_id}/{one.model}", bool(own and state.price(one.provider_id, own))))
    return rows


def _joined(route: Route) -> str:
    return ", ".join(f"{one.provider_id}/{one.model}" for one in route.candidates)


def _route_row(route: Route) -> dict[str, Any]:
    candidates = [{"provider": one.provider_id, "model": one.model} for one in route.candidates]
    return {"alias": route.alias, "tenant": route.tenant_id, "candidates": candidates}


def _provider_row(provider: Provider, priced_models: int) -> dict[str, Any]:
    return {
        "id": provider.provider_id,
        "base_url": provider.base_url,
        "secret": provider.secret_ref,
        "region": provider.region,
        "models": provider.models,
        "priced_models": priced_models,
        "timeout_seconds": provider.timeout_seconds,
    }


def _priced(state: ControlState, provider_id: str) -> int:
    book = state.books.get(provider_id)
    return len(book.prices) if book else 0
