"""What a zombie's log says of how it learned that others had taken over, as the fault suite reads it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from schemas.errors import FencedError, GapError
from tests.faults import fencing

RELEASED = {"event": "partitions_released"}
NOT_CONFIRMED = {"event": "claim_not_confirmed"}
REFUSED = {"event": "span_refused", "error": str(FencedError("postgres@v1 a/0", 3))}


def log_of(folder: Path, *lines: dict[str, str]) -> Path:
    """A log with these lines, and one that is cut off."""
    path = folder / "sink.log"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"event": "span_ref', encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("lines", "outcome"),
    [
        ((RELEASED, REFUSED, NOT_CONFIRMED), fencing.BY_STORE),
        ((RELEASED, NOT_CONFIRMED), fencing.BY_GROUP),
        ((RELEASED,), fencing.TOLD),
        (({"event": "span_refused", "error": str(GapError("a/0", 1, 2))},), fencing.NOT_SHOWN),
        ((), fencing.NOT_SHOWN),
    ],
)
def test_the_strongest_of_what_it_says_counts(tmp_path: Path, lines: tuple[dict[str, str], ...], outcome: str) -> None:
    """The store's refusal before the group's word, that before a mere release; a gap is no fence."""
    assert outcome == fencing.learned(log_of(tmp_path, *lines), 0)


def test_what_it_said_before_it_froze_does_not_count(tmp_path: Path) -> None:
    """Only lines of after it woke."""
    path = log_of(tmp_path, REFUSED)
    assert fencing.NOT_SHOWN == fencing.learned(path, fencing.length(path))


@pytest.mark.parametrize(
    ("alive", "successor_alive", "outcome"),
    [(False, True, fencing.ENDED), (True, False, fencing.SUCCESSOR_ENDED), (False, False, fencing.ENDED)],
)
def test_who_ends_was_replaced(tmp_path: Path, *, alive: bool, successor_alive: bool, outcome: str) -> None:
    """A process that says nothing more has still ended by itself."""
    path = log_of(tmp_path)
    assert outcome == fencing.outcome_of(path, 0, alive=alive, successor_alive=successor_alive)
