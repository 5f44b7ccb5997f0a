"""One attempt: its hold, what was pinned with it, and the events that settle it."""

from __future__ import annotations

from collections.abc import Callable

from api.gateway.events import Context, Ended, attempt_event, cost_event
from processors.budgets import (
    HoldContext,
    committed_event,
    legs_for,
    overage_event,
    placed_event,
    refused_event,
    released_event,
)
from processors.control import Limit
from processors.estimation import input_tokens_bound, output_tokens_bound
from processors.pricing import hold_upper_bound_nano, price_usage, total_nano
from processors.routing import Choice
from schemas.events import BudgetEvent, Event, Operation, UsageSource
from schemas.limits import LIMIT_UNITS_MAX
from schemas.money import NANO_PER_UNIT
from sinks.redis.holds import PlaceHold, Refused

#: The amount of a limit that only watches: it never refuses.
UNLIMITED_NANO = LIMIT_UNITS_MAX * NANO_PER_UNIT


class Attempt:
    """A candidate being tried. Made before its hold is asked for."""

    __slots__ = ("_new_id", "ask", "body", "called", "choice", "hold", "number", "placed", "started_at")

    def __init__(
        self,
        context: Context,
        number: int,
        choice: Choice,
        body: bytes,
        bounds: tuple[int | None, int, int],
        limits: tuple[Limit, ...],
        now: int,
        new_id: Callable[[int], str],
    ) -> None:
        """`bounds`: output tokens asked for per choice, choices, and the default. Raises ConfigurationError.

        That is when a limit keeps another currency than the price.
        """
        self.number, self.choice, self.body, self._new_id = number, choice, body, new_id
        amount_nano = _amount_held(context.operation, choice, body, bounds)
        currency = choice.price.currency
        legs = legs_for(limits, amount_nano, currency, now) if limits else ()
        hold_id = new_id(now)
        self.ask = PlaceHold(
            context.tenant_id,
            hold_id,
            legs,
            tuple([limit.amount_nano if limit.hard else UNLIMITED_NANO for limit in limits]),
        )
        self.hold = HoldContext(
            tenant_id=context.tenant_id,
            request_id=context.request_id,
            actor=context.actor,
            run_id=context.run_id,
            key_id=context.key_id,
            team_id=context.team_id,
            project_id=context.project_id,
            hold_id=hold_id,
            attempt_number=number,
            provider_id=choice.provider.provider_id,
            model=choice.model,
            currency=currency,
            amount_nano=amount_nano,
            legs=legs,
            price_version=choice.price_version,
        )
        #: Its PLACED, once the hold stands.
        self.placed: BudgetEvent | None = None
        #: Whether the provider may have seen the call.
        self.called = False
        self.started_at = now

    def place(self, now: int, causation_id: str | None, lease_seconds: int, generation: str) -> BudgetEvent:
        """The PLACED event of the hold that now stands."""
        self.placed = placed_event(
            self.hold,
            event_id=self._new_id(now),
            occurred_at=now,
            causation_id=causation_id,
            lease_until=now + lease_seconds * 1_000_000,
            generation=generation,
        )
        return self.placed

    def refused(self, now: int, causation_id: str | None, refused: Refused) -> BudgetEvent:
        """The REFUSED event of the hold that found no room."""
        return refused_event(
            self.hold,
            event_id=self._new_id(now),
            occurred_at=now,
            causation_id=causation_id,
            limit_id=refused.limit_id,
            remaining_nano=refused.remaining_nano,
        )

    def resets_at(self, limit_id: str) -> int:
        """When the window of one of its limits ends; 0 when it never does."""
        return next((leg.window_end for leg in self.hold.legs if leg.limit_id == limit_id), 0)

    def release(self, now: int, actor: str, reason: str, causation_id: str | None = None) -> BudgetEvent:
        """RELEASED: the provider was not called, or used nothing."""
        return released_event(
            self._placed(),
            event_id=self._new_id(now),
            occurred_at=now,
            actor=actor,
            reason=reason,
            causation_id=causation_id,
        )

    def settle(self, context: Context, now: int, ended: Ended) -> tuple[list[Event], int]:
        """ATTEMPT and what follows from it: costs and COMMITTED, or RELEASED; and the amount, nano-units."""
        placed, new_id = self._placed(), self._new_id
        tried = attempt_event(context, new_id(now), now, placed, self.started_at, ended)
        if ended.usage_source is UsageSource.NONE:
            reason = ended.outcome.value.lower()
            return [tried, self.release(now, context.actor, reason, tried.event_id)], 0
        lines = price_usage(ended.usage, self.choice.price)
        amount_nano = total_nano(lines)
        events: list[Event] = [tried]
        events += [cost_event(context, new_id(now), tried, self.choice, line) for line in lines]
        committed = committed_event(
            placed,
            event_id=self._new_id(now),
            occurred_at=now,
            actor=context.actor,
            amount_nano=amount_nano,
            estimated=ended.usage_source is UsageSource.ESTIMATE,
            causation_id=tried.event_id,
        )
        events.append(committed)
        if amount_nano > placed.amount_nano:
            over = overage_event(committed, event_id=self._new_id(now), occurred_at=now, actor=context.actor)
            if over is not None:
                events.append(over)
        return events, amount_nano

    def _placed(self) -> BudgetEvent:
        if self.placed is None:
            raise RuntimeError("the hold was never placed")
        return self.placed


def _amount_held(operation: Operation, choice: Choice, body: bytes, bounds: tuple[int | None, int, int]) -> int:
    """Never less than what the attempt can cost, nano-units."""
    price = choice.price
    asked, choices, default = bounds
    output = 0
    if operation is Operation.CHAT_COMPLETIONS:
        output = output_tokens_bound(asked, choices, price.max_output_tokens, default)
    return hold_upper_bound_nano(input_tokens_bound(body, price.context_tokens), output, price)
