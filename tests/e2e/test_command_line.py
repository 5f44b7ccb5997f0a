"""The command line as a user meets it, against the running product."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.product import QUAESTOR, Product
from tests.support.commands import Commands
from tests.support.gateway_stack import wait_for

SECONDS_MAX = 30.0


def test_status_names_every_process(product: Product) -> None:
    """All parts run, each with lag and freshness where it follows the log."""
    processes = product.processes()

    expected = {"kafka", "registry", "postgres", "redis", "clickhouse", "gateway", "simulator", "stream-ledger"}
    expected |= {
        "stream-budgets",
        "stream-health",
        "stream-guardrails",
        "sink-postgres",
        "sink-redis",
        "sink-clickhouse",
        "sink-audit",
    }
    assert expected <= set(processes)
    assert {"running"} == {process["state"] for process in processes.values()}
    assert {"name", "pid", "state", "lag_events", "freshness_seconds"} <= set(processes["sink-postgres"])


def test_status_of_every_sink_has_lag_and_freshness(product: Product) -> None:
    """Numbers, once there was something to follow."""
    product.run("load", "--requests", "2", "--key", product.key("fresh"))
    product.run("verify", "parity")

    sinks = {name: process for name, process in product.processes().items() if name.startswith("sink-")}

    assert {"sink-postgres", "sink-redis", "sink-clickhouse", "sink-audit"} == set(sinks)
    told = {name: (process["lag_events"], process["freshness_seconds"]) for name, process in sinks.items()}
    assert [] == [name for name, (lag, age) in told.items() if type(lag) is not int or type(age) is not float], told


def test_every_endpoint_takes_connections(product: Product) -> None:
    """Where it says, and every process that `status` knows is among them."""
    rows = product.json("endpoints")["endpoints"]

    for row in rows:
        with socket.create_connection((row["host"], row["port"]), timeout=5):
            pass
    assert set(product.processes()) == {row["name"].removesuffix(" metrics") for row in rows}


def test_endpoints_carry_no_credentials(product: Product) -> None:
    """Every URL of the running stack can be shown to anyone."""
    endpoints = product.run("endpoints", "--json")

    assert "gateway" in endpoints
    assert "@" not in endpoints


def test_up_twice_is_one(product: Product) -> None:
    """A second `up` on the same data directory changes nothing."""
    before = {name: process["pid"] for name, process in product.processes().items()}

    product.run("up")

    assert before == {name: process["pid"] for name, process in product.processes().items()}


def test_a_revoked_key_is_refused(product: Product) -> None:
    """A key works, is listed without its secret, and is refused soon after it is revoked."""
    made = product.json("key", "create", "--tenant", "revoked", "--team", "a", "--project", "b")
    call = ["load", "--requests", "1", "--key", made["key"], "--json"]
    assert 1 == json.loads(product.run(*call))["answered"]
    assert made["key"] not in product.run("key", "list", "--json")

    product.run("key", "revoke", made["id"])

    answer = json.loads(product.run(*call, check=False))
    assert {"401": 1} == answer["failed"]


def test_a_budget_refuses_what_does_not_fit(product: Product) -> None:
    """With a limit of a millionth of a dollar no call is admitted, and the refusal is an event."""
    key = product.key("poor")
    product.run("budget", "set", "--tenant", "poor", "--amount", "0.000001", "--currency", "USD", "--window", "total")

    answer = json.loads(product.run("load", "--requests", "1", "--key", key, "--json", check=False))

    assert {"429": 1} == answer["failed"]
    events = product.run(
        "tail",
        "quaestor.requests",
        "--from",
        "beginning",
        "--tenant",
        "poor",
        "--kind",
        "REFUSED",
        "--limit",
        "1",
        "--json",
    )
    assert "budget_exceeded" in events


def test_budgets_say_how_far_they_are_used_up(product: Product) -> None:
    """Each limit with what was charged in its window, to the unit; an end user is known by a handle alone."""
    key = product.key("frugal")
    for options in (["--run", "*"], ["--project", "*"], ["--user", "carol@example.com"]):
        product.run("budget", "set", "--tenant", "frugal", "--unit", "requests", "--amount", "4", *options)
    product.run("load", "--requests", "3", "--key", key)
    product.run("verify", "budgets")

    limits = product.json("budget", "status", "--tenant", "frugal")["limits"]

    used = {(one["scope"], one["charged"], one["left"], one["percent"]) for one in limits}
    assert {("project", "3", "1", 75), ("user", "0", "4", 0)} == used
    control = product.run("tail", "quaestor.control", "--from", "beginning", "--no-follow")
    assert "frugal" in control
    assert "carol" not in control + product.run("budget", "list")


def test_why_tells_the_whole_story(product: Product, tmp_path: Path) -> None:
    """Every step of a request stands in its story, in order."""
    answers = tmp_path / "answers.jsonl"
    product.run("load", "--requests", "1", "--key", product.key("curious"), "--answers", str(answers))
    request_id = json.loads(answers.read_text(encoding="utf-8"))["request_id"]
    product.run("verify", "parity")

    story = product.json("why", request_id)

    kinds = [step["kind"] for step in story["steps"]]
    assert "RECEIVED" == kinds[0]
    assert {"DECISION", "PLACED", "ATTEMPT", "CHARGE", "COMMITTED", "COMPLETED"} <= set(kinds)


def test_why_of_an_unknown_request_says_so(product: Product) -> None:
    """One line, exit code 1."""
    done = subprocess.run(
        [str(QUAESTOR), "why", "01930000-0000-7000-8000-000000000000"],
        capture_output=True,
        text=True,
        env=product.environment(),
        timeout=60,
        check=False,
    )

    assert (1, 1) == (done.returncode, done.stderr.count("\n"))


@pytest.mark.parametrize(
    "line",
    [["endpoints", "--json"], ["key", "list", "--json"], ["why", "01930000-0000-7000-8000-000000000000"], ["why"]],
    ids=["an answer", "from the log", "a refusal", "a wrong line"],
)
def test_a_forked_command_is_the_command(product: Product, tmp_path: Path, line: list[str]) -> None:
    """It prints the same, on the same streams, and ends with the same code."""
    commands = Commands(tmp_path)
    by_itself, forked = (commands.run(*line, environment=product.environment(), timeout=60) for _ in range(2))
    commands.close()

    ends = [(done.returncode, done.stdout, done.stderr) for done in (by_itself, forked)]
    assert ends[0] == ends[1]


def test_a_recorded_trace_is_replayed_as_far_as_asked(product: Product, tmp_path: Path) -> None:
    """So many different requests are answered, and each of them is in every store."""
    trace, answers = tmp_path / "trace.csv", tmp_path / "answers.jsonl"
    rows = [f"2023-11-16 18:15:{second:02}.6805900,{300 + second},{10 + second}" for second in range(30)]
    trace.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows, ""]), encoding="utf-8")
    replay = ["load", "--trace", str(trace), "--speed", "50", "--limit", "20", "--answers", str(answers)]

    product.run(*replay, "--key", product.key("replayed"))

    answered = {json.loads(line)["request_id"] for line in answers.read_text(encoding="utf-8").splitlines()}
    report = product.json("verify", "all", "--answers", str(answers))
    assert (20, 20, True) == (len(answered), report["answers"], report["ok"])


def test_answers_that_do_not_fit_on_the_disk_end_a_load_in_one_line(product: Product) -> None:
    """With what to do about it."""
    done = product.done("load", "--requests", "20", "--key", product.key("full"), "--answers", "/dev/full")

    assert (1, 1) == (done.returncode, done.stderr.count("\n")), done.stderr
    assert done.stderr.startswith("quaestor: cannot write the answers file /dev/full: ")
    assert "free some space" in done.stderr


def test_verify_all_is_green_and_speaks_json(product: Product) -> None:
    """Every check of the shape scripts rely on."""
    report = product.json("verify", "all")

    assert report["ok"]
    assert {"name", "ok", "expected", "actual", "first_difference"} <= set(report["checks"][0])


def test_budgets_are_verified_under_traffic(product: Product) -> None:
    """The live counters are the fold of the log at their cursor, and the ledger is the holds', in every look."""
    loading = product.start("load", "--requests", "200", "--rate", "25", "--key", product.key("traffic"), "--json")
    reports = []
    while loading.poll() is None:
        reports.append(product.json("verify", "budgets", check=False))
    loading.communicate()

    assert 2 < len(reports)
    assert [] == [check for report in reports for check in report["checks"] if not check["ok"]]


def test_rollups_that_are_their_facts_are_left_alone(product: Product) -> None:
    """Every hour of them is compared, behind whatever else there is to bring forward; sinks go on beside it."""
    parts = product.json("migrate", "--rebuild-rollups")["parts"]

    assert ("rollups", True, "nothing to do") == tuple(parts[-1][name] for name in ("part", "ok", "detail"))


def test_the_audit_log_is_laid_out_as_tiles(product: Product) -> None:
    """`audit info` names a directory with a checkpoint of the origin, size and root that it says."""
    checkpoint = Path(product.json("audit", "info")["directory"]) / "checkpoint"
    found: dict[str, Any] = {}

    def is_the_same_after() -> bool:
        before = checkpoint.read_text(encoding="utf-8")
        found.update(product.json("audit", "info"), note=before.split("\n"))
        return before == checkpoint.read_text(encoding="utf-8")

    wait_for(is_the_same_after, SECONDS_MAX)
    assert {"origin", "vkey", "directory", "size", "root"} <= set(found)
    assert [found["origin"], str(found["size"]), found["root"]] == found["note"][:3]
    assert found["size"] > 0


def test_what_an_outsider_checks(product: Product, tmp_path: Path) -> None:
    """A request's receipts, opened; its tenant's bundle; the log's directory; all with nothing but the public key."""
    answers = tmp_path / "answers.jsonl"
    product.run("load", "--requests", "1", "--key", product.key("proven"), "--answers", str(answers))
    request_id = json.loads(answers.read_text(encoding="utf-8"))["request_id"]
    info = product.json("audit", "info")

    made = product.json("audit", "receipt", request_id, "--out", str(tmp_path), "--open")
    files = [each["file"] for each in made["receipts"]]
    shown = product.json("audit", "verify", *files, "--key", info["vkey"])
    assert {("proven", request_id)} == {(each["tenant"], each["request_id"]) for each in shown["files"]}
    assert all(each["record"] for each in shown["files"])
    bundle = tmp_path / "proven.audit-export"
    product.run("audit", "export", "--tenant", "proven", "--out", str(bundle))
    (whole,) = product.json("audit", "verify", str(bundle), "--key", info["vkey"])["files"]
    assert ("proven", True) == (whole["tenant"], whole["entries"] >= len(files))
    assert product.json("audit", "verify", "--log", info["directory"], "--key", info["vkey"])["ok"]
    assert product.json("audit", "replay")["ok"]


def test_the_trial_balance_balances(product: Product) -> None:
    """Debits equal credits per currency, and something was posted."""
    product.run("load", "--requests", "5", "--key", product.key("balanced"))
    product.run("verify", "ledger")
    totals = product.json("ledger", "balance")["totals"]

    assert [] == [
        each
        for each in totals
        if (each["debits_pending_nano"], each["debits_posted_nano"])
        != (each["credits_pending_nano"], each["credits_posted_nano"])
    ]
    assert any(each["debits_posted_nano"] for each in totals)


@pytest.mark.parametrize("command", ["up", "status", "key", "verify", "load", "why"])
def test_every_command_has_help(product: Product, command: str) -> None:
    """--help explains itself."""
    assert "Usage" in product.run(command, "--help")


def test_the_report_of_what_was_sent(product: Product, tmp_path: Path) -> None:
    """The day so far matches and is not final; a day long past is whole, and its files are there."""
    product.run("load", "--requests", "5", "--key", product.key("reported"))

    today = product.json("report", "--day", "today", check=False)
    product.run("report", "--day", "2026-01-01", "--out", str(tmp_path))

    (reported,) = [tenant for tenant in today["tenants"] if tenant["tenant_id"] == "reported"]
    assert (False, [], True) == (today["final"], today["standing"]["lacking"], reported["ok"])
    assert 5 == sum(each["requests"] for each in reported["requests"] if each["kind"] == "COMPLETED")
    assert ["html", "json", "txt"] == sorted(path.suffix[1:] for path in tmp_path.iterdir())
