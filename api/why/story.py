"""A request's events told as a story: one step per event, in order, with what a person wants to know of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from processors.audit.marks import Mark, MarkState
from schemas import topics
from schemas.money import format_nano, format_with_unit
from sinks.postgres.reads import StoredEvent

Fields = Mapping[str, Any]


@dataclass(frozen=True)
class Step:
    """One event of the story."""

    #: RECEIVED, DECISION, PLACED, ATTEMPT, CHARGE, COMMITTED, COMPLETED, LEDGER …
    kind: str
    summary: str
    #: Microseconds since the epoch.
    occurred_at: int
    #: Since the first step.
    after_milliseconds: float
    topic: str
    partition: int
    offset: int
    event_id: str
    #: What the audit log proves of it.
    audit: Mark

    @property
    def ok(self) -> bool:
        """Whether nothing contradicts it."""
        return self.audit.state is not MarkState.MISMATCH

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self)


def steps(events: Sequence[StoredEvent], marks: Sequence[Mark]) -> list[Step]:
    """The steps of a request's events, given in order, each with its mark."""
    start = events[0].occurred_at if events else 0
    expired = {_hold(event): event.offset for event in events if _is(event, "EXPIRED")}
    return [
        Step(
            *said(event.topic, _as_it_came(event, expired)),
            occurred_at=event.occurred_at,
            after_milliseconds=(event.occurred_at - start) / 1_000,
            topic=event.topic,
            partition=event.partition,
            offset=event.offset,
            event_id=event.event_id,
            audit=mark,
        )
        for event, mark in zip(events, marks, strict=True)
    ]


def _is(event: StoredEvent, kind: str) -> bool:
    return event.topic == topics.BUDGETS.name and event.fields["kind"] == kind


def _hold(event: StoredEvent) -> tuple[int, str]:
    return event.partition, event.fields["hold_id"]


def _as_it_came(event: StoredEvent, expired: Mapping[tuple[int, str], int]) -> Fields:
    """The fields, and of a charge whether its hold had expired: whoever recorded it could not know."""
    if not _is(event, "COMMITTED"):
        return event.fields
    return event.fields | {"late": expired.get(_hold(event), event.offset) < event.offset}


def said(topic: str, fields: Fields) -> tuple[str, str]:
    """Kind and summary of an event: what its line says."""
    return _KINDS[topic](fields), _SUMMARIES[topic](fields)


def _kind(fields: Fields) -> str:
    return str(fields["kind"])


def _money(fields: Fields, name: str = "amount_nano") -> str:
    return format_with_unit(int(fields[name]), fields["currency"])


def _request(fields: Fields) -> str:
    if fields["kind"] == "RECEIVED":
        stream = ", streamed" if fields["stream"] else ""
        owner = "/".join(str(fields[name]) for name in ("tenant_id", "team_id", "project_id") if fields[name])
        return f"{fields['operation'].lower()} for {fields['model_requested']}{stream}; {owner}, key {fields['key_id']}"
    if fields["kind"] == "COMPLETED":
        took = (fields["duration_micros"] or 0) / 1_000
        tokens = f"{fields['input_tokens']} in, {fields['output_tokens']} out"
        served = f"{fields['provider_id']}/{fields['model_served']}"
        return f"{fields['status_code']} from {served}, {tokens}, {_money(fields)}, {took:.1f} ms"
    detail = f": {fields['error_detail']}" if fields["error_detail"] else ""
    return f"{fields['status_code']} {fields['error_code'] or ''}{detail}".rstrip()


def _decision(fields: Fields) -> str:
    chosen = f"{fields['chosen_provider_id']}/{fields['chosen_model']}" if fields["chosen_provider_id"] else "nobody"
    others = [
        f"{candidate['provider_id']}/{candidate['model']} ({candidate['ruled_out_by'] or 'next'})"
        for candidate in fields["candidates"]
        if f"{candidate['provider_id']}/{candidate['model']}" != chosen
    ]
    considered = f"; also considered {', '.join(others)}" if others else "; the only candidate"
    return f"{chosen} by policy {fields['policy']} (probability {fields['probability']:g}){considered}"


def _budget(fields: Fields) -> str:
    legs = ", ".join(
        f"{leg['limit_id']}: {format_with_unit(int(leg['amount_nano']), leg['currency'])}" for leg in fields["legs"]
    )
    reason = f" ({fields['reason']})" if fields["reason"] else ""
    late = ", late" if fields["late"] else ""
    return f"{_money(fields)} on {legs or 'no limit'}{late}{reason}"


def _attempt(fields: Fields) -> str:
    took = fields["duration_micros"] / 1_000
    tokens = f"{fields['input_tokens']} in, {fields['output_tokens']} out ({fields['usage_source'].lower()})"
    detail = f": {fields['error_detail']}" if fields["error_detail"] else ""
    called = f"no. {fields['attempt_number']} {fields['provider_id']}/{fields['model']}"
    return f"{called} {fields['outcome']}{detail}, {tokens}, {took:.1f} ms"


def _cost(fields: Fields) -> str:
    # A price is pico-units per unit; per million units it is micro-units.
    per_million = format_nano(int(fields["unit_price_pico"]) * 1_000)
    estimate = ", estimate" if fields["estimated"] else ""
    meter = fields["meter"].lower().replace("_", " ")
    if fields["quantity"] == 1:
        meter = meter.removesuffix("s")
    return f"{fields['quantity']} {meter} x {per_million} per million = {_money(fields)}{estimate}"


def _transfer(fields: Fields) -> str:
    accounts = f"{fields['debit_account']} -> {fields['credit_account']}"
    return f"{fields['kind'].lower()} {_money(fields)}: {accounts} ({fields['memo']})"


_KINDS: dict[str, Callable[[Fields], str]] = {
    topics.REQUESTS.name: _kind,
    topics.DECISIONS.name: lambda _: "DECISION",
    topics.BUDGETS.name: _kind,
    topics.ATTEMPTS.name: lambda _: "ATTEMPT",
    topics.COSTS.name: _kind,
    topics.LEDGER.name: lambda _: "LEDGER",
}
_SUMMARIES: dict[str, Callable[[Fields], str]] = {
    topics.REQUESTS.name: _request,
    topics.DECISIONS.name: _decision,
    topics.BUDGETS.name: _budget,
    topics.ATTEMPTS.name: _attempt,
    topics.COSTS.name: _cost,
    topics.LEDGER.name: _transfer,
}
