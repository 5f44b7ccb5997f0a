"""`quaestor audit anchors [verify]`: where checkpoints are kept out of reach, and whether the log fits them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import typer

from api.anchors.uri import make_plans
from api.audit.local import layout_of
from api.cli.terminal import DataOption, JsonOption, agreement, note, print_json, table, terminal
from api.cli.times import MICROS_PER_SECOND, now_micros
from api.settings import Settings, load_settings
from api.times import time_text
from processors.parity.checks import Check
from sinks.audit.anchors.check import check_anchor
from sinks.audit.anchors.keeper import AnchorPlan
from sinks.audit.anchors.state import AnchorState, AnchorStates
from sinks.audit.files import LogFiles
from sinks.audit.layout import AuditLayout
from sinks.audit.process import published

Result = TypeVar("Result")
Work = Callable[[AuditLayout, list[AnchorPlan], AnchorStates], Coroutine[Any, Any, Result]]


def register(audit: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Checkpoints kept where nobody here can take them back.", invoke_without_command=True)
    group.callback()(anchors)
    group.command("verify")(verify)
    audit.add_typer(group, name="anchors")


def anchors(context: typer.Context, data: DataOption = None, as_json: JsonOption = False) -> None:
    """List the anchors: what each took last and when, and what went wrong since."""
    if context.invoked_subcommand is not None:
        return
    states = asyncio.run(_with_plans(load_settings(data), _states))
    rows = [_row(state, now_micros()) for state in states]
    if as_json:
        print_json({"anchors": rows})
        return
    cells = (
        (row["name"], row["size"], row["age_seconds"] or "-", row["failures"], row["error"] or "-") for row in rows
    )
    columns = ("anchor", "entries", "age, seconds", "failures", "last error")
    terminal().print(table("Anchors", columns, cells, numbers=(1, 2, 3)))
    if not rows:
        note("there are none: set audit_anchors (docs/guides/audit-keys-and-anchors.md)")


def verify(data: DataOption = None, as_json: JsonOption = False) -> None:
    """Compare everything the anchors keep with the log; exit code 0 only when it fits and there is an anchor."""
    checks = asyncio.run(_with_plans(load_settings(data), _checks))
    ok = bool(checks) and all(check.ok for check in checks)
    if as_json:
        print_json({"ok": ok, "checks": [check.as_json() for check in checks]})
    else:
        rows = ((agreement(ok=each.ok), each.name, each.expected, each.first_difference or "") for each in checks)
        terminal().print(table("Anchors", ("", "anchor", "checkpoints", "first difference"), rows, numbers=(2,)))
    raise typer.Exit(0 if ok else 1)


async def _with_plans(settings: Settings, work: Work[Result]) -> Result:
    layout = layout_of(settings)
    plans = make_plans(settings.audit_anchors, layout)
    try:
        return await work(layout, plans, AnchorStates(layout.anchor_directory))
    finally:
        for plan in plans:
            await plan.anchor.close()


async def _states(_layout: AuditLayout, plans: list[AnchorPlan], states: AnchorStates) -> list[AnchorState]:
    return [states.load(plan.anchor.name) for plan in plans]


async def _checks(layout: AuditLayout, plans: list[AnchorPlan], states: AnchorStates) -> list[Check]:
    keys, _ = published(layout)
    files = LogFiles(layout.directory)
    return [
        await check_anchor(plan.anchor, states.load(plan.anchor.name), files, keys.chain, lambda: published(layout)[1])
        for plan in plans
    ]


def _row(state: AnchorState, now: int) -> dict[str, Any]:
    return {
        "name": state.name,
        "size": state.size,
        "at": time_text(state.at_micros) if state.at_micros else None,
        "age_seconds": (now - state.at_micros) // MICROS_PER_SECOND if state.at_micros else None,
        "failures": state.failures,
        "error": state.error,
        "error_at": time_text(state.error_at_micros) if state.error_at_micros else None,
    }
