"""The events of a request, built from what is known of it. Ids and times come in; nothing here decides."""

from __future__ import annotations

import msgspec

from api.gateway.errors import Problem
from api.gateway.subjects import Personal
from processors.pricing import ChargeLine, Usage
from processors.routing import Choice, Routed, RouteRefusal
from schemas.events import (
    AttemptOutcome,
    BudgetEvent,
    Candidate,
    CostEvent,
    CostKind,
    Operation,
    ProviderAttempt,
    RequestEvent,
    RequestKind,
    RoutingDecision,
    SubjectState,
    UsageSource,
)

NOTHING_USED = Usage()
NOTHING_KNOWN = Personal(None, SubjectState.NONE, {}, None, None)
POLICY_OF_REFUSALS = "ordered"


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What every event of one request says."""

    tenant_id: str
    request_id: str
    #: gateway/<instance>.
    actor: str
    run_id: str | None
    key_id: str
    team_id: str
    project_id: str
    operation: Operation
    #: None when the request could not be read, or named a model that nobody knows.
    model_requested: str | None
    stream: bool
    #: Arrival, microseconds since the epoch.
    started_at: int
    body_bytes: int


class Ended(msgspec.Struct, kw_only=True):
    """How an attempt ended."""

    outcome: AttemptOutcome
    status_code: int | None = None
    #: One line without caller content.
    detail: str | None = None
    usage: Usage = NOTHING_USED
    usage_source: UsageSource = UsageSource.NONE
    finish_reason: str | None = None
    response_id: str | None = None
    #: Whether the next candidate may be tried.
    failover: bool = False
    #: What the caller is told when nothing else is tried; None when it succeeded.
    problem: Problem | None = None
    duration_micros: int = 0
    first_chunk_micros: int | None = None

    @property
    def succeeded(self) -> bool:
        """Whether the answer is whole."""
        return self.outcome is AttemptOutcome.SUCCEEDED

    @property
    def answered(self) -> bool:
        """Whether it counts as a request: the provider did not fail. A caller who hangs up has made one."""
        return self.outcome in {AttemptOutcome.SUCCEEDED, AttemptOutcome.CLIENT_DISCONNECTED}


class Totals(msgspec.Struct):
    """What all attempts of a request used and cost so far."""

    attempts: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    amount_nano: int = 0
    usage_source: UsageSource = UsageSource.NONE

    def add(self, ended: Ended, amount_nano: int) -> None:
        """Count an attempt in."""
        usage = ended.usage
        self.attempts += 1
        self.input_tokens += usage.input_tokens
        self.cached_input_tokens += usage.cached_input_tokens
        self.cache_write_tokens += usage.cache_write_tokens
        self.output_tokens += usage.output_tokens
        self.reasoning_tokens += usage.reasoning_tokens
        self.amount_nano += amount_nano
        if ended.usage_source is UsageSource.ESTIMATE or self.usage_source is UsageSource.NONE:
            self.usage_source = ended.usage_source


def received(context: Context, event_id: str, personal: Personal) -> RequestEvent:
    """RECEIVED: a request that will be tried."""
    return RequestEvent(
        event_id=event_id,
        occurred_at=context.started_at,
        tenant_id=context.tenant_id,
        request_id=context.request_id,
        actor=context.actor,
        kind=RequestKind.RECEIVED,
        run_id=context.run_id,
        key_id=context.key_id,
        team_id=context.team_id,
        project_id=context.project_id,
        operation=context.operation,
        model_requested=context.model_requested,
        stream=context.stream,
        subject_handle=personal.subject_handle,
        subject_state=personal.subject_state,
        tags=personal.tags,
        sealed=personal.sealed,
        body_commitment=personal.body_commitment,
        body_bytes=context.body_bytes,
    )


def refused(
    context: Context,
    event_id: str,
    now: int,
    problem: Problem,
    *,
    causation_id: str | None = None,
    personal: Personal = NOTHING_KNOWN,
) -> RequestEvent:
    """REFUSED: no provider was called. Without a RECEIVED before it, it also says what that would have said."""
    return RequestEvent(
        event_id=event_id,
        occurred_at=now,
        tenant_id=context.tenant_id,
        request_id=context.request_id,
        causation_id=causation_id,
        actor=context.actor,
        kind=RequestKind.REFUSED,
        run_id=context.run_id,
        key_id=context.key_id,
        team_id=context.team_id,
        project_id=context.project_id,
        operation=context.operation,
        model_requested=context.model_requested,
        stream=context.stream,
        subject_handle=personal.subject_handle,
        subject_state=personal.subject_state,
        tags=personal.tags,
        sealed=personal.sealed,
        body_commitment=personal.body_commitment,
        body_bytes=context.body_bytes,
        status_code=problem.status,
        error_code=problem.code,
        usage_source=UsageSource.NONE,
        started_at=context.started_at,
        duration_micros=now - context.started_at,
    )


def decision(context: Context, event_id: str, now: int, causation_id: str | None, routed: Routed) -> RoutingDecision:
    """Where the call goes, among which candidates."""
    first = routed.order[0]
    return _decision(
        context,
        event_id,
        now,
        causation_id,
        (routed.policy, routed.policy_version),
        routed.candidates,
        (first.provider.provider_id, first.model),
        routed.probability,
    )


def no_decision(context: Context, event_id: str, now: int, model: str, refusal: RouteRefusal) -> RoutingDecision:
    """Why the call goes nowhere."""
    named = msgspec.structs.replace(context, model_requested=model)
    policy = (POLICY_OF_REFUSALS, "")
    return _decision(named, event_id, now, None, policy, refusal.candidates, (None, None), 1.0)


def _decision(
    context: Context,
    event_id: str,
    now: int,
    causation_id: str | None,
    policy: tuple[str, str],
    candidates: tuple[Candidate, ...],
    chosen: tuple[str | None, str | None],
    probability: float,
) -> RoutingDecision:
    return RoutingDecision(
        event_id=event_id,
        occurred_at=now,
        tenant_id=context.tenant_id,
        request_id=context.request_id,
        causation_id=causation_id,
        actor=context.actor,
        run_id=context.run_id,
        key_id=context.key_id,
        team_id=context.team_id,
        project_id=context.project_id,
        model_requested=context.model_requested or "",
        policy=policy[0],
        policy_version=policy[1],
        candidates=candidates,
        chosen_provider_id=chosen[0],
        chosen_model=chosen[1],
        probability=probability,
    )


def attempt_event(
    context: Context, event_id: str, now: int, placed: BudgetEvent, started_at: int, ended: Ended
) -> ProviderAttempt:
    """One call to a provider; its identity is its hold's."""
    usage = ended.usage
    return ProviderAttempt(
        event_id=event_id,
        occurred_at=now,
        tenant_id=context.tenant_id,
        request_id=context.request_id,
        causation_id=placed.event_id,
        actor=context.actor,
        run_id=context.run_id,
        key_id=context.key_id,
        team_id=context.team_id,
        project_id=context.project_id,
        attempt_id=placed.hold_id,
        attempt_number=placed.attempt_number,
        operation=context.operation,
        provider_id=placed.provider_id,
        model=placed.model,
        provider_response_id=ended.response_id,
        outcome=ended.outcome,
        status_code=ended.status_code,
        error_detail=ended.detail,
        stream=context.stream,
        input_tokens=usage.input_tokens,
        cached_input_tokens=usage.cached_input_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        output_tokens=usage.output_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        usage_source=ended.usage_source,
        finish_reason=ended.finish_reason,
        started_at=started_at,
        duration_micros=ended.duration_micros,
        first_chunk_micros=ended.first_chunk_micros,
    )


def cost_event(
    context: Context, event_id: str, attempt: ProviderAttempt, choice: Choice, line: ChargeLine
) -> CostEvent:
    """One charge line of an attempt; provider and tenant keep the same currency until exchange rates exist."""
    price = choice.price
    return CostEvent(
        event_id=event_id,
        occurred_at=attempt.occurred_at,
        tenant_id=context.tenant_id,
        request_id=context.request_id,
        causation_id=attempt.event_id,
        actor=context.actor,
        run_id=context.run_id,
        key_id=context.key_id,
        team_id=context.team_id,
        project_id=context.project_id,
        kind=CostKind.CHARGE,
        attempt_id=attempt.attempt_id,
        provider_id=attempt.provider_id,
        model=attempt.model,
        meter=line.meter,
        quantity=line.quantity,
        unit_price_pico=line.unit_price_pico,
        price_id=price.price_id,
        price_version=choice.price_version,
        provider_amount_nano=line.amount_nano,
        provider_currency=price.currency,
        amount_nano=line.amount_nano,
        currency=price.currency,
        estimated=attempt.usage_source is UsageSource.ESTIMATE,
    )


def finished(
    context: Context,
    event_id: str,
    now: int,
    causation_id: str | None,
    ended: Ended | None,
    totals: Totals,
    *,
    served_by: Choice | None = None,
    problem: Problem | None = None,
    first_chunk_micros: int | None = None,
    client_disconnected: bool = False,
    currency: str | None = None,
) -> RequestEvent:
    """COMPLETED without a problem, FAILED with one."""
    return RequestEvent(
        event_id=event_id,
        occurred_at=now,
        tenant_id=context.tenant_id,
        request_id=context.request_id,
        causation_id=causation_id,
        actor=context.actor,
        kind=RequestKind.FAILED if problem else RequestKind.COMPLETED,
        run_id=context.run_id,
        key_id=context.key_id,
        team_id=context.team_id,
        project_id=context.project_id,
        operation=context.operation,
        model_requested=context.model_requested,
        stream=context.stream,
        body_bytes=context.body_bytes,
        status_code=problem.status if problem else 200,
        error_code=problem.code if problem else None,
        error_detail=ended.detail if ended else None,
        provider_id=served_by.provider.provider_id if served_by else None,
        model_served=served_by.model if served_by else None,
        attempt_count=totals.attempts,
        input_tokens=totals.input_tokens,
        cached_input_tokens=totals.cached_input_tokens,
        cache_write_tokens=totals.cache_write_tokens,
        output_tokens=totals.output_tokens,
        reasoning_tokens=totals.reasoning_tokens,
        usage_source=totals.usage_source,
        amount_nano=totals.amount_nano,
        currency=currency,
        finish_reason=ended.finish_reason if ended else None,
        started_at=context.started_at,
        duration_micros=now - context.started_at,
        first_chunk_micros=first_chunk_micros,
        client_disconnected=client_disconnected,
    )
