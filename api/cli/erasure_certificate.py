"""The certificate of an erasure: what was destroyed, when, and which entry of the audit log says so."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from api.cli.erasing import Destroyed
from api.times import time_text
from sinks.audit.files import disk, sync_folders, write_durable
from sinks.audit.store import EntryPlace

STATEMENT = (
    "The key of the data subject known in events as {handle} was destroyed, and nothing links that handle to a person "
    "any more. No copy of what was encrypted under the key (in Kafka, Postgres, ClickHouse and their backups) can be "
    "read, unless somebody kept an older copy of the subject vault together with its keys. Amounts, models, times and "
    "what is not personal stay, without the identity. No entry, root, checkpoint or receipt of the audit log changed."
)


def certificate_path(data: Path, handle: str) -> Path:
    """Where the certificate of a subject is."""
    return data / "certificates" / f"erasure-{handle}.json"


def read_certificate(path: Path) -> dict[str, Any] | None:
    """A certificate that was written before."""
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def certificate_of(done: Destroyed, place: EntryPlace, leaf: bytes, vkey: str, note: str) -> dict[str, Any]:
    """The certificate; `leaf` is the hash of the log's entry, `note` a signed checkpoint that covers it."""
    erasure = done.erasure
    return {
        "certificate": "erasure of a data subject",
        "statement": STATEMENT.format(handle=erasure.handle),
        "tenant": erasure.tenant_id,
        "handle": erasure.handle,
        "destroyed": {
            "data_key": f"{erasure.tenant_id}/{erasure.handle}",
            "wrapped_by_key_version": erasure.key_version,
            "sealed_events": erasure.sealed_events,
        },
        "recorded_at": time_text(erasure.erased_at),
        "vault_row_gone_at": time_text(done.at),
        "no_gateway_has_the_key_after": time_text(done.forgotten_at),
        "control_event": {
            "event_id": place.event_id,
            "topic": place.topic,
            "partition": place.partition,
            "offset": place.offset,
        },
        "audit_log": {
            "vkey": vkey,
            "index": place.seq,
            "leaf_hash": base64.b64encode(leaf).decode("ascii"),
            "checkpoint": note,
        },
        "check": "the entry at this index of the audit log, under this signed checkpoint, commits to the control "
        "event; `quaestor audit verify` derives all of it again",
    }


def write_certificate(path: Path, certificate: dict[str, Any]) -> None:
    """Put a certificate in place, durable; raises StoreUnavailableError."""
    with disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durable(path, (json.dumps(certificate, indent=2, ensure_ascii=False) + "\n").encode())
        sync_folders([path.parent])
