"""What transfers do to accounts, and the time and key rules of the Postgres sink, without a database."""

from __future__ import annotations

import hashlib
import math
from datetime import date
from random import Random

import pytest

from sinks.postgres.balances import Net, Pair, Transfer, pendings_needed, pendings_of
from sinks.postgres.migrations import migrations
from sinks.postgres.months import EARLIEST_MICROS, LATEST_MICROS, has_month, months_of
from sinks.runner.backoff import Backoff
from sinks.totals import digest_of, totals_of

MASTER = bytes(range(32))


def transfer(kind: str, debit: str, credit: str, amount: int, pending_id: str | None = None) -> Transfer:
    """A transfer of one tenant in dollars."""
    return Transfer("acme", f"{kind}-id", kind, debit, credit, amount, "USD", pending_id)


PENDING = transfer("PENDING", "available", "held", 10)
CASES = [
    # transfers                                             account      debits pending, posted, credits pending, posted
    ([PENDING], {"available": [10, 0, 0, 0], "held": [0, 0, 10, 0]}),
    (
        [
            PENDING,
            transfer("POST", "held", "spent", 4, "PENDING-id"),
            transfer("VOID", "held", "available", 6, "PENDING-id"),
        ],
        {"available": [0, 4, 0, 0], "held": [0, 4, 0, 4], "spent": [0, 0, 0, 4]},
    ),
    (
        [transfer("PENDING", "a", "b", 10), transfer("POST", "a", "b", 10, "PENDING-id")],
        {"a": [0, 10, 0, 0], "b": [0, 0, 0, 10]},
    ),
    ([transfer("DIRECT", "expense", "payable", 7)], {"expense": [0, 7, 0, 0], "payable": [0, 0, 0, 7]}),
    ([transfer("UNKNOWN", "a", "b", 7)], {}),
    ([transfer("DIRECT", "a", "b", 0)], {}),
]  # fmt: skip


@pytest.mark.parametrize(("transfers", "expected"), CASES)
def test_effects_of_transfers(transfers: list[Transfer], expected: dict[str, list[int]]) -> None:
    """Each kind moves what its rule says, and debits equal credits, pending and posted apart."""
    net = Net()
    for each in transfers:
        net.add(each, pendings_of(transfers))
    assert {account: sums for (_, account, _), sums in net.changes.items()} == expected
    sums = [sum(column) for column in zip(*net.changes.values(), strict=True)] or [0, 0, 0, 0]
    assert (sums[0], sums[1]) == (sums[2], sums[3])


@pytest.mark.parametrize("kind", ["POST", "VOID"])
def test_a_resolution_before_its_pending_moves_the_same(kind: str) -> None:
    """A record that was sent again may stand behind what follows from it; what both do does not depend on it."""
    available, held = "budget/limit_1/available", "budget/limit_1/held"
    pending = transfer("PENDING", available, held, 10)
    resolution = transfer(kind, held, "budget/limit_1/spent" if kind == "POST" else available, 10, "PENDING-id")
    in_order, turned = Net(), Net()
    for each in (pending, resolution):
        in_order.add(each, pendings_of([pending]))
    turned.add(resolution, {})
    turned.add(pending, pendings_of([pending]))
    assert in_order.changes == turned.changes


def test_only_unknown_pendings_are_looked_up() -> None:
    """A pending transfer of the same batch is not asked for again."""
    resolvers = [transfer("POST", "held", "spent", 1, "known"), transfer("POST", "held", "spent", 1, "other")]
    assert pendings_needed(resolvers, {("acme", "known"): Pair("a", "b")}) == [("acme", "other")]


def test_months_are_those_of_utc() -> None:
    """The last microsecond of a month belongs to it."""
    first_of_december = 1_796_083_200_000_000
    assert months_of([first_of_december - 1, first_of_december]) == {date(2026, 11, 1), date(2026, 12, 1)}


@pytest.mark.parametrize(
    ("time", "expected"),
    [(EARLIEST_MICROS, True), (EARLIEST_MICROS - 1, False), (LATEST_MICROS - 1, True), (LATEST_MICROS, False)],
)
def test_times_without_a_month(time: int, expected: bool) -> None:
    """Partitions are made for the years 2020 to 2099."""
    assert has_month(time) is expected


def test_migrations_have_numbers_of_their_own() -> None:
    """Numbers are unique and in order."""
    versions = [migration.version for migration in migrations()]
    assert versions == sorted(set(versions))


def test_backoff_grows_to_its_cap_and_begins_anew() -> None:
    """Delays stay between half and all of a doubling span, capped."""
    backoff = Backoff(Random(1), seconds_max=3.0)
    delays = [backoff.next_seconds() for _ in range(20)]
    assert all(0.025 <= delay <= 3.0 for delay in delays)
    assert delays[0] <= 0.05
    assert min(delays[10:]) >= 1.5
    backoff.reset()
    assert backoff.next_seconds() <= 0.05


def test_totals_ignore_order_and_repetition() -> None:
    """The digest is the sum of MD5 prefixes of distinct events."""
    events = [("t", "a", 1), ("t", "b", 2), ("t", "a", 1)]
    totals = totals_of(events)
    assert totals == totals_of(reversed(events))
    assert (totals.records, totals.amount_nano) == (2, 3)
    assert digest_of("t", "a") == int(hashlib.md5(b"t/a", usedforsecurity=False).hexdigest()[:15], 16)
    assert math.log2(digest_of("t", "a")) < 60
