"""`quaestor ledger balance | statement`: what stands in the accounts, and how it came there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, TypeVar

import typer

from api.cli.terminal import DataOption, JsonOption, fail, note, print_json, table, terminal
from api.cli.times import ago_or_time, now_micros
from api.settings import load_settings
from schemas.money import format_amount
from sinks.postgres.ledger_figures import AccountBalance, Period, StatementLine
from sinks.postgres.reads import PostgresReads

T = TypeVar("T")
TenantOption = Annotated[str | None, typer.Option("--tenant", help="One tenant; all of them when left out.")]
PrefixOption = Annotated[str | None, typer.Option("--account", help="Accounts whose name begins so.")]
SinceOption = Annotated[
    str | None, typer.Option("--since", help="Only what moved from then on: 2026-11-20, 2026-11-20T08:00+01:00, 24h.")
]
UntilOption = Annotated[str | None, typer.Option("--until", help="Only what moved before then.")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="Most lines.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    ledger = typer.Typer(name="ledger", help="The double-entry ledger.", no_args_is_help=True)
    ledger.command("balance")(balance)
    ledger.command("statement")(statement)
    app.add_typer(ledger)


def balance(
    tenant: TenantOption = None,
    account: PrefixOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """The trial balance: debits and credits of every account, pending and posted, with their sums per currency.

    What stands on the accounts now; with --since or --until what moved on them in that time.
    """
    dsn, period = load_settings(data).postgres_dsn, _period(since, until)
    found = _read(dsn, lambda reads: reads.trial_balance(tenant, account, period))
    if as_json:
        accounts, totals = ([vars(row) for row in rows] for rows in (found.accounts, found.totals))
        print_json({"accounts": accounts, "totals": totals, "account_count": found.account_count})
        return
    columns = ("tenant", "account", "currency", "debits pending", "credits pending", "debits posted", "credits posted")
    lines = [_balance_line(row) for row in [*found.accounts, *found.totals]]
    terminal().print(table("Trial balance", columns, lines, numbers=(3, 4, 5, 6)))
    if len(found.accounts) < found.account_count:
        shown = f"{len(found.accounts):,} of {found.account_count:,} accounts are shown"
        note(f"{shown}; the totals are of all of them. --tenant and --account bound what is asked.")


def statement(
    account: Annotated[str, typer.Argument(help="The whole name, for example budget/<limit>/available.")],
    tenant: Annotated[str, typer.Option("--tenant", help="Whose account.")],
    since: SinceOption = None,
    until: UntilOption = None,
    limit: LimitOption = 50,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """What the newest transfers did to one account, newest first; --since and --until bound their time."""
    dsn, period = load_settings(data).postgres_dsn, _period(since, until)
    found = _read(dsn, lambda reads: reads.statement(tenant, account, limit, period))
    if not found.lines and not _read(dsn, lambda reads: reads.has_account(tenant, account)):
        fail(f"tenant {tenant!r} has no account {account!r}: `quaestor ledger balance --tenant {tenant}` lists them")
    if as_json:
        lines = [vars(line) for line in found.lines]
        print_json({"tenant_id": tenant, "account": account, "lines": lines, "line_count": found.line_count})
        return
    columns = ("when (UTC)", "kind", "memo", "other account", "side", "pending", "posted", "currency")
    rows = [_statement_line(line) for line in found.lines]
    terminal().print(table(f"{tenant}: {account}", columns, rows, numbers=(5, 6)))
    if len(found.lines) < found.line_count:
        shown = f"The newest {len(found.lines):,} of {found.line_count:,} lines are shown"
        note(f"{shown}; --limit, --since and --until show others.")


def _period(since: str | None, until: str | None) -> Period | None:
    """The time that was asked about; None for all of it."""
    if since is None and until is None:
        return None
    now, always = now_micros(), Period()
    return Period(
        always.since if since is None else ago_or_time(since, now),
        always.until if until is None else ago_or_time(until, now),
    )


def _read(dsn: str, question: Callable[[PostgresReads], Awaitable[T]]) -> T:
    async def read() -> T:
        reads = PostgresReads(dsn)
        try:
            return await question(reads)
        finally:
            await reads.close()

    return asyncio.run(read())


def _balance_line(row: AccountBalance) -> tuple[str, ...]:
    amounts = (row.debits_pending_nano, row.credits_pending_nano, row.debits_posted_nano, row.credits_posted_nano)
    return (row.tenant_id, row.account, row.currency, *(format_amount(amount, row.currency) for amount in amounts))


def _statement_line(line: StatementLine) -> tuple[str, ...]:
    when = datetime.fromtimestamp(line.occurred_at / 1_000_000, UTC).isoformat(" ", "milliseconds")
    return (
        when.removesuffix("+00:00"),
        line.kind,
        line.memo,
        line.other_account,
        "debit" if line.is_debit else "credit",
        _signed(line.pending_nano, line.currency),
        _signed(line.posted_nano, line.currency),
        line.currency,
    )


def _signed(amount_nano: int, currency: str) -> str:
    return f"{'+' if amount_nano > 0 else ''}{format_amount(amount_nano, currency)}" if amount_nano else ""
