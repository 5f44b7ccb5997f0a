"""The ledger poster under any sequence of movements: nothing is lost, nothing is booked twice."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from processors.budgets import BudgetFold
from processors.ledger import LedgerPoster, LedgerState
from schemas.events import BudgetEvent, BudgetKind, CostEvent, CostKind, Event, LedgerEntry, TransferKind
from tests.support.events import budget, cost, leg

HOLDS = [f"018bcfe5-6800-7000-8000-{number:012d}" for number in range(4)]
LIMITS = ["day", "month", "key"]
CURRENCIES = ["USD", "EUR"]
AMOUNT = st.integers(0, 10**12)
POSTER = LedgerPoster()


@st.composite
def movements(draw: st.DrawFn) -> list[Event]:
    """Movements of a few holds in any order, with repetitions of whole events, and cost lines between them."""
    events: list[Event] = []
    legs = {hold: draw(st.lists(st.sampled_from(LIMITS), unique=True, max_size=3)) for hold in HOLDS}
    for number in range(draw(st.integers(0, 25))):
        if draw(st.integers(0, 4)) == 0:
            events.append(_cost(draw, f"c{number}"))
        else:
            kind, hold = draw(st.sampled_from(list(BudgetKind))), draw(st.sampled_from(HOLDS))
            made = [leg(limit, draw(AMOUNT), draw(AMOUNT)) for limit in legs[hold]]
            events.append(budget(kind, hold, f"b{number}", *made, tenant_id=_tenant(hold)))
        if draw(st.integers(0, 5)) == 0:
            events.append(draw(st.sampled_from(events)))
    return events


def _tenant(hold: str) -> str:
    return f"tenant{HOLDS.index(hold) % 2}"


def _cost(draw: st.DrawFn, event_id: str) -> CostEvent:
    amount, provider_amount = draw(AMOUNT), draw(AMOUNT)
    correction = draw(st.booleans())
    currency, provider_currency = draw(st.sampled_from(CURRENCIES)), draw(st.sampled_from(CURRENCIES))
    return cost(
        event_id,
        -amount if correction else amount,
        provider_amount_nano=-provider_amount if correction else provider_amount,
        kind=CostKind.CORRECTION if correction else CostKind.CHARGE,
        currency=currency,
        provider_currency=provider_currency,
    )


def run(events: Sequence[Event], state: LedgerState, *, silent: bool = False) -> list[LedgerEntry]:
    """What follows from events; a silent run only learns."""
    entries: list[LedgerEntry] = []
    for event in events:
        follows = () if silent else POSTER.decide(state, event)
        entries += [entry for entry in follows if isinstance(entry, LedgerEntry)]
        state = POSTER.evolve(state, event)
    return entries


def distinct(entries: Sequence[LedgerEntry]) -> list[LedgerEntry]:
    """One of each id, as every store keeps them."""
    return list({entry.event_id: entry for entry in entries}.values())


def balances(entries: Sequence[LedgerEntry]) -> defaultdict[tuple[str, str], int]:
    """Credits - debits per account and currency."""
    sums: defaultdict[tuple[str, str], int] = defaultdict(int)
    for entry in entries:
        sums[entry.debit_account, entry.currency] -= entry.amount_nano
        sums[entry.credit_account, entry.currency] += entry.amount_nano
    return sums


@given(movements())
def test_amounts_are_positive_and_accounts_differ(events: list[Event]) -> None:
    """A transfer of nothing, or to itself, is no transfer."""
    for entry in run(events, POSTER.initial(0)):
        assert entry.amount_nano > 0
        assert entry.debit_account != entry.credit_account


@given(movements())
def test_every_currency_balances_by_itself(events: list[Event]) -> None:
    """Over all accounts of a currency, credits - debits is nothing."""
    sums = balances(run(events, POSTER.initial(0)))

    for currency in CURRENCIES:
        assert sum(amount for (_, of), amount in sums.items() if of == currency) == 0


@given(movements())
def test_the_same_id_is_the_same_transfer(events: list[Event]) -> None:
    """Byte for byte: a repeated cost line repeats its transfer."""
    met: dict[str, LedgerEntry] = {}
    for entry in run(events, POSTER.initial(0)):
        assert entry == met.setdefault(entry.event_id, entry)


@given(movements())
def test_balances_are_those_of_the_budget_fold(events: list[Event]) -> None:
    """Held is what the counters hold, spent what they posted, and available and overage paid for both."""
    fold = BudgetFold()
    for event in events:
        if isinstance(event, BudgetEvent):
            fold.apply(event)
    sums = balances(distinct(run(events, POSTER.initial(0))))

    for limit in LIMITS:
        account = {name: sums[f"budget/{limit}/{name}", "USD"] for name in ("available", "held", "spent", "overage")}
        counted = [kept for counter, kept in fold.sums.items() if counter.limit_id == limit]
        assert account["held"] == sum(kept.held_nano for kept in counted)
        assert account["spent"] == sum(kept.posted_nano for kept in counted)
        assert sum(account.values()) == 0


@given(movements())
def test_every_pending_is_resolved_at_most_once_and_never_in_part(events: list[Event]) -> None:
    """At most one POST and one VOID of one source, which together are the whole."""
    entries = distinct(run(events, POSTER.initial(0)))
    pending = {entry.event_id: entry for entry in entries if entry.kind is TransferKind.PENDING}
    resolving = [entry for entry in entries if entry.kind in {TransferKind.POST, TransferKind.VOID}]
    resolved: Counter[str] = Counter()
    for entry in resolving:
        assert entry.pending_id in pending
        resolved[entry.pending_id] += entry.amount_nano

    for pending_id, amount in resolved.items():
        sources = {entry.source_event_id for entry in resolving if entry.pending_id == pending_id}
        assert amount == pending[pending_id].amount_nano
        assert len(sources) == 1


@given(movements(), st.data())
def test_a_new_owner_goes_on_as_the_old_one_would(events: list[Event], data: st.DataObject) -> None:
    """After a warm-up over what came before, what follows is the same."""
    cut = data.draw(st.integers(0, len(events)))
    whole = run(events, POSTER.initial(0))
    state = POSTER.initial(0)
    before = run(events[:cut], POSTER.initial(0))
    run(events[:cut], state, silent=True)

    assert whole == before + run(events[cut:], state)


@given(movements())
def test_costs_need_no_past(events: list[Event]) -> None:
    """They are posted alike on any state: their topic is not warmed up."""
    costs = [event for event in events if isinstance(event, CostEvent)]
    posted = [entry for entry in run(events, POSTER.initial(0)) if entry.source_topic == "quaestor.costs"]

    assert posted == run(costs, POSTER.initial(0))
