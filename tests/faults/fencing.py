"""How a process that woke up learned that others had taken over: from its own log, as it stands after it woke."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

#: The store refused what it wrote, or a claim under its old epoch.
BY_STORE = "zombie fenced by its store"
#: Its group says that the partitions are not its own, before it claims them once more.
BY_GROUP = "zombie not confirmed by its group"
#: It ended by itself: another process has its name, or its log.
ENDED = "zombie ended"
#: It was the newest of its name, or the last to claim: the one that had taken over ended instead.
SUCCESSOR_ENDED = "zombie won, its successor ended"
#: Nothing of it was under way: it gave its partitions back when its group told it, and wrote nothing.
TOLD = "zombie wrote nothing, told by its group"
NOT_SHOWN = "not shown"
#: What the words of FencedError are in a log.
FENCED = "was fenced by a newer owner"
#: In the order in which the stronger is told.
OUTCOMES = (BY_STORE, BY_GROUP, ENDED, SUCCESSOR_ENDED, TOLD, NOT_SHOWN)


def length(log: Path) -> int:
    """How much is in a log now."""
    return log.stat().st_size if log.exists() else 0


def learned(log: Path, since: int) -> str:
    """What the lines after `since` bytes say, the strongest of it; NOT_SHOWN when they say nothing of it."""
    with log.open("rb") as file:
        file.seek(since)
        found = {_of(line) for line in _lines(file)}
    return next(outcome for outcome in OUTCOMES if outcome in found | {NOT_SHOWN})


def outcome_of(log: Path, since: int, *, alive: bool, successor_alive: bool = True) -> str:
    """The same, with who of the two runs on: whoever ended was replaced, whatever it had time to say."""
    said = learned(log, since)
    if said in {BY_STORE, BY_GROUP}:
        return said
    if not alive:
        return ENDED
    return said if successor_alive else SUCCESSOR_ENDED


def _lines(file: Iterable[bytes]) -> Iterator[Mapping[str, Any]]:
    for line in file:
        try:
            said = json.loads(line)
        except ValueError:
            continue
        if isinstance(said, dict):
            yield said


def _of(line: Mapping[str, Any]) -> str:
    if FENCED in str(line.get("error", "")):
        return BY_STORE
    return {"claim_not_confirmed": BY_GROUP, "partitions_released": TOLD}.get(str(line.get("event")), NOT_SHOWN)
