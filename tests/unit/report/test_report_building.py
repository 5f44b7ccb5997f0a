"""The report from figures: shares, control totals, use of budgets, the verdict, and its shape for programs."""

from __future__ import annotations

import json
from dataclasses import dataclass

import msgspec
import pytest

from api.cli.report import as_document
from processors.control import Increase, Limit
from processors.report.budgets import COUNTERS_PER_LIMIT_MAX, budget_uses, limits_of, windows_of
from processors.report.build import control_totals, estimates
from processors.report.figures import Charge, Findings, LedgerMovement, Standing, WindowSpend
from processors.report.words import verdict
from tests.budget_world import limit_on
from tests.support.reports import HOSTILE, MINUTE_MICROS, broken, day, figures, report

DAY = day()
HOUR_MICROS = 60 * MINUTE_MICROS


def charge(amount_nano: int, *, estimated: bool = False, currency: str = "USD") -> Charge:
    """Cost lines of one model."""
    return Charge("p", "m", "INPUT_TOKENS", estimated, currency, 1, 1, amount_nano)


def moved(accounts: str, *sums: int, currency: str = "USD") -> LedgerMovement:
    """Debits and credits, pending and posted."""
    return LedgerMovement(accounts, currency, *sums)


@pytest.mark.parametrize(
    ("charges", "expected"),
    [
        ([], []),
        ([charge(75), charge(25, estimated=True)], [("USD", 75, 25, 25)]),
        ([charge(1), charge(2, estimated=True, currency="EUR")], [("EUR", 0, 2, 100), ("USD", 1, 0, 0)]),
        ([charge(5, estimated=True), charge(-5, estimated=True)], [("USD", 0, 0, 0)]),
    ],
)
def test_how_much_is_estimated(charges: list[Charge], expected: list[tuple[str, int, int, int]]) -> None:
    """Per currency, rounded down; nothing of nothing."""
    assert expected == [
        (one.currency, one.reported_nano, one.estimated_nano, one.percent) for one in estimates(charges)
    ]


@pytest.mark.parametrize(
    ("charges", "ledger", "differing"),
    [
        ([], [], []),
        ([charge(7)], [moved("expense", 0, 0, 7, 0), moved("payable", 0, 0, 0, 7)], []),
        ([charge(7)], [moved("expense", 0, 0, 9, 2), moved("payable", 0, 0, 2, 9)], []),
        ([charge(7)], [], ["costs = expenses in the ledger"]),
        ([charge(7)], [moved("expense", 0, 0, 6, 0), moved("payable", 0, 0, 0, 6)], ["costs = expenses in the ledger"]),
        ([], [moved("expense", 0, 0, 1, 0), moved("payable", 0, 0, 0, 1)], ["costs = expenses in the ledger"]),
        ([], [moved("budget/held", 0, 5, 0, 0)], ["debits pending = credits pending"]),
        ([], [moved("budget/spent", 0, 0, 0, 5)], ["debits posted = credits posted"]),
        ([], [moved("budget/held", 0, 0, 5, 0), moved("budget/spent", 0, 0, 0, 5, currency="EUR")],
         ["debits posted = credits posted", "debits posted = credits posted"]),
    ],
)  # fmt: skip
def test_control_totals(charges: list[Charge], ledger: list[LedgerMovement], differing: list[str]) -> None:
    """Every currency balances by itself, and what was charged is what the ledger calls an expense."""
    totals = control_totals(charges, ledger)

    assert differing == [one.name for one in totals if one.expected_nano != one.actual_nano]


@dataclass
class Used:
    """A limit, what was booked on it, and how far that filled it."""

    limit: Limit
    #: window_start, spent by the end of the day, settled after it; counter suffix.
    windows: list[tuple[int, int, int, str]]
    #: Spent and per cent of each counter.
    expected: list[tuple[int, int]]


MORNING, EVENING = DAY.starts_at + HOUR_MICROS, DAY.ends_at - HOUR_MICROS
USES = {
    "a month goes on: what was settled after midnight is the next day's": Used(
        limit_on("team", "a", 100), [(DAY.starts_at - 19 * 24 * HOUR_MICROS, 50, 7, "")], [(50, 50)]
    ),
    "a day ends with the day: what was settled later counts": Used(
        limit_on("team", "a", 100, window="day"), [(DAY.starts_at, 50, 7, "")], [(57, 57)]
    ),
    "the fullest hour": Used(
        limit_on("team", "a", 100, window="hour"), [(MORNING, 30, 0, ""), (EVENING, 80, 1, "")], [(81, 81)]
    ),
    "hours of other days are left out": Used(
        limit_on("team", "a", 100, window="hour"),
        [(DAY.starts_at - HOUR_MICROS, 99, 0, ""), (MORNING, 3, 0, ""), (DAY.ends_at, 0, 9, "")],
        [(3, 3)],
    ),
    "a total": Used(limit_on("team", "a", 100, window="total"), [(0, 120, 0, "")], [(120, 120)]),
    "nothing was booked": Used(limit_on("team", "a", 100), [], [(0, 0)]),
    "nothing was booked on any of a kind": Used(limit_on("run", "*", 100, window="total"), [], []),
    "each of a kind apart, fullest first": Used(
        limit_on("run", "*", 100, window="total"), [(0, 10, 0, ".aa"), (0, 20, 0, ".bb")], [(20, 20), (10, 10)]
    ),
    "an increase counts while it is in force": Used(
        limit_on(
            "team",
            "a",
            100,
            increases=[Increase(amount_nano=100, valid_from=0, valid_until=DAY.ends_at, approval_code="x")],
        ),
        [(DAY.starts_at - 19 * 24 * HOUR_MICROS, 50, 0, "")],
        [(50, 25)],
    ),
}


@pytest.mark.parametrize("name", USES)
def test_how_far_budgets_are_used(name: str) -> None:
    """At each window's end, or at the day's where the window goes on."""
    used = USES[name]
    windows = [
        WindowSpend(used.limit.limit_id + suffix, "USD", start, spent, settled)
        for start, spent, settled, suffix in used.windows
    ]

    assert used.expected == [(use.spent_nano, use.percent) for use in budget_uses([used.limit], windows, DAY)]


def test_of_many_of_a_kind_the_fullest_are_shown() -> None:
    """A limit on each run does not fill the report."""
    limit = limit_on("run", "*", 1_000, window="total")
    windows = [WindowSpend(f"{limit.limit_id}.{number}", "USD", 0, number, 0) for number in range(100)]

    found = budget_uses([limit], windows, DAY)

    assert list(range(99, 99 - COUNTERS_PER_LIMIT_MAX, -1)) == [use.spent_nano for use in found]


@pytest.mark.parametrize(
    ("fields", "is_in_force"),
    [
        ({}, True),
        ({"valid_until": DAY.starts_at}, False),
        ({"valid_until": DAY.starts_at + 1}, True),
        ({"valid_from": DAY.ends_at}, False),
        ({"valid_from": DAY.ends_at - 1}, True),
    ],
    ids=str,
)
def test_limits_of_the_day(fields: dict[str, int], is_in_force: bool) -> None:
    """Those in force at some moment of it; what can't be read is passed over."""
    body = msgspec.json.encode(limit_on("team", "a", 1, **fields)).decode()

    assert is_in_force is bool(limits_of([body, "{}", "no json"], DAY))


@pytest.mark.parametrize(
    ("window", "first", "last"),
    [
        ("month", DAY.starts_at - 19 * 24 * HOUR_MICROS, DAY.starts_at - 19 * 24 * HOUR_MICROS),
        ("day", DAY.starts_at, DAY.ends_at),
        ("hour", DAY.starts_at, DAY.ends_at),
    ],
)
def test_which_windows_touch_the_day(window: str, first: int, last: int) -> None:
    """From the one in which the day begins to the one that goes on after it."""
    assert (first, last) == windows_of(limit_on("team", "a", 1, window=window), DAY)


@pytest.mark.parametrize(
    ("made", "ok", "words"),
    [
        (report(), True, "everything matches"),
        (report({}), True, "everything matches"),
        (report({"acme": figures(), "b": broken()}), False, "31 rows do not match"),
        (report(of=day("today")), False, "not final: what there is matches"),
        (report(standing=Standing({}, ("sink-postgres: 3 events",))), False, "not final: what there is matches"),
        (report({"acme": broken()}, of=day("today")), False, "31 rows do not match"),
    ],
    ids=["whole", "nothing happened", "a row", "day not over", "lacking", "both"],
)
def test_the_verdict(made: object, ok: bool, words: str) -> None:
    """Good only when the day is over, everything is in, and all of it matches."""
    assert (ok, words) == (made.ok, verdict(made).text)  # type: ignore[attr-defined, arg-type] # a Report


def test_a_control_total_alone_breaks_the_report() -> None:
    """Though no rule found a row."""
    found = figures()
    found.ledger.pop()
    made = report({"acme": found})

    assert (False, "1 control total does not match") == (made.ok, verdict(made).text)


def test_rules_are_summed_over_tenants() -> None:
    """Each rule that was asked is listed, with all that it found."""
    one, other = figures(), figures()
    one.findings.append(Findings("requests_end", 2, ()))
    other.findings.append(Findings("requests_end", 3, ()))

    assert {"requests_end": 5, "holds_are_resolved": 0} == {
        rule.name: rule.mismatches for rule in report({"a": one, "b": other}).rules
    }


def test_the_json_has_its_shape() -> None:
    """Names and types of every field, as docs/guides/report.md promises them."""
    document = json.loads(as_document(report({"acme": broken()})))

    assert SHAPE == shape(document)


def test_hostile_names_stand_in_the_json_as_they_are() -> None:
    """Programs get what there is; only people's views are cleaned."""
    document = json.loads(as_document(report({"acme": broken(HOSTILE)})))

    assert HOSTILE == document["tenants"][0]["charges"][0]["model"]


def shape(value: object) -> object:
    """A document with types instead of values; of a list its first item."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in value.items()}
    if isinstance(value, list):
        return [shape(each) for each in value[:1]]
    return type(value).__name__


MISMATCH = {"id": "str", "request_id": "str", "at": "int", "difference": "str"}
SHAPE = {
    "format": "int", "ok": "bool", "final": "bool", "day": "str", "time_zone": "str", "starts_at": "int",
    "ends_at": "int", "taken_at": "int", "judged_until": "int", "tenant": "NoneType",
    "standing": {"offsets": {"quaestor.costs": {"0": "int", "1": "int"}}, "lacking": []},
    "rules": [{"name": "str", "claim": "str", "mismatches": "int"}],
    "tenants": [{
        "tenant_id": "str", "ok": "bool",
        "requests": [{"kind": "str", "error_code": "str", "requests": "int"}],
        "decisions": [{"policy": "str", "provider_id": "str", "model": "str", "decisions": "int"}],
        "attempts": [{"provider_id": "str", "model": "str", "outcome": "str", "usage_source": "str", "attempts": "int",
                      "input_tokens": "int", "output_tokens": "int"}],
        "charges": [{"provider_id": "str", "model": "str", "meter": "str", "estimated": "bool", "currency": "str",
                     "lines": "int", "quantity": "int", "amount_nano": "int"}],
        "owners": [{"team_id": "str", "project_id": "str", "key_id": "str", "currency": "str", "amount_nano": "int"}],
        "hours": [{"hour": "int", "currency": "str", "amount_nano": "int"}],
        "estimates": [{"currency": "str", "reported_nano": "int", "estimated_nano": "int", "percent": "int"}],
        "holds": [{"kind": "str", "reason": "str", "limit_id": "str", "currency": "str", "movements": "int",
                   "amount_nano": "int"}],
        "late_commits": [{"currency": "str", "holds": "int", "estimated_nano": "int", "charged_nano": "int"}],
        "ledger": [{"accounts": "str", "currency": "str", "debits_pending_nano": "int", "credits_pending_nano": "int",
                    "debits_posted_nano": "int", "credits_posted_nano": "int"}],
        "control_totals": [{"name": "str", "currency": "str", "expected_nano": "int", "actual_nano": "int"}],
        "budgets": [{"limit_id": "str", "counter": "str", "scope": "str", "scope_id": "str", "window": "str",
                     "currency": "str", "hard": "bool", "window_start": "int", "window_end": "int",
                     "allowed_nano": "int", "spent_nano": "int", "percent": "int", "counters": "int"}],
        "set_aside": [{"sink": "str", "topic": "str", "state": "str", "reason": "str", "records": "int"}],
        "mismatches": [{"rule": "str", "total": "int", "shown": [MISMATCH]}],
    }],
}  # fmt: skip
