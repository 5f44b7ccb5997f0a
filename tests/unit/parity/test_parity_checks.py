"""The parity fold and its checks."""

from __future__ import annotations

from typing import Any

import pytest

from processors.parity.checks import Due, commits_equal_costs, log_checks, store_holds_topic
from processors.parity.totals import LogFold, TopicTotals, digest_of

REQUEST = "01930000-0000-7000-8000-000000000001"
ATTEMPT = "01930000-0000-7000-8000-0000000000a1"
#: Of every event here.
AT = 1_000_000
ALL_DUE = Due(ended_before=AT + 1, completed_before=AT + 1)
NOTHING_DUE = Due(ended_before=AT, completed_before=AT)
#: The events of one request as it should be, by what they are.
WHOLE: dict[str, tuple[str, dict[str, Any]]] = {
    "received": ("quaestor.requests", {"kind": "RECEIVED"}),
    "placed": ("quaestor.budgets", {"kind": "PLACED", "hold_id": ATTEMPT, "amount_nano": 90}),
    "attempt": ("quaestor.attempts", {"attempt_id": ATTEMPT, "outcome": "SUCCEEDED"}),
    "input": ("quaestor.costs", {"attempt_id": ATTEMPT, "amount_nano": 40}),
    "output": ("quaestor.costs", {"attempt_id": ATTEMPT, "amount_nano": 2}),
    "committed": ("quaestor.budgets", {"kind": "COMMITTED", "hold_id": ATTEMPT, "amount_nano": 42}),
    "completed": ("quaestor.requests", {"kind": "COMPLETED", "amount_nano": 42}),
}
#: What the reaper makes of a hold whose gateway was lost.
REAPED: dict[str, tuple[str, dict[str, Any]]] = {
    "expired": ("quaestor.budgets", {"kind": "EXPIRED", "hold_id": ATTEMPT, "amount_nano": 90}),
    "abandoned": ("quaestor.attempts", {"attempt_id": ATTEMPT, "outcome": "ABANDONED"}),
    "estimate": ("quaestor.costs", {"attempt_id": ATTEMPT, "amount_nano": 90, "meter": "UNSETTLED_HOLD"}),
    "failed": ("quaestor.requests", {"kind": "FAILED", "amount_nano": 90}),
}


def event(number: int, **fields: Any) -> dict[str, Any]:
    """A decoded record with an id of its own."""
    common = {"tenant_id": "acme", "request_id": REQUEST, "occurred_at": AT, "kind": "CHARGE", "meter": "INPUT_TOKENS"}
    return {"event_id": f"01930000-0000-7000-8000-{number:012x}"} | common | fields


def folded(*stories: dict[str, tuple[str, dict[str, Any]]]) -> LogFold:
    """The fold of these events, in this order."""
    fold = LogFold()
    for number, (topic, fields) in enumerate((each for story in stories for each in story.values()), 1):
        fold.add(topic, event(number, **fields))
    return fold


def whole_request() -> LogFold:
    """The fold of one request as it should be."""
    return folded(WHOLE)


def without(*names: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """A request of which these events are lost."""
    return {name: each for name, each in WHOLE.items() if name not in names}


def failing(fold: LogFold, answers: list[str] | None = None, due: Due = ALL_DUE) -> dict[str, str | None]:
    """Names and first differences of the checks that fail."""
    return {check.name: check.first_difference for check in log_checks(fold, answers, due) if not check.ok}


def test_a_whole_request_passes() -> None:
    """Nothing differs when every event of a request is there."""
    assert {} == failing(whole_request(), [REQUEST])


def test_an_answer_without_completion_is_named() -> None:
    """A client's answer that the log does not know fails, by its id."""
    assert {"answers are COMPLETED": "answered but not COMPLETED: request lost"} == failing(whole_request(), ["lost"])


def test_an_answer_that_the_client_counted_twice_is_named() -> None:
    """Three lines of one request are not three answers."""
    found = failing(whole_request(), [REQUEST] * 3)

    assert {"answers are distinct": f"counted more than once: request {REQUEST}"} == found


NEVER_ENDED = {"requests have ended": f"neither COMPLETED, FAILED nor REFUSED: request {REQUEST}"}


@pytest.mark.parametrize(
    ("lost", "names"),
    [
        (("attempt",), {"COMPLETED = succeeded attempts"}),
        (("input", "output"), {"succeeded attempts = charged attempts", "COMMITTED = sum of costs",
                               "COMPLETED = sum of charges"}),
        (("output",), {"COMMITTED = sum of costs", "COMPLETED = sum of charges"}),
        (("received",), {"COMPLETED requests were RECEIVED"}),
        (("completed",), {"succeeded attempts = COMPLETED", "requests have ended"}),
        (("completed", "received"), {"succeeded attempts = COMPLETED", "requests have ended"}),
    ],
)  # fmt: skip
def test_a_missing_piece_is_found(lost: tuple[str, ...], names: set[str]) -> None:
    """Whichever event of an answered request is lost, the log disagrees with itself."""
    assert names == failing(folded(without(*lost))).keys()


def test_a_request_that_was_charged_and_never_completed_is_named() -> None:
    """Once it had its time; before that it may be under way."""
    fold = folded(without("completed"))

    assert f"nothing says COMPLETED (or a spool has it still): request {REQUEST}" in str(
        failing(fold)["succeeded attempts = COMPLETED"]
    )
    assert {} == failing(fold, due=NOTHING_DUE)


def test_what_failed_is_no_answer_to_an_attempt_that_succeeded() -> None:
    """A request whose COMPLETED was lost is named though the reaper closed it."""
    assert ["succeeded attempts = COMPLETED"] == list(
        failing(folded(without("completed"), {"failed": REAPED["failed"]}))
    )


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        (("received",), {}),
        (("placed",), {}),
        (("received", "placed"), NEVER_ENDED),
        (("committed", "input", "output"), NEVER_ENDED),
    ],
)
def test_requests_that_somebody_must_end_are_named_when_nobody_did(
    left: tuple[str, ...], expected: dict[str, str]
) -> None:
    """A gateway killed before its hold was recorded leaves a RECEIVED to nobody; an open hold is another check's."""
    fold = folded({name: WHOLE[name] for name in left})

    assert expected == failing(fold)
    assert {} == failing(fold, due=NOTHING_DUE)


def test_the_age_of_a_request_is_that_of_its_first_event() -> None:
    """In whichever order topics are read."""
    fold = folded(
        {"placed": WHOLE["placed"], "received": (WHOLE["received"][0], {"kind": "RECEIVED", "occurred_at": 5})}
    )

    assert NEVER_ENDED == failing(fold, due=Due(ended_before=6, completed_before=6))


def test_a_request_that_the_reaper_closed_passes() -> None:
    """Its gateway was killed in the call: no COMPLETED, and the hold is charged as an estimate."""
    assert {} == failing(folded({name: WHOLE[name] for name in ("received", "placed")}, REAPED))


@pytest.mark.parametrize("order", [1, -1])
def test_a_late_answer_beside_the_reapers_end_passes(order: int) -> None:
    """The gateway came back after the lease was over; whose events stand first depends on who was faster."""
    amount = {"attempt_id": ATTEMPT, "amount_nano": -90, "kind": "CORRECTION", "meter": "UNSETTLED_HOLD"}
    correction: dict[str, tuple[str, dict[str, Any]]] = {"correction": ("quaestor.costs", amount)}

    assert {} == failing(folded(*[WHOLE, REAPED | correction][::order]), [REQUEST])


def test_an_amount_that_is_not_the_costs_is_named() -> None:
    """What the request says it cost is what its charge lines add up to."""
    completed = (WHOLE["completed"][0], {"kind": "COMPLETED", "amount_nano": 41})

    assert {"COMPLETED = sum of charges": f"differs: request {REQUEST}"} == failing(
        folded(WHOLE | {"completed": completed})
    )


def test_attempts_before_the_one_that_succeeded_count_into_the_amount() -> None:
    """A candidate that timed out was charged too."""
    other = "01930000-0000-7000-8000-0000000000a0"
    first: dict[str, tuple[str, dict[str, Any]]] = {
        "timeout": ("quaestor.attempts", {"attempt_id": other, "outcome": "TIMEOUT"}),
        "read": ("quaestor.costs", {"attempt_id": other, "amount_nano": 8}),
        "charged": ("quaestor.budgets", {"kind": "COMMITTED", "hold_id": other, "amount_nano": 8}),
    }
    completed = (WHOLE["completed"][0], {"kind": "COMPLETED", "amount_nano": 50})

    assert {} == failing(folded(first, WHOLE | {"completed": completed}))
    assert ["COMPLETED = sum of charges"] == list(failing(folded(first, WHOLE)))


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
    fold.add("quaestor.costs", event(4, attempt_id=ATTEMPT, amount_nano=40))

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
    """The first 15 hexadecimal digits of MD5, as SQL's md5('acme/1') writes it."""
    assert int("2ace2aa0387079f", 16) == digest_of("acme", "1")
