"""Ledger rules as tables: a row is an event and what comes of it, and between them stand rows of accounts.

    PLACED   h1 day=100 month=100      | posted        transfers follow from it
    PLACED   h1 day=100                | open          none: the hold stands already
    account  day/available 100 0 0 0                   debits pending and posted, credits pending and posted

A hold is h and a digit; l and a digit is one whose id is 40 hours younger; any other word is the id itself. A leg is
limit:currency@window=amount, in dollars and of no window unless it says so; an amount of +N is N above the most there
may be; legs=N is so many legs. A cost is `CHARGE amount:currency provider-amount:currency`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

import msgspec

from processors.budgets import AMOUNT_NANO_MAX, OpenHold, counter_of, problem_of
from processors.ledger import LedgerPoster, LedgerState
from schemas.events import BudgetEvent, BudgetKind, CostEvent, CostKind, HoldLeg, LedgerEntry
from sinks.postgres.balances import Net, Pair, Transfer
from tests.support.events import budget, cost, leg

LEG = re.compile(r"(?P<limit>[^:@=]*)(?::(?P<currency>[^@=]*))?(?:@(?P<window>-?\d+))?=(?P<amount>[+-]?\d+)")
#: What is wrong with an event, in one word.
UNSOUND = {
    "hold_id is not a uuid7": "id",
    "more than 32 legs": "many",
    "two legs move the same counter": "twice",
    "limit_id is not a name": "name",
    "currency is not a three-letter code": "currency",
    "amount_nano is out of range": "amount",
    "the window begins or ends before 1970": "window",
}
HOLDS = {"h": "018bcfe5-6800-7000-8000-{:012d}", "l": "018bd87b-4000-7000-8000-{:012d}"}

#: Whoever asks is further than any hold.
LATER_MICROS = 4_000_000_000_000_000


class Desk:
    """A poster and what it has posted."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._poster = LedgerPoster()
        self._state: LedgerState = self._poster.initial(0)
        self._entries: list[LedgerEntry] = []
        self._events = 0

    def check(self, table: str) -> None:
        """Every row comes true, and what must hold of any ledger holds in the end."""
        for number, line in enumerate(table.strip().splitlines(), 1):
            row = line.partition("#")[0].split()
            if row and row[0] == "account":
                assert (number, row) == (number, [*row[:2], *self._account(row[1])])
            elif row:
                said, expected = self._take(row[: row.index("|")]), row[row.index("|") + 1]
                assert (number, line, said) == (number, line, expected)
        assert self._unbalanced() == []

    def _take(self, words: list[str]) -> str:
        """Post an event; answers what came of it, in one word."""
        self._events += 1
        self._state.fold.forget(LATER_MICROS)
        event = self._read(words, f"e{self._events}")
        entries = [each for each in self._poster.decide(self._state, event) if isinstance(each, LedgerEntry)]
        said = "posted" if entries else self._nothing(event)
        self._state = self._poster.evolve(self._state, event)
        self._entries += entries
        return said

    def _nothing(self, event: BudgetEvent | CostEvent) -> str:
        """Why nothing follows."""
        if isinstance(event, CostEvent):
            return "unmoved"
        if event.kind in {BudgetKind.OVERAGE, BudgetKind.REFUSED}:
            return "told"
        problem, status = problem_of(event), self._state.fold.status(event.hold_id)
        if problem is not None:
            return UNSOUND[problem]
        if self._state.fold.effect_of(event) is not None:
            return "unmoved"
        if status is None:
            return "unknown"
        return "open" if isinstance(status, OpenHold) else status.kind.value.lower()

    def _read(self, words: list[str], event_id: str) -> BudgetEvent | CostEvent:
        kind, first, *rest = words
        if kind in CostKind.__members__:
            (amount, currency), (provider_amount, provider_currency) = (each.split(":") for each in (first, *rest))
            return cost(
                event_id,
                int(amount),
                kind=CostKind[kind],
                currency=currency,
                provider_amount_nano=int(provider_amount),
                provider_currency=provider_currency,
                key_id="key",
            )
        hold = HOLDS[first[0]].format(int(first[1:])) if re.fullmatch(r"[hl]\d", first) else first
        return budget(BudgetKind[kind], hold, event_id, *(each for word in rest for each in self._legs(hold, word)))

    def _legs(self, hold: str, word: str) -> Iterator[HoldLeg]:
        if word.startswith("legs="):
            for number in range(int(word.removeprefix("legs="))):
                yield leg(f"limit_{number}", 1)
            return
        found = LEG.fullmatch(word)
        assert found is not None, word
        amount = AMOUNT_NANO_MAX + int(found["amount"]) if found["amount"][0] == "+" else int(found["amount"])
        window, status = int(found["window"] or 0), self._state.fold.status(hold)
        made = leg(found["limit"], amount, currency=found["currency"] or "USD")
        made = msgspec.structs.replace(made, window_start=window, window_end=window)
        held = dict(status.held).get(counter_of(made), 0) if isinstance(status, OpenHold) else 0
        yield msgspec.structs.replace(made, held_nano=held)

    def _account(self, name: str) -> list[str]:
        account, _, currency = name.partition(":")
        full = account if account.split("/")[0] in {"expense", "payable", "clearing"} else f"budget/{account}"
        return [str(each) for each in self._net().get((full, currency or "USD"), [0, 0, 0, 0])]

    def _net(self) -> dict[tuple[str, str], list[int]]:
        transfers, net = list(_transfers(self._entries)), Net()
        pendings = {
            (each.tenant_id, each.event_id): Pair(each.debit_account, each.credit_account)
            for each in transfers
            if each.kind == "PENDING"
        }
        for each in transfers:
            net.add(each, pendings)
        return {(account, currency): sums for (_, account, currency), sums in net.changes.items()}

    def _unbalanced(self) -> list[str]:
        """What does not hold: debits and credits, resolutions of each pending, and the counters of the fold."""
        found, net = [], self._net()
        sums = [sum(column) for column in zip(*net.values(), strict=True)] or [0, 0, 0, 0]
        found += ["debits and credits"] if sums[:2] != sums[2:] else []
        pending = {each.event_id: each.amount_nano for each in self._entries if each.kind.value == "PENDING"}
        resolved: defaultdict[str | None, int] = defaultdict(int)
        for each in self._entries:
            resolved[each.pending_id] += each.amount_nano if each.pending_id else 0
        found += [f"{name}: {amount}" for name, amount in resolved.items() if name and amount != pending.get(name)]
        kept: defaultdict[tuple[str, str], int] = defaultdict(int)
        for counter, counted in self._state.fold.sums.items():
            kept[f"budget/{counter.limit_id}/held", counter.currency] += counted.held_nano
            kept[f"budget/{counter.limit_id}/spent", counter.currency] += counted.posted_nano
        for name, amount in kept.items():
            debits_pending, debits, credits_pending, credits_ = net.get(name, [0, 0, 0, 0])
            if amount != credits_pending + credits_ - debits_pending - debits:
                found.append(f"{name}: the counter says {amount}")
        ids = [each.event_id for each in self._entries]
        return found + (["an id twice"] if len(set(ids)) < len(ids) else [])


def _transfers(entries: Iterable[LedgerEntry]) -> Iterator[Transfer]:
    for each in entries:
        yield Transfer(
            each.tenant_id,
            each.event_id,
            each.kind.value,
            each.debit_account,
            each.credit_account,
            each.amount_nano,
            each.currency,
            each.pending_id,
        )
