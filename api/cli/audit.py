"""`quaestor audit info | verify | search | witness`: what the audit log commits to, and whether it is what it says."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import typer

from api.cli import audit_anchors, audit_holds, audit_keys, audit_retention, audit_search, audit_witness
from api.cli.audit_parts import layout_of
from api.cli.audit_witness import witness_facts, witness_table
from api.cli.terminal import DataOption, JsonOption, note, print_json, progress, table, terminal
from api.settings import Settings, load_settings
from sinks.audit.files import LogFiles
from sinks.audit.key_ring import KeyRing
from sinks.audit.lock import FileLockStore
from sinks.audit.process import published
from sinks.audit.verify import AuditReport, OnProgress, verify_audit
from sinks.audit.witnesses import load_policy
from sinks.postgres.audit import PostgresAuditStore
from sinks.postgres.connect import READER_ROLE


def register(app: typer.Typer) -> None:
    """Add the commands."""
    audit = typer.Typer(name="audit", help="The audit log: a Merkle tree over every event.", no_args_is_help=True)
    audit.command("info")(info)
    audit.command("verify")(verify)
    audit_keys.register(audit)
    audit_anchors.register(audit)
    audit_search.register(audit)
    audit_retention.register(audit)
    audit_holds.register(audit)
    audit_witness.register(audit)
    app.add_typer(audit)


def info(data: DataOption = None, as_json: JsonOption = False) -> None:
    """The log's origin, public keys, directory, its published checkpoint's size and root, and who witnessed that."""
    settings = load_settings(data)
    layout = layout_of(settings)
    keys, checkpoint = published(layout)
    facts: dict[str, Any] = {
        "origin": checkpoint.origin,
        "vkey": keys.today.verifier.vkey,
        "vkeys": [verifier.vkey for verifier in keys.chain.keys],
        "hand_overs": len(keys.chain.hand_overs),
        "directory": str(layout.directory.resolve()),
        "size": checkpoint.size,
        "root": base64.b64encode(checkpoint.root).decode("ascii"),
        "minimum_index": LogFiles(layout.directory).kept().minimum_index,
    }
    policy_file = settings.audit_witness_policy
    policy = None if policy_file is None else load_policy(policy_file)
    if policy is not None:
        facts |= witness_facts(policy, LogFiles(layout.directory).checkpoint())
    if as_json:
        print_json(facts)
        return
    witnesses = facts.pop("witnesses", {})
    facts["vkeys"] = "\n".join(facts["vkeys"])
    terminal().print(table("Audit log", ("", ""), list(facts.items())))
    if policy is not None:
        terminal().print(witness_table(policy, witnesses))


def verify(data: DataOption = None, as_json: JsonOption = False) -> None:
    """Derive every entry, chain, tile and row again, up to the signed root; exit code 0 only when nothing differs."""
    settings = load_settings(data)
    with progress(quiet=as_json) as bar:
        task = bar.add_task("audit log", total=None, note="")
        report = asyncio.run(_verified(settings, lambda done, total: bar.update(task, completed=done, total=total)))
    if as_json:
        print_json(report.as_json())
    else:
        _show(report)
    raise typer.Exit(0 if report.ok else 1)


async def _verified(settings: Settings, on_progress: OnProgress) -> AuditReport:
    layout = layout_of(settings)
    keys = KeyRing(layout).load().chain
    store = PostgresAuditStore(settings.postgres_dsn, layout.log, READER_ROLE)
    await store.open()
    try:
        files, lock = LogFiles(layout.directory), FileLockStore(layout.lock_file)
        return await verify_audit(store, files, lock, keys, on_progress)
    finally:
        await store.close()


def _show(report: AuditReport) -> None:
    rows = [
        ("[green]ok[/green]" if check.ok else "[red]differs[/red]", check.name, check.first_difference or "")
        for check in report.checks
    ]
    terminal().print(table(f"{report.origin}: {report.size} entries", ("", "check", "first difference"), rows))
    since = f" from entry {report.minimum_index} on" if report.minimum_index else ""
    if report.ok:
        note(f"[green]every entry{since} of {report.tenants} tenants is under the signed root[/green]")
