"""The ledger poster, as tables: events in, transfers out, balances after.

A budget line is `KIND hold amounts`, with one amount per limit (`day=100 month=100`); a cost line is `COST amount`.
Balances are credits - debits of posted and pending transfers alike.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import pytest

from processors.ledger import LedgerPoster
from schemas.events import BudgetEvent, BudgetKind, CostEvent, CostKind, LedgerEntry
from tests.support.events import budget, cost, leg

HELD = {"day": 100, "month": 100}


def run(lines: str) -> list[LedgerEntry]:
    """Post the events of a table, in order."""
    poster, state, entries = LedgerPoster(), LedgerPoster().initial(0), []
    for number, line in enumerate(rows(lines)):
        event = read(line, f"e{number}")
        entries += [entry for entry in poster.decide(state, event) if isinstance(entry, LedgerEntry)]
        state = poster.evolve(state, event)
    return entries


def read(line: list[str], event_id: str) -> BudgetEvent | CostEvent:
    """The event of a line."""
    if line[0] == "COST":
        return cost(event_id, int(line[1]), team_id="payments", project_id="chat")
    if line[0] == "CORRECTION":
        return cost(event_id, int(line[1]), kind=CostKind.CORRECTION, team_id="payments", project_id="chat")
    amounts = (part.split("=") for part in line[2:])
    legs = [leg(limit, int(amount), HELD.get(limit, 0)) for limit, amount in amounts]
    return budget(BudgetKind[line[0]], hold_id(line[1]), event_id, *legs)


def hold_id(name: str) -> str:
    """A hold's id is a uuid7."""
    return f"018bcfe5-6800-7000-8000-{int(name[1:]):012d}"


def rows(table: str) -> list[list[str]]:
    """The words of every line."""
    return [line.split() for line in table.strip().splitlines()]


def shown(entries: Iterable[LedgerEntry]) -> list[list[str]]:
    """Transfers as a table shows them."""
    short = [
        (entry.kind.value, entry.debit_account, entry.credit_account, entry.amount_nano, entry.memo)
        for entry in entries
    ]
    return [
        [kind, debit.removeprefix("budget/"), credit.removeprefix("budget/"), str(n), memo]
        for kind, debit, credit, n, memo in short
    ]


def balances(entries: Iterable[LedgerEntry]) -> dict[str, int]:
    """Credits - debits per account, without those at zero."""
    sums: defaultdict[str, int] = defaultdict(int)
    for entry in entries:
        sums[entry.debit_account.removeprefix("budget/")] -= entry.amount_nano
        sums[entry.credit_account.removeprefix("budget/")] += entry.amount_nano
    return {account: amount for account, amount in sums.items() if amount}


POSTINGS = {
    "a hold is pending on every limit": (
        """
        PLACED h1 day=100 month=100
        """,
        """
        PENDING  day/available    day/held    100  hold
        PENDING  month/available  month/held  100  hold
        """,
    ),
    "a commit posts what was charged and frees the rest": (
        """
        PLACED    h1 day=100
        COMMITTED h1 day=30
        """,
        """
        PENDING  day/available  day/held       100  hold
        POST     day/held       day/spent      30   spend
        VOID     day/held       day/available  70   release
        """,
    ),
    "a commit of the whole hold frees nothing": (
        """
        PLACED    h1 day=100
        COMMITTED h1 day=100
        """,
        """
        PENDING  day/available  day/held   100  hold
        POST     day/held       day/spent  100  spend
        """,
    ),
    "a commit of nothing frees everything": (
        """
        PLACED    h1 day=100
        COMMITTED h1 day=0
        """,
        """
        PENDING  day/available  day/held       100  hold
        VOID     day/held       day/available  100  release
        """,
    ),
    "a charge above the hold is booked whole": (
        """
        PLACED    h1 day=100
        COMMITTED h1 day=130
        """,
        """
        PENDING  day/available  day/held   100  hold
        POST     day/held       day/spent  100  spend
        DIRECT   day/overage    day/spent  30   overage
        """,
    ),
    "the informational overage event moves nothing": (
        """
        PLACED    h1 day=100
        COMMITTED h1 day=130
        OVERAGE   h1 day=30
        """,
        """
        PENDING  day/available  day/held   100  hold
        POST     day/held       day/spent  100  spend
        DIRECT   day/overage    day/spent  30   overage
        """,
    ),
    "a release frees the hold": (
        """
        PLACED   h1 day=100
        RELEASED h1 day=100
        """,
        """
        PENDING  day/available  day/held       100  hold
        VOID     day/held       day/available  100  release
        """,
    ),
    "an expiry posts its estimate": (
        """
        PLACED  h1 day=100
        EXPIRED h1 day=40
        """,
        """
        PENDING  day/available  day/held       100  hold
        POST     day/held       day/spent      40   spend
        VOID     day/held       day/available  60   release
        """,
    ),
    "a late commit books the difference": (
        """
        PLACED    h1 day=100
        EXPIRED   h1 day=100
        COMMITTED h1 day=30
        """,
        """
        PENDING  day/available  day/held       100  hold
        POST     day/held       day/spent      100  spend
        DIRECT   day/spent      day/available  70   correction
        """,
    ),
    "a late commit above the hold books the rest as overage": (
        """
        PLACED    h1 day=100
        EXPIRED   h1 day=40
        COMMITTED h1 day=130
        """,
        """
        PENDING  day/available  day/held       100  hold
        POST     day/held       day/spent      40   spend
        VOID     day/held       day/available  60   release
        DIRECT   day/available  day/spent      60   correction
        DIRECT   day/overage    day/spent      30   correction
        """,
    ),
    "a late commit of the estimate books nothing": (
        """
        PLACED    h1 day=100
        EXPIRED   h1 day=100
        COMMITTED h1 day=100
        """,
        """
        PENDING  day/available  day/held   100  hold
        POST     day/held       day/spent  100  spend
        """,
    ),
    "an extension gives way to one pending of the new amount": (
        """
        PLACED    h1 day=100
        EXTENDED  h1 day=150
        COMMITTED h1 day=120
        """,
        """
        PENDING  day/available  day/held       100  hold
        VOID     day/held       day/available  100  hold
        PENDING  day/available  day/held       150  hold
        POST     day/held       day/spent      120  spend
        VOID     day/held       day/available  30   release
        """,
    ),
    "an extension of the lease alone, or one that comes twice, moves nothing": (
        """
        PLACED    h1 day=100
        EXTENDED  h1 day=100
        COMMITTED h1 day=100
        """,
        """
        PENDING  day/available  day/held   100  hold
        POST     day/held       day/spent  100  spend
        """,
    ),
    "a limit of another window is another leg": (
        """
        PLACED    h1 day=100 month=100
        COMMITTED h1 day=100 month=100
        """,
        """
        PENDING  day/available    day/held     100  hold
        PENDING  month/available  month/held   100  hold
        POST     day/held         day/spent    100  spend
        POST     month/held       month/spent  100  spend
        """,
    ),
    "a cost is an expense that is payable": (
        """
        COST 18
        """,
        """
        DIRECT  expense/payments/chat  payable/p  18  expense
        """,
    ),
    "a correction goes the other way": (
        """
        CORRECTION -18
        """,
        """
        DIRECT  payable/p  expense/payments/chat  18  correction
        """,
    ),
}
#: Each of these leaves the transfers of its first line alone.
NOTHING = {
    "a hold without limits": "PLACED h1",
    "a cost of nothing": "COST 0",
    "a refusal": "REFUSED h1 day=100",
    "a commit of a hold never placed": "COMMITTED h1 day=30",
    "a release of a hold never placed": "RELEASED h1 day=30",
    "an expiry of a hold never placed": "EXPIRED h1 day=30",
    "an extension of a hold never placed": "EXTENDED h1 day=30",
    "an overage alone": "OVERAGE h1 day=30",
}
#: What comes after a hold's end changes nothing.
ENDED = [
    f"{first} h1 day=30\n{second} h1 day=50"
    for first in ("COMMITTED", "RELEASED", "EXPIRED")
    for second in ("PLACED", "COMMITTED", "RELEASED", "EXPIRED", "EXTENDED")
    if (first, second) != ("EXPIRED", "COMMITTED")
]


@pytest.mark.parametrize("name", POSTINGS)
def test_postings(name: str) -> None:
    """The transfers are exactly those of the table."""
    events, expected = POSTINGS[name]

    assert rows(expected) == shown(run(events))


@pytest.mark.parametrize("name", NOTHING)
def test_what_posts_nothing(name: str) -> None:
    """No transfer."""
    assert [] == run(NOTHING[name])


@pytest.mark.parametrize("events", ENDED)
def test_the_first_resolution_wins(events: str) -> None:
    """The second one books nothing, nor does the same one again."""
    placed = "PLACED h1 day=100\n"
    first = events.splitlines()[0]

    assert shown(run(placed + first)) == shown(run(placed + events))


def test_a_cost_in_another_currency_clears_in_both() -> None:
    """Each currency balances by itself."""
    event = cost("e", 20, provider_amount_nano=18, provider_currency="EUR", team_id="payments")
    entries = LedgerPoster().decide(LedgerPoster().initial(0), event)

    assert [
        ("expense/payments/-", "clearing/EUR/USD", 20, "USD"),
        ("clearing/EUR/USD", "payable/p", 18, "EUR"),
    ] == [(each.debit_account, each.credit_account, each.amount_nano, each.currency) for each in entries]


def test_balances_after_a_day() -> None:
    """Spent is what was charged, held what is open, and available paid for both."""
    entries = run(
        """
        PLACED    h1 day=100
        PLACED    h2 day=100
        PLACED    h3 day=100
        COMMITTED h1 day=130
        EXPIRED   h2 day=100
        COMMITTED h2 day=20
        """
    )

    assert {"day/available": -220, "day/held": 100, "day/spent": 150, "day/overage": -30} == balances(entries)


def test_ids_depend_on_the_source_alone() -> None:
    """The same events give the same transfers, byte for byte."""
    events = "PLACED h1 day=100 month=100\nCOMMITTED h1 day=130 month=130\nCOST 18"

    assert run(events) == run(events)
    assert len({entry.event_id for entry in run(events)}) == len(run(events))


def test_a_resolution_names_the_pending_it_resolves() -> None:
    """POST and VOID point at the PENDING of their leg."""
    pending, post, void = run("PLACED h1 day=100\nCOMMITTED h1 day=30")

    assert post.pending_id == void.pending_id == pending.event_id
