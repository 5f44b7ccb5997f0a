"""`quaestor audit retention set | show | plan | apply`: how long what is stored stays, and what goes then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

import typer

from api.audit.local import layout_of
from api.cli.control_keys import ReasonOption
from api.cli.control_session import control_session
from api.cli.terminal import DataOption, JsonOption, fail, note, print_json, progress, table, terminal
from api.cli.times import now_micros
from api.control.session import ControlSession
from api.retention.audit import AuditRetention
from api.retention.events import EventsRetention
from api.retention.plans import Plan, RetainedClass
from api.retention.run import apply as apply_retention
from api.settings import Settings, load_settings
from processors import control
from processors.control import RETENTION_CLASSES, ControlState, Retention
from sinks.audit.files import LogFiles
from sinks.audit.lock import FileLockStore
from sinks.audit.process import published
from sinks.audit.retention import OnProgress
from sinks.audit.verify import AuditReport, verify_audit
from sinks.clickhouse.client import ClickHouse
from sinks.clickhouse.retention import ClickHouseRetention
from sinks.postgres.audit import PostgresAuditStore
from sinks.postgres.connect import READER_ROLE
from sinks.postgres.retention import PostgresRetention

ClassArgument = Annotated[str | None, typer.Argument(help="audit or events; both without it.", metavar="[CLASS]")]


def register(audit: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="How long what is stored stays.", no_args_is_help=True)
    group.command("set")(set_policy)
    group.command("show")(show)
    group.command("plan")(plan)
    group.command("apply")(apply)
    audit.add_typer(group, name="retention")


def set_policy(
    name: Annotated[str, typer.Argument(help="audit (entries) or events (months).", metavar="CLASS")],
    keep_days: Annotated[int | None, typer.Option(help="Days that it stays at least.")] = None,
    forever: Annotated[bool, typer.Option("--forever", help="It stays for ever, as it does without a policy.")] = False,
    reason: ReasonOption = None,
    data: DataOption = None,
) -> None:
    """Set how long a class stays from now on. Nothing goes before `apply`."""
    if (keep_days is None) is not forever:
        fail("say --keep-days N or --forever", 2)
    with control_session(load_settings(data)) as session:
        session.settle(lambda state, origin: control.set_retention(state, name, keep_days, origin), reason)
    note(f"{name} stays for {'ever' if keep_days is None else f'{keep_days} days'}")


def show(data: DataOption = None, as_json: JsonOption = False) -> None:
    """Show every class's policy, and what is gone of it."""
    with control_session(load_settings(data)) as session:
        known = [session.state.retention.get(name, Retention(name=name)) for name in RETENTION_CLASSES]
    if as_json:
        print_json({"retention": [_row(each) for each in known]})
        return
    cells = [
        (each.name, "for ever" if each.keep_days is None else f"{each.keep_days} days", each.kept_from or "all")
        for each in known
    ]
    terminal().print(table("Retention", ("class", "stays", "kept from"), cells))


def plan(name: ClassArgument = None, data: DataOption = None, as_json: JsonOption = False) -> None:
    """Show what would go now, what stays and why; nothing changes."""
    settings = load_settings(data)
    with control_session(settings) as session:
        plans = asyncio.run(_plans(settings, session.state, _chosen(name)))
    if as_json:
        print_json({"plans": [each.as_json() for each in plans]})
        return
    for each in plans:
        _show(each)


def apply(
    name: ClassArgument = None,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    reason: ReasonOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Record in the log what goes, wait until that is published, and drop it; may be run again after any failure."""
    settings = load_settings(data)
    with control_session(settings) as session:
        done = [_applied(settings, session, each, reason, yes=yes, quiet=as_json) for each in _chosen(name)]
    if as_json:
        print_json({"applied": done})


def _applied(
    settings: Settings, session: ControlSession, name: str, reason: str | None, *, yes: bool, quiet: bool
) -> dict[str, Any]:
    with progress(quiet=quiet) as bar:
        task = bar.add_task(f"retention of {name}", total=None, note="")

        def confirmed(due: Plan) -> bool:
            bar.stop()
            if not quiet:
                _show(due)
            answer = yes or typer.confirm(f"Drop what is before {due.kept_from} for good?", err=True)
            bar.start()
            return answer

        def moved(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        found, gone = asyncio.run(_carried_out(settings, session, name, confirmed, moved, reason))
    if not quiet:
        for words in gone or ["nothing"]:
            note(f"{name}: gone: {words}; no more goes: {found.why}")
    return {"class": name, "plan": found.as_json(), "gone": gone}


async def _carried_out(
    settings: Settings,
    session: ControlSession,
    name: str,
    confirmed: Callable[[Plan], bool],
    moved: OnProgress,
    reason: str | None,
) -> tuple[Plan, list[str]]:
    async with _retained(settings, name, moved) as retained:
        return await apply_retention(
            session, retained, now_micros(), lambda: published(layout_of(settings))[1], confirmed, moved, reason
        )


async def _plans(settings: Settings, state: ControlState, names: Sequence[str]) -> list[Plan]:
    plans = []
    for name in names:
        async with _retained(settings, name) as retained:
            plans.append(await retained.plan(state, now_micros()))
    return plans


@asynccontextmanager
async def _retained(settings: Settings, name: str, moved: OnProgress | None = None) -> AsyncIterator[RetainedClass]:
    """The class over its stores; `moved` hears how far the log is verified."""
    layout = layout_of(settings)
    dropping = PostgresRetention(settings.postgres_dsn, layout.log)
    if name == EventsRetention.name:
        made: RetainedClass = EventsRetention([dropping, ClickHouseRetention(ClickHouse(settings.clickhouse_url))])
        store = None
    else:
        store = PostgresAuditStore(settings.postgres_dsn, layout.log, READER_ROLE)
        files, lock = LogFiles(layout.directory), FileLockStore(layout.lock_file)

        async def verified(store: PostgresAuditStore = store) -> AuditReport:
            return await verify_audit(store, files, lock, published(layout)[0].chain, moved)

        made = AuditRetention(files, store, dropping, lambda: published(layout)[1].size, verified)
    try:
        if store is not None:
            await store.open()
        yield made
    finally:
        await made.close()
        if store is not None:
            await store.close()


def _chosen(name: str | None) -> list[str]:
    if name is None:
        return list(RETENTION_CLASSES)
    if name not in RETENTION_CLASSES:
        fail(f"there is no class {name!r}; choose {', '.join(RETENTION_CLASSES)}", 2)
    return [name]


def _row(retention: Retention) -> dict[str, Any]:
    known = retention.cut
    return {
        "class": retention.name,
        "keep_days": retention.keep_days,
        "kept_from": retention.kept_from,
        "cut": None
        if known is None
        else {
            "from": known.begin,
            "to": known.end,
            "keep_days": known.keep_days,
            "size": known.size,
            "root": known.root,
        },
    }


def _show(plan: Plan) -> None:
    policy = "for ever" if plan.keep_days is None else f"{plan.keep_days} days"
    rows = [(drop.store, drop.what, drop.rows, drop.bytes) for drop in plan.drops]
    title = f"{plan.name}: stays {policy}; kept from {plan.kept_from}"
    terminal().print(table(title, ("store", "goes", "rows", "bytes"), rows, numbers=(2, 3)))
    note(f"no more goes: {plan.why}")
    if plan.unfinished:
        note("an earlier cut is recorded and not carried out to its end: `apply` finishes it")
