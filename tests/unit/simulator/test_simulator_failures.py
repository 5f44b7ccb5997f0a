"""When and how the simulated provider fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.providers.simulator import Failure, read_script
from api.providers.simulator.failures import REMEMBERED_REQUESTS_MAX, FailurePlan
from schemas.errors import ConfigurationError


def plan(error_rate: float = 0.0, seed: int = 1, script: dict[int, Failure] | None = None) -> FailurePlan:
    """A plan."""
    return FailurePlan(seed, error_rate, Failure.STATUS_503, script or {})


def test_nothing_fails_by_itself() -> None:
    """Without a rate, a script or a wish every request succeeds."""
    one = plan()

    assert {None} == {one.failure(number, b"x", None, None) for number in range(1, 1_000)}


def test_a_request_fails_as_it_asks() -> None:
    """The field of the request decides before anything else."""
    one = plan(script={1: Failure.STATUS_429})

    assert Failure.GARBAGE is one.failure(1, b"x", Failure.GARBAGE, None)


def test_a_request_fails_so_often_as_it_asks() -> None:
    """After the given number of times the same request succeeds; another request counts for itself."""
    one = plan()
    seen = [
        one.failure(number, digest, Failure.STATUS_500, 2) for number, digest in enumerate([b"a", b"a", b"b", b"a"])
    ]

    assert [Failure.STATUS_500] * 3 + [None] == seen


def test_a_script_names_requests_by_number() -> None:
    """The nth request fails as scripted."""
    one = plan(script={2: Failure.TIMEOUT})

    assert [None, Failure.TIMEOUT, None] == [one.failure(number, b"x", None, None) for number in (1, 2, 3)]


def test_the_error_rate_is_met_and_repeats_with_the_seed() -> None:
    """About the given part fails, the same requests for the same seed."""
    runs = [[one.failure(number, b"x", None, None) for number in range(10_000)] for one in (plan(0.1), plan(0.1))]
    failed = sum(failure is not None for failure in runs[0])

    assert (runs[0], True) == (runs[1], 800 < failed < 1_200)


def test_memory_of_requests_is_bounded() -> None:
    """The oldest requests are forgotten."""
    one = plan()
    for number in range(REMEMBERED_REQUESTS_MAX + 10):
        one.failure(number, str(number).encode(), Failure.STATUS_500, 1)

    assert REMEMBERED_REQUESTS_MAX == len(one._seen)


def test_a_script_file_has_requests_and_ranges(tmp_path: Path) -> None:
    """Single requests and ranges become failures by number."""
    file = tmp_path / "script.json"
    file.write_text('[{"request": 3, "fail": "500"}, {"first": 5, "last": 6, "fail": "disconnect"}]', encoding="utf-8")

    assert {3: Failure.STATUS_500, 5: Failure.DISCONNECT, 6: Failure.DISCONNECT} == read_script(file)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '[{"request": 3}]',
        '[{"request": 3, "fail": "no"}]',
        '[{"fail": "500"}]',
        '[{"request": 0, "fail": "500"}]',
    ],
)
def test_a_wrong_script_is_refused(tmp_path: Path, text: str) -> None:
    """A script that can't be followed ends in one line."""
    file = tmp_path / "script.json"
    file.write_text(text, encoding="utf-8")

    with pytest.raises(ConfigurationError):
        read_script(file)
