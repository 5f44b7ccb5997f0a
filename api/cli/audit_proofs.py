"""`quaestor audit receipt | verify`: what an outsider needs to check the audit log, and the check itself."""

from __future__ import annotations

import asyncio
import base64
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from api.audit.receipts import RequestReceipts, request_receipts
from api.cli.terminal import DataOption, JsonOption, fail, print_json, progress, table, terminal
from api.settings import load_settings
from processors.audit.entry import Entry
from processors.audit.opening import EXTENSION as OPENING_EXTENSION
from processors.audit.proof_file import EXTENSION
from schemas.ids import is_uuid
from schemas.money import format_amount

MICROS_PER_SECOND = 1_000_000
WAIT_SECONDS = 30.0


def register(audit: typer.Typer) -> None:
    """Add the commands."""
    audit.command("receipt")(receipt)


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
    if not is_uuid(request_id):
        fail(f"{request_id!r} is not a request id; answers carry it as x-quaestor-request-id")
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
    """Put the files there; what each entry says, and its file."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for built in found.receipts:
        path = folder / built.name
        path.write_bytes(built.data)
        if built.entry.seq in found.openings:
            opening_path(path).write_bytes(found.openings[built.entry.seq])
        written.append(entry_facts(built.entry) | {"file": str(path)})
    return written


def opening_path(path: Path) -> Path:
    """Where the opening of a receipt lies."""
    return path.with_name(path.name.removesuffix(EXTENSION) + OPENING_EXTENSION)


def entry_facts(entry: Entry) -> dict[str, Any]:
    """What an entry says, for people and programs."""
    source = entry.source
    amount = "" if source.amount_nano is None else format_amount(source.amount_nano, source.currency)
    return {
        "index": entry.seq,
        "tenant": source.tenant_id,
        "tenant_index": entry.tseq,
        "topic": source.topic,
        "partition": source.partition,
        "offset": source.offset,
        "kind": source.kind,
        "time": datetime.fromtimestamp(source.time_micros / MICROS_PER_SECOND, UTC).isoformat(),
        "amount": amount,
        "event_id": source.event_id,
        "request_id": source.request_id,
        "commitment": base64.b64encode(source.commitment).decode("ascii"),
    }
