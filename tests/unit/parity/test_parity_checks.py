"""The parity fold and its checks."""

from __future__ import annotations

from typing import Any

import pytest

from processors.parity.checks import commits_equal_costs, log_checks, store_holds_topic
from processors.parity.totals import LogFold, TopicTotals, digest_of

REQUEST = "01930000-0000-7000-8000-000000000001"
ATTEMPT = "01930000-0000-7000-8000-0000000000a1"


def event(number: int, **fields: Any) -> dict[str, Any]:
    """A decoded record with an id of its own."""
    return {"event_id": f"01930000-0000-7000-8000-{number:012x}", "request_id": REQUEST} | fields


def whole_request() -> LogFold:
    """The fold of one request as it should be."""
    fold = LogFold()
    fold.add("quaestor.requests", event(1, kind="RECEIVED"))
    fold.add("quaestor.attempts", event(2, attempt_id=ATTEMPT, outcome="SUCCEEDED"))
    fold.add("quaestor.costs", event(3, attempt_id=ATTEMPT, amount_nano=40))
    fold.add("quaestor.costs", event(4, attempt_id=ATTEMPT, amount_nano=2))
    fold.add("quaestor.budgets", event(5, hold_id=ATTEMPT, kind="COMMITTED", amount_nano=42))
    fold.add("quaestor.requests", event(6, kind="COMPLETED", amount_nano=42))
    return fold


def failing(fold: LogFold, answers: set[str] | None = None) -> dict[str, str | None]:
    """Names and first differences of the checks that fail."""
    return {check.name: check.first_difference for check in log_checks(fold, answers) if not check.ok}


def test_a_whole_request_passes() -> None:
    """Nothing differs when every event of a request is there."""
    assert {} == failing(whole_request(), {REQUEST})


def test_an_answer_without_completion_is_named() -> None:
    """A client's answer that the log does not know fails, by its id."""
    assert {"answers are COMPLETED": "answered but not COMPLETED: request lost"} == failing(whole_request(), {"lost"})


@pytest.mark.parametrize(
    ("topic", "name"),
    [
        ("quaestor.attempts", "COMPLETED = succeeded attempts"),
        ("quaestor.costs", "succeeded attempts = charged attempts"),
        ("quaestor.budgets", "COMMITTED = sum of costs"),
    ],
)
def test_a_missing_piece_is_found(topic: str, name: str) -> None:
    """Without its attempt, its costs or with another commit, a completed request is found."""
    fold = LogFold()
    fold.add("quaestor.requests", event(1, kind="RECEIVED"))
    fold.add("quaestor.requests", event(6, kind="COMPLETED"))
    if topic != "quaestor.attempts":
        fold.add("quaestor.attempts", event(2, attempt_id=ATTEMPT, outcome="SUCCEEDED"))
    if topic == "quaestor.budgets":
        fold.add("quaestor.costs", event(3, attempt_id=ATTEMPT, amount_nano=40))
        fold.add("quaestor.budgets", event(5, hold_id=ATTEMPT, kind="COMMITTED", amount_nano=41))

    assert [name] == list(failing(fold))


def test_a_late_commit_replaces_the_expiry() -> None:
    """EXPIRED then COMMITTED: the commit counts, and the correction takes the estimate back."""
    fold = LogFold()
    fold.add("quaestor.budgets", event(1, hold_id=ATTEMPT, kind="EXPIRED", amount_nano=100))
    fold.add("quaestor.costs", event(2, attempt_id=ATTEMPT, amount_nano=100))
    fold.add("quaestor.budgets", event(3, hold_id=ATTEMPT, kind="COMMITTED", amount_nano=7))
    fold.add("quaestor.costs", event(4, attempt_id=ATTEMPT, amount_nano=-100))
    fold.add("quaestor.costs", event(5, attempt_id=ATTEMPT, amount_nano=7))

    assert commits_equal_costs(fold).ok


def test_an_event_produced_twice_counts_once() -> None:
    """The same event id at another offset changes nothing but the count of repeats."""
    fold = whole_request()
    digest = fold.totals["quaestor.costs"].id_digest
    fold.add("quaestor.costs", event(3, attempt_id=ATTEMPT, amount_nano=40))

    assert TopicTotals(2, digest, 42, repeated=1) == fold.totals["quaestor.costs"]


@pytest.mark.parametrize(
    ("stored", "first_difference"),
    [
        (TopicTotals(1, 7, 10), None),
        (TopicTotals(0, 0, 0), "1 distinct events are missing"),
        (TopicTotals(2, 9, 10), "1 events are too many"),
        (TopicTotals(1, 8, 10), "as many events, but not the same ones"),
        (TopicTotals(1, 7, 11), "amounts differ by 1 nano-units"),
    ],
)
def test_a_store_is_compared_by_count_digest_and_sum(stored: TopicTotals, first_difference: str | None) -> None:
    """Each way in which a store can differ has its own words."""
    check = store_holds_topic("postgres", "quaestor.costs", TopicTotals(1, 7, 10), stored)

    assert first_difference == check.first_difference
    assert (first_difference is None) == check.ok


def test_the_digest_is_the_one_that_stores_compute() -> None:
    """The first 15 hexadecimal digits of MD5, as SQL's md5('') writes it."""
    assert int("d41d8cd98f00b20", 16) == digest_of("")
