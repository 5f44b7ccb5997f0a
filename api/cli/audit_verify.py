"""`quaestor audit verify`: files that prove something, a whole log from its public files, or this product's own log."""

from __future__ import annotations

import asyncio
import base64
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from api.audit.http_reader import HttpLog
from api.audit.local import layout_of, trust_of
from api.audit.offline import CheckedReceipt, check_file
from api.cli.audit_witness import when
from api.cli.terminal import DataOption, JsonOption, agreement, fail, note, plain, print_json, progress, table, terminal
from api.settings import Settings, load_settings
from processors.audit.entry import Entry
from processors.audit.export import Export
from processors.audit.note import parse_vkey
from processors.audit.trust import Signed, Trust
from schemas.errors import ConfigurationError, IntegrityError
from schemas.money import format_amount
from sinks.audit.files import LogFiles, read_note, write_durable
from sinks.audit.key_ring import KeyRing
from sinks.audit.lock import FileLockStore
from sinks.audit.log_walk import OnProgress
from sinks.audit.reader import DirectoryLog
from sinks.audit.verify import AuditReport, verify_audit
from sinks.audit.verify_public import verify_public
from sinks.audit.witnesses import load_policy
from sinks.postgres.audit import PostgresAuditStore
from sinks.postgres.connect import READER_ROLE

MICROS_PER_SECOND = 1_000_000
URL_SCHEMES = ("http://", "https://")

KeyOption = Annotated[
    list[str] | None,
    typer.Option("--key", metavar="VKEY", help="The log's public key; of several, any. Default: this product's own."),
]


def verify(
    files: Annotated[list[Path] | None, typer.Argument(help="Receipts and bundles to check offline.")] = None,
    key: KeyOption = None,
    policy: Annotated[
        Path | None, typer.Option(help="A witness policy (C2SP tlog-policy) that checkpoints must meet.")
    ] = None,
    hand_over: Annotated[
        list[Path] | None,
        typer.Option(
            help="A note in which the log's key handed over (keys/N beside it); leads from the given keys on."
        ),
    ] = None,
    log: Annotated[
        str | None, typer.Option("--log", metavar="DIR|URL", help="Check a whole log from its public files.")
    ] = None,
    against: Annotated[
        list[Path] | None, typer.Option(help="With --log: a checkpoint seen before, which it must only add to.")
    ] = None,
    remember: Annotated[
        Path | None, typer.Option(help="With --log: check against this checkpoint file, and keep the new one there.")
    ] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check files, or a whole log; without either, derive this product's log again and compare it with its rows.

    Exit code 0 only when nothing differs.
    """
    if files and log is not None:
        fail("give files or --log, not both")
    if (against or remember) and log is None:
        fail("--against and --remember belong to --log")
    if policy is not None and not files and log is None:
        fail("--policy belongs to files or --log")
    if files:
        verify_files(files, _trust(key, policy, hand_over, data), as_json=as_json)
    if log is not None:
        verify_log(log, _trust(key, policy, hand_over, data), against or [], remember, as_json=as_json)
    verify_own(load_settings(data), as_json=as_json)


def _trust(keys: list[str] | None, policy_file: Path | None, hand_overs: list[Path] | None, data: Path | None) -> Trust:
    """The keys given, and those that hand-overs lead to from them."""
    trust = _given(keys, policy_file, data)
    return trust.following([_known(path, must_be=True) for path in hand_overs]) if hand_overs else trust


def _given(keys: list[str] | None, policy_file: Path | None, data: Path | None) -> Trust:
    """The keys given; without any those of the policy's logs, without these this product's own."""
    policy = None if policy_file is None else load_policy(policy_file)
    if keys:
        return Trust(tuple(map(parse_vkey, keys)), policy)
    if policy is not None and policy.logs:
        return Trust(tuple(known.verifier for known in policy.logs), policy)
    return replace(trust_of(layout_of(load_settings(data))), policy=policy)


def verify_files(paths: list[Path], trust: Trust, *, as_json: bool) -> None:
    """Check each and print what it shows; ends the command."""
    if not as_json:
        raise typer.Exit(0 if show_files(paths, trust) else 1)
    found = [_checked(path, trust) for path in paths]
    good = all(facts["ok"] for facts in found)
    print_json({"ok": good, "files": found})
    raise typer.Exit(0 if good else 1)


def show_files(paths: list[Path], trust: Trust) -> bool:
    """Check files and print what each proves; whether all do."""
    good = True
    for path in paths:
        facts = _checked(path, trust)
        good = good and facts["ok"]
        if facts["ok"]:
            rows = [(name, plain(value)) for name, value in facts.items() if name not in {"file", "ok"} and value != ""]
            terminal().print(table(f"{plain(path)}: proven", ("", ""), rows))
        else:
            terminal().print(Text.assemble(("refused", "red"), f" {plain(path)}: {plain(facts['error'])}"))
    return good


def _checked(path: Path, trust: Trust) -> dict[str, Any]:
    try:
        return {"file": str(path), "ok": True} | _facts(check_file(path, trust))
    except IntegrityError as error:
        return {"file": str(path), "ok": False, "error": str(error)}


def _facts(checked: CheckedReceipt | Export) -> dict[str, Any]:
    if isinstance(checked, Export):
        salts = {"salts": "of every entry"} if checked.has_salts else {}
        whole = {"tenant": checked.tenant_id, "entries": checked.entries, "missing": 0}
        return whole | salts | signed_facts(checked.signed)
    record = {}
    if checked.is_opened:
        record = {"record": "none" if checked.value is None else base64.b64encode(checked.value).decode("ascii")}
    return entry_facts(checked.receipt.entry) | record | signed_facts(checked.receipt.signed)


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
        "amount": f"{amount} {source.currency}".strip(),
        "event_id": source.event_id,
        "request_id": source.request_id,
        "commitment": base64.b64encode(source.commitment).decode("ascii"),
    }


def signed_facts(signed: Signed) -> dict[str, Any]:
    """What was signed, and by whom."""
    checkpoint = signed.checkpoint
    facts = {
        "log": checkpoint.origin,
        "log_size": checkpoint.size,
        "root": base64.b64encode(checkpoint.root).decode("ascii"),
        "signed_by": ", ".join(signed.signers),
    }
    if signed.witnesses:
        facts["witnessed_by"] = ", ".join(f"{each.name} {when(each.time_seconds)}" for each in signed.witnesses)
    if signed.unknown:
        facts["not_checked"] = f"signatures of {', '.join(signed.unknown)}, whose keys were not given"
    return facts


def verify_log(where: str, trust: Trust, against: list[Path], remember: Path | None, *, as_json: bool) -> None:
    """Check a whole log from its public files; ends the command. What passes is remembered, nothing else."""
    earlier = [(str(path), _known(path, must_be=True)) for path in against]
    if remember is not None and (known := _known(remember, must_be=False)):
        earlier.append((str(remember), known))
    with progress(quiet=as_json) as bar:
        task = bar.add_task("audit log", total=None, note="")
        report, seen = asyncio.run(
            _verified_public(where, trust, earlier, lambda done, all_: bar.update(task, completed=done, total=all_))
        )
    if report.ok and remember is not None and seen is not None:
        write_durable(remember, seen.encode("utf-8"))
    _end(report, as_json=as_json)


def _known(path: Path, *, must_be: bool) -> str:
    note_text = read_note(path)
    if note_text is None and must_be:
        raise ConfigurationError(f"there is no signed note at {path}")
    return note_text or ""


async def _verified_public(
    where: str, trust: Trust, earlier: list[tuple[str, str]], on_progress: OnProgress
) -> tuple[AuditReport, str | None]:
    # Spawned, not forked: threads and a loop run here.
    workers = ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn"))
    with workers:
        if not where.startswith(URL_SCHEMES):
            source = DirectoryLog(LogFiles(Path(where)))
            return await verify_public(source, trust, earlier, workers, on_progress)
        log = HttpLog(where)
        try:
            return await verify_public(log, trust, earlier, workers, on_progress)
        finally:
            await log.close()


def verify_own(settings: Settings, *, as_json: bool) -> None:
    """Derive this product's log again, compare it with its rows and the lock store; ends the command."""
    with progress(quiet=as_json) as bar:
        task = bar.add_task("audit log", total=None, note="")
        report = asyncio.run(_verified(settings, lambda done, all_: bar.update(task, completed=done, total=all_)))
    _end(report, as_json=as_json)


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


def _end(report: AuditReport, *, as_json: bool) -> None:
    """Print the report and end the command."""
    if as_json:
        print_json(report.as_json())
    else:
        _show(report)
    raise typer.Exit(0 if report.ok else 1)


def _show(report: AuditReport) -> None:
    rows = [(agreement(ok=check.ok), check.name, plain(check.first_difference or "")) for check in report.checks]
    terminal().print(table(f"{plain(report.origin)}: {report.size} entries", ("", "check", "first difference"), rows))
    since = f" from entry {report.minimum_index} on" if report.minimum_index else ""
    if report.ok:
        note(Text(f"every entry{since} of {report.tenants} tenants is under the signed root", "green"))
