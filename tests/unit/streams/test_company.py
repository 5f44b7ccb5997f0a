"""How long what has come waits for company."""

from __future__ import annotations

import pytest

from streams.company import WORKS_REMEMBERED, Company


def after(*took_seconds: float) -> float:
    """How long is waited after works of these lengths: three times the work, between 0.25 and 1 s."""
    company = Company()
    for seconds in took_seconds:
        company.took(seconds)
    return company.wait_seconds(3.0, 0.25, 1.0)


def test_the_least_until_enough_is_known() -> None:
    """The first works after a start say little: nothing is warm yet."""
    assert after() == after(*[9.0] * (WORKS_REMEMBERED - 1)) == 0.25


@pytest.mark.parametrize(("took", "waits"), [(0.01, 0.25), (0.2, 0.6), (5.0, 1.0)])
def test_slow_works_wait_for_more(took: float, waits: float) -> None:
    """So many times as long as a work takes, within both bounds."""
    assert after(*[took] * WORKS_REMEMBERED) == pytest.approx(waits)


def test_one_slow_work_changes_nothing() -> None:
    """The quickest of the last ones counts."""
    assert after(0.01, *[5.0] * (WORKS_REMEMBERED - 1)) == 0.25


def test_what_was_slow_is_forgotten() -> None:
    """One quick work after it, and batches are as young as before."""
    assert after(*[5.0] * WORKS_REMEMBERED, 0.01) == 0.25


def test_there_need_not_be_more() -> None:
    """Without room above the least, the least is waited."""
    company = Company()
    for _ in range(WORKS_REMEMBERED):
        company.took(5.0)
    assert company.wait_seconds(3.0, 0.25, 0.0) == 0.25
