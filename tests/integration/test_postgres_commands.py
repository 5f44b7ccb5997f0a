"""The ledger's and migration's commands on real Postgres, as a person would type them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from api.cli.main import application
from sinks.postgres.migrations import migrate
from tests.integration.test_postgres_ledger import Desk
from tests.support.databases import postgres_databases
from tests.support.stories import request_story

pytestmark = pytest.mark.stack
NOWHERE = "127.0.0.1:9"


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Settings of a stack of which only Postgres runs; answers its address."""
    dsn = postgres_databases().dsn("commands")
    monkeypatch.setenv("QUAESTOR_DATA", str(tmp_path))
    monkeypatch.setenv("QUAESTOR_POSTGRES_DSN", dsn)
    monkeypatch.setenv("QUAESTOR_KAFKA_BOOTSTRAP", NOWHERE)
    monkeypatch.setenv("QUAESTOR_REGISTRY_URL", f"http://{NOWHERE}")
    monkeypatch.setenv("QUAESTOR_CLICKHOUSE_URL", f"http://{NOWHERE}")
    return dsn


def run(*arguments: str) -> Result:
    """What a command says."""
    return CliRunner().invoke(application(list(arguments)), arguments)


def test_migrate_names_each_part_that_is_away(settings: str) -> None:
    """Postgres comes forward, the rest is named with its reason, and the exit code says that not all is well."""
    result = run("migrate", "--wait", "0.1", "--json")
    parts = {part["part"]: part for part in json.loads(result.stdout)["parts"]}
    assert {name: part["ok"] for name, part in parts.items()} == {
        "kafka topics": False,
        "schemas": False,
        "postgres": True,
        "clickhouse": False,
    }
    assert "still away" in parts["schemas"]["detail"]
    assert result.exit_code == 1


@pytest.fixture
async def filled(settings: str) -> str:
    """A ledger with two requests."""
    await migrate(settings)
    desk = Desk(settings)
    for number in range(2):
        await desk.write(request_story(number))
    await desk.sink.close()
    return settings


def test_the_trial_balance_balances(filled: str) -> None:
    """Totals per currency have equal debits and credits, in JSON and in the table."""
    (totals,) = json.loads(run("ledger", "balance", "--json").stdout)["totals"]
    assert totals["debits_posted_nano"] == totals["credits_posted_nano"] == 9_000
    assert "TOTAL" in run("ledger", "balance", "--tenant", "acme").stdout


def test_a_statement_adds_up_to_the_balance(filled: str) -> None:
    """The lines of an account sum to its balances."""
    account = "budget/limit_1/available"
    lines = json.loads(run("ledger", "statement", account, "--tenant", "acme", "--json").stdout)["lines"]
    (balance,) = json.loads(run("ledger", "balance", "--account", account, "--json").stdout)["accounts"]
    assert sum(line["posted_nano"] for line in lines) == balance["debits_posted_nano"] == 3_000
    assert sum(line["pending_nano"] for line in lines) == balance["debits_pending_nano"] == 0


ACCOUNT = "budget/limit_1/available"


@pytest.mark.parametrize("period", [(), ("--since", "2026-11-01")], ids=["now", "moved"])
def test_totals_are_of_every_account(filled: str, monkeypatch: pytest.MonkeyPatch, period: tuple[str, ...]) -> None:
    """Of those that one answer has no room for too, and the answer says that there are more."""
    monkeypatch.setattr("sinks.postgres.reads.ROWS_MAX", 3)
    found = json.loads(run("ledger", "balance", *period, "--json").stdout)
    shown = run("ledger", "balance", *period)
    (totals,) = found["totals"]

    assert (3, 5) == (len(found["accounts"]), found["account_count"])
    assert totals["debits_posted_nano"] == totals["credits_posted_nano"] == 9_000
    assert "3 of 5 accounts are shown; the totals are of all of them." in shown.stderr


def test_totals_are_of_what_was_asked(filled: str) -> None:
    """Accounts that --account leaves out are in no sum, and nothing is said of them."""
    shown = run("ledger", "balance", "--account", "payable/", "--json")
    found = json.loads(shown.stdout)

    assert (1, [3_000], [0]) == (
        found["account_count"],
        [each["credits_posted_nano"] for each in found["totals"]],
        [each["debits_posted_nano"] for each in found["totals"]],
    )
    assert "are shown" not in run("ledger", "balance", "--account", "payable/").stderr


def test_a_statement_says_what_it_leaves_out(filled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many lines there are, whichever bound cut them."""
    asked = ("ledger", "statement", ACCOUNT, "--tenant", "acme")
    whole = json.loads(run(*asked, "--json").stdout)
    limited = run(*asked, "--limit", "2").stderr
    monkeypatch.setattr("sinks.postgres.reads.ROWS_MAX", 3)
    cut = json.loads(run(*asked, "--json").stdout)

    assert (6, 6) == (len(whole["lines"]), whole["line_count"])
    assert "The newest 2 of 6 lines are shown" in limited
    assert (whole["lines"][:3], 6) == (cut["lines"], cut["line_count"])


@pytest.mark.parametrize(
    ("period", "posted_nano"),
    [
        (("--since", "2026-11-01", "--until", "2026-11-02"), 3_000),
        (("--since", "2026-11-01T00:00:00.001"), 1_500),
        (("--until", "2026-11-01T00:00:00.001"), 1_500),
        (("--since", "2026-11-02"), 0),
        (("--until", "2026-11-01T01:00:00+01:00"), 0),
    ],
)
def test_what_moved_in_a_period(filled: str, period: tuple[str, ...], posted_nano: int) -> None:
    """The trial balance and the statement of a period have what happened in it, and agree."""
    accounts = json.loads(run("ledger", "balance", *period, "--account", ACCOUNT, "--json").stdout)["accounts"]
    lines = json.loads(run("ledger", "statement", ACCOUNT, "--tenant", "acme", *period, "--json").stdout)["lines"]

    assert posted_nano == sum(each["debits_posted_nano"] for each in accounts)
    assert posted_nano == sum(each["posted_nano"] for each in lines)
    assert 0 == sum(each["debits_pending_nano"] for each in accounts)


@pytest.mark.parametrize(("account", "tenant"), [("budget/limit_1", "acme"), (ACCOUNT, "nobody")])
def test_a_statement_of_no_account_is_no_answer(filled: str, account: str, tenant: str) -> None:
    """A slip in the name or the tenant ends with one line and 1; an account at rest in a period is an answer."""
    unknown = run("ledger", "statement", account, "--tenant", tenant)
    at_rest = run("ledger", "statement", ACCOUNT, "--tenant", "acme", "--since", "2026-11-02")

    assert (1, 1, 0) == (unknown.exit_code, unknown.stderr.count("\n"), at_rest.exit_code)
    assert f"tenant {tenant!r} has no account {account!r}" in unknown.stderr
