"""One attempt: its hold, what was pinned with it, and the events that settle it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from api.gateway.errors import Problem, budget_exceeded
from api.gateway.events import Context, Ended, attempt_event, cost_event
from api.gateway.intake import Ask
from api.gateway.options import GatewayOptions
from processors.budgets import (
    HoldContext,
    HoldSize,
    Legs,
    Payer,
    Standing,
    Target,
    allowed_by_now,
    committed_event,
    extended_event,
    legs_for,
    overage_event,
    placed_event,
    refused_event,
    released_event,
    standings,
)
from processors.control import ControlState, Threshold
from processors.estimation import (
    NOTHING_COUNTED,
    Counted,
    OutputHold,
    input_tokens_bound,
    output_in_steps,
    output_tokens_bound,
)
from processors.pricing import hold_upper_bound_nano, price_usage, total_nano
from processors.routing import Choice
from schemas.events import BudgetEvent, Event, HoldLeg, Operation, RequestEvent, SubjectState, UsageSource
from schemas.limits import CALL_TOKENS_MAX
from schemas.money import COUNTED_REQUESTS
from sinks.redis.holds import PlaceHold, Refused


class OutputBounds(NamedTuple):
    """What is known of an answer's length before the call."""

    #: Output tokens asked for at most, per choice; None when the caller set no bound.
    asked: int | None
    choices: int
    #: Per choice, where nobody gives a bound.
    default: int
    #: Output tokens per choice to hold for at a time; None: for all at once.
    step: int | None = None


def output_bounds(ask: Ask, options: GatewayOptions) -> OutputBounds:
    """The bounds of an answer to this request."""
    step = options.stream_step_tokens if ask.open_ended else None
    return OutputBounds(ask.output_tokens, ask.choices, options.output_tokens_default, step)


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

    def standing(self, target: Target, now: int) -> tuple[Standing, ...]:
        """The limits in force."""
        return standings(self._control, self._payer, target, now)

    def legs(self, standing: tuple[Standing, ...], target: Target, size: HoldSize, now: int) -> Legs:
        """The legs of a hold; raises ConfigurationError when a limit can't be checked."""
        return legs_for(standing, self._payer, target, size, now, self._control.rates)

    def allowed_by_now(
        self, control: ControlState, legs: tuple[HoldLeg, ...], target: Target, now: int
    ) -> list[tuple[int, Threshold | None]]:
        """What the limits of these legs allow as control is now."""
        return allowed_by_now(legs, control.limits, self._payer, target, now)


class Attempt:
    """A candidate being tried. Made before its hold is asked for."""

    __slots__ = (
        "_held_to",
        "_input_tokens",
        "_limits",
        "_new_id",
        "_target",
        "ask",
        "body",
        "called",
        "choice",
        "hold",
        "number",
        "output",
        "placed",
        "reason",
        "started_at",
    )

    def __init__(
        self,
        context: Context,
        number: int,
        choice: Choice,
        body: bytes,
        bounds: OutputBounds,
        limits: RequestLimits,
        now: int,
        new_id: Callable[[int], str],
        counted: Counted | None = None,
    ) -> None:
        """Raises ConfigurationError: a limit counts a currency that there is no exchange rate to.

        What was not `counted` of the body is held for by its bytes.
        """
        self.number, self.choice, self.body, self._new_id = number, choice, body, new_id
        target = Target(choice.provider.provider_id, choice.model, context.model_requested)
        self._limits, self._target = limits, target
        standing = limits.standing(target, now)
        bound = input_tokens_bound(body, choice.price.context_tokens, counted or NOTHING_COUNTED)
        self._input_tokens = min(bound, CALL_TOKENS_MAX)
        #: What it is held for; grows with a stream in steps.
        self.output = _output(context.operation, choice, bounds, standing)
        size = self._size(self.output)
        found = limits.legs(standing, target, size, now)
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
        #: What the hold stands by, once it does: its PLACED, or its last EXTENDED.
        self.placed: BudgetEvent | None = None
        #: Why it stands, where no limit was asked.
        self.reason: str | None = None
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
            reason=self.reason,
        )
        return self.placed

    def extended(self, output: OutputHold, now: int) -> BudgetEvent:
        """The EXTENDED event of the hold that is to cover this output."""
        size, placed = self._size(output), self._placed()
        # A request ends before its first lease does, so the lease need not grow.
        return extended_event(
            placed,
            event_id=self._new_id(now),
            occurred_at=now,
            actor=self.hold.actor,
            amount_nano=size.amount_nano,
            tokens=size.tokens,
            lease_until=placed.lease_until or now,
        )

    def ask_more(self, extended: BudgetEvent, control: ControlState, now: int) -> PlaceHold:
        """What the live store is asked of an extension: limits that changed since the hold was placed count as changed.

        A step that they refuse is told as theirs.
        """
        allowed = self._limits.allowed_by_now(control, extended.legs, self._target, now)
        self._held_to = tuple(held_to for _, held_to in allowed)
        return PlaceHold(self.ask.tenant_id, self.ask.hold_id, extended.legs, tuple(nano for nano, _ in allowed))

    def refused(
        self, now: int, causation_id: str | None, refused: Refused, extended: BudgetEvent | None = None
    ) -> BudgetEvent:
        """The REFUSED event of the hold that found no room, or of the extension that did not."""
        hold = self.hold
        if extended is not None:
            hold = msgspec.structs.replace(hold, amount_nano=extended.amount_nano, legs=self._asked(extended))
        return refused_event(
            hold,
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

    def _asked(self, extended: BudgetEvent) -> tuple[HoldLeg, ...]:
        """The legs of an extension beside what they held before."""
        pairs = zip(extended.legs, self._placed().legs, strict=True)
        return tuple(msgspec.structs.replace(leg, held_nano=before.amount_nano) for leg, before in pairs)

    def more(self, extended: BudgetEvent, limit_id: str) -> HoldLeg:
        """What an extension asks of one of the limits beyond what is held."""
        leg = next(leg for leg in self._asked(extended) if leg.limit_id == limit_id)
        return msgspec.structs.replace(leg, amount_nano=leg.amount_nano - leg.held_nano)

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
            answered=ended.answered,
            estimated=ended.usage_source is UsageSource.ESTIMATE,
            late=placed.lease_until is not None and now > placed.lease_until,
            causation_id=tried.event_id,
        )
        events.append(committed)
        if any(leg.amount_nano > leg.held_nano for leg in committed.legs):
            over = overage_event(
                committed,
                held_nano=placed.amount_nano,
                event_id=self._new_id(now),
                occurred_at=now,
                actor=context.actor,
            )
            if over is not None:
                events.append(over)
        return events, amount_nano

    def _size(self, output: OutputHold) -> HoldSize:
        """Never less than what the attempt can cost and use within this output."""
        price, given = self.choice.price, self._input_tokens
        amount_nano = hold_upper_bound_nano(given, output.tokens, price)
        return HoldSize(amount_nano, price.currency, given + output.tokens)

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


def _output(operation: Operation, choice: Choice, bounds: OutputBounds, standing: tuple[Standing, ...]) -> OutputHold:
    """Never less than what may come, or a first step of it: where a stream shows all that it will be charged for."""
    price = choice.price
    if operation is not Operation.CHAT_COMPLETIONS:
        return OutputHold(0, 0)
    if bounds.step is not None and price.visible_output and any(_counts_output(one) for one in standing):
        return _within_limit(output_in_steps(bounds.step, bounds.choices, price.max_output_tokens))
    tokens = output_tokens_bound(bounds.asked, bounds.choices, price.max_output_tokens, bounds.default)
    return _within_limit(OutputHold(tokens, tokens))


def _within_limit(output: OutputHold) -> OutputHold:
    """No attempt is charged for more than CALL_TOKENS_MAX, so none is held for more."""
    tokens_max = CALL_TOKENS_MAX if output.tokens_max is None else min(output.tokens_max, CALL_TOKENS_MAX)
    return output._replace(tokens=min(output.tokens, tokens_max), tokens_max=tokens_max)


def _counts_output(standing: Standing) -> bool:
    return standing.limit.currency != COUNTED_REQUESTS
