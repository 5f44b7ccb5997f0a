"""Grace: what a gateway lets through while budgets can't be checked. Off unless an operator says how much.

It counts what is held, per key and hour, in a file of the gateway's: its workers draw on one amount, and one that is
started again within the hour finds what was let through before. Such a hold is PLACED with the reason `fail_open`; from
there on it is counted as any other.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

MICROS_PER_HOUR = 3_600_000_000
KEYS_MAX = 10_000
#: Longest wait for another worker, which counts one call.
LOCK_SECONDS = 0.25
#: Why a PLACED stands that no store admitted.
FAIL_OPEN = "fail_open"
TABLE = "CREATE TABLE IF NOT EXISTS used (key_id TEXT PRIMARY KEY, hour INTEGER NOT NULL, amount_nano INTEGER NOT NULL)"
#: A call that began in the hour before may be judged after one of this hour, and counts with it.
FORGET = "DELETE FROM used WHERE hour < :hour"
#: No row is written where the amount would be passed, or more keys than that had to be remembered.
USE = """
INSERT INTO used (key_id, hour, amount_nano)
SELECT :key_id, :hour, :amount_nano WHERE :amount_nano <= :most_nano
    AND (SELECT count(*) FROM used WHERE key_id <> :key_id) < :keys_max
ON CONFLICT (key_id) DO UPDATE SET amount_nano = amount_nano + :amount_nano
WHERE amount_nano + :amount_nano <= :most_nano
"""


class Grace:
    """What is left of this hour's grace, by key, for every process that is given the same file."""

    __slots__ = ("_most_nano", "_path")

    def __init__(self, most_nano: int, path: Path) -> None:
        """`most_nano` per key and hour, nano-units of the prices' currency; 0: none, and no file."""
        self._most_nano = most_nano
        self._path = path

    def admits(self, key_id: str, amount_nano: int, now: int) -> bool:
        """Whether a hold of this amount may stand unchecked; counts it where it may.

        Blocks for one small transaction. False where the file can't be used: what can't be counted has no bound.
        """
        if not self._most_nano:
            return False
        given: dict[str, int | str] = {
            "key_id": key_id,
            "hour": now // MICROS_PER_HOUR,
            "amount_nano": amount_nano,
            "most_nano": self._most_nano,
            "keys_max": KEYS_MAX,
        }
        try:
            return self._use(given)
        except (OSError, sqlite3.Error) as error:
            log.error("grace_not_counted", error=str(error))  # noqa: TRY400 - which says all there is
            return False

    def _use(self, given: dict[str, int | str]) -> bool:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with closing(sqlite3.connect(self._path, timeout=LOCK_SECONDS, isolation_level=None)) as file:
            # Power that fails loses what the file system had not written; a process that dies loses nothing.
            file.execute("PRAGMA synchronous = OFF")
            file.execute(TABLE)
            file.execute("BEGIN IMMEDIATE")
            file.execute(FORGET, given)
            used = file.execute(USE, given).rowcount == 1
            file.execute("COMMIT")
        return used
