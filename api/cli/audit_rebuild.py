"""`quaestor audit rebuild | replay`: the database from the log's own files, and the log's root from Kafka's records."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import typer
from rich.text import Text

from api.audit.local import layout_of, trust_of
from api.cli.terminal import DataOption, JsonOption, note, print_json, progress, table, terminal
from api.settings import Settings, load_settings
from api.verify.log_scan import LogScan
from processors.audit.checkpoint import Checkpoint
from sinks.audit.files import LogFiles
from sinks.audit.keys import load_salts
from sinks.audit.lock import FileLockStore
from sinks.audit.log_walk import OnProgress
from sinks.audit.process import owner
from sinks.audit.reader import DirectoryLog
from sinks.audit.rebuild import Rebuilt
from sinks.audit.rebuild import rebuild as rebuild_log
from sinks.audit.replay import replay as replay_log
from sinks.postgres.audit import PostgresAuditStore
from streams.codec import Codec
from streams.kafka import KafkaReader
from streams.registry import RegistrySchemas


def register(audit: typer.Typer) -> None:
    """Add the commands."""
    audit.command("rebuild")(rebuild)
    audit.command("replay")(replay)


def rebuild(data: DataOption = None, as_json: JsonOption = False) -> None:
    """Put entries, heads and cursors back into the database from the log's files, up to the last signed root.

    For a database that was lost or restored from an older backup. Nothing is written unless the files give that root.
    """
    settings = load_settings(data)
    with progress(quiet=as_json) as bar:
        task = bar.add_task("audit log", total=None, note="")
        done = asyncio.run(_rebuilt(settings, lambda done, total: bar.update(task, completed=done, total=total)))
    facts = signed_size_and_root(done.signed) | {"kept": done.kept, "added": done.added}
    if as_json:
        print_json(facts)
        return
    terminal().print(table("Audit log, rebuilt", ("", ""), list(facts.items())))
    note("start the audit sink (`quaestor up`): it goes on behind the signed log with what Kafka has")


async def _rebuilt(settings: Settings, on_progress: OnProgress) -> Rebuilt:
    layout = layout_of(settings)
    trust, log = trust_of(layout), DirectoryLog(LogFiles(layout.directory))
    locked = await asyncio.to_thread(FileLockStore(layout.lock_file).latest)
    store = PostgresAuditStore(settings.postgres_dsn, layout.log)
    await store.open()
    try:
        return await rebuild_log(store, log, locked, trust, f"rebuild of {owner(layout.log)}", None, on_progress)
    finally:
        await store.close()


def replay(data: DataOption = None, as_json: JsonOption = False) -> None:
    """Make every published entry again from its record in Kafka, in the recorded order, up to the signed root."""
    settings = load_settings(data)
    with progress(quiet=as_json) as bar:
        task = bar.add_task("audit log", total=None, note="")
        signed = asyncio.run(_replayed(settings, lambda done, total: bar.update(task, completed=done, total=total)))
    if as_json:
        print_json({"ok": True} | signed_size_and_root(signed))
        return
    note(Text(f"{signed.size:,} entries made again from Kafka's records give the signed root", "green"))


async def _replayed(settings: Settings, on_progress: OnProgress) -> Checkpoint:
    layout = layout_of(settings)
    reader = KafkaReader(settings.kafka_bootstrap, "quaestor-audit-replay")
    try:
        scan = await asyncio.to_thread(LogScan, reader, Codec(RegistrySchemas(settings.registry_url)))
        log, salts = DirectoryLog(LogFiles(layout.directory)), load_salts(layout.salt_file)
        return await replay_log(log, trust_of(layout), salts, scan.read, on_progress)
    finally:
        reader.close()


def signed_size_and_root(signed: Checkpoint) -> dict[str, Any]:
    """What a checkpoint says."""
    return {"log": signed.origin, "size": signed.size, "root": base64.b64encode(signed.root).decode("ascii")}
