"""Provider health windows."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.health import HealthWindows, Histogram, state_of
from processors.health.windows import GRACE_MICROS, WINDOW_MICROS, WINDOWS_OPEN_MAX
from schemas.events import AttemptOutcome, HealthState, ProviderAttempt
from schemas.ids import uuid7
from tests.support.events import attempt

START = 1_700_000_000_000_000
OVER = START + WINDOW_MICROS + GRACE_MICROS


def call(number: int, outcome: AttemptOutcome = AttemptOutcome.SUCCEEDED, **fields: object) -> ProviderAttempt:
    """One attempt in the window."""
    event_id = uuid7(START // 1_000, number.to_bytes(10, "big"))
    return attempt(event_id, outcome=outcome, **{"occurred_at": START + number, "duration_micros": 1_000} | fields)


def test_a_window_is_closed_once_it_is_over() -> None:
    """Nothing before its end and grace, one event then, nothing after."""
    windows = HealthWindows()
    windows.observe(call(1), START)

    assert [] == windows.close(OVER - 1)
    (health,) = windows.close(OVER)
    assert [] == windows.close(OVER)
    assert (health.window_start, health.window_end, health.attempts) == (START, START + WINDOW_MICROS, 1)
    assert health.occurred_at == health.window_end


def test_windows_are_apart_by_time_provider_and_model() -> None:
    """Each has its own event, oldest first."""
    windows = HealthWindows()
    windows.observe(call(1, occurred_at=START + WINDOW_MICROS), START)
    windows.observe(call(2), START)
    windows.observe(call(3, provider_id="q"), START)
    windows.observe(call(4, model="n"), START)

    closed = windows.close(OVER + WINDOW_MICROS)

    assert len(closed) == 4
    assert closed[-1].window_start == START + WINDOW_MICROS


@pytest.mark.parametrize(
    ("outcome", "errors", "timeouts"),
    [
        (AttemptOutcome.SUCCEEDED, 0, 0),
        (AttemptOutcome.CLIENT_DISCONNECTED, 0, 0),
        (AttemptOutcome.PROVIDER_ERROR, 1, 0),
        (AttemptOutcome.RATE_LIMITED, 1, 0),
        (AttemptOutcome.TIMEOUT, 1, 1),
        (AttemptOutcome.CONNECTION_ERROR, 1, 0),
        (AttemptOutcome.INVALID_RESPONSE, 1, 0),
        (AttemptOutcome.TRUNCATED, 1, 0),
    ],
)
def test_outcomes_that_are_the_providers_fault(outcome: AttemptOutcome, errors: int, timeouts: int) -> None:
    """The caller's leaving is no error of the provider."""
    windows = HealthWindows()
    windows.observe(call(1, outcome), START)

    (health,) = windows.close(OVER)

    assert (errors, timeouts) == (health.errors, health.timeouts)


def test_an_abandoned_attempt_says_nothing() -> None:
    """The gateway died, not the provider."""
    windows = HealthWindows()
    windows.observe(call(1, AttemptOutcome.ABANDONED), START)

    assert [] == windows.close(OVER)


def test_an_attempt_read_twice_counts_once() -> None:
    """Redelivery changes neither the numbers nor the id."""
    once, twice = HealthWindows(), HealthWindows()
    once.observe(call(1), START)
    for _ in range(2):
        twice.observe(call(1), START)

    assert once.close(OVER) == twice.close(OVER)


def test_the_order_of_arrival_does_not_matter() -> None:
    """The same attempts make the same event, byte for byte."""
    calls = [call(number, duration_micros=number * 997) for number in range(200)]
    forward, backward = HealthWindows(), HealthWindows()
    for one in calls:
        forward.observe(one, START)
    for one in reversed(calls):
        backward.observe(one, START)

    assert forward.close(OVER) == backward.close(OVER)


def test_other_contents_are_another_event() -> None:
    """A window that lost its beginning does not take the id of the whole one."""
    whole, rest = HealthWindows(), HealthWindows()
    for number in range(3):
        whole.observe(call(number), START)
    rest.observe(call(2), START)

    assert whole.close(OVER)[0].event_id != rest.close(OVER)[0].event_id


def test_what_comes_after_the_close_is_missed_and_counted() -> None:
    """A closed window stays closed."""
    windows = HealthWindows()
    windows.observe(call(1), OVER)

    assert [] == windows.close(OVER)
    assert windows.missed == 1


def test_an_attempt_whose_id_is_no_uuid_is_missed_and_counted() -> None:
    """Sinks have it in quarantine: it is no part of a window, and no reason to watch no more."""
    windows = HealthWindows()
    windows.observe(msgspec.structs.replace(call(1), event_id="no UUID"), START)
    windows.observe(call(2), START)

    assert windows.missed == 1
    assert [1] == [health.attempts for health in windows.close(OVER)]


def test_open_windows_are_bounded() -> None:
    """Beyond the bound attempts are missed, not kept."""
    windows = HealthWindows()
    for number in range(WINDOWS_OPEN_MAX + 5):
        windows.observe(call(number, model=f"m{number}", occurred_at=START), START)

    assert windows.missed == 5
    assert len(windows.close(OVER)) == WINDOWS_OPEN_MAX


@pytest.mark.parametrize(
    ("attempts", "errors", "state"),
    [
        (0, 0, HealthState.HEALTHY),
        (100, 4, HealthState.HEALTHY),
        (100, 5, HealthState.DEGRADED),
        (100, 49, HealthState.DEGRADED),
        (100, 50, HealthState.DOWN),
        (1, 1, HealthState.DOWN),
    ],
)
def test_states(attempts: int, errors: int, state: HealthState) -> None:
    """DEGRADED from 5 % errors, DOWN from 50 %."""
    assert state is state_of(attempts, errors)


@given(st.lists(st.integers(0, 10**10), min_size=1, max_size=200), st.sampled_from([50, 95]))
def test_a_percentile_is_at_most_a_bucket_below_the_exact_one(values: list[int], percent: int) -> None:
    """Within 1/32, never above."""
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    exact = sorted(values)[-(-len(values) * percent // 100) - 1]

    assert exact - exact // 32 <= histogram.percentile(percent) <= exact


def test_without_values_the_percentile_is_nothing() -> None:
    """An empty histogram answers 0."""
    assert Histogram().percentile(50) == 0
