"""What the stream runtime collects before it decides: nothing is lost or decided twice by a moment's wait."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from schemas.errors import LogUnavailableError
from schemas.topics import ALERTS
from streams import runtime
from streams.log import LogRecord
from tests.unit.streams.test_runtime import CONTROL_PARTITION, Stand


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits in a test."""
    monkeypatch.setattr(runtime, "COLLECT_SECONDS", 0.0)


def between(stand: Stand, happens: Callable[[], None]) -> None:
    """Let something happen between the two looks of the next turn."""
    consume, looks = stand.group.consume, [0]

    def watched(records_max: int, timeout_seconds: float) -> list[LogRecord]:
        looks[0] += 1
        if looks[0] == 2:
            happens()
        return consume(records_max, timeout_seconds)

    stand.group.consume = watched  # type: ignore[method-assign] # a look is told apart by its number


def titles(stand: Stand) -> list[str]:
    """What was decided."""
    return [event.title for event in stand.published(ALERTS.name)]


def test_what_comes_in_a_moment_is_decided_in_the_same_turn() -> None:
    """One batch, in order."""
    stand = Stand()
    stand.send("a")
    made = stand.runtime()
    between(stand, lambda: stand.send("b"))
    assert made.turn() == 2
    assert titles(stand) == ["0", "1"]


def test_a_log_that_goes_away_meanwhile_costs_nothing_at_hand() -> None:
    """The reader stands behind those records already: they are decided and committed."""
    stand = Stand()
    stand.send("a")
    made = stand.runtime()

    def away() -> None:
        raise LogUnavailableError("away")

    between(stand, away)
    assert made.turn() == 1
    assert titles(stand) == ["0"]
    assert stand.log.groups["stream-counting"].committed == {CONTROL_PARTITION: 1}


def test_a_partition_that_left_and_came_back_is_read_from_its_position() -> None:
    """What was at hand of it is not decided on the state of the new owner, which reads it again."""
    stand = Stand()
    stand.send("a", "b")
    made = stand.runtime()

    def moved() -> None:
        stand.group._on_revoke([CONTROL_PARTITION])
        stand.group._give_up([CONTROL_PARTITION])

    between(stand, moved)
    assert made.turn() == 2
    assert titles(stand) == ["0", "1"]
