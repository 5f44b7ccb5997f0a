"""Verification of a log from nothing but its public files and its public key: no database, no secret."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor

from processors.audit.checkpoint import Checkpoint
from processors.audit.merkle import EMPTY_ROOT
from processors.audit.note import NoteError
from processors.audit.trust import Trust
from processors.audit.walk import Differences
from schemas.errors import IntegrityError
from sinks.audit.log_walk import LogWalk, OnProgress, segments
from sinks.audit.reader import LogSource
from sinks.audit.verify import AuditReport, report_of

CHECKS = (
    *("keys", "checkpoint", "history", "retention", "entries"),
    *("tiles", "root", "chains", "tenants", "clock", "offsets"),
)


async def verify_public(
    log: LogSource,
    trust: Trust,
    earlier: Sequence[tuple[str, str]] = (),
    executor: Executor | None = None,
    on_progress: OnProgress | None = None,
) -> tuple[AuditReport, str | None]:
    """Verify a log against its published checkpoint, and that it only appends to `earlier` ones.

    The log's own hand-overs lead from the trusted keys on, and its entries must give the roots that those name.
    `earlier` are signed notes with what to call them. Hashing is done in the executor's processes, or in threads. The
    report, and the note it is about (None when there is none or its keys are in doubt). Never raises for what it finds;
    raises StoreUnavailableError when it can't look.
    """
    note = await log.checkpoint()
    if note is None:
        walk = LogWalk(log, Differences())
        walk.differences.add("checkpoint", "there is no checkpoint")
        return report_of(CHECKS, walk, Checkpoint(trust.origin, 0, EMPTY_ROOT), 0), None
    try:
        trust = trust.following(await log.hand_overs())
    except IntegrityError as error:
        walk = LogWalk(log, Differences())
        walk.differences.add("keys", str(error))
        return report_of(CHECKS, walk, Checkpoint(trust.origin, 0, EMPTY_ROOT), 0), None
    return await verify_under(log, note, trust, earlier, executor, on_progress), note


async def verify_under(
    log: LogSource,
    note: str,
    trust: Trust,
    earlier: Sequence[tuple[str, str]] = (),
    executor: Executor | None = None,
    on_progress: OnProgress | None = None,
) -> AuditReport:
    """Verify a log's files against this signed checkpoint, as `verify_public` does against the published one."""
    differences = Differences()
    walk = LogWalk(log, differences)
    try:
        signed = trust.open(note).checkpoint
    except NoteError as error:
        differences.add("checkpoint", f"checkpoint: {error}")
        return report_of(CHECKS, walk, Checkpoint(trust.origin, 0, EMPTY_ROOT), 0)
    known = [*_handed_over(trust, signed.size), *_opened(earlier, trust, differences)]
    _compare_gone(known, await walk.pass_over_what_is_gone(signed.size, [each.size for each, _ in known]), differences)
    stops = {each.size for each, _ in known if walk.minimum_index < each.size < signed.size} | {signed.size}
    for stop in sorted(stops):
        async for segment in segments(log, walk.size, stop, signed.size, executor):
            await walk.take(segment, partial=walk.size + segment.count == signed.size)
            if on_progress is not None:
                on_progress(walk.size, signed.size)
        _compare_history(walk, known, signed, differences)
    walk.compare_end(signed.size)
    walk.compare_root(signed, "root")
    walk.compare_cut()
    return report_of(CHECKS, walk, signed, signed.size)


def _opened(earlier: Sequence[tuple[str, str]], trust: Trust, differences: Differences) -> list[tuple[Checkpoint, str]]:
    known: list[tuple[Checkpoint, str]] = []
    for name, note in earlier:
        try:
            known.append((trust.open(note).checkpoint, name))
        except NoteError as error:
            differences.add("history", f"{name}: {error}")
    return known


def _handed_over(trust: Trust, size: int) -> list[tuple[Checkpoint, str]]:
    """What hand-overs say of the log up to this size; one may be public before the checkpoint that it is over."""
    return [
        (Checkpoint(each.origin, each.size, each.root), f"the hand-over from {each}")
        for each in trust.hand_overs
        if each.size <= size
    ]


def _compare_history(
    walk: LogWalk, known: Sequence[tuple[Checkpoint, str]], signed: Checkpoint, differences: Differences
) -> None:
    """Compare the root here with those signed before at this size, and at the end with those of more entries."""
    for checkpoint, name in known:
        if checkpoint.size > signed.size and walk.size == signed.size:
            words = f"the log went back: {name} was signed over {checkpoint.size} entries, this one over {signed.size}"
            differences.add("history", words)
        if checkpoint.size != walk.size or checkpoint.root == _root(walk, signed):
            continue
        if checkpoint.size == signed.size:
            words = f"two histories: {name} and the log's checkpoint have different roots at {signed.size} entries"
        else:
            words = f"two histories: the log's entries do not give the root that {name} has at {walk.size} entries"
        differences.add("history", f"{words}, and one key signed both: keep both files, they prove it")


def _compare_gone(
    known: Sequence[tuple[Checkpoint, str]], roots: Mapping[int, bytes], differences: Differences
) -> None:
    """Compare earlier checkpoints of sizes that retention has passed with the hashes that are left of those."""
    for checkpoint, name in known:
        if roots.get(checkpoint.size, checkpoint.root) != checkpoint.root:
            words = f"the log's hashes do not give the root that {name} has at {checkpoint.size} entries"
            differences.add("history", f"two histories: {words}, and one key signed both: keep both files")


def _root(walk: LogWalk, signed: Checkpoint) -> bytes:
    """The root that an earlier checkpoint must have at the walk's size: at the end, the signed one."""
    return signed.root if walk.size == signed.size else walk.edge.root()
