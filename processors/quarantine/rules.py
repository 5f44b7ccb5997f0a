"""What a record's own fields must satisfy to be applied anywhere: one table, checked before a batch is planned.

A record that breaks a rule is set aside as SEMANTIC by every store alike (but the audit log, which enters whatever was
recorded). Rules are about identity, time and the sign of money; what a store can't hold beyond that is its own affair.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from schemas import topics
from schemas.events import CostKind, TransferKind
from schemas.ids import NAME, UUID_TEXT

#: occurred_at: 2020-01-01 to 2100-01-01, the months a ledger can have.
OCCURRED_MICROS_MIN = 1_577_836_800_000_000
OCCURRED_MICROS_MAX = 4_102_444_800_000_000
#: Other times: 1970 to 2200.
TIME_MICROS_MAX = 7_258_118_400_000_000
RESOLVING = frozenset({TransferKind.POST.value, TransferKind.VOID.value})
REQUEST_TOKENS = ("input_tokens", "cached_input_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")

Fields = Mapping[str, Any]
Problem = str | None


@dataclass(frozen=True)
class Rules:
    """The rules of one topic; a null satisfies all of the lists."""

    #: Must be UUIDs.
    uuids: tuple[str, ...] = ("event_id", "causation_id")
    #: Must lie between 1970 and 2200.
    times: tuple[str, ...] = ()
    #: Must not be negative.
    counts: tuple[str, ...] = ()
    #: Rules that look at several fields.
    relation: Callable[[Fields], Problem] | None = None


def _cost(fields: Fields) -> Problem:
    if fields["kind"] == CostKind.CORRECTION:
        return None if fields["corrects_event_id"] else "a correction names nothing that it corrects"
    if min(fields["quantity"], fields["amount_nano"], fields["provider_amount_nano"]) < 0:
        return "a charge is negative"
    return None


def _transfer(fields: Fields) -> Problem:
    if fields["debit_account"] == fields["credit_account"]:
        return "a transfer from an account to itself"
    if (fields["kind"] in RESOLVING) != (fields["pending_id"] is not None):
        return "POST and VOID resolve a pending transfer, others do not"
    return None


def _entity(fields: Fields) -> Problem:
    try:
        for name in ("before", "after"):
            json.loads(fields[name] or "null")
    except ValueError:
        return "the entity is not JSON"
    return None


def _window(fields: Fields) -> Problem:
    return None if fields["window_start"] <= fields["window_end"] else "the window ends before it begins"


RULES: dict[str, Rules] = {
    topics.REQUESTS.name: Rules(
        times=("started_at",),
        counts=("body_bytes", "attempt_count", *REQUEST_TOKENS, "amount_nano"),
    ),
    topics.DECISIONS.name: Rules(),
    topics.ATTEMPTS.name: Rules(
        uuids=("event_id", "causation_id", "attempt_id"),
        times=("started_at",),
        counts=("attempt_number", *REQUEST_TOKENS, "duration_micros"),
    ),
    topics.COSTS.name: Rules(
        uuids=("event_id", "causation_id", "attempt_id", "corrects_event_id"),
        counts=("unit_price_pico",),
        relation=_cost,
    ),
    topics.BUDGETS.name: Rules(
        uuids=("event_id", "causation_id", "hold_id"), times=("lease_until",), counts=("amount_nano", "attempt_number")
    ),
    topics.LEDGER.name: Rules(
        uuids=("event_id", "causation_id", "pending_id", "source_event_id", "attempt_id"),
        times=("window_start",),
        counts=("amount_nano",),
        relation=_transfer,
    ),
    topics.CONTROL.name: Rules(relation=_entity),
    topics.HEALTH.name: Rules(
        times=("window_start", "window_end"), counts=("attempts", "errors", "timeouts"), relation=_window
    ),
    topics.ALERTS.name: Rules(),
    topics.QUARANTINE.name: Rules(uuids=("event_id", "causation_id", "behind_event_id")),
}


def _compiled(rules: Rules) -> Callable[[Fields], Problem]:
    """The check as straight code, a third of the cost of walking the lists: it runs for every record.

    It answers the first rule that decoded fields break, in words without their values, or None.
    """
    lines = ["def check(fields):"]

    def unless(holds: str, problem: str) -> None:
        lines.append(f"    if not ({holds}): return {problem!r}")

    unless(
        f"{OCCURRED_MICROS_MIN} <= fields['occurred_at'] < {OCCURRED_MICROS_MAX}",
        "occurred_at is outside of the years 2020 to 2099",
    )
    unless("is_name(fields['tenant_id'])", "tenant_id is not a name")
    for name in rules.uuids:
        unless(f"(value := fields['{name}']) is None or is_uuid(value)", f"{name} is not a UUID")
    for name in rules.times:
        holds = f"(value := fields['{name}']) is None or 0 <= value < {TIME_MICROS_MAX}"
        unless(holds, f"{name} is outside of the years 1970 to 2199")
    for name in rules.counts:
        unless(f"(value := fields['{name}']) is None or value >= 0", f"{name} is negative")
    lines.append("    return relation(fields)" if rules.relation else "    return None")
    space: dict[str, Any] = {"is_name": NAME.fullmatch, "is_uuid": UUID_TEXT.fullmatch, "relation": rules.relation}
    exec("\n".join(lines), space)  # noqa: S102 - the names are those of RULES, never input
    check: Callable[[Fields], Problem] = space["check"]
    return check


#: The check of each topic.
CHECKS: dict[str, Callable[[Fields], Problem]] = {topic: _compiled(rules) for topic, rules in RULES.items()}
