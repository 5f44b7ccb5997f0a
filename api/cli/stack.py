"""`quaestor up | down | status | endpoints`: the local stack, from nothing to running and back."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from api.cli.stack_view import StackView, endpoint_rows, memory_text, next_steps, rebuild_table, state_text
from api.cli.terminal import DataOption, JsonOption, fail, print_json, table, terminal
from api.gateway.spool import aside_files, waiting_bytes
from api.settings import Settings, load_settings
from infra.embedded import daemon
from infra.embedded.control import Listener
from infra.embedded.endpoints import Endpoints
from infra.embedded.errors import explained
from infra.embedded.ports import PortPlan
from infra.embedded.secret_files import ADMIN_TOKEN_SHOWN, mint_admin_token
from infra.embedded.status import Status, collect
from infra.embedded.supervisor import Plan

#: What is told of a file of the spool that is for a person to look at.
ASIDE = "not in the log (docs/reference/gateway.md, What the spool puts aside)"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(up)
    app.command()(down)
    app.command()(status)
    app.command()(endpoints)


def up(
    data: DataOption = None,
    only: Annotated[str | None, typer.Option(help="'servers' leaves our own processes out.", metavar="servers")] = None,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay here and stop with Ctrl-C.")] = False,
) -> None:
    """Start the whole product on this machine; what runs already stays, what died is started again."""
    if only not in {None, "servers"}:
        fail(f"--only takes 'servers', not {only!r}", 2)
    settings = load_settings(data)
    plan = plan_of(settings, servers_only=only is not None)
    token = _mint(plan.data)
    try:
        good = _foreground(plan) if foreground else _followed(daemon.up(plan, os.environ))
        if good and not foreground:
            _show_running(plan)
    finally:
        if token is not None:
            sys.stderr.write(ADMIN_TOKEN_SHOWN.format(token=token))
    if not good:
        raise typer.Exit(1)


def down(data: DataOption = None) -> None:
    """Stop everything that `up` started; nothing is lost. Fine when nothing runs."""
    folder = load_settings(data).data.absolute()
    if not daemon.is_running(folder):
        terminal().print(f"nothing runs in {folder}")
        return
    with StackView(sys.stderr, stopping=True) as view:
        for event in daemon.stop(folder):
            view.show(event)
    terminal().print(f"stopped; the data stays in {folder}")


def status(data: DataOption = None, as_json: JsonOption = False) -> None:
    """Show each process with its lag, freshness and spool; exit code 0 only when everything runs."""
    folder = load_settings(data).data.absolute()
    found = _with_spool(collect(folder), folder / "spool")
    if as_json:
        print_json(
            {
                "phase": found.phase,
                "data": str(folder),
                "processes": found.processes,
                "versions": found.versions,
            }
        )
    elif found.phase == "down":
        terminal().print(f"nothing runs in {folder}: `quaestor up` starts it")
    else:
        _show_status(found)
    if not found.all_running:
        raise typer.Exit(1)


def _with_spool(found: Status, spool: Path) -> Status:
    """What waits for Kafka beside the gateway, whose it is: counted here, since it waits most when no gateway runs.

    Files of what may not enter the log are named.
    """
    of_gateway: dict[str, object] = {"spool_bytes": waiting_bytes(spool)}
    if aside := aside_files(spool):
        of_gateway["set_aside"] = {path.name: f"{path.stat().st_size} bytes: {ASIDE}" for path in aside}
    told = (each | of_gateway if each["name"] == "gateway" else each for each in map(dict, found.processes))
    return replace(found, processes=tuple(told))


def endpoints(data: DataOption = None, as_json: JsonOption = False) -> None:
    """Show every host, port and URL of the running stack, without credentials."""
    folder = load_settings(data).data.absolute()
    found = Endpoints.read(folder) if daemon.is_running(folder) else None
    if found is None:
        if as_json:
            print_json({"endpoints": []})
        fail(f"nothing runs in {folder}: `quaestor up` starts it")
    rows = endpoint_rows(found)
    if as_json:
        print_json({"endpoints": rows})
        return
    terminal().print(table("Endpoints", ("what", "where"), ((row["name"], row["url"]) for row in rows)))


def plan_of(settings: Settings, *, servers_only: bool = False) -> Plan:
    """What to run for these settings. With `ports = auto`, the ports of the stack's last run where they are free."""
    data = settings.data.absolute()
    if settings.ports == "auto":
        last = Endpoints.read(data)
        ports = PortPlan.auto(last.ports if last else None)
    else:
        ports = PortPlan(
            kafka=settings.kafka_port,
            registry=settings.registry_port,
            postgres=settings.postgres_port,
            redis=settings.redis_port,
            clickhouse=settings.clickhouse_port,
            gateway=settings.gateway_port,
            console=settings.console_port,
            simulator=settings.simulator_port,
        )
    return Plan(data, ports, settings.cache, servers_only)


def _mint(data: Path) -> str | None:
    try:
        return mint_admin_token(data)
    except OSError as error:
        raise explained(error, data) from error


def _followed(events: Iterable[Mapping[str, Any]]) -> bool:
    """Show events to their end; whether everything asked for runs."""
    with StackView(sys.stderr) as view:
        for event in events:
            view.show(event)
    if view.message:
        sys.stderr.write(f"quaestor: {view.message}\n")  # one line, however narrow the terminal
    return view.good


def _foreground(plan: Plan) -> bool:
    """Be the supervisor: progress as it comes, until a signal."""
    reading, writing = os.pipe()

    def follow() -> None:
        with os.fdopen(reading, "rb") as lines:
            good = _followed(daemon.events_of(lines))
        if good:
            _show_running(plan)

    thread = threading.Thread(target=follow, name="view")
    thread.start()
    try:
        return daemon.run(plan, Listener(writing)) == 0
    finally:
        thread.join()


def _show_running(plan: Plan) -> None:
    found = Endpoints.read(plan.data)
    if found is None:
        return
    rows = [row for row in endpoint_rows(found) if row["kind"] != "monitor"]
    terminal().print(table("Running", ("what", "where"), ((row["name"], row["url"]) for row in rows)))
    for line in next_steps(plan.servers_only):
        terminal().print(line)


def _show_status(found: Status) -> None:
    columns = ("process", "state", "pid", "restarts", "lag (events)", "freshness (s)", "spool (bytes)")
    rows = (
        (
            process["name"],
            state_text(process["state"]),
            process["pid"] or "-",
            process["restarts"],
            "-" if process["lag_events"] is None else process["lag_events"],
            "-" if process["freshness_seconds"] is None else f"{process['freshness_seconds']:.2f}",
            process.get("spool_bytes", "-"),
        )
        for process in found.processes
    )
    whole = found.all_running or found.phase != "running"
    title = f"Quaestor is {found.phase}" if whole else "Quaestor runs, but not all of it"
    terminal().print(table(title, columns, rows, numbers=(2, 3, 4, 5, 6)))
    for process in found.processes:
        if process.get("rebuilds"):
            terminal().print(rebuild_table(process["rebuilds"]))
        if process.get("redis_memory"):
            terminal().print(memory_text(process["redis_memory"]))
        if process["state"] == "waiting" and process.get("detail"):
            terminal().print(Text.assemble(("waiting", "yellow"), f" {process['name']}: {process['detail']}"))
        for word, style in (("paused", "yellow"), ("broken", "bold red"), ("set_aside", "yellow")):
            for where, why in process.get(word, {}).items():
                terminal().print(
                    Text.assemble((word.replace("_", " "), style), f" {process['name']} at {where}: {why}")
                )
    terminal().print(" · ".join(f"{name} {version}" for name, version in found.versions.items()), style="dim")
