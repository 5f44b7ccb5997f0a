"""`quaestor audit receipt | export`: files with which outsiders check what the audit log says."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from api.audit.local import layout_of, trust_of
from api.audit.offline import opening_path
from api.audit.receipts import RequestReceipts, request_receipts
from api.cli.audit_verify import entry_facts, signed_facts
from api.cli.terminal import DataOption, JsonOption, fail, print_json, progress, require_request_id, table, terminal
from api.settings import load_settings
from sinks.audit.export import export_tenant
from sinks.audit.files import LogFiles, write_durable
from sinks.audit.keys import OWNER_ONLY, load_salts
from sinks.audit.reader import DirectoryLog

WAIT_SECONDS = 30.0


def register(audit: typer.Typer) -> None:
    """Add the commands."""
    audit.command("receipt")(receipt)
    audit.command("export")(export)


def receipt(
    request_id: Annotated[str, typer.Argument(help="The x-quaestor-request-id of an answer.")],
    out: Annotated[Path, typer.Option(help="Folder for the files, made if need be.")] = Path("receipts"),
    opened: Annotated[
        bool, typer.Option("--open", help="Also write each record and its salt, for those who may see it.")
    ] = False,
    wait_seconds: Annotated[float, typer.Option(min=0, help="Wait so long for a checkpoint over it.")] = WAIT_SECONDS,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a .tlog-proof file per event of a request: proof that it is in the signed log."""
    require_request_id(request_id)
    settings = load_settings(data)
    with progress(quiet=as_json) as bar:
        task = bar.add_task("under a checkpoint", total=None, note="")
        found = asyncio.run(
            request_receipts(
                settings,
                request_id,
                wait_seconds,
                lambda done, total: bar.update(task, completed=done, total=total),
                opened=opened,
            )
        )
    if found is None:
        fail(f"no event of request {request_id} is in the audit log (yet): `quaestor status` shows how far it is")
    written = write_receipts(found, out)
    if as_json:
        print_json({"request_id": request_id, "checkpoint_size": found.checkpoint_size, "receipts": written})
        return
    rows = [
        (each["index"], each["topic"], each["kind"], each["time"], each["amount"], each["file"]) for each in written
    ]
    title = f"Receipts of request {request_id}, under the checkpoint over {found.checkpoint_size:,} entries"
    terminal().print(table(title, ("entry", "topic", "kind", "time", "amount", "file"), rows, numbers=(0, 4)))


def write_receipts(found: RequestReceipts, folder: Path) -> list[dict[str, Any]]:
    """Put the files there, what opens them for their owner alone; what each entry says, and its file."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for built in found.receipts:
        path = folder / built.name
        path.write_bytes(built.data)
        if built.entry.seq in found.openings:
            write_durable(opening_path(path), found.openings[built.entry.seq], mode=OWNER_ONLY)
        written.append(entry_facts(built.entry) | {"file": str(path)})
    return written


def export(
    tenant: Annotated[str, typer.Option(help="Whose entries.")],
    out: Annotated[Path, typer.Option(help="The file to write.")],
    salts: Annotated[
        bool, typer.Option("--salts", help="Add the salt of each of its entries, for who may see its records.")
    ] = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write all entries of a tenant into one file that proves them, and that none is missing."""
    layout = layout_of(load_settings(data))
    trust, known = trust_of(layout), load_salts(layout.salt_file) if salts else None
    with progress(quiet=as_json) as bar:
        task = bar.add_task("audit log", total=None, note="")
        found = asyncio.run(
            export_tenant(
                DirectoryLog(LogFiles(layout.directory)),
                trust,
                tenant,
                out,
                known,
                lambda done, total: bar.update(task, completed=done, total=total),
            )
        )
    if found is None:
        fail(f"the published log has no entry of {tenant!r}")
    facts = {"tenant": tenant, "entries": found.entries, "file": str(out), "bytes": out.stat().st_size}
    facts |= signed_facts(found.signed)
    if as_json:
        print_json(facts)
    else:
        terminal().print(table("Bundle", ("", ""), list(facts.items())))
