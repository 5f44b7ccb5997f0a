"""Honest events for benchmarks: what the gateway and the ledger stream record per answered request, and health windows.

Deterministic by seed. Every fifth request streams, every request has a decision among three candidates, one attempt,
two charge lines and a hold on one or two limits; the ledger's transfers are made by the ledger's own processor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from processors.ledger import LedgerPoster
from schemas import events
from schemas.ids import uuid7

TENANTS = 24
TEAMS = 5
KEYS = 12
PROVIDERS = ("openai", "anthropic", "mistral")
MODELS = ("gpt-5-mini", "claude-sonnet-4-5", "mistral-large-3")
INPUT_PICO, OUTPUT_PICO = 150_000, 600_000
REQUEST_MICROS = 5_000
HEALTH_WINDOW_MICROS = 10_000_000


#: Fields that several events of a request share.
Fields = dict[str, Any]


@dataclass(frozen=True)
class Call:
    """What is drawn for one request."""

    number: int
    at: int
    tenant_id: str
    candidate: int
    input_tokens: int
    output_tokens: int

    @property
    def costs_nano(self) -> tuple[int, int]:
        """Charges for input and output."""
        return self.input_tokens * INPUT_PICO // 1_000, self.output_tokens * OUTPUT_PICO // 1_000


class EventMaker:
    """Makes the events of requests that follow each other."""

    def __init__(self, start_micros: int, seed: int = 1, *, ledger: bool = True) -> None:
        """Requests begin at `start_micros`, 200 a second; without `ledger`, the ledger stream has yet to post them."""
        self._has_ledger = ledger
        self._random = Random(seed)
        self._start = start_micros
        self._posters = {f"tenant-{n}": LedgerPoster() for n in range(TENANTS)}
        self._states = {name: poster.initial(0) for name, poster in self._posters.items()}

    def requests(self, count: int) -> Iterator[list[events.Event]]:
        """The events of so many requests, one list per request, in the order in which they would be recorded."""
        for number in range(count):
            yield self.request(number)

    def request(self, number: int) -> list[events.Event]:
        """The events of one request."""
        draw = self._random
        call = Call(
            number,
            self._start + number * REQUEST_MICROS,
            f"tenant-{min(int(draw.expovariate(0.2)), TENANTS - 1)}",
            draw.randrange(len(PROVIDERS)),
            draw.randrange(20, 6_000),
            draw.randrange(5, 1_200),
        )
        recorded = self._request(call)
        return self._with_ledger(call.tenant_id, recorded) if self._has_ledger else recorded

    def health(self, count: int) -> Iterator[events.ProviderHealth]:
        """So many closed windows, over all providers and models."""
        for number in range(count):
            yield self._window(number)

    def _with_ledger(self, tenant_id: str, recorded: list[events.Event]) -> list[events.Event]:
        poster, state, made = self._posters[tenant_id], self._states[tenant_id], list(recorded)
        for event in recorded:
            made += poster.decide(state, event)
            poster.evolve(state, event)
        return made

    def _id(self, at: int) -> str:
        return uuid7(at, self._random.randbytes(10))

    def _request(self, call: Call) -> list[events.Event]:
        request_id, hold_id, at = self._id(call.at), self._id(call.at), call.at
        provider_id, model = PROVIDERS[call.candidate], MODELS[call.candidate]
        answered = at + 40_000 + self._random.randrange(900_000)
        origin: Fields = {
            "tenant_id": call.tenant_id, "request_id": request_id, "actor": "gateway/host-1",
            "key_id": f"key_{call.number % KEYS:012x}", "team_id": f"team-{call.number % TEAMS}", "project_id": "chat",
        }  # fmt: skip
        asked: Fields = {
            **origin, "operation": events.Operation.CHAT_COMPLETIONS, "model_requested": "smart",
            "stream": call.number % 5 == 0, "body_bytes": 300 + 4 * call.input_tokens, "started_at": at,
        }  # fmt: skip
        served: Fields = {"provider_id": provider_id, "model": model}
        amount, held = sum(call.costs_nano), 2 * sum(call.costs_nano)
        received = events.RequestEvent(
            event_id=self._id(at), occurred_at=at, kind=events.RequestKind.RECEIVED,
            tags={"feature": "assistant", "stage": "production"},
            subject_handle=f"s_{self._random.randrange(5_000):016x}", subject_state=events.SubjectState.LINKED, **asked,
        )  # fmt: skip
        decision = self._decision(call, received, origin)
        placed = self._movement(call, events.BudgetKind.PLACED, decision.event_id, held, hold_id, at, origin | served)
        usage: Fields = {
            "input_tokens": call.input_tokens, "output_tokens": call.output_tokens,
            "usage_source": events.UsageSource.PROVIDER, "finish_reason": "stop", "duration_micros": answered - at,
        }  # fmt: skip
        attempt = events.ProviderAttempt(
            event_id=self._id(answered), occurred_at=answered, causation_id=placed.event_id, attempt_id=hold_id,
            attempt_number=1, operation=events.Operation.CHAT_COMPLETIONS, outcome=events.AttemptOutcome.SUCCEEDED,
            provider_response_id=f"chatcmpl-{self._random.randbytes(12).hex()}", status_code=200, started_at=at,
            **origin, **served, **usage,
        )  # fmt: skip
        committed = self._movement(
            call, events.BudgetKind.COMMITTED, attempt.event_id, amount, hold_id, answered, origin | served
        )
        completed = events.RequestEvent(
            event_id=self._id(answered), occurred_at=answered, kind=events.RequestKind.COMPLETED, status_code=200,
            causation_id=attempt.event_id, provider_id=provider_id, model_served=model, attempt_count=1,
            amount_nano=amount, currency="USD", **asked, **usage,
        )  # fmt: skip
        costs = self._costs(call, attempt, origin | served)
        return [received, decision, placed, attempt, *costs, committed, completed]

    def _decision(self, call: Call, cause: events.RequestEvent, origin: Fields) -> events.RoutingDecision:
        candidates = tuple(
            events.Candidate(provider_id=provider_id, model=model, eligible=True, score=0.5, price_id=f"price-{model}")
            for provider_id, model in zip(PROVIDERS, MODELS, strict=True)
        )
        return events.RoutingDecision(
            event_id=self._id(call.at), occurred_at=call.at, causation_id=cause.event_id, model_requested="smart",
            policy="ordered", policy_version="1", candidates=candidates, chosen_provider_id=PROVIDERS[call.candidate],
            chosen_model=MODELS[call.candidate], probability=1.0, **origin,
        )  # fmt: skip

    def _movement(
        self,
        call: Call,
        kind: events.BudgetKind,
        cause: str,
        amount: int,
        hold_id: str,
        at: int,
        common: Fields,
    ) -> events.BudgetEvent:
        held = 2 * sum(call.costs_nano)
        legs = tuple(
            events.HoldLeg(limit_id=f"limit-{scope}", amount_nano=amount, held_nano=held, currency="USD",
                           window_start=0, window_end=0)
            for scope in ("tenant", common["team_id"])[: 1 + call.number % 2]
        )  # fmt: skip
        is_placed = kind is events.BudgetKind.PLACED
        placed: Fields = {"lease_until": at + 420_000_000, "generation": "8d1f:1"} if is_placed else {}
        return events.BudgetEvent(
            event_id=self._id(at), occurred_at=at, causation_id=cause, kind=kind, hold_id=hold_id, legs=legs,
            amount_nano=amount, currency="USD", price_version="2026-11", **placed, **common,
        )  # fmt: skip

    def _costs(self, call: Call, attempt: events.ProviderAttempt, common: Fields) -> list[events.CostEvent]:
        meters = (
            (events.Meter.INPUT_TOKENS, call.input_tokens, INPUT_PICO),
            (events.Meter.OUTPUT_TOKENS, call.output_tokens, OUTPUT_PICO),
        )
        return [
            events.CostEvent(
                event_id=self._id(attempt.occurred_at), occurred_at=attempt.occurred_at, causation_id=attempt.event_id,
                kind=events.CostKind.CHARGE, attempt_id=attempt.attempt_id, meter=meter, quantity=quantity,
                unit_price_pico=price, price_id=f"price-{attempt.model}", price_version="2026-11",
                provider_amount_nano=amount, provider_currency="USD", amount_nano=amount, currency="USD", **common,
            )
            for (meter, quantity, price), amount in zip(meters, call.costs_nano, strict=True)
        ]  # fmt: skip

    def _window(self, number: int) -> events.ProviderHealth:
        end = self._start + (number // len(PROVIDERS) + 1) * HEALTH_WINDOW_MICROS
        which = number % len(PROVIDERS)
        return events.ProviderHealth(
            event_id=self._id(end), occurred_at=end, tenant_id="_system", actor="watcher/health",
            provider_id=PROVIDERS[which], model=MODELS[which], region="", window_start=end - HEALTH_WINDOW_MICROS,
            window_end=end, attempts=600, errors=2, timeouts=1, latency_p50_micros=420_000,
            latency_p95_micros=1_300_000, first_chunk_p50_micros=180_000, state=events.HealthState.HEALTHY,
        )  # fmt: skip
