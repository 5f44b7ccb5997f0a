"""Events and records for tests: deterministic, complete, one request's story at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from processors.pricing import Price, PriceBook, Rates
from schemas import events
from schemas.ids import derived_id, uuid7
from schemas.money import PICO_PER_NANO
from schemas.topics import SYSTEM_TENANT, key_of, topic_of
from streams.codec import Codec, LocalSchemas
from streams.log import LogRecord, OutgoingRecord, Partition
from streams.partitioner import partition_of

#: 2026-11-01 00:00 UTC.
START_MICROS = 1_793_491_200_000_000
TOPIC_ID = "11111111-2222-3333-4444-555555555555"


def codec() -> Codec:
    """A codec that needs no registry."""
    return Codec(LocalSchemas())


def event_id(number: int, what: str = "") -> str:
    """An id that is a function of its arguments."""
    return uuid7(START_MICROS + number, derived_id("test", str(number), what, "").encode()[:10])


#: What one request of a story is charged, unless it says otherwise.
AMOUNT_NANO = 1_500
#: Tokens of one request of a story.
TOKENS = 10


def unit_price_pico(amount_nano: int) -> int:
    """The price of one token of a request that was charged so much."""
    return amount_nano * PICO_PER_NANO // TOKENS


def price_id(amount_nano: int) -> str:
    """What that price is called in its book."""
    return "price_1" if amount_nano == AMOUNT_NANO else f"price_of_{amount_nano}"


def price_book(*amounts_nano: int) -> events.ControlEvent:
    """The book with the price of every story that is charged one of these amounts."""
    prices = tuple(
        Price(price_id=price_id(each), provider_id="p1", model="m1", rates=Rates(input=unit_price_pico(each), output=0))
        for each in amounts_nano or (AMOUNT_NANO,)
    )
    return events.ControlEvent(
        event_id=event_id(0, "p1"), occurred_at=START_MICROS - 1, tenant_id=SYSTEM_TENANT, actor="cli/0",
        entity_kind=events.EntityKind.PRICE_BOOK, entity_id="p1", action=events.ControlAction.CREATED,
        after=msgspec.json.encode(PriceBook(provider_id="p1", version="1", prices=prices)).decode(),
    )  # fmt: skip


def request_story(number: int, tenant_id: str = "acme", amount_nano: int = AMOUNT_NANO) -> list[events.Event]:
    """The events of one answered request: received to completed, with its hold, cost and transfers."""
    request_id = event_id(number, "request")
    attempt_id = event_id(number, "attempt")
    at = START_MICROS + number * 1_000
    common: dict[str, Any] = {
        "occurred_at": at,
        "tenant_id": tenant_id,
        "request_id": request_id,
        "actor": "gateway/test",
    }
    leg = events.HoldLeg(
        limit_id="limit_1",
        amount_nano=amount_nano,
        held_nano=2 * amount_nano,
        currency="USD",
        window_start=0,
        window_end=0,
    )
    budget = {**common, "hold_id": attempt_id, "legs": (leg,), "currency": "USD", "provider_id": "p1", "model": "m1"}
    call = {**common, "attempt_id": attempt_id, "provider_id": "p1", "model": "m1"}
    operation = events.Operation.CHAT_COMPLETIONS
    placed_id = event_id(number, "placed")
    cost_id = event_id(number, "cost")
    transfer = {**common, "currency": "USD", "attempt_id": attempt_id}
    available, held = "budget/limit_1/available", "budget/limit_1/held"
    return [
        events.RequestEvent(
            event_id=event_id(number, "received"), kind=events.RequestKind.RECEIVED, operation=operation,
            team_id="team_1", key_id="key_1", tags={"team": "one"}, body_bytes=300, **common,
        ),
        events.RoutingDecision(
            event_id=event_id(number, "decision"), model_requested="alias", policy="ordered", policy_version="1",
            candidates=(events.Candidate(provider_id="p1", model="m1", eligible=True, score=0.5),), **common,
        ),
        events.BudgetEvent(
            event_id=placed_id, kind=events.BudgetKind.PLACED, amount_nano=2 * amount_nano, lease_until=at + 1, **budget
        ),
        events.LedgerEntry(
            event_id=derived_id("ledger", placed_id, "PENDING", available), kind=events.TransferKind.PENDING,
            debit_account=available, credit_account=held, amount_nano=2 * amount_nano,
            source_topic="quaestor.budgets", source_event_id=placed_id, memo="hold", **transfer,
        ),
        events.ProviderAttempt(
            event_id=event_id(number, "attempted"), attempt_number=1, operation=operation, input_tokens=TOKENS,
            outcome=events.AttemptOutcome.SUCCEEDED, usage_source=events.UsageSource.PROVIDER,
            started_at=at, duration_micros=5_000, **call,
        ),
        events.CostEvent(
            event_id=cost_id, kind=events.CostKind.CHARGE, meter=events.Meter.INPUT_TOKENS, quantity=TOKENS,
            unit_price_pico=unit_price_pico(amount_nano), price_id=price_id(amount_nano), price_version="1",
            provider_amount_nano=amount_nano, provider_currency="USD", amount_nano=amount_nano, currency="USD", **call,
        ),
        events.LedgerEntry(
            event_id=derived_id("ledger", cost_id, "DIRECT", "expense"), kind=events.TransferKind.DIRECT,
            debit_account="expense/team_1/p1", credit_account="payable/p1/usage", amount_nano=amount_nano,
            source_topic="quaestor.costs", source_event_id=cost_id, memo="expense", **transfer,
        ),
        *_settlement(number, placed_id, amount_nano, budget, transfer),
        events.RequestEvent(
            event_id=event_id(number, "completed"), kind=events.RequestKind.COMPLETED, operation=operation,
            team_id="team_1", key_id="key_1", status_code=200, provider_id="p1", model_served="m1",
            attempt_count=1, input_tokens=TOKENS, amount_nano=amount_nano, currency="USD", started_at=at, **common,
        ),
    ]  # fmt: skip


def _settlement(
    number: int, placed_id: str, amount_nano: int, budget: dict[str, Any], transfer: dict[str, Any]
) -> list[events.Event]:
    committed_id = event_id(number, "committed")
    available, held, spent = "budget/limit_1/available", "budget/limit_1/held", "budget/limit_1/spent"
    pending_id = derived_id("ledger", placed_id, "PENDING", available)
    entry = {
        **transfer, "debit_account": held, "pending_id": pending_id,
        "source_topic": "quaestor.budgets", "source_event_id": committed_id, "amount_nano": amount_nano,
    }  # fmt: skip
    return [
        events.BudgetEvent(
            event_id=committed_id, kind=events.BudgetKind.COMMITTED, amount_nano=amount_nano, **budget
        ),
        events.LedgerEntry(
            event_id=derived_id("ledger", committed_id, "POST", available), kind=events.TransferKind.POST,
            memo="spend", credit_account=spent, **entry,
        ),
        events.LedgerEntry(
            event_id=derived_id("ledger", committed_id, "VOID", available), kind=events.TransferKind.VOID,
            memo="release", credit_account=available, **entry,
        ),
    ]  # fmt: skip


def control_event(number: int, action: events.ControlAction, after: str | None) -> events.ControlEvent:
    """A change of one budget limit."""
    return events.ControlEvent(
        event_id=event_id(number, "control"), occurred_at=START_MICROS + number, tenant_id="acme", actor="cli/0",
        entity_kind=events.EntityKind.LIMIT, entity_id="limit_1", action=action, after=after,
    )  # fmt: skip


def health_window(minute: int) -> events.ProviderHealth:
    """A provider's n-th minute, with n attempts."""
    start = START_MICROS + minute * 60_000_000
    return events.ProviderHealth(
        event_id=event_id(minute, "health"), occurred_at=start, tenant_id="_system", actor="watcher/test",
        provider_id="p1", model="m1", region="r1", window_start=start, window_end=start + 60_000_000,
        attempts=minute, errors=0, timeouts=0, latency_p50_micros=1, latency_p95_micros=2,
        state=events.HealthState.HEALTHY,
    )  # fmt: skip


def outgoing(encoder: Codec, story: Iterable[events.Event]) -> list[OutgoingRecord]:
    """Records of events, as a producer would send them."""
    return [OutgoingRecord(topic_of(event).name, key_of(event).encode(), encoder.encode(event), ()) for event in story]


class Offsets:
    """Gives out offsets per partition, as a log would."""

    def __init__(self) -> None:
        """Every partition begins at 0."""
        self._next: dict[Partition, int] = {}

    def records(self, encoder: Codec, story: Sequence[events.Event], partitions: int = 6) -> list[LogRecord]:
        """Log records of events, each in its partition at the next offset."""
        return [self._record(record, partitions) for record in outgoing(encoder, story)]

    def _record(self, record: OutgoingRecord, partitions: int) -> LogRecord:
        count = 1 if record.topic in {"quaestor.control", "quaestor.health", "quaestor.alerts"} else partitions
        partition = Partition(record.topic, partition_of(record.key, count))
        offset = self._next.get(partition, 0)
        self._next[partition] = offset + 1
        millis = START_MICROS // 1_000
        return LogRecord(record.topic, partition.number, offset, millis, record.key, record.value, record.headers)
