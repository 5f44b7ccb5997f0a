"""The audit sink's process, and what commands need of a log, put together from plain settings."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from pathlib import Path

from processors.audit.checkpoint import Checkpoint, open_checkpoint
from processors.audit.merkle import EMPTY_ROOT
from processors.audit.note import Verifier
from schemas.errors import QuaestorError
from sinks.audit.files import LogFiles
from sinks.audit.keys import load_or_make_salts, load_or_make_signer, load_verifier
from sinks.audit.layout import LOG_NAME, ORIGIN, AuditLayout, Probe, no_probe
from sinks.audit.lock import FileLockStore
from sinks.audit.publisher import Publisher
from sinks.audit.sink import AuditSink
from sinks.audit.store import AuditStore
from sinks.audit.witnesses import Cosigners, NoCosigners, PolicyCosigners, Witnessing, policy_for
from sinks.postgres.audit import PostgresAuditStore
from sinks.runner.process import drive
from streams.log import Membership
from streams.monitor import Monitor


async def run(
    data: Path,
    dsn: str,
    bootstrap: str,
    registry_url: str,
    monitor: Monitor,
    stop: asyncio.Event,
    log: str = LOG_NAME,
    origin: str = ORIGIN,
    membership: Membership | None = None,
    witnessing: Witnessing | None = None,
) -> None:
    """Enter every audited record and publish checkpoints until `stop`, under a key made at the first start.

    Raises what ends the process for good: ConfigurationError for an unusable key or policy, IntegrityError when the
    database is behind the last signed checkpoint or things disagree, FencedError when another sequencer took the log.
    """
    layout = AuditLayout(data, log, origin)
    cosigners = make_cosigners(layout, monitor, witnessing)
    sink = make_sink(layout, PostgresAuditStore(dsn, log), owner(log), cosigners=cosigners)
    driving = asyncio.create_task(drive(sink, bootstrap, registry_url, monitor, stop, membership=membership))
    failing = asyncio.create_task(sink.failure())
    try:
        await asyncio.wait({driving, failing}, return_when=asyncio.FIRST_COMPLETED)
        if failing.done():
            monitor.set(state="failed", detail=str(failing.exception()))
            stop.set()
            with suppress(QuaestorError):  # the first failure is the one to tell
                await driving
            await failing
        await driving
    finally:
        failing.cancel()
        await cosigners.close()


def make_cosigners(layout: AuditLayout, monitor: Monitor, witnessing: Witnessing | None) -> Cosigners:
    """Who is asked before a checkpoint is published; raises ConfigurationError for an unusable key or policy."""
    if witnessing is None:
        return NoCosigners()
    verifier = load_or_make_signer(layout.key_file, layout.origin).verifier
    policy = policy_for(witnessing.policy_file, verifier)
    return PolicyCosigners(policy, witnessing.caller, monitor, witnessing.times)


def make_sink(
    layout: AuditLayout, store: AuditStore, name: str, probe: Probe = no_probe, cosigners: Cosigners | None = None
) -> AuditSink:
    """A sink of a log; raises ConfigurationError when its key or its salt secret is unusable."""
    signer = load_or_make_signer(layout.key_file, layout.origin)
    salts = load_or_make_salts(layout.salt_file)
    files, lock = LogFiles(layout.directory, probe), FileLockStore(layout.lock_file, probe)
    return AuditSink(store, Publisher(store, files, lock, signer, probe, cosigners), salts, name)


def published(layout: AuditLayout) -> tuple[Verifier, Checkpoint]:
    """The log's public key and its published checkpoint (of size 0 before the first).

    Raises ConfigurationError when there is no key, NoteError when the checkpoint is not signed by it.
    """
    verifier = load_verifier(layout.key_file, layout.origin)
    note = LogFiles(layout.directory).checkpoint()
    if note is None:
        return verifier, Checkpoint(verifier.name, 0, EMPTY_ROOT)
    return verifier, open_checkpoint(note, verifier)


def owner(log: str) -> str:
    """What the log's row says of this process, for people."""
    return f"audit log {log} on {socket.gethostname()}, process {os.getpid()}"
