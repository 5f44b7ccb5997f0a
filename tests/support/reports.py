"""A made-up day of a report: everything that it can say, said once or more."""

from __future__ import annotations

import msgspec

from processors.report.build import build
from processors.report.day import Day, Span, day_of
from processors.report.figures import (
    AttemptCount,
    Charge,
    DecisionCount,
    Findings,
    HoldMovement,
    HourCharge,
    LateCommit,
    LedgerMovement,
    Mismatch,
    OwnerCharge,
    Report,
    RequestCount,
    SetAside,
    Standing,
    TenantFigures,
    WindowSpend,
)
from tests.budget_world import limit_on

#: 21 November 2026, 04:00 UTC.
NOW_MICROS = 1_795_233_600_000_000
MINUTE_MICROS = 60_000_000
MARGIN_MICROS = 14 * MINUTE_MICROS
UNIT = 1_000_000_000
STANDING = Standing({"quaestor.costs": {"0": 12, "1": 7}}, ())
CLAIMS = {"requests_end": "A request that was received ends.", "holds_are_resolved": "A hold is resolved."}
HOSTILE = "<script>alert(1)</script>\"'&\x1b[31m\u202e"


def day(text: str = "yesterday", zone: str = "UTC") -> Day:
    """The day of the report."""
    return day_of(text, zone, NOW_MICROS)


def span(of: Day | None = None, taken_at: int = NOW_MICROS) -> Span:
    """That day and its margins."""
    return Span(of or day(), MARGIN_MICROS, taken_at)


def figures(name: str = "") -> TenantFigures:
    """A day that matches; `name` stands where people outside give names."""
    model = name or "gpt-4o"
    begins = day().starts_at
    total, daily = limit_on("tenant", "acme", 100 * UNIT, window="total"), limit_on("team", name or "search", 20 * UNIT)
    spent = {2: 3 * UNIT, 9: 7_500_000_000, 10: 4 * UNIT, 17: 1}
    charged = sum(spent.values())
    return TenantFigures(
        requests=[RequestCount("RECEIVED", "", 100), RequestCount("COMPLETED", "", 97),
                  RequestCount("FAILED", "provider_error", 1), RequestCount("REFUSED", "budget_exceeded", 2)],
        decisions=[DecisionCount("ordered", "openai", model, 98), DecisionCount("ordered", "", "", 2)],
        attempts=[AttemptCount("openai", model, "SUCCEEDED", "PROVIDER", 97, 12_000, 34_000),
                  AttemptCount("openai", model, "TIMEOUT", "ESTIMATE", 2, 400, 0)],
        charges=[Charge("openai", model, "OUTPUT_TOKENS", False, "USD", 97, 34_000, charged - UNIT),
                 Charge("openai", model, "INPUT_TOKENS", True, "USD", 2, 400, UNIT)],
        owners=[OwnerCharge(name or "search", name or "web", "key_1", "USD", charged)],
        hours=[HourCharge(hour, "USD", amount) for hour, amount in spent.items()],
        holds=[HoldMovement("PLACED", "", "", "USD", 100, 30 * UNIT),
               HoldMovement("COMMITTED", "", "", "USD", 99, charged),
               HoldMovement("EXPIRED", "lease_expired", "", "USD", 1, UNIT),
               HoldMovement("OVERAGE", "", "", "USD", 1, 1_000),
               HoldMovement("REFUSED", name, "lim_1", "USD", 2, UNIT)],
        late_commits=[LateCommit("USD", 1, UNIT, 900_000_000)],
        ledger=[LedgerMovement("expense", "USD", 0, 0, charged, 0), LedgerMovement("payable", "USD", 0, 0, 0, charged)],
        windows=[WindowSpend(total.limit_id, "USD", 0, 99 * UNIT, 0),
                 WindowSpend(daily.limit_id, "USD", begins - 19 * 86_400_000_000, 17 * UNIT, 5)],
        limits=[_json(total), _json(daily)],
    )  # fmt: skip


def broken(name: str = "") -> TenantFigures:
    """The same with rows that do not match and records set aside."""
    found = figures(name)
    at = day().starts_at + 5 * MINUTE_MICROS
    mismatch = Mismatch(
        "0199-request", "0199-request", at, f"{name or 'gpt-4o'} was asked for, and nothing says how it ended"
    )
    found.findings.append(Findings("requests_end", 31, (mismatch,)))
    found.set_aside.append(SetAside("postgres@v1", "quaestor.costs", "QUARANTINED", "SEMANTIC", 3))
    return found


def report(
    tenants: dict[str, TenantFigures] | None = None, of: Day | None = None, standing: Standing = STANDING
) -> Report:
    """A report of these tenants."""
    return build(span(of), None, standing, CLAIMS, tenants if tenants is not None else {"acme": figures()})


def _json(limit: object) -> str:
    return msgspec.json.encode(limit).decode()
