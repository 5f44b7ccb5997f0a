"""What a starting log must refuse: a database older than what was signed, a lost lock store, a foreign key."""

from __future__ import annotations

from processors.audit.checkpoint import Checkpoint
from processors.audit.key_chain import KeyChain
from processors.audit.merkle import EMPTY_ROOT
from processors.audit.note import NoteError
from schemas.errors import ConfigurationError, IntegrityError
from sinks.audit.store import LogState


def refuse_rollback(state: LogState, locked: str | None, published: str | None, keys: KeyChain) -> Checkpoint:
    """The last signed checkpoint (of size 0 before the first), when the log may go on from it.

    Raises IntegrityError, saying what to do, when the database is behind it, or the lock store behind what was
    published; ConfigurationError when none of these keys signed one of them.
    """
    nothing = Checkpoint(keys.name, 0, EMPTY_ROOT)
    signed = _opened(locked, keys, "the lock store") or nothing
    shown = _opened(published, keys, "the published log") or nothing
    if shown.size > signed.size or (shown.size == signed.size and shown.root != signed.root):
        raise IntegrityError(
            f"the published checkpoint ({shown.size} entries) is not the one in the lock store ({signed.size}): "
            "the lock store was lost or put back. Run `quaestor audit verify`; if only the lock is red, copy the "
            "published checkpoint into the lock store, and start again"
        )
    if state.next_seq < signed.size:
        raise IntegrityError(
            f"the database has {state.next_seq} audit entries, but a checkpoint over {signed.size} was signed: it is "
            "an older backup. Restore a newer one, or put the missing entries back from the log's own entry bundles: "
            "`quaestor audit rebuild`. Running on would sign a second history, so this log stays closed"
        )
    return signed


def _opened(note: str | None, keys: KeyChain, where: str) -> Checkpoint | None:
    if note is None:
        return None
    try:
        return keys.open_checkpoint(note)
    except NoteError as error:
        raise ConfigurationError(
            f"the checkpoint in {where} is not signed by a key of this log ({error}): restore secrets/audit.key and "
            "secrets/audit-keys, or "
            "set audit_log to a new log's name"
        ) from error
