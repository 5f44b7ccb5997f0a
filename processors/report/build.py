"""The report from what the stores answered: shares, control totals, use of budgets, and the verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from processors.report.budgets import budget_uses, limits_of
from processors.report.day import Day, Span
from processors.report.figures import (
    FORMAT,
    Charge,
    ControlTotal,
    Estimate,
    LedgerMovement,
    Report,
    Rule,
    Standing,
    TenantFigures,
    TenantReport,
)

PERCENT = 100


def build(
    span: Span,
    tenant: str | None,
    standing: Standing,
    claims: Mapping[str, str],
    figures: Mapping[str, TenantFigures],
) -> Report:
    """The report; `claims` are the rules that were asked, by name, `figures` what was found per tenant."""
    tenants = tuple(tenant_report(each, figures[each], span.day) for each in sorted(figures))
    final = span.is_over and not standing.lacking
    return Report(
        format=FORMAT,
        ok=final and all(each.ok for each in tenants),
        final=final,
        day=span.day.date,
        time_zone=span.day.time_zone,
        starts_at=span.day.starts_at,
        ends_at=span.day.ends_at,
        taken_at=span.taken_at,
        judged_until=span.judged_until,
        tenant=tenant,
        standing=standing,
        rules=tuple(Rule(name, claim, _broken(name, tenants)) for name, claim in claims.items()),
        tenants=tenants,
    )


def _broken(rule: str, tenants: Iterable[TenantReport]) -> int:
    return sum(found.total for each in tenants for found in each.mismatches if found.rule == rule)


def tenant_report(tenant_id: str, found: TenantFigures, day: Day) -> TenantReport:
    """One tenant's part."""
    totals = control_totals(found.charges, found.ledger)
    return TenantReport(
        tenant_id=tenant_id,
        ok=not found.findings and all(each.expected_nano == each.actual_nano for each in totals),
        requests=tuple(found.requests),
        decisions=tuple(found.decisions),
        attempts=tuple(found.attempts),
        charges=tuple(found.charges),
        owners=tuple(found.owners),
        hours=tuple(found.hours),
        estimates=estimates(found.charges),
        holds=tuple(found.holds),
        late_commits=tuple(found.late_commits),
        ledger=tuple(found.ledger),
        control_totals=totals,
        budgets=tuple(budget_uses(limits_of(found.limits, day), found.windows, day)),
        set_aside=tuple(found.set_aside),
        mismatches=tuple(found.findings),
    )


def estimates(charges: Sequence[Charge]) -> tuple[Estimate, ...]:
    """How much of the charges of each currency is estimated."""
    found = []
    for currency in sorted({each.currency for each in charges}):
        reported, estimated = (
            sum(each.amount_nano for each in charges if each.currency == currency and each.estimated is is_estimated)
            for is_estimated in (False, True)
        )
        total = reported + estimated
        found.append(Estimate(currency, reported, estimated, PERCENT * estimated // total if total else 0))
    return tuple(found)


def control_totals(charges: Sequence[Charge], ledger: Sequence[LedgerMovement]) -> tuple[ControlTotal, ...]:
    """What a currency's sums must agree on, whatever single rows say: debits with credits, costs with expenses."""
    currencies = sorted({each.currency for each in charges} | {each.currency for each in ledger})
    return tuple(total for currency in currencies for total in _totals(currency, charges, ledger))


def _totals(currency: str, charges: Sequence[Charge], ledger: Sequence[LedgerMovement]) -> Iterable[ControlTotal]:
    moved = [each for each in ledger if each.currency == currency]
    expenses = [each for each in moved if each.accounts == "expense"]
    charged = [each for each in charges if each.currency == currency]
    yield ControlTotal(
        "debits posted = credits posted",
        currency,
        sum(each.debits_posted_nano for each in moved),
        sum(each.credits_posted_nano for each in moved),
    )
    yield ControlTotal(
        "debits pending = credits pending",
        currency,
        sum(each.debits_pending_nano for each in moved),
        sum(each.credits_pending_nano for each in moved),
    )
    if charged or expenses:
        yield ControlTotal(
            "costs = expenses in the ledger",
            currency,
            sum(each.amount_nano for each in charged),
            sum(each.debits_posted_nano - each.credits_posted_nano for each in expenses),
        )
