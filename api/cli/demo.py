"""`quaestor demo`: from nothing to a verified story: everything up, three teams, real traffic, and what came of it."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from api.audit.local import layout_of, trust_of
from api.audit.receipts import request_receipts
from api.cli import ledger, stack
from api.cli.audit_proofs import WAIT_SECONDS, write_receipts
from api.cli.audit_verify import show_files
from api.cli.control import control_session, new_key
from api.cli.load import DEFAULT_MODELS, report, run_load, wait_for_key
from api.cli.terminal import DataOption, note, table, terminal
from api.cli.verify import read_answers, run_verification, show_checks
from api.cli.why import read_story, show_story
from api.load.answers import AnswersFile
from api.load.calls import mixed_calls
from api.load.generator import Target
from api.settings import Settings, load_settings
from api.verify.run import SCOPES
from processors.control import Limit, limit_id_of, set_limit
from schemas.money import NANO_PER_UNIT, format_nano
from sinks.clickhouse.client import ClickHouse
from sinks.clickhouse.reads import ClickHouseReads, TeamModelCost
from sinks.postgres.plans import PostgresPlanStore

TENANT = "acme"
TEAMS = (("search", "web"), ("support", "helpdesk"), ("research", "lab"))
BUDGET_UNITS = 1_000
RATE_PER_SECOND = 80.0
CONCURRENCY = 24
SEED = 7
ROWS_SHOWN = 12
BAR_CHARACTERS = 24


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo")(demo)


def demo(
    requests: Annotated[int, typer.Option(min=1, help="Requests to send.")] = 2_000,
    leave: Annotated[bool, typer.Option("--exit", help="Stop everything afterwards; the data stays.")] = False,
    data: DataOption = None,
) -> None:
    """Bring everything up, send real traffic for three teams, and show what it cost, why, and that nothing was lost."""
    stack.up(data=data)
    settings = load_settings(data)
    try:
        good = tell(settings, requests)
    finally:
        if leave:
            stack.down(data=data)
    show_next_steps(stopped=leave)
    raise typer.Exit(0 if good else 1)


def tell(settings: Settings, requests: int) -> bool:
    """Send the traffic and print the story; whether every call was answered and nothing differs."""
    started_micros = time.time_ns() // 1_000
    keys = make_keys(settings)
    calls = mixed_calls(requests, RATE_PER_SECOND, SEED, len(keys), DEFAULT_MODELS)
    with tempfile.TemporaryDirectory() as folder:
        answers = Path(folder) / "answers.jsonl"
        note(f"{requests:,} requests of teams {', '.join(team for team, _ in TEAMS)}: chats, streams, embeddings")
        with AnswersFile(answers) as file:
            summary = run_load(Target(settings.gateway_url, keys, CONCURRENCY), calls, file, quiet=False)
        report(summary, requests, as_json=False)
        known = read_answers(answers) or []
    checks = run_verification(settings, SCOPES, known, quiet=False)
    show_costs(asyncio.run(read_costs(settings, started_micros)))
    ledger.balance(tenant=TENANT, data=settings.data)
    show_checks(checks)
    good = summary.answered == requests and all(check.ok for check in checks)
    if known:
        show_story(terminal(), read_story(settings, known[-1]))
        good = show_receipt(settings, known[-1]) and good
    return good


def make_keys(settings: Settings) -> list[str]:
    """A tenant with a monthly limit and one key per team; returns when the gateway accepts them."""
    limit = Limit(
        limit_id=limit_id_of(TENANT, "tenant", TENANT, "month"),
        tenant_id=TENANT,
        scope="tenant",
        scope_id=TENANT,
        amount_nano=BUDGET_UNITS * NANO_PER_UNIT,
        currency="USD",
        window="month",
    )
    with control_session(settings) as session:
        keys = [new_key(session, TENANT, team, project, name="demo")[1] for team, project in TEAMS]
        session.settle(lambda state, origin: set_limit(state, limit, origin))
    for key in keys:
        wait_for_key(settings.gateway_url, key)
    return keys


async def read_costs(settings: Settings, since_micros: int) -> list[TeamModelCost]:
    """Cost by team and model since a time, from the hourly rollups of ClickHouse."""
    plans = PostgresPlanStore(settings.postgres_dsn, "demo")
    reads = ClickHouseReads(ClickHouse(settings.clickhouse_url), plans)
    try:
        return await reads.cost_by_team_and_model(TENANT, since_micros)
    finally:
        await reads.close()
        await plans.close()


def show_receipt(settings: Settings, request_id: str) -> bool:
    """Write a request's receipts, print the last one and check it offline; whether it proves its event."""
    found = asyncio.run(request_receipts(settings, request_id, WAIT_SECONDS, lambda _done, _total: None))
    if found is None:
        return False
    path = Path(write_receipts(found, settings.data / "receipts" / request_id)[-1]["file"])
    trust = trust_of(layout_of(settings))
    words = Text.assemble("\n", (path.name, "bold"), f"\n{path.read_text(encoding='utf-8')}")
    terminal().print(words, soft_wrap=True)
    note(f"again, with nothing but file and key: quaestor audit verify {path} --key '{trust.keys[0].vkey}'")
    return show_files([path], trust)


def show_costs(costs: list[TeamModelCost]) -> None:
    """Print cost by team and model with a bar each, dearest first."""
    most = max((each.amount_nano for each in costs), default=0) or 1
    rows = [
        (each.team_id, each.model, f"{each.tokens:,}", format_nano(each.amount_nano), bar(each.amount_nano, most))
        for each in sorted(costs, key=lambda each: -each.amount_nano)[:ROWS_SHOWN]
    ]
    columns = ("team", "model", "tokens", "USD", "")
    terminal().print(table("Cost by team and model (ClickHouse, hourly rollup)", columns, rows, numbers=(2, 3)))


def bar(amount_nano: int, most_nano: int) -> str:
    """A bar as long as the amount's share of the most."""
    return "█" * (BAR_CHARACTERS * amount_nano // most_nano)


def show_next_steps(*, stopped: bool) -> None:
    """Where to look next, on a product that runs or on one that is to be started again first."""
    rows = [
        ("quaestor status", "processes, lag, freshness"),
        ("quaestor tail quaestor.costs --from beginning --limit 5", "events as they stand in Kafka"),
        ("quaestor audit verify", "the signed audit log, derived again from its entries"),
        ("quaestor load --requests 1000", "more traffic"),
        ("quaestor down", "stop; nothing is lost"),
    ]
    if stopped:
        rows = [("quaestor up", "all of this again: nothing is lost"), *rows[:-1]]
    terminal().print(table("Where to look next", ("command", "what it shows"), rows))
