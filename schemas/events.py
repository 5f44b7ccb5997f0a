"""The event types, one per topic. Generated from schemas/avro by `python -m schemas.generate`: edit those files.

Times are integers of microseconds since the Unix epoch (UTC); amounts are integers of nano-units of their currency.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class AlertKind(StrEnum):
    """What kind of alert."""

    UNKNOWN = "UNKNOWN"
    THRESHOLD = "THRESHOLD"
    ANOMALY = "ANOMALY"
    BURN_RATE = "BURN_RATE"
    OVERAGE = "OVERAGE"
    PARTITION_PAUSED = "PARTITION_PAUSED"
    PROVIDER_DOWN = "PROVIDER_DOWN"
    DELIVERY = "DELIVERY"


class Severity(StrEnum):
    """How urgent."""

    UNKNOWN = "UNKNOWN"
    INFO = "INFO"
    WARNING = "WARNING"
    CRITICAL = "CRITICAL"


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """Something a person should know. Topic quaestor.alerts, key <tenant>."""

    #: Identity of this event. uuid7 made once by its producer for an original event; uuid5 of processor, source event,
    #: kind and leg for a derived one. Unique per tenant.
    event_id: str
    #: When it happened, microseconds since the Unix epoch, UTC. A derived event copies it from its source.
    occurred_at: int
    #: The organisation it belongs to; '_system' where there is none.
    tenant_id: str
    #: The request it belongs to (uuid7 made by the gateway). Null where there is no request.
    request_id: str | None = None
    #: event_id of the event this one follows from. Null for the first of its chain.
    causation_id: str | None = None
    #: Who caused it: the watcher that saw it. Never a person's name in the clear.
    actor: str
    #: Version of this record's schema that the producer wrote, counted from 1.
    schema_version: int = 2
    #: What kind of alert; DELIVERY says how handing another alert (causation_id) to a channel ended.
    kind: AlertKind
    #: How urgent.
    severity: Severity
    #: What it is about: a limit's counter, a channel, or a topic and partition.
    subject: str
    #: One line.
    title: str
    #: The figures, and what to do.
    detail: str
    #: Window it concerns. Null when none.
    window_start: int | None = None
    #: Threshold crossed, for example 80%. Null when none.
    threshold: str | None = None
    #: Where delivery stands: SENT, FAILED. Null before delivery.
    delivery_state: str | None = None
    #: End of that window, exclusive. Null when none.
    window_end: int | None = None
    #: The limit, as its counters are named. Null when it is about none.
    limit_id: str | None = None
    #: What amounts are in: an ISO 4217 code, TOK or REQ. Null without amounts.
    currency: str | None = None
    #: Charged in the window when this was made, nano-units of currency. Null when it says nothing.
    spent_nano: int | None = None
    #: What the limit allowed then, nano-units of currency. Null when it is about no limit.
    allowed_nano: int | None = None
    #: BURN_RATE: projected to be charged by the end of the window. ANOMALY: what the baseline expects. Nano-units of
    #: currency. Null otherwise.
    expected_nano: int | None = None
    #: What the gateway does from this threshold on: notify, cheaper, approval or block. Null without threshold.
    action: str | None = None
    #: DELIVERY: the channel. Null otherwise.
    channel_id: str | None = None
    #: DELIVERY: how often it was tried. Null otherwise.
    attempts: int | None = None


class Operation(StrEnum):
    """The API that was called."""

    UNKNOWN = "UNKNOWN"
    CHAT_COMPLETIONS = "CHAT_COMPLETIONS"
    EMBEDDINGS = "EMBEDDINGS"


class AttemptOutcome(StrEnum):
    """How the call ended. ABANDONED: the gateway died and the lease ran out."""

    UNKNOWN = "UNKNOWN"
    SUCCEEDED = "SUCCEEDED"
    PROVIDER_ERROR = "PROVIDER_ERROR"
    RATE_LIMITED = "RATE_LIMITED"
    TIMEOUT = "TIMEOUT"
    CONNECTION_ERROR = "CONNECTION_ERROR"
    INVALID_RESPONSE = "INVALID_RESPONSE"
    TRUNCATED = "TRUNCATED"
    CLIENT_DISCONNECTED = "CLIENT_DISCONNECTED"
    ABANDONED = "ABANDONED"


class UsageSource(StrEnum):
    """Who counted: PROVIDER reported it, ESTIMATE is ours because the provider did not, NONE when nothing was used."""

    UNKNOWN = "UNKNOWN"
    PROVIDER = "PROVIDER"
    ESTIMATE = "ESTIMATE"
    NONE = "NONE"


class ProviderAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """One physical call to a provider: usage, timings, outcome. Topic quaestor.attempts, key as on requests."""

    #: Identity of this event. uuid7 made once by its producer for an original event; uuid5 of processor, source event,
    #: kind and leg for a derived one. Unique per tenant.
    event_id: str
    #: When it happened, microseconds since the Unix epoch, UTC. A derived event copies it from its source.
    occurred_at: int
    #: The organisation it belongs to; '_system' where there is none.
    tenant_id: str
    #: The request it belongs to (uuid7 made by the gateway). Null where there is no request.
    request_id: str | None = None
    #: event_id of the event this one follows from. Null for the first of its chain.
    causation_id: str | None = None
    #: Who caused it: gateway/<instance>, or reaper/<partition>. Never a person's name in the clear.
    actor: str
    #: Version of this record's schema that the producer wrote, counted from 1.
    schema_version: int = 1
    #: Agent run the request belongs to (header x-quaestor-run-id). Null when the caller named none.
    run_id: str | None = None
    #: Virtual key that authenticated the request. Null when none was accepted.
    key_id: str | None = None
    #: Team of the key. Null when the key has none.
    team_id: str | None = None
    #: Project of the key. Null when the key has none.
    project_id: str | None = None
    #: Identity of the attempt, and of its hold.
    attempt_id: str
    #: Counted from 1 within the request.
    attempt_number: int
    #: The API that was called.
    operation: Operation
    #: The provider.
    provider_id: str
    #: The provider's name of the model.
    model: str
    #: The provider's id of its answer: data, never a key, providers reuse them. Null when it gave none.
    provider_response_id: str | None = None
    #: How the call ended.
    outcome: AttemptOutcome
    #: HTTP status of the provider. Null when it gave none.
    status_code: int | None = None
    #: One line on the error without caller content. Null on success.
    error_detail: str | None = None
    #: Whether the answer was streamed.
    stream: bool = False
    #: Input tokens in all, cached and cache-write ones included.
    input_tokens: int = 0
    #: Part of input_tokens read from the provider's cache.
    cached_input_tokens: int = 0
    #: Part of input_tokens written to the provider's cache.
    cache_write_tokens: int = 0
    #: Output tokens in all, reasoning ones included.
    output_tokens: int = 0
    #: Part of output_tokens spent on reasoning.
    reasoning_tokens: int = 0
    #: Who counted the tokens.
    usage_source: UsageSource
    #: finish_reason of the first choice. Null when there is none.
    finish_reason: str | None = None
    #: When the call was sent.
    started_at: int
    #: Call sent to its end, microseconds.
    duration_micros: int
    #: Call sent to its first content chunk, microseconds. Null when not a stream.
    first_chunk_micros: int | None = None


class BudgetKind(StrEnum):
    """The first of COMMITTED, RELEASED, EXPIRED by offset resolves the hold; a COMMITTED after EXPIRED adjusts."""

    UNKNOWN = "UNKNOWN"
    PLACED = "PLACED"
    EXTENDED = "EXTENDED"
    COMMITTED = "COMMITTED"
    RELEASED = "RELEASED"
    EXPIRED = "EXPIRED"
    OVERAGE = "OVERAGE"
    REFUSED = "REFUSED"


class HoldLeg(msgspec.Struct, frozen=True, kw_only=True):
    """What one limit holds or is charged; bounds, amount and currency are pinned by PLACED."""

    #: The limit.
    limit_id: str
    #: PLACED, EXTENDED, RELEASED, REFUSED: amount held (or asked). COMMITTED, EXPIRED: amount charged. OVERAGE: charged
    #: above held. Nano-units of currency.
    amount_nano: int
    #: Amount the hold had on this limit when this event was made, nano-units of currency.
    held_nano: int
    #: What the limit counts: an ISO 4217 code; TOK, whose nano-unit is one token; REQ, whose nano-unit is one answered
    #: call.
    currency: str
    #: Start of the limit's window, inclusive; 0 for a limit without window.
    window_start: int
    #: End of the limit's window, exclusive; 0 for a limit without window.
    window_end: int
    #: Units of the limit's currency for one of the attempt's, in 1e-9; pinned by PLACED. Null where the limit counts
    #: the attempt's own currency, tokens or requests.
    exchange_rate_nano: int | None = None


class BudgetEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One movement of a hold. Topic quaestor.budgets, key <tenant>: one tenant's money is one ordered sequence."""

    #: Identity of this event. uuid7 made once by its producer for an original event; uuid5 of processor, source event,
    #: kind and leg for a derived one. Unique per tenant.
    event_id: str
    #: When it happened, microseconds since the Unix epoch, UTC. A derived event copies it from its source.
    occurred_at: int
    #: The organisation it belongs to; '_system' where there is none.
    tenant_id: str
    #: The request it belongs to (uuid7 made by the gateway). Null where there is no request.
    request_id: str | None = None
    #: event_id of the event this one follows from. Null for the first of its chain.
    causation_id: str | None = None
    #: Who caused it: gateway/<instance>, or reaper/<partition>. Never a person's name in the clear.
    actor: str
    #: Version of this record's schema that the producer wrote, counted from 1.
    schema_version: int = 2
    #: Agent run the request belongs to (header x-quaestor-run-id). Null when the caller named none.
    run_id: str | None = None
    #: Virtual key that authenticated the request. Null when none was accepted.
    key_id: str | None = None
    #: Team of the key. Null when the key has none.
    team_id: str | None = None
    #: Project of the key. Null when the key has none.
    project_id: str | None = None
    #: The movement.
    kind: BudgetKind
    #: Identity of the hold, equal to attempt_id.
    hold_id: str
    #: Every limit the hold stands on. Empty when no limit applies.
    legs: tuple[HoldLeg, ...]
    #: The attempt's amount in currency: held on PLACED, charged on COMMITTED and EXPIRED, nano-units.
    amount_nano: int
    #: ISO 4217 code of the tenant.
    currency: str
    #: The provider the attempt goes to.
    provider_id: str
    #: The provider's name of the model.
    model: str
    #: Price book version pinned at placement.
    price_version: str | None = None
    #: Exchange rates pinned at placement: event_id of the control event that set each, joined by commas. Null when none
    #: was needed.
    exchange_rate_id: str | None = None
    #: When the lease ends; after it, clock skew and spool grace, the reaper may expire the hold. Null on kinds other
    #: than PLACED and EXTENDED.
    lease_until: int | None = None
    #: Generation of the Redis state it was placed under. Null when not placed by a gateway.
    generation: str | None = None
    #: Counted from 1 within the request.
    attempt_number: int = 1
    #: Whether the amount is an estimate.
    estimated: bool = False
    #: Whether a COMMITTED came after EXPIRED, as its producer knew.
    late: bool = False
    #: Why it was released, expired or refused. Null otherwise.
    reason: str | None = None
    #: The limit that refused. Null on other kinds.
    refused_by_limit_id: str | None = None
    #: What that limit had left, nano-units. Null on other kinds.
    remaining_nano: int | None = None


class EntityKind(StrEnum):
    """What kind of thing changed."""

    UNKNOWN = "UNKNOWN"
    KEY = "KEY"
    PROVIDER = "PROVIDER"
    ROUTE = "ROUTE"
    PRICE_BOOK = "PRICE_BOOK"
    LIMIT = "LIMIT"
    TENANT = "TENANT"
    SYSTEM = "SYSTEM"
    EXCHANGE_RATE = "EXCHANGE_RATE"
    CHANNEL = "CHANNEL"
    SUBJECT = "SUBJECT"
    LEGAL_HOLD = "LEGAL_HOLD"
    RETENTION = "RETENTION"
    AUDIT_KEY = "AUDIT_KEY"


class ControlAction(StrEnum):
    """What was done."""

    UNKNOWN = "UNKNOWN"
    CREATED = "CREATED"
    UPDATED = "UPDATED"
    REMOVED = "REMOVED"
    ERASED = "ERASED"
    PRUNED = "PRUNED"


class ControlEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A change of configuration: who, when, before and after. Topic quaestor.control, key <tenant>/<entity>."""

    #: Identity of this event. uuid7 made once by its producer for an original event; uuid5 of processor, source event,
    #: kind and leg for a derived one. Unique per tenant.
    event_id: str
    #: When it happened, microseconds since the Unix epoch, UTC. A derived event copies it from its source.
    occurred_at: int
    #: The organisation it belongs to; '_system' where there is none.
    tenant_id: str
    #: The request it belongs to (uuid7 made by the gateway). Null where there is no request.
    request_id: str | None = None
    #: event_id of the event this one follows from. Null for the first of its chain.
    causation_id: str | None = None
    #: Who caused it: cli/<uid>, console, or supervisor. Never a person's name in the clear.
    actor: str
    #: Version of this record's schema that the producer wrote, counted from 1.
    schema_version: int = 4
    #: What kind of thing changed.
    entity_kind: EntityKind
    #: Its id.
    entity_id: str
    #: What was done; a revoked key is REMOVED, a data subject whose key was destroyed ERASED, a part of the log that
    #: retention gave up PRUNED.
    action: ControlAction
    #: The whole entity before, JSON without secrets. Null when it did not exist.
    before: str | None = None
    #: The whole entity after, JSON without secrets. Null when it is gone.
    after: str | None = None
    #: Why, in the actor's words. Null when none was given.
    reason: str | None = None


class CostKind(StrEnum):
    """A CORRECTION adds its signed amount to the charge it points at."""

    UNKNOWN = "UNKNOWN"
    CHARGE = "CHARGE"
    CORRECTION = "CORRECTION"


class Meter(StrEnum):
    """What was metered. INPUT_TOKENS and OUTPUT_TOKENS exclude the parts that have a meter of their own.
    UNSETTLED_HOLD: one unit, priced at the estimate an expired hold was charged."""

    UNKNOWN = "UNKNOWN"
    INPUT_TOKENS = "INPUT_TOKENS"
    CACHED_INPUT_TOKENS = "CACHED_INPUT_TOKENS"
    CACHE_WRITE_TOKENS = "CACHE_WRITE_TOKENS"
    OUTPUT_TOKENS = "OUTPUT_TOKENS"
    REASONING_TOKENS = "REASONING_TOKENS"
    UNSETTLED_HOLD = "UNSETTLED_HOLD"


class CostEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One charge per attempt and meter, or the correction of one. Topic quaestor.costs, key as on requests."""

    #: Identity of this event. uuid7 made once by its producer for an original event; uuid5 of processor, source event,
    #: kind and leg for a derived one. Unique per tenant.
    event_id: str
    #: When it happened, microseconds since the Unix epoch, UTC. A derived event copies it from its source.
    occurred_at: int
    #: The organisation it belongs to; '_system' where there is none.
    tenant_id: str
    #: The request it belongs to (uuid7 made by the gateway). Null where there is no request.
    request_id: str | None = None
    #: event_id of the event this one follows from. Null for the first of its chain.
    causation_id: str | None = None
    #: Who caused it: gateway/<instance>, reaper/<partition>, or repricer. Never a person's name in the clear.
    actor: str
    #: Version of this record's schema that the producer wrote, counted from 1.
    schema_version: int = 1
    #: Agent run the request belongs to (header x-quaestor-run-id). Null when the caller named none.
    run_id: str | None = None
    #: Virtual key that authenticated the request. Null when none was accepted.
    key_id: str | None = None
    #: Team of the key. Null when the key has none.
    team_id: str | None = None
    #: Project of the key. Null when the key has none.
    project_id: str | None = None
    #: Charge or correction.
    kind: CostKind
    #: The attempt charged.
    attempt_id: str
    #: The provider.
    provider_id: str
    #: The provider's name of the model.
    model: str
    #: What was metered.
    meter: Meter
    #: Units of the meter.
    quantity: int
    #: Price of one unit, pico-units (1e-12) of provider_currency.
    unit_price_pico: int
    #: Identity of the price in its price book.
    price_id: str
    #: Version of the price book in force.
    price_version: str
    #: quantity x unit_price_pico, rounded half-even once, nano-units of provider_currency. Signed on a correction.
    provider_amount_nano: int
    #: ISO 4217 code the provider charges in.
    provider_currency: str
    #: The same in the tenant's currency, nano-units. Signed on a correction.
    amount_nano: int
    #: ISO 4217 code of the tenant.
    currency: str
    #: Exchange rate used. Null when both currencies are the same.
    exchange_rate_id: str | None = None
    #: Whether the quantity is our estimate.
    estimated: bool = False
    #: The charge a correction points at. Null on a charge.
    corrects_event_id: str | None = None


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One provider and model that could have served."""

    #: The provider.
    provider_id: str
    #: The provider's name of the model.
    model: str
    #: Whether it could be chosen.
    eligible: bool
    #: Why it could not. Null when eligible.
    ruled_out_by: str | None = None
    #: Score under the policy, higher is better. Null when not scored.
    score: float | None = None
    #: Price that would apply. Null when it has none.
    price_id: str | None = None


class RoutingDecision(msgspec.Struct, frozen=True, kw_only=True):
    """Which provider and model were chosen for a request, among which candidates, and why. Topic quaestor.decisions,
    key as on requests."""

    #: Identity of this event. uuid7 made once by its producer for an original event; uuid5 of processor, source event,
    #: kind and leg for a derived one. Unique per tenant.
    event_id: str
    #: When it happened, microseconds since the Unix epoch, UTC. A derived event copies it from its source.
    occurred_at: int
    #: The organisation it belongs to; '_system' where there is none.
    tenant_id: str
    #: The request it belongs to (uuid7 made by the gateway). Null where there is no request.
    request_id: str | None = None
    #: event_id of the event this one follows from. Null for the first of its chain.
    causation_id: str | None = None
    #: Who caused it: gateway/<instance>. Never a person's name in the clear.
    actor: str
    #: Version of this record's schema that the producer wrote, counted from 1.
    schema_version: int = 1
    #: Agent run the request belongs to (header x-quaestor-run-id). Null when the caller named none.
    run_id: str | None = None
    #: Virtual key that authenticated the request. Null when none was accepted.
    key_id: str | None = None
    #: Team of the key. Null when the key has none.
    team_id: str | None = None
    #: Project of the key. Null when the key has none.
    project_id: str | None = None
    #: Model or alias as the caller named it.
    model_requested: str
    #: Routing policy that decided, for example ordered.
    policy: str
    #: Version of the policy, for example the event_id of the route's last change.
    policy_version: str
    #: All candidates, in the order they will be tried.
    candidates: tuple[Candidate, ...]
    #: Provider tried first. Null when none was eligible.
    chosen_provider_id: str | None = None
    #: Model tried first. Null when none was eligible.
    chosen_model: str | None = None
    #: Probability with which the policy chooses this candidate here; 1 for a deterministic policy.
    probability: float = 1.0


class HealthState(StrEnum):
    """DEGRADED from 5 % errors, DOWN from 50 %."""

    UNKNOWN = "UNKNOWN"
    HEALTHY = "HEALTHY"
    DEGRADED = "DEGRADED"
    DOWN = "DOWN"


class ProviderHealth(msgspec.Struct, frozen=True, kw_only=True):
    """A provider's latency and errors over one closed window. Topic quaestor.health, key
    <provider>/<model>/<region>."""

    #: Identity of this event. uuid7 made once by its producer for an original event; uuid5 of processor, source event,
    #: kind and leg for a derived one. Unique per tenant.
    event_id: str
    #: When it happened, microseconds since the Unix epoch, UTC. A derived event copies it from its source.
    occurred_at: int
    #: The organisation it belongs to; '_system' where there is none.
    tenant_id: str
    #: The request it belongs to (uuid7 made by the gateway). Null where there is no request.
    request_id: str | None = None
    #: event_id of the event this one follows from. Null for the first of its chain.
    causation_id: str | None = None
    #: Who caused it: health. Never a person's name in the clear.
    actor: str
    #: Version of this record's schema that the producer wrote, counted from 1.
    schema_version: int = 1
    #: The provider.
    provider_id: str
    #: The provider's name of the model.
    model: str
    #: Region of the provider; '-' where it has none.
    region: str
    #: Start of the window, inclusive.
    window_start: int
    #: End of the window, exclusive.
    window_end: int
    #: Attempts that ended in the window.
    attempts: int
    #: Of those, attempts the provider failed (errors, rate limits, time-outs, garbage).
    errors: int
    #: Of those, time-outs.
    timeouts: int
    #: Median duration, microseconds; 0 without attempts.
    latency_p50_micros: int
    #: 95th percentile of duration, microseconds; 0 without attempts.
    latency_p95_micros: int
    #: Median time to first chunk, microseconds. Null without streams.
    first_chunk_p50_micros: int | None = None
    #: Judgement over the window.
    state: HealthState


class TransferKind(StrEnum):
    """PENDING reserves; POST and VOID resolve part or all of a pending transfer; DIRECT posts at once."""

    UNKNOWN = "UNKNOWN"
    PENDING = "PENDING"
    POST = "POST"
    VOID = "VOID"
    DIRECT = "DIRECT"


class LedgerEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One double-entry transfer, derived from budgets and costs with a deterministic id. Topic quaestor.ledger, key
    <tenant>."""

    #: Identity of this event. uuid7 made once by its producer for an original event; uuid5 of processor, source event,
    #: kind and leg for a derived one. Unique per tenant.
    event_id: str
    #: When it happened, microseconds since the Unix epoch, UTC. A derived event copies it from its source.
    occurred_at: int
    #: The organisation it belongs to; '_system' where there is none.
    tenant_id: str
    #: The request it belongs to (uuid7 made by the gateway). Null where there is no request.
    request_id: str | None = None
    #: event_id of the event this one follows from. Null for the first of its chain.
    causation_id: str | None = None
    #: Who caused it: ledger. Never a person's name in the clear.
    actor: str
    #: Version of this record's schema that the producer wrote, counted from 1.
    schema_version: int = 1
    #: The kind of transfer.
    kind: TransferKind
    #: Account debited, as class/owner/name, for example budget/<limit_id>/available.
    debit_account: str
    #: Account credited.
    credit_account: str
    #: Amount, never negative, nano-units of currency.
    amount_nano: int
    #: ISO 4217 code; both accounts keep it.
    currency: str
    #: event_id of the PENDING transfer a POST or VOID resolves. Null on others.
    pending_id: str | None = None
    #: Topic of the event it derives from.
    source_topic: str
    #: event_id of the event it derives from.
    source_event_id: str
    #: The attempt it belongs to. Null when none.
    attempt_id: str | None = None
    #: Start of the budget window it counts in. Null on cost accounts.
    window_start: int | None = None
    #: One word on what it books: hold, spend, release, overage, expense, correction.
    memo: str = ""


class QuarantineReason(StrEnum):
    """Why it could not be taken."""

    UNKNOWN = "UNKNOWN"
    UNDECODABLE = "UNDECODABLE"
    SCHEMA_UNKNOWN = "SCHEMA_UNKNOWN"
    SEMANTIC = "SEMANTIC"
    SINK_REJECT = "SINK_REJECT"
    BUG = "BUG"


class QuarantineKind(StrEnum):
    """What happened to the record."""

    UNKNOWN = "UNKNOWN"
    QUARANTINED = "QUARANTINED"
    PARKED = "PARKED"
    FAILED = "FAILED"
    REDRIVEN = "REDRIVEN"
    DISCARDED = "DISCARDED"


class QuarantinedRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A record that a sink set aside, with its bytes and the reason, and what became of it. Topic quaestor.quarantine,
    key as on the record."""

    #: Identity of this event. uuid7 made once by its producer for an original event; uuid5 of processor, source event,
    #: kind and leg for a derived one. Unique per tenant.
    event_id: str
    #: When it happened, microseconds since the Unix epoch, UTC. A derived event copies it from its source.
    occurred_at: int
    #: The organisation it belongs to; '_system' where there is none.
    tenant_id: str
    #: The request it belongs to (uuid7 made by the gateway). Null where there is no request.
    request_id: str | None = None
    #: event_id of the event this one follows from. Null for the first of its chain.
    causation_id: str | None = None
    #: Who caused it: the sink, or cli/<uid> where a person decided. Never a person's name in the clear.
    actor: str
    #: Version of this record's schema that the producer wrote, counted from 1.
    schema_version: int = 2
    #: Projection that could not take it, with its version, for example postgres@v1.
    sink: str
    #: Topic of the record.
    source_topic: str
    #: The topic's UUID, so that a re-created topic is told apart.
    source_topic_id: str
    #: Partition of the record.
    source_partition: int
    #: Offset of the record.
    source_offset: int
    #: Why it could not be taken.
    reason: QuarantineReason
    #: One line on what failed, without record content.
    detail: str
    #: Groups records that failed alike: SHA-256 of reason and detail shape, 16 hex digits.
    fingerprint: str
    #: The record's key. Null when it had none.
    key_bytes: bytes | None = None
    #: The record's value. Null when it was a tombstone.
    value_bytes: bytes | None = None
    #: The record's headers.
    headers: dict[str, bytes] = {}
    #: Schema id it was framed with. Null when the frame could not be read.
    schema_id: int | None = None
    #: When the sink first met it.
    first_seen_at: int
    #: How often the sink tried.
    attempts: int
    #: QUARANTINED: the sink can't take it. PARKED: it waits behind one of the same order_key, or a person left it.
    #: FAILED: a redrive failed again. REDRIVEN: applied after all. DISCARDED: a person decided that it never is.
    #: Records before version 2 are QUARANTINED.
    kind: QuarantineKind = QuarantineKind.QUARANTINED
    #: What later records of the partition wait for: its key, or its hold. Null when nothing waits behind it.
    order_key: str | None = None
    #: event_id of the record that a parked one waits behind. Null on others.
    behind_event_id: str | None = None
    #: Why, in the words of who decided. Null when nobody did.
    note: str | None = None


class RequestKind(StrEnum):
    """RECEIVED before any provider is called; then exactly one of the others."""

    UNKNOWN = "UNKNOWN"
    RECEIVED = "RECEIVED"
    REFUSED = "REFUSED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


class SubjectState(StrEnum):
    """NONE: no user named. LINKED: handle stands. UNAVAILABLE: a user was named but the vault could not be reached."""

    UNKNOWN = "UNKNOWN"
    NONE = "NONE"
    LINKED = "LINKED"
    UNAVAILABLE = "UNAVAILABLE"


class RequestEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A step in the life of one request to the gateway: who asked, for what, how it ended. Topic quaestor.requests, key
    <tenant>/<run_id or request_id>."""

    #: Identity of this event. uuid7 made once by its producer for an original event; uuid5 of processor, source event,
    #: kind and leg for a derived one. Unique per tenant.
    event_id: str
    #: When it happened, microseconds since the Unix epoch, UTC. A derived event copies it from its source.
    occurred_at: int
    #: The organisation it belongs to; '_system' where there is none.
    tenant_id: str
    #: The request it belongs to (uuid7 made by the gateway). Null where there is no request.
    request_id: str | None = None
    #: event_id of the event this one follows from. Null for the first of its chain.
    causation_id: str | None = None
    #: Who caused it: gateway/<instance>, or reaper/<partition>. Never a person's name in the clear.
    actor: str
    #: Version of this record's schema that the producer wrote, counted from 1.
    schema_version: int = 2
    #: The step.
    kind: RequestKind
    #: Agent run the request belongs to (header x-quaestor-run-id). Null when the caller named none.
    run_id: str | None = None
    #: Virtual key that authenticated the request. Null when none was accepted.
    key_id: str | None = None
    #: Team of the key. Null when the key has none.
    team_id: str | None = None
    #: Project of the key. Null when the key has none.
    project_id: str | None = None
    #: The API that was called; UNKNOWN when the request could not be read.
    operation: Operation
    #: Model or alias as the caller named it. Null when the request could not be read.
    model_requested: str | None = None
    #: Whether the caller asked for a stream.
    stream: bool = False
    #: Random handle of the end user, from the subject vault. Null when the caller named none or the vault was away.
    subject_handle: str | None = None
    #: What became of the end user's id.
    subject_state: SubjectState = SubjectState.UNKNOWN
    #: Allow-listed tags and metadata in the clear.
    tags: dict[str, str] = {}
    #: Under the subject's key, committed to it: a commitment to the key (32 bytes), then AES-256-GCM (96-bit nonce,
    #: ciphertext and tag) bound to event, tenant and schema: metadata off the allow-list and the salt of
    #: body_commitment, as JSON. In version 1: without the commitment, bound to event_id alone. Null when there is
    #: nothing to seal.
    sealed: bytes | None = None
    #: SHA-256 of 'commit/v1\0', a 32-byte salt and the request body, 32 bytes. Null on kinds without a body.
    body_commitment: bytes | None = None
    #: Size of the request body, bytes.
    body_bytes: int = 0
    #: HTTP status answered. Null on RECEIVED.
    status_code: int | None = None
    #: OpenAI error code answered (for example budget_exceeded). Null on success.
    error_code: str | None = None
    #: One line on the error without caller content. Null on success.
    error_detail: str | None = None
    #: Provider that served it. Null when none did.
    provider_id: str | None = None
    #: Model that served it. Null when none did.
    model_served: str | None = None
    #: Provider attempts made.
    attempt_count: int = 0
    #: Input tokens in all, cached and cache-write ones included.
    input_tokens: int = 0
    #: Part of input_tokens read from the provider's cache.
    cached_input_tokens: int = 0
    #: Part of input_tokens written to the provider's cache.
    cache_write_tokens: int = 0
    #: Output tokens in all, reasoning ones included.
    output_tokens: int = 0
    #: Part of output_tokens spent on reasoning.
    reasoning_tokens: int = 0
    #: Who counted the tokens.
    usage_source: UsageSource = UsageSource.UNKNOWN
    #: Cost of all attempts, nano-units of currency. 0 before the end.
    amount_nano: int = 0
    #: ISO 4217 code of amount_nano. Null when there is no amount.
    currency: str | None = None
    #: finish_reason of the first choice. Null when there is none.
    finish_reason: str | None = None
    #: When the request arrived. Null on RECEIVED (occurred_at says it).
    started_at: int | None = None
    #: Arrival to end, microseconds. Null on RECEIVED.
    duration_micros: int | None = None
    #: Arrival to first content chunk forwarded, microseconds. Null when not a stream.
    first_chunk_micros: int | None = None
    #: Whether the caller had gone before the end.
    client_disconnected: bool = False


Event = (
    Alert
    | ProviderAttempt
    | BudgetEvent
    | ControlEvent
    | CostEvent
    | RoutingDecision
    | ProviderHealth
    | LedgerEntry
    | QuarantinedRecord
    | RequestEvent
)

#: The event type of each topic.
EVENT_TYPES: dict[str, type[Event]] = {
    "quaestor.alerts": Alert,
    "quaestor.attempts": ProviderAttempt,
    "quaestor.budgets": BudgetEvent,
    "quaestor.control": ControlEvent,
    "quaestor.costs": CostEvent,
    "quaestor.decisions": RoutingDecision,
    "quaestor.health": ProviderHealth,
    "quaestor.ledger": LedgerEntry,
    "quaestor.quarantine": QuarantinedRecord,
    "quaestor.requests": RequestEvent,
}
