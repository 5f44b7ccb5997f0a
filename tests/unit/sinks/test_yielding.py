"""When a sink gives way: far behind, and only as long as it catches up all the same."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from sinks.runner.yielding import CATCH_UP_SECONDS_MAX, FULL_SPEED_SECONDS, TRIAL_SECONDS, Yielding, look

BEHIND = 10.0
AGAIN = TRIAL_SECONDS + FULL_SPEED_SECONDS


def seen(looks: Iterable[tuple[float, int, float]]) -> list[bool]:
    """What is decided at each look: a time, the lag and the age of the oldest event then."""
    state, decided = Yielding(), []
    for now, lag_events, oldest_seconds in looks:
        state = look(state, now, lag_events, oldest_seconds, BEHIND)
        decided.append(state.gives_way)
    return decided


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        pytest.param([(0, 900, 9.9)], [False], id="not far behind"),
        pytest.param([(0, 900, 10.0)], [True], id="far behind"),
        pytest.param([(0, 900, 99), (1, 0, 0)], [True, False], id="done"),
        pytest.param([(0, 900, 99), (1, 900, 99)], [True, True], id="no progress, but the trial is not over"),
        pytest.param([(0, 900, 99), (10, 450, 99)], [True, True], id="on its way"),
        pytest.param([(0, 900, 99), (10, 900, 99)], [True, False], id="standing still"),
        pytest.param([(0, 900, 99), (10, 901, 99)], [True, False], id="falling behind"),
        pytest.param([(0, 900_000, 99), (10, 899_999, 99)], [True, False], id="would take for ever"),
        pytest.param([(0, 900, 99), (10, 450, 99), (20, 450, 99)], [True, True, False], id="slower later"),
        pytest.param([(0, 9, 99), (10, 9, 99), (69, 9, 99), (AGAIN, 9, 99)], [True, False, False, True], id="again"),
        pytest.param([(0, 9, 99), (10, 9, 99), (11, 0, 0), (12, 9, 99)], [True, False, False, False], id="not at once"),
    ],
)
def test_it_is_decided_look_by_look(looks: list[tuple[float, int, float]], expected: list[bool]) -> None:
    """Each case is a history of looks."""
    assert seen(looks) == expected


def test_a_backlog_that_does_not_shrink_is_worked_off_at_full_speed_most_of_the_time() -> None:
    """Whatever giving way does to it: of ten minutes hardly more than a trial in each seventy seconds."""
    decided = seen((now, 1_000_000, 99.0) for now in range(600))

    assert sum(decided) <= 600 / AGAIN * TRIAL_SECONDS + TRIAL_SECONDS


def test_an_hour_is_the_longest_that_giving_way_may_make_of_it() -> None:
    """At exactly that pace it still gives way, below it no longer."""
    lag_events = int(CATCH_UP_SECONDS_MAX)

    assert seen([(0, lag_events + 10, 99), (10, lag_events, 99)]) == [True, True]
    assert seen([(0, lag_events + 9, 99), (10, lag_events, 99)]) == [True, False]
