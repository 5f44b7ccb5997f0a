"""The audit sink's process, and what commands need of a log, put together from plain settings."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from processors.audit.checkpoint import Checkpoint
from processors.audit.merkle import EMPTY_ROOT
from sinks.audit.anchors.keeper import AnchorKeeper, AnchorPlan
from sinks.audit.anchors.state import AnchorStates
from sinks.audit.files import LogFiles
from sinks.audit.key_ring import KeyRing, Keys
from sinks.audit.keys import load_or_make_salts
from sinks.audit.layout import LOG_NAME, ORIGIN, AuditLayout, Probe, no_probe
from sinks.audit.lock import FileLockStore
from sinks.audit.publisher import Publisher
from sinks.audit.sink import AuditSink
from sinks.audit.store import AuditStore
from sinks.audit.witnesses import Cosigners, NoCosigners, PolicyCosigners, Witnessing, policy_for
from sinks.postgres.audit import PostgresAuditStore
from sinks.runner.beside import run_beside
from sinks.runner.process import drive
from streams.log import Membership
from streams.monitor import Monitor

#: Makes the anchors of a log, inside the loop that will serve them; raises ConfigurationError.
MakePlans = Callable[[AuditLayout], Sequence[AnchorPlan]]


def no_anchors(_layout: AuditLayout) -> Sequence[AnchorPlan]:
    """Anchor nowhere."""
    return ()


def now_micros() -> int:
    """The moment it is."""
    return time.time_ns() // 1_000


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
    anchors: MakePlans = no_anchors,
    yield_behind_seconds: float = 0.0,
) -> None:
    """Enter every audited record and publish checkpoints until `stop`, under a key made at the first start.

    Anchors are served beside it: what they do wrong is told, and stops nothing.

    Raises what ends the process for good: ConfigurationError for unusable keys, policy or anchors, IntegrityError when
    the database is behind the last signed checkpoint or things disagree, FencedError when another sequencer took the
    log.
    """
    layout = AuditLayout(data, log, origin)
    plans = anchors(layout)
    cosigners = make_cosigners(layout, monitor, witnessing)
    sink = make_sink(layout, PostgresAuditStore(dsn, log), owner(log), cosigners=cosigners)
    driven = drive(sink, bootstrap, registry_url, monitor, stop, None, membership, yield_behind_seconds)
    failing = asyncio.create_task(sink.failure())
    keeper = AnchorKeeper(plans, LogFiles(layout.directory), AnchorStates(layout.anchor_directory), now_micros)
    keeping = asyncio.create_task(keeper.run())
    try:
        await run_beside(driven, [failing], monitor, stop)
    finally:
        failing.cancel()
        keeping.cancel()
        await asyncio.wait([keeping])
        await cosigners.close()


def make_cosigners(layout: AuditLayout, monitor: Monitor, witnessing: Witnessing | None) -> Cosigners:
    """Who is asked before a checkpoint is published; raises ConfigurationError for unusable keys or policy."""
    if witnessing is None:
        return NoCosigners()
    keys = KeyRing(layout).open()
    policy = policy_for(witnessing.policy_file, *(signer.verifier for signer in keys.signers))
    return PolicyCosigners(policy, witnessing.caller, monitor, witnessing.times)


def make_sink(
    layout: AuditLayout, store: AuditStore, name: str, probe: Probe = no_probe, cosigners: Cosigners | None = None
) -> AuditSink:
    """A sink of a log; raises ConfigurationError when its keys or its salt secret are unusable."""
    salts = load_or_make_salts(layout.salt_file)
    files, lock = LogFiles(layout.directory, probe), FileLockStore(layout.lock_file, probe)
    return AuditSink(store, Publisher(store, files, lock, KeyRing(layout, probe), probe, cosigners), salts, name)


def published(layout: AuditLayout) -> tuple[Keys, Checkpoint]:
    """The log's keys and its published checkpoint (of size 0 before the first).

    Raises ConfigurationError when there is no key, NoteError when the checkpoint is not signed by one of them.
    """
    keys = KeyRing(layout).load()
    note = LogFiles(layout.directory).checkpoint()
    if note is None:
        return keys, Checkpoint(layout.origin, 0, EMPTY_ROOT)
    return keys, keys.chain.open_checkpoint(note)


def owner(log: str) -> str:
    """What the log's row says of this process, for people."""
    return f"audit log {log} on {socket.gethostname()}, process {os.getpid()}"
