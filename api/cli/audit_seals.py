"""`quaestor audit unseal | rewrap`: read what was sealed with the keys of the vault, and wrap those keys anew."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli.control_session import control_session
from api.cli.terminal import (
    DataOption,
    JsonOption,
    fail,
    note,
    print_json,
    progress,
    require_request_id,
    table,
    terminal,
)
from api.gateway.subjects import COMMITMENT_PREFIX, TENANT_ITSELF
from api.gateway.vault_keys import open_vault, ring_file
from api.settings import Settings, load_settings
from api.times import time_text
from processors.control import Erasure
from processors.subjects.sealing import Sealer
from sinks.postgres.reads import PostgresReads, StoredEvent
from sinks.postgres.vault import SubjectVault


def register(audit: typer.Typer) -> None:
    """Add the commands."""
    audit.command("unseal")(unseal)
    audit.command("rewrap")(rewrap)


def unseal(
    request_id: Annotated[str, typer.Argument(help="The x-quaestor-request-id of an answer.")],
    body: Annotated[
        Path | None, typer.Option(help="A file with the body as it was sent: says whether it was this request's.")
    ] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Open what a request's events seal: tags off the allow-list, and the salt that its body is committed to with."""
    require_request_id(request_id)
    settings = load_settings(data)
    with control_session(settings) as session:
        erasures = session.state.erasures
    vault = open_vault(settings.postgres_dsn, settings.vault_keys, settings.data, erasures.__contains__)
    event, content = asyncio.run(_opened(settings, vault, erasures, request_id))
    commitment = _bytes(event.fields["body_commitment"])
    found: dict[str, Any] = {
        "request_id": request_id,
        "event_id": event.event_id,
        "handle": event.fields["subject_handle"],
        "tags": content.get("tags", {}),
        "salt": content["salt"],
        "body_commitment": commitment.hex(),
    }
    if body is not None:
        committed = hashlib.sha256(COMMITMENT_PREFIX + bytes.fromhex(content["salt"]) + body.read_bytes()).digest()
        found["body_is_the_requests"] = committed == commitment
    if as_json:
        print_json(found)
    else:
        terminal().print(table("Unsealed", ("", ""), list(found.items())))
    raise typer.Exit(0 if found.get("body_is_the_requests", True) else 1)


async def _opened(
    settings: Settings, vault: SubjectVault, erasures: Mapping[str, Erasure], request_id: str
) -> tuple[StoredEvent, dict[str, Any]]:
    reads = PostgresReads(settings.postgres_dsn)
    try:
        sealed = [event for event in await reads.story(request_id) if event.fields.get("sealed")]
        if not sealed:
            fail(f"no event of request {request_id} in Postgres seals anything")
        (event, *_) = sealed
        handle = event.fields["subject_handle"]
        row = await (vault.find_handle(handle) if handle else vault.find(event.tenant_id, TENANT_ITSELF))
        gone = erasures.get(row.handle if row else handle or "")
        if gone is not None:
            fail(f"data subject {gone.handle} was erased at {time_text(gone.erased_at)}: nothing opens what was sealed")
        if row is None:
            fail(f"the key of {handle or 'the tenant itself'} is not in the vault")
        sealer = Sealer((await vault.open(row)).data_key)
        opened = sealer.open(event.tenant_id, event.event_id, _bytes(event.fields["sealed"]))
        return event, json.loads(opened)
    finally:
        await vault.close()
        await reads.close()


def _bytes(text: str) -> bytes:
    """Of Postgres' way to write bytes."""
    return bytes.fromhex(text.removeprefix("\\x"))


def rewrap(
    new_key: Annotated[
        bool, typer.Option("--new-key", help="First add a new key-encryption key to the file of keys.")
    ] = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Wrap every subject's data key anew under the newest key-encryption key, so that older ones can be destroyed."""
    settings = load_settings(data)
    if new_key:
        if not settings.vault_keys.startswith("file"):
            fail(f"--new-key: the keys are {settings.vault_keys}; make the new one there, then run this without it", 2)
        version = ring_file(settings.vault_keys, settings.data).add_version()
        note(f"key {version} wraps from now on; give the file to every other machine that runs a gateway")
    with control_session(settings) as session:
        erasures = session.state.erasures
    vault = open_vault(settings.postgres_dsn, settings.vault_keys, settings.data, erasures.__contains__)
    with progress(quiet=as_json) as bar:
        task = bar.add_task("data keys", total=None, note="")
        counts = asyncio.run(_rewrapped(vault, lambda done: bar.update(task, completed=done)))
    if as_json:
        print_json({"subjects": counts})
    else:
        terminal().print(table("Data keys", ("wrapped by key", "subjects"), list(counts.items()), numbers=(1,)))


async def _rewrapped(vault: SubjectVault, on_progress: Any) -> dict[str, int]:
    try:
        return await vault.rewrap(on_progress)
    finally:
        await vault.close()
