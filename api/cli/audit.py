"""`quaestor audit`: what the audit log commits to, and the commands that prove and check it."""

from __future__ import annotations

import base64
from typing import Any

import typer

from api.audit.local import layout_of
from api.cli import (
    audit_anchors,
    audit_erasure,
    audit_holds,
    audit_keys,
    audit_proofs,
    audit_rebuild,
    audit_retention,
    audit_seals,
    audit_search,
    audit_verify,
    audit_witness,
)
from api.cli.audit_witness import witness_facts, witness_table
from api.cli.terminal import DataOption, JsonOption, print_json, table, terminal
from api.settings import load_settings
from sinks.audit.files import LogFiles
from sinks.audit.process import published
from sinks.audit.witnesses import load_policy


def register(app: typer.Typer) -> None:
    """Add the commands."""
    audit = typer.Typer(name="audit", help="The audit log: a Merkle tree over every event.", no_args_is_help=True)
    audit.command("info")(info)
    audit.command("verify")(audit_verify.verify)
    audit_proofs.register(audit)
    audit_rebuild.register(audit)
    audit_keys.register(audit)
    audit_anchors.register(audit)
    audit_search.register(audit)
    audit_retention.register(audit)
    audit_holds.register(audit)
    audit_erasure.register(audit)
    audit_seals.register(audit)
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
