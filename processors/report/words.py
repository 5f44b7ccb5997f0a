"""The report told: tables that every rendering shows alike. Cells are texts and bars, never markup."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from processors.budgets.usage import Level, level_of, place_of
from processors.calendar import MICROS_PER_SECOND, zone_of
from processors.report.figures import BudgetUse, Report, TenantReport
from schemas.money import format_amount, unit_name
from schemas.money import format_with_unit as money

PERCENT = 100
#: Rows of one table; the JSON has all.
ROWS_MAX = 25


class Share(NamedTuple):
    """A cell that is a bar: so much of the whole."""

    percent: int
    level: Level = "plain"


class Marked(NamedTuple):
    """A cell whose text says good or bad."""

    text: str
    level: Level


Cell = str | Share | Marked


class Table(NamedTuple):
    """A table with its title."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    #: Positions of columns that hold numbers.
    numbers: tuple[int, ...] = ()
    #: A sentence below it; empty for none.
    note: str = ""


def verdict(report: Report) -> Marked:
    """One sentence on the whole report."""
    count = sum(rule.mismatches for rule in report.rules)
    totals = sum(_differing(each) for each in report.tenants)
    if count or totals:
        words = f"{_counted(count, 'row')} not match" if count else f"{_counted(totals, 'control total')} not match"
        return Marked(words, "bad")
    if not report.final:
        return Marked("not final: what there is matches", "warning")
    return Marked("everything matches", "good")


def facts(report: Report) -> tuple[tuple[str, str], ...]:
    """What the report covers and where it stands."""
    when = f"{moment(report.starts_at, report.time_zone)} to {moment(report.ends_at, report.time_zone)}"
    stands = f"{sum(map(sum, _offsets(report))):,} records of {sum(map(len, _offsets(report)))} partitions"
    found = [
        ("Day", f"{report.day}, {report.time_zone}"),
        ("From, to", when),
        ("Tenants", report.tenant or f"all ({len(report.tenants)})"),
        ("Made at", moment(report.taken_at, report.time_zone)),
        ("Stands at", f"Postgres with {stands} applied"),
    ]
    if report.judged_until < report.ends_at:
        until = moment(report.judged_until, report.time_zone)
        found.append(("Judged until", f"{until}; what began later may be under way"))
    return (*found, *(("Lacking", each) for each in report.standing.lacking))


def _offsets(report: Report) -> list[Sequence[int]]:
    return [tuple(partitions.values()) for partitions in report.standing.offsets.values()]


def overview(report: Report) -> Table:
    """One row per tenant."""
    columns = ("tenant", "", "requests", "answered", "failed", "refused", "charged", "estimated", "not matching")
    rows = tuple(_overview(each) for each in report.tenants)
    return Table("Tenants", columns, rows, (2, 3, 4, 5, 6, 7, 8))


def _overview(tenant: TenantReport) -> tuple[Cell, ...]:
    ended = {kind: _requests(tenant, kind) for kind in ("COMPLETED", "FAILED", "REFUSED")}
    charged = ", ".join(money(one.reported_nano + one.estimated_nano, one.currency) for one in tenant.estimates)
    estimated = ", ".join(f"{one.percent} %" for one in tenant.estimates)
    count = sum(found.total for found in tenant.mismatches) + _differing(tenant)
    mark = Marked("matches", "good") if tenant.ok else Marked("differs", "bad")
    numbers = (str(sum(ended.values())), *map(str, ended.values()))
    return (tenant.tenant_id, mark, *numbers, charged or "-", estimated or "-", str(count))


def rules(report: Report) -> Table:
    """Every rule that was asked."""
    rows = tuple(
        (_mark(rule.mismatches), rule.name.replace("_", " "), rule.claim, str(rule.mismatches)) for rule in report.rules
    )
    return Table("Rules", ("", "rule", "what must hold", "not matching"), rows, (3,))


def _mark(mismatches: int) -> Marked:
    return Marked("differs", "bad") if mismatches else Marked("ok", "good")


def standing(report: Report) -> Table:
    """Up to where each partition of the log is in the report."""
    rows = tuple(
        (topic, ", ".join(f"{number}: {offset:,}" for number, offset in partitions.items()))
        for topic, partitions in report.standing.offsets.items()
    )
    return Table("Next offset of each partition", ("topic", "partition: offset"), rows)


def tables(tenant: TenantReport, time_zone: str) -> Iterator[Table]:
    """A tenant's tables, empty ones left out; what does not match stands first."""
    made = (
        _mismatches(tenant, time_zone),
        _requests_table(tenant),
        _decisions(tenant),
        _attempts(tenant),
        _charges(tenant),
        _owners(tenant),
        _estimates(tenant),
        _holds(tenant),
        _late(tenant),
        _budgets(tenant, time_zone),
        _ledger(tenant),
        _control_totals(tenant),
        _set_aside(tenant),
    )
    return (_cut(table) for table in made if table.rows)


def _cut(table: Table) -> Table:
    more = len(table.rows) - ROWS_MAX
    if more <= 0:
        return table
    return table._replace(
        rows=table.rows[:ROWS_MAX], note=f"{more:,} more rows: the JSON has them. {table.note}".strip()
    )


def _mismatches(tenant: TenantReport, time_zone: str) -> Table:
    rows = tuple(
        (found.rule.replace("_", " "), moment(one.at, time_zone), one.id, one.request_id or "-", one.difference)
        for found in tenant.mismatches
        for one in found.shown
    )
    hidden = [f"{found.rule.replace('_', ' ')}: {found.total:,} in all" for found in tenant.mismatches]
    columns = ("rule", "when", "id", "request", "difference")
    return Table("What does not match", columns, rows, note="; ".join(hidden))


def _requests_table(tenant: TenantReport) -> Table:
    rows = tuple((each.kind.lower(), each.error_code or "-", f"{each.requests:,}") for each in tenant.requests)
    return Table("Requests", ("outcome", "error", "requests"), rows, (2,))


def _decisions(tenant: TenantReport) -> Table:
    rows = tuple(
        (place(each.provider_id, each.model) or "nobody", each.policy, f"{each.decisions:,}")
        for each in tenant.decisions
    )
    return Table("Decisions", ("chosen", "policy", "decisions"), rows, (2,))


def _attempts(tenant: TenantReport) -> Table:
    rows = tuple(
        (
            place(each.provider_id, each.model),
            each.outcome.lower().replace("_", " "),
            each.usage_source.lower(),
            *(f"{number:,}" for number in (each.attempts, each.input_tokens, each.output_tokens)),
        )
        for each in tenant.attempts
    )
    columns = ("provider/model", "outcome", "usage from", "attempts", "input tokens", "output tokens")
    return Table("Attempts", columns, rows, (3, 4, 5))


def _charges(tenant: TenantReport) -> Table:
    totals: defaultdict[str, int] = defaultdict(int)
    for each in tenant.charges:
        totals[each.currency] += each.amount_nano
    rows = tuple(
        (
            place(each.provider_id, each.model),
            each.meter.lower().replace("_", " ") + (", estimated" if each.estimated else ""),
            f"{each.quantity:,}",
            money(each.amount_nano, each.currency),
            _share(each.amount_nano, totals[each.currency]),
        )
        for each in tenant.charges
    )
    return Table("Charges", ("provider/model", "meter", "quantity", "charged", "of all"), rows, (2, 3))


def _owners(tenant: TenantReport) -> Table:
    rows = tuple(
        (each.team_id or "-", each.project_id or "-", each.key_id or "-", money(each.amount_nano, each.currency))
        for each in tenant.owners
    )
    return Table("Who was charged", ("team", "project", "key", "charged"), rows, (3,))


def _estimates(tenant: TenantReport) -> Table:
    rows = tuple(
        (
            one.currency,
            money(one.reported_nano, one.currency),
            money(one.estimated_nano, one.currency),
            Share(one.percent),
            f"{one.percent} %",
        )
        for one in tenant.estimates
    )
    return Table("Reported and estimated", ("currency", "reported", "estimated", "", "estimated"), rows, (1, 2, 4))


def _holds(tenant: TenantReport) -> Table:
    rows = tuple(
        (
            each.kind.lower(),
            (each.reason or "-").replace("_", " "),
            each.limit_id or "-",
            f"{each.movements:,}",
            money(each.amount_nano, each.currency),
        )
        for each in tenant.holds
    )
    columns = ("movement", "reason", "refused by limit", "movements", "amount")
    return Table("Holds, overages and refusals", columns, rows, (3, 4))


def _late(tenant: TenantReport) -> Table:
    rows = tuple(
        (f"{each.holds:,}", money(each.estimated_nano, each.currency), money(each.charged_nano, each.currency))
        for each in tenant.late_commits
    )
    return Table("Committed after they had expired", ("holds", "charged at expiry", "really"), rows, (0, 1, 2))


def _budgets(tenant: TenantReport, time_zone: str) -> Table:
    rows = tuple(_budget(each, time_zone) for each in tenant.budgets)
    columns = ("on", "window", "ends", "spent", "of", "", "%")
    return Table("Budgets: the fullest window of the day", columns, rows, (3, 4, 6), _unlisted(tenant))


def _unlisted(tenant: TenantReport) -> str:
    """How many counters of limits on each of a kind are not listed; empty when all are."""
    listed = Counter(use.limit_id for use in tenant.budgets)
    by_limit = {use.limit_id: use for use in tenant.budgets}
    more = [
        f"{use.counters - listed[limit_id]:,} of {place_of(use.scope, use.scope_id)} ({use.window})"
        for limit_id, use in by_limit.items()
        if use.counters > listed[limit_id]
    ]
    return f"Less full and not listed: {', '.join(more)}." if more else ""


def _budget(use: BudgetUse, time_zone: str) -> tuple[Cell, ...]:
    return (
        place_of(use.scope, use.scope_id, use.counter),
        use.window + ("" if use.hard else ", soft"),
        moment(use.window_end, time_zone) if use.window_end else "-",
        money(use.spent_nano, use.currency),
        money(use.allowed_nano, use.currency),
        Share(use.percent, level_of(use.percent)),
        str(use.percent),
    )


def _ledger(tenant: TenantReport) -> Table:
    rows = tuple(
        (
            each.accounts,
            unit_name(each.currency),
            *(
                format_amount(amount, each.currency)
                for amount in (
                    each.debits_pending_nano,
                    each.credits_pending_nano,
                    each.debits_posted_nano,
                    each.credits_posted_nano,
                )
            ),
        )
        for each in tenant.ledger
    )
    columns = ("accounts", "unit", "debits pending", "credits pending", "debits posted", "credits posted")
    return Table("Trial balance of the day", columns, rows, (2, 3, 4, 5))


def _control_totals(tenant: TenantReport) -> Table:
    rows = tuple(
        (
            _mark(each.expected_nano != each.actual_nano),
            each.name,
            money(each.expected_nano, each.currency),
            money(each.actual_nano, each.currency),
        )
        for each in tenant.control_totals
    )
    return Table("Control totals", ("", "what must be the same", "one", "other"), rows, (2, 3))


def _set_aside(tenant: TenantReport) -> Table:
    rows = tuple(
        (each.sink, each.topic, each.state.lower(), each.reason.lower(), f"{each.records:,}")
        for each in tenant.set_aside
    )
    return Table("Records set aside", ("sink", "topic", "state", "reason", "records"), rows, (4,))


def moment(micros: int, time_zone: str) -> str:
    """A time on the wall clock, to the second, with its distance from UTC."""
    found = datetime.fromtimestamp(micros // MICROS_PER_SECOND, zone_of(time_zone))
    return found.isoformat(" ", "seconds").replace("+00:00", "Z")


def place(provider_id: str, model: str) -> str:
    """A model at its provider; empty for none."""
    return f"{provider_id}/{model}" if provider_id else ""


def _share(amount_nano: int, total_nano: int) -> Share:
    return Share(PERCENT * max(0, amount_nano) // total_nano if total_nano > 0 else 0)


def _requests(tenant: TenantReport, kind: str) -> int:
    return sum(each.requests for each in tenant.requests if each.kind == kind)


def _differing(tenant: TenantReport) -> int:
    return sum(each.expected_nano != each.actual_nano for each in tenant.control_totals)


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what} does" if count == 1 else f"{count:,} {what}s do"


def printable(text: str) -> str:
    """Names come from outside: what would steer a terminal or turn text around is shown as a replacement mark."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
