"""`quaestor audit witness`: cosigns the checkpoints of logs, best on a machine that is not the log's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from api.cli.serve import begin, until_stopped
from api.cli.terminal import table
from api.cli.times import MICROS_PER_SECOND
from api.settings import load_settings
from api.times import time_text
from processors.audit.note import NoteError, is_key_name, parse_vkey, signatures_of
from processors.audit.policy import Policy
from processors.audit.witness import Cosigner, followed
from schemas.errors import ConfigurationError
from sinks.audit.keys import load_or_make_signer
from sinks.audit.witness_store import FileWitnessStore

KEY_FILE = "witness.key"
MEMORY_FOLDER = "logs"


def register(audit: typer.Typer) -> None:
    """Add the command."""
    audit.command("witness")(witness)


def witness(
    name: Annotated[str, typer.Option(help="The witness's name: the name of its key, for ever.")],
    directory: Annotated[Path, typer.Option(help="Where it remembers what it cosigned; of no other process.")],
    log: Annotated[list[str], typer.Option(help="Public key (vkey) of a log it follows; may be repeated.")],
    key: Annotated[
        Path | None, typer.Option(help="Its signing key, made at the first start; witness.key in the directory.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port; 0 takes a free one.")] = 8082,
) -> None:
    """Cosign checkpoints of the logs named until stopped (c2sp.org/tlog-witness); prints its public key."""
    from api.audit.witness_server import Witness, run  # noqa: PLC0415 - the HTTP server is loaded only where it runs

    if not is_key_name(name):
        raise ConfigurationError(f"{name!r} can't name a key: no spaces and no plus signs, as in witness.example/ours")
    try:
        logs = followed(map(parse_vkey, log))
    except NoteError as error:
        raise ConfigurationError(f"--log: {error}") from None
    monitor = begin(load_settings(), "audit-witness")
    cosigner = Cosigner(load_or_make_signer(key or directory / KEY_FILE, name))
    made = Witness(FileWitnessStore(directory / MEMORY_FOLDER), cosigner, logs)
    print(cosigner.verifier.vkey, flush=True)

    def ready(bound: int) -> None:
        monitor.set(state="running", address=f"{host}:{bound}")
        print(f"witness {name} listens on {host}:{bound}", flush=True)

    until_stopped(lambda stop: run(made, host, port, stop, ready))


def witness_facts(policy: Policy, note: str | None) -> dict[str, Any]:
    """What a checkpoint says of the policy's witnesses: whether they are a quorum, and when (seconds) each signed.

    Raises NoteError when a witness's signature is wrong.
    """
    signed = {} if note is None else signatures_of(note, policy.verifiers)[1]
    missing = policy.missing(signed)
    times = {each.name: signed[each.verifier].time_seconds for each in policy.witnesses if each.verifier in signed}
    return {"quorum": "met" if missing is None else f"missing {missing}", "witnesses": times}


def witness_table(policy: Policy, times: Mapping[str, int]) -> Table:
    """The same for people."""
    rows = [
        (each.name, each.verifier.name, when(times[each.name]) if each.name in times else "has not signed")
        for each in policy.witnesses
    ]
    return table("Witnesses", ("", "key", "signed at"), rows)


def when(time_seconds: int) -> str:
    """The time that a cosignature says."""
    try:
        return time_text(time_seconds * MICROS_PER_SECOND)
    except (OverflowError, ValueError, OSError):
        return f"{time_seconds} s"  # whatever a witness may claim
