"""`quaestor audit erase | erasures`: destroy a data subject's key, and what was destroyed."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from api.audit.local import layout_of
from api.cli.control_keys import ReasonOption
from api.cli.control_session import control_session
from api.cli.erasing import DataSubject, Destroyed, destroy
from api.cli.erasure_certificate import certificate_of, certificate_path, read_certificate, write_certificate
from api.cli.terminal import DataOption, JsonOption, fail, note, print_json, progress, table, terminal
from api.cli.times import MICROS_PER_SECOND, now_micros
from api.gateway.subjects import TENANT_ITSELF
from api.gateway.vault_keys import open_vault
from api.settings import Settings, load_settings
from api.times import time_text
from processors.control import Erasure
from sinks.audit.files import LogFiles
from sinks.audit.process import published
from sinks.postgres.audit import PostgresAuditStore
from sinks.postgres.connect import READER_ROLE
from sinks.postgres.reads import PostgresReads

#: How long the audit log may take to have an entry and a checkpoint over it.
AUDITED_SECONDS_MAX = 60.0
POLL_SECONDS = 0.2
HANDLE = re.compile(r"[0-9a-f]{32}")
TenantOption = Annotated[str, typer.Option(help="Whose end user it is.")]


def register(audit: typer.Typer) -> None:
    """Add the commands."""
    audit.command("erase")(erase)
    audit.command("erasures")(erasures)


def erase(
    tenant: TenantOption,
    subject: Annotated[
        str | None, typer.Option(help="The end user's id as the app sends it; - reads it from standard input.")
    ] = None,
    handle: Annotated[str | None, typer.Option(help="Or the handle that stands for them in events.")] = None,
    reason: ReasonOption = None,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Do not wait until every gateway has surely let go of the key.")
    ] = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Erase a data subject: unlink the handle and destroy the key to whatever was sealed under it. Not to be undone."""
    if (subject is None) == (handle is None):
        fail("name the data subject: --subject as the app sends it, or --handle as events have it", 2)
    if handle is not None and not HANDLE.fullmatch(handle):
        fail("--handle: 32 hex digits, the subject_handle of an event", 2)
    user = sys.stdin.readline().strip() if subject == "-" else subject
    if user == TENANT_ITSELF:
        fail("an empty id names nobody", 2)
    settings = load_settings(data)
    asked = DataSubject(tenant, user, handle)
    done = asyncio.run(_destroyed(settings, asked, reason))
    if done is None:
        _unknown(asked)
    path = certificate_path(settings.data, done.erasure.handle)
    certificate = read_certificate(path) if done.was_known and not done.had_row else None
    if certificate is None:
        if not no_wait:
            _wait(done.forgotten_at, quiet=as_json)
        certificate = asyncio.run(_certified(settings, done))
        write_certificate(path, certificate)
    if as_json:
        print_json({**certificate, "erased_before": done.was_known, "file": str(path)})
    else:
        _tell(certificate, done, path)


async def _destroyed(settings: Settings, asked: DataSubject, reason: str | None) -> Destroyed | None:
    reads = PostgresReads(settings.postgres_dsn)
    with control_session(settings) as session:
        erased = session.state.erasures.__contains__
        vault = open_vault(settings.postgres_dsn, settings.vault_keys, settings.data, erased)
        try:
            return await destroy(session, vault, asked, reads.sealed_events, reason)
        finally:
            await vault.close()
            await reads.close()


def _unknown(asked: DataSubject) -> NoReturn:
    if asked.handle is not None:
        fail(f"tenant {asked.tenant_id} has no data subject with handle {asked.handle}, and none was erased")
    fail(
        f"tenant {asked.tenant_id} knows no such data subject: never seen, or erased before. Nothing is kept that "
        "could tell which; `quaestor audit erasures` lists what was erased, by handle"
    )


def _wait(until_micros: int, *, quiet: bool) -> None:
    """Until the last gateway has let go of the key."""
    seconds = max(0, until_micros - now_micros()) // MICROS_PER_SECOND + 1
    with progress(quiet=quiet) as bar:
        task = bar.add_task("until every gateway has let go of the key", total=seconds, note="seconds")
        while (left := (until_micros - now_micros()) / MICROS_PER_SECOND) > 0:
            bar.update(task, completed=seconds - left)
            time.sleep(min(left, POLL_SECONDS))


async def _certified(settings: Settings, done: Destroyed) -> dict[str, Any]:
    """The certificate, once a signed checkpoint covers the entry of the control event."""
    layout = layout_of(settings)
    store = PostgresAuditStore(settings.postgres_dsn, layout.log, READER_ROLE)
    deadline = time.monotonic() + AUDITED_SECONDS_MAX
    await store.open()
    try:
        while True:
            place = await store.of_control(done.erasure.event_id)
            if place is not None:
                keys, checkpoint = published(layout)
                signed = LogFiles(layout.directory).checkpoint()
                if signed is not None and checkpoint.size > place.seq:
                    ((leaf, _),) = await store.entries(place.seq, place.seq + 1)
                    return certificate_of(done, place, leaf, keys.today.verifier.vkey, signed)
            if time.monotonic() > deadline:
                _not_audited(done)
            await asyncio.sleep(POLL_SECONDS)
    finally:
        await store.close()


def _not_audited(done: Destroyed) -> NoReturn:
    fail(
        f"the key of {done.erasure.handle} is destroyed, but the audit log has no checkpoint over its entry yet: see "
        f"`quaestor status`, then ask again with --tenant {done.erasure.tenant_id} --handle {done.erasure.handle} "
        "for the certificate"
    )


def _tell(certificate: dict[str, Any], done: Destroyed, path: Path) -> None:
    erasure, entry = done.erasure, certificate["audit_log"]
    if done.was_known:
        what = (
            "its key had come back to the vault and was destroyed again" if done.had_row else "nothing was left to do"
        )
        note(f"erased already at {time_text(erasure.erased_at)}; {what}")
    rows = [
        ("handle", erasure.handle),
        ("tenant", erasure.tenant_id),
        ("recorded", certificate["recorded_at"]),
        ("no gateway has the key after", certificate["no_gateway_has_the_key_after"]),
        ("events that no longer open", certificate["destroyed"]["sealed_events"]),
        ("audit log entry", entry["index"]),
        ("certificate", path),
    ]
    terminal().print(table("Data subject erased", ("", ""), rows))


def erasures(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the data subjects that were erased, by handle: who they were is not known any more."""
    settings = load_settings(data)
    with control_session(settings) as session:
        found = [one for one in session.state.erasures.values() if tenant in {None, one.tenant_id}]
    rows = [_row(settings, one) for one in sorted(found, key=lambda one: (one.erased_at, one.handle))]
    if as_json:
        print_json({"erasures": rows})
        return
    columns = ("tenant", "handle", "erased_at", "sealed_events", "certificate")
    cells = [[*(row[name] for name in columns[:-1]), "written" if row["certificate"] else "missing"] for row in rows]
    terminal().print(table("Erasures", columns, cells, numbers=(3,)))


def _row(settings: Settings, erasure: Erasure) -> dict[str, Any]:
    path = certificate_path(settings.data, erasure.handle)
    return {
        "tenant": erasure.tenant_id,
        "handle": erasure.handle,
        "erased_at": time_text(erasure.erased_at),
        "key_version": erasure.key_version,
        "sealed_events": erasure.sealed_events,
        "event_id": erasure.event_id,
        "certificate": str(path) if path.is_file() else None,
    }
