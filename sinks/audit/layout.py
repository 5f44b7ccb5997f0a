"""Where an audit log keeps its files, and the points at which a test may fail it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from schemas import topics

LOG_NAME = "main"
ORIGIN = "quaestor.local/audit/main"
#: The topics every record of which becomes an entry.
AUDITED_TOPICS: tuple[str, ...] = tuple(
    topic.name
    for topic in (
        topics.REQUESTS,
        topics.DECISIONS,
        topics.ATTEMPTS,
        topics.COSTS,
        topics.BUDGETS,
        topics.LEDGER,
        topics.CONTROL,
        topics.QUARANTINE,
        topics.ALERTS,
    )
)

#: Called with the name of each step just before and just after it; a test raises there.
Probe = Callable[[str], None]


def no_probe(point: str) -> None:
    """Let every step pass."""


@dataclass(frozen=True)
class AuditLayout:
    """The files of one log under a data directory."""

    data: Path
    log: str = LOG_NAME
    origin: str = ORIGIN

    @property
    def directory(self) -> Path:
        """The log as outsiders read it: checkpoint and tiles."""
        return self.data / "audit" / self.log

    @property
    def lock_file(self) -> Path:
        """The latest signed checkpoint, in a store apart from the database."""
        return self.data / "audit-lock" / f"{self.log}.checkpoint"

    @property
    def key_file(self) -> Path:
        """Today's signing key, mode 0600."""
        return self.data / "secrets" / "audit.key"

    @property
    def salt_file(self) -> Path:
        """The secret from which the salts of commitments are derived, mode 0600."""
        return self.data / "secrets" / "audit-salt.key"

    @property
    def key_directory(self) -> Path:
        """What a change of keys needs: every key that still signs by its id, and the hand-overs; mode 0700."""
        return self.data / "secrets" / "audit-keys"

    @property
    def anchor_directory(self) -> Path:
        """What is known here of the anchors, and the time stamps."""
        return self.data / "audit-anchors" / self.log
