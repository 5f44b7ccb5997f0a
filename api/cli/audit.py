"""`quaestor audit`: what the audit log commits to, and the commands that prove and check it."""

from __future__ import annotations

import base64
from typing import Any

import typer

from api.audit.receipts import layout_of
from api.cli import audit_proofs, audit_rebuild, audit_verify
from api.cli.terminal import DataOption, JsonOption, print_json, table, terminal
from api.settings import load_settings
from sinks.audit.process import published


def register(app: typer.Typer) -> None:
    """Add the commands."""
    audit = typer.Typer(name="audit", help="The audit log: a Merkle tree over every event.", no_args_is_help=True)
    audit.command("info")(info)
    audit.command("verify")(audit_verify.verify)
    audit_proofs.register(audit)
    audit_rebuild.register(audit)
    app.add_typer(audit)


def info(data: DataOption = None, as_json: JsonOption = False) -> None:
    """The log's origin, public key, directory, and the size and root of its published checkpoint."""
    layout = layout_of(load_settings(data))
    verifier, checkpoint = published(layout)
    facts: dict[str, Any] = {
        "origin": checkpoint.origin,
        "vkey": verifier.vkey,
        "directory": str(layout.directory.resolve()),
        "size": checkpoint.size,
        "root": base64.b64encode(checkpoint.root).decode("ascii"),
    }
    if as_json:
        print_json(facts)
        return
    terminal().print(table("Audit log", ("", ""), list(facts.items())))
