"""One attempt: its hold, what was pinned with it, and the events that settle it."""

from __future__ import annotations

from collections.abc import Callable

from api.gateway.errors import Problem, budget_exceeded
from api.gateway.events import Context, Ended, attempt_event, cost_event
from processors.budgets import (
    HoldContext,
    HoldSize,
    Legs,
    Payer,
    Target,
    committed_event,
    legs_for,
    overage_event,
    placed_event,
    refused_event,
    released_event,
    standings,
)
from processors.control import ControlState, Threshold
from processors.estimation import NOTHING_COUNTED, Counted, input_tokens_bound, output_tokens_bound
from processors.pricing import hold_upper_bound_nano, price_usage, total_nano
from processors.routing import Choice
from schemas.events import BudgetEvent, Event, HoldLeg, Operation, RequestEvent, SubjectState, UsageSource
from sinks.redis.holds import PlaceHold, Refused


class RequestLimits:
    """Which limits a request stands under: control as it was when the request came, and who pays."""

    __slots__ = ("_control", "_payer", "user_is_hidden")

    def __init__(
        self, control: ControlState, context: Context, received: RequestEvent, approval_hash: str | None
    ) -> None:
        """What RECEIVED says of the caller is what limits may know of them."""
        self._control = control
        self._payer = Payer(
            tenant_id=context.tenant_id,
            team_id=context.team_id,
            project_id=context.project_id,
            key_id=context.key_id,
            run_id=context.run_id,
            user=received.subject_handle,
            tags=received.tags,
            approval_hash=approval_hash,
        )
        hidden = received.subject_state is SubjectState.UNAVAILABLE
        #: Whether a limit may stand on the end user, and nobody can say now who that is.
        self.user_is_hidden = hidden and "user" in control.scopes_limited.get(context.tenant_id, ())

    def legs(self, target: Target, size: HoldSize, now: int) -> Legs:
        """The legs of a hold; raises ConfigurationError when a limit can't be checked."""
        control = self._control
        found = standings(control, self._payer, target, now)
        return legs_for(found, self._payer, target, size, now, control.rates)


class Attempt:
    """A candidate being tried. Made before its hold is asked for."""

    __slots__ = ("_held_to", "_new_id", "ask", "body", "called", "choice", "hold", "number", "placed", "started_at")

    def __init__(
        self,
        context: Context,
        number: int,
        choice: Choice,
        body: bytes,
        bounds: tuple[int | None, int, int],
        limits: RequestLimits,
        now: int,
        new_id: Callable[[int], str],
        counted: Counted | None = None,
    ) -> None:
        """`bounds`: output tokens asked for per choice, choices, and the default. Raises ConfigurationError.

        That is when a limit counts a currency that there is no exchange rate to. What was not `counted` of the body is
        held for by its bytes.
        """
        self.number, self.choice, self.body, self._new_id = number, choice, body, new_id
        size = _size(context.operation, choice, body, bounds, counted or NOTHING_COUNTED)
        target = Target(choice.provider.provider_id, choice.model, context.model_requested)
        found = limits.legs(target, size, now)
        self._held_to = found.held_to
        hold_id = new_id(now)
        self.ask = PlaceHold(context.tenant_id, hold_id, found.legs, found.allowed_nano)
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
            currency=size.currency,
            amount_nano=size.amount_nano,
            legs=found.legs,
            price_version=choice.price_version,
            exchange_rate_id=found.exchange_rate_id,
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
            held_to=self.held_to(refused.limit_id),
        )

    def leg(self, limit_id: str) -> HoldLeg:
        """The leg on one of its limits."""
        return self.hold.legs[self._index(limit_id)]

    def held_to(self, limit_id: str) -> Threshold | None:
        """The threshold that makes that limit allow this call less."""
        return self._held_to[self._index(limit_id)]

    def asks_as_much(self, other: Attempt, limit_id: str) -> bool:
        """Whether it finds no room at a limit where the other found none: it asks no less, and may have no more."""
        if all(leg.limit_id != limit_id for leg in self.hold.legs):
            return False
        ours, theirs = self._index(limit_id), other._index(limit_id)
        asks_no_less = self.ask.legs[ours].amount_nano >= other.ask.legs[theirs].amount_nano
        return asks_no_less and self.ask.limits_nano[ours] <= other.ask.limits_nano[theirs]

    def _index(self, limit_id: str) -> int:
        return next(index for index, leg in enumerate(self.hold.legs) if leg.limit_id == limit_id)

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
            tokens=ended.usage.input_tokens + ended.usage.output_tokens,
            estimated=ended.usage_source is UsageSource.ESTIMATE,
            causation_id=tried.event_id,
        )
        events.append(committed)
        if any(leg.amount_nano > leg.held_nano for leg in committed.legs):
            over = overage_event(committed, event_id=self._new_id(now), occurred_at=now, actor=context.actor)
            if over is not None:
                events.append(over)
        return events, amount_nano

    def _placed(self) -> BudgetEvent:
        if self.placed is None:
            raise RuntimeError("the hold was never placed")
        return self.placed


class NoRoom:
    """The attempts of a request that found no room."""

    __slots__ = ("_found",)

    def __init__(self) -> None:
        """None yet."""
        self._found: list[tuple[Attempt, str, Problem]] = []

    def tell(self, attempt: Attempt, refused: Refused, now: int) -> Problem:
        """What the caller is told of one more."""
        limit_id = refused.limit_id
        problem = budget_exceeded(refused, attempt.leg(limit_id), now, attempt.held_to(limit_id))
        self._found.append((attempt, limit_id, problem))
        return problem

    def told(self, attempt: Attempt) -> Problem | None:
        """What was told of an attempt that asked no more than this one: it need not be tried."""
        return next((problem for one, limit_id, problem in self._found if attempt.asks_as_much(one, limit_id)), None)


def _size(
    operation: Operation, choice: Choice, body: bytes, bounds: tuple[int | None, int, int], counted: Counted
) -> HoldSize:
    """Never less than what the attempt can cost and use."""
    price = choice.price
    asked, choices, default = bounds
    output = 0
    if operation is Operation.CHAT_COMPLETIONS:
        output = output_tokens_bound(asked, choices, price.max_output_tokens, default)
    given = input_tokens_bound(body, price.context_tokens, counted)
    return HoldSize(hold_upper_bound_nano(given, output, price), price.currency, given + output)
