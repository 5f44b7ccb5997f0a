"""The commands of the control plane, on a log in memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from api.cli import control_seed, control_usage
from api.control.session import ControlRefusedError
from api.control.standings import LimitStanding, standings_of
from api.settings import Settings
from processors.budgets import Counter, Sums
from processors.control import Limit
from sinks.redis.reads import TenantState
from tests.support.console import LiveStates
from tests.support.control_commands import APP, RUNNER, Control


def key(commands: Control, **options: str) -> dict[str, Any]:
    """A created key."""
    given = {"tenant": "acme", "team": "search", "project": "web"} | options
    return commands.json("key", "create", *(part for name, value in given.items() for part in (f"--{name}", value)))


def test_a_key_is_printed_once_and_kept_as_a_hash(commands: Control) -> None:
    """`key create --json` gives id and key; the log has the SHA-256 only."""
    created = key(commands)
    (record,) = (record for records in commands.log.records.values() for record in records)

    assert record.value is not None
    assert (True, True, False, True) == (
        created["id"].startswith("key_"),
        created["key"].startswith("qk_") and len(created["key"]) == 46,
        created["key"].encode() in record.value,
        hashlib.sha256(created["key"].encode()).hexdigest().encode() in record.value,
    )


def test_keys_are_listed_without_their_texts(commands: Control) -> None:
    """`key list` shows who pays and what is allowed."""
    created = key(commands, models="fast, gpt-4o*")
    listed = commands.run("key", "list", "--json")

    assert ([(created["id"], ["fast", "gpt-4o*"])], False) == (
        [(row["id"], row["models"]) for row in json.loads(listed)["keys"]],
        created["key"] in listed,
    )


def test_revoked_keys_are_hidden_unless_asked_for(commands: Control) -> None:
    """`key revoke` ends a key; `key list --all` still shows it."""
    created = key(commands)
    commands.json("key", "revoke", created["id"])

    assert (0, 1) == (len(commands.json("key", "list")["keys"]), len(commands.json("key", "list", "--all")["keys"]))


def test_a_refusal_ends_in_one_line(commands: Control) -> None:
    """A refused change raises a fault whose message is one line."""
    with pytest.raises(ControlRefusedError) as refused:
        commands.run("key", "revoke", "key_none")

    assert "\n" not in str(refused.value)


def test_a_provider_is_added_listed_and_removed(commands: Control) -> None:
    """Providers come and go; only the reference of the secret is known."""
    added = ("provider", "add", "openai", "--base-url", "https://api.openai.com/v1", "--secret", "env:OPENAI_API_KEY")
    commands.json(*added, "--model", "gpt-4o", "--model", "small=gpt-4o-mini")
    (listed,) = commands.json("provider", "list")["providers"]
    commands.run("provider", "remove", "openai")

    assert ({"gpt-4o": "gpt-4o", "small": "gpt-4o-mini"}, "env:OPENAI_API_KEY", []) == (
        listed["models"],
        listed["secret"],
        commands.json("provider", "list")["providers"],
    )


def test_a_provider_is_not_changed_by_accident(commands: Control) -> None:
    """Adding another one under a name that is taken needs --replace."""
    commands.run("provider", "add", "p", "--base-url", "https://a.example/v1")
    with pytest.raises(ControlRefusedError, match="--replace"):
        commands.run("provider", "add", "p", "--base-url", "https://b.example/v1")
    commands.run("provider", "add", "p", "--base-url", "https://b.example/v1", "--replace")

    assert "https://b.example/v1" == commands.json("provider", "list")["providers"][0]["base_url"]


def test_a_route_keeps_its_order(commands: Control) -> None:
    """Candidates are tried as given; models may have slashes."""
    commands.run("provider", "add", "p", "--base-url", "https://a.example/v1")
    commands.run("route", "set", "smart", "--candidate", "p/org/large", "--candidate", "p/small")

    assert [{"provider": "p", "model": "org/large"}, {"provider": "p", "model": "small"}] == (
        commands.json("route", "list")["routes"][0]["candidates"]
    )


def test_a_budget_set_again_is_one_budget(commands: Control) -> None:
    """Setting a limit anew changes it; setting it equal writes nothing."""
    for amount in ("100", "12.50", "12.5"):
        commands.run("budget", "set", "--tenant", "acme", "--amount", amount, "--currency", "USD", "--window", "month")

    assert (["12.50"], 2) == ([row["amount"] for row in commands.json("budget", "list")["limits"]], commands.events())


def test_a_limit_in_a_currency_without_rate_says_what_is_missing(commands: Control) -> None:
    """Calls under it would be refused until there is one; of dollars and tokens nothing is said."""
    for unit in ("EUR", "USD", "tokens"):
        result = RUNNER.invoke(APP, ("budget", "set", "--tenant", "acme", "--amount", "1", "--unit", unit))
        assert ("quaestor rate set USD EUR" in result.stderr) == (unit == "EUR")

    commands.run("rate", "set", "USD", "EUR", "0.9", "--dated", "2026-11-20", "--source", "treasury")
    result = RUNNER.invoke(APP, ("budget", "set", "--tenant", "acme", "--amount", "2", "--unit", "EUR"))
    assert "rate set" not in result.stderr
    assert "1 USD is 0.90 EUR, 2026-11-20, treasury" in result.stderr


def test_a_new_installation_has_a_rate_for_the_profile(commands: Control) -> None:
    """A dated fact of the European Central Bank, told where a limit in euros is set; another one stays."""
    control_seed.seed_defaults(Settings())
    result = RUNNER.invoke(APP, ("budget", "profile", "eu-default", "--tenant", "acme"))
    assert "1 USD is 0.89509488 EUR, 2026-10-30, European Central Bank" in result.stderr

    commands.run("rate", "set", "USD", "EUR", "0.9", "--dated", "2026-11-20", "--source", "treasury")
    control_seed.seed_defaults(Settings())
    assert "0.90" == commands.json("rate", "list")["rates"][0]["rate"]


def test_a_budget_may_stand_on_a_key(commands: Control) -> None:
    """A limit on a key names it, and goes with `budget remove`."""
    created = key(commands)
    made = commands.json(
        "budget", "set", "--tenant", "acme", "--key", created["id"], "--amount", "1", "--window", "day"
    )
    commands.run("budget", "remove", made["id"])

    assert ("key", created["id"], []) == (made["scope"], made["scope_id"], commands.json("budget", "list")["limits"])


@pytest.mark.parametrize("amount", ["1e3x", "0.0000000001", "NaN"])
def test_an_amount_that_is_none_is_refused(commands: Control, amount: str) -> None:
    """Amounts are exact decimals."""
    result = RUNNER.invoke(APP, ["budget", "set", "--tenant", "acme", "--amount", amount])

    assert (2, 0) == (result.exit_code, commands.events())


def test_a_price_set_by_hand_leaves_the_others(commands: Control) -> None:
    """`price set` takes amounts per million tokens and merges into the book."""
    for model in ("a", "b"):
        commands.run("price", "set", "p", model, "--input", "2.50", "--output", "10", "--cached-input", "0.075")

    assert [("a", "2.50", "0.075", "10.00"), ("b", "2.50", "0.075", "10.00")] == [
        (row["model"], row["input"], row["cached_input"], row["output"])
        for row in commands.json("price", "list")["prices"]
    ]


def test_a_feed_is_imported_with_a_report(commands: Control, tmp_path: Path) -> None:
    """`price import` publishes what it could take and reports the rest."""
    feed = tmp_path / "feed.json"
    units = '{"request_token": {"price": 0.00007499999999999999}, "response_token": {"price": 0.0001}}'
    feed.write_text(f'{{"default": {{}}, "m": {{"pricing_config": {{"pay_as_you_go": {units}}}}}}}', encoding="utf-8")
    report = commands.json("price", "import", str(feed), "--provider", "p", "--dated", "2026-01-02")
    shown = commands.json("price", "show", "p", "m")

    assert (1, ["SKIPPED", "ROUNDED"], "0.75", "2026-01-02", report["version"]) == (
        report["prices"],
        [finding["kind"] for finding in report["findings"]],
        shown["input"],
        shown["dated"],
        shown["version"],
    )


def test_a_dry_run_publishes_nothing(commands: Control, tmp_path: Path) -> None:
    """`--dry-run` reports only."""
    feed = tmp_path / "feed.json"
    feed.write_text('{"default": {}}', encoding="utf-8")
    commands.run("price", "import", str(feed), "--provider", "p", "--dry-run")

    assert 0 == commands.events()


def test_seeding_twice_does_it_once(commands: Control) -> None:
    """A new installation gets the simulator, prices and aliases; a second time changes nothing."""
    first = control_seed.seed_defaults(Settings())
    second = control_seed.seed_defaults(Settings())

    assert (10, [], {"default", "fast", "smart"}) == (
        len(first),
        second,
        {row["alias"] for row in commands.json("route", "list")["routes"]},
    )


def test_seeding_leaves_what_people_changed(commands: Control) -> None:
    """An alias or a price that was set by hand stays."""
    commands.run("provider", "add", "p", "--base-url", "https://a.example/v1")
    commands.run("route", "set", "fast", "--candidate", "p/x")
    commands.run("price", "set", "openai", "gpt-4o", "--input", "1", "--output", "1")
    control_seed.seed_defaults(Settings())

    fast = next(row for row in commands.json("route", "list")["routes"] if row["alias"] == "fast")

    assert ("p", 1) == (
        fast["candidates"][0]["provider"],
        len(commands.json("price", "list", "--provider", "openai")["prices"]),
    )


def test_seeding_follows_the_simulators_address(commands: Control) -> None:
    """With other ports, the simulator is where the settings say."""
    control_seed.seed_defaults(Settings())
    done = control_seed.seed_defaults(Settings(simulator_url="http://127.0.0.1:9999/v1"))

    assert ["provider simulator"] == done


@pytest.mark.parametrize("arguments", [("key", "list"), ("provider", "list"), ("route", "list"), ("price", "list")])
def test_tables_are_for_people(commands: Control, arguments: tuple[str, ...]) -> None:
    """Without --json every list is a table with a title."""
    control_seed.seed_defaults(Settings())
    key(commands)

    assert commands.run(*arguments).strip()


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ([], ("tenant", "acme", "USD")),
        (["--team", "search"], ("team", "search", "USD")),
        (["--project", "*"], ("project", "*", "USD")),
        (["--user", "*"], ("user", "*", "USD")),
        (["--tag", "team=ads", "--unit", "requests"], ("tag", "team=ads", "REQ")),
        (["--model", "gpt-4o", "--unit", "tokens"], ("model", "gpt-4o", "TOK")),
        (["--provider", "openai", "--unit", "EUR"], ("provider", "openai", "EUR")),
        (["--run", "*"], ("run", "*", "USD")),
    ],
)
def test_a_limit_stands_on_what_was_named(commands: Control, options: list[str], place: tuple[str, str, str]) -> None:
    """On the tenant when nothing was; counted in the unit that was asked for."""
    row = commands.json("budget", "set", "--tenant", "acme", "--amount", "5", *options)
    assert (row["scope"], row["scope_id"], row["currency"]) == place


def test_a_limit_stands_on_one_thing(commands: Control) -> None:
    """Two are refused, with what to do."""
    given = ("budget", "set", "--tenant", "acme", "--amount", "5", "--team", "a", "--run", "b")
    result = RUNNER.invoke(APP, given)
    assert (result.exit_code, "not on team and run" in result.output) == (2, True)


@pytest.mark.parametrize("user", ["", "x" * 1_025])
def test_a_limit_stands_on_a_user_that_calls_can_have(commands: Control, user: str) -> None:
    """What no call may carry is refused before anybody is remembered for it."""
    result = RUNNER.invoke(APP, ("budget", "set", "--tenant", "acme", "--amount", "5", "--user", user))
    assert (2, 0) == (result.exit_code, commands.events())
    assert "--user: an end user's id has 1 to 1024 characters" in result.stderr


def test_a_limit_on_a_pattern_of_users_is_refused(commands: Control) -> None:
    """Its handle would be that of nobody who calls; nobody is remembered for it and nothing recorded."""
    result = RUNNER.invoke(APP, ("budget", "set", "--tenant", "acme", "--amount", "5", "--user", "ann*"))
    assert (2, 0) == (result.exit_code, commands.events())
    assert "--user: 'ann*' would match no call" in result.stderr


@pytest.mark.parametrize("tag", ["customer=acme", "customer=*"])
def test_a_limit_on_a_tag_that_nobody_reads_is_refused(commands: Control, tag: str) -> None:
    """Such tags are sealed, so it would never count; with what to do."""
    message = commands.refusal("budget", "set", "--tenant", "acme", "--amount", "5", "--tag", tag)
    assert ("no call would count" in message, "QUAESTOR_TAGS_ALLOWED" in message, 0) == (True, True, commands.events())


def test_a_limit_stands_on_a_tag_that_the_settings_allow(commands: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is called."""
    monkeypatch.setenv("QUAESTOR_TAGS_ALLOWED", '["customer"]')
    commands.run("budget", "set", "--tenant", "acme", "--amount", "5", "--tag", "customer=acme")
    assert 1 == commands.events()


def test_limits_of_one_place_are_told_apart(commands: Control) -> None:
    """By window, unit, hardness and name; the same again is the same limit."""
    base = ("budget", "set", "--tenant", "acme", "--amount", "5")
    variants = [(), ("--window", "day"), ("--unit", "EUR"), ("--soft",), ("--name", "second"), ()]
    made = [commands.json(*base, *more)["id"] for more in variants]
    assert (len(set(made)), made[0]) == (5, made[-1])


def test_a_profile_sets_its_limits(commands: Control) -> None:
    """Daily and monthly, in euros, by its own calendar."""
    rows = commands.json("budget", "profile", "eu-default", "--tenant", "acme")["limits"]
    assert [(row["amount"], row["currency"], row["window"], row["time_zone"]) for row in rows] == [
        ("450.00", "EUR", "day", "Europe/Brussels"),
        ("12000.00", "EUR", "month", "Europe/Brussels"),
    ]


def test_a_profile_tells_at_80_85_95(commands: Control) -> None:
    """Of a day's at 80, of a month's at 85 and 95 %; put on again, also where nothing was to be told meanwhile."""

    def told_at(rows: list[Any]) -> dict[str, list[int]]:
        return {row["window"]: [one["percent"] for one in row["thresholds"]] for row in rows}

    profile = ("budget", "profile", "eu-default", "--tenant", "acme")
    place = ("--tenant", "acme", "--name", "eu-default", "--currency", "EUR", "--time-zone", "Europe/Brussels")
    first = told_at(commands.json(*profile)["limits"])
    for window in ("day", "month"):
        commands.json("budget", "set", *place, "--window", window, "--amount", "1", "--threshold", "none")
    silent = told_at(commands.json("budget", "list")["limits"])
    again = told_at(commands.json(*profile)["limits"])

    assert {"day": [80], "month": [85, 95]} == first == again
    assert {"day": [], "month": []} == silent
    assert again == told_at(commands.json("budget", "list")["limits"])


def test_what_is_said_of_a_profile_is_what_stands(commands: Control) -> None:
    """An increase that is on counts in what its limits allow."""
    profile = ("budget", "profile", "eu-default", "--tenant", "acme")
    limit = commands.json(*profile)["limits"][0]["id"]
    until = ("--until", "2100-01-01", "--approval-code", "FIN-1")
    commands.run("budget", "increase", limit, "--amount", "50", *until)
    assert ["500.00", "12000.00"] == [row["allowed"] for row in commands.json(*profile)["limits"]]


def test_what_is_used_is_told(commands: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    """`budget status`: charged, held and left of each limit, for people and for programs."""
    limit = commands.json("budget", "set", "--tenant", "acme", "--amount", "5", "--window", "total")["id"]
    live = LiveStates()
    sums = {Counter(limit, "USD", 0, 0): Sums(posted_nano=4_000_000_000, held_nano=500_000_000)}
    live.states["acme"] = TenantState("acme", "g", True, 1, sums, {}, {}, {})

    async def read(_url: str, limits: Sequence[Limit], now: int) -> list[LimitStanding]:
        return await standings_of(live, limits, now)

    monkeypatch.setattr(control_usage, "control_session", commands.session)
    monkeypatch.setattr(control_usage, "live_standings", read)

    (row,) = commands.json("budget", "status")["limits"]
    assert (limit, "4.00", "0.50", "0.50", 80, None) == tuple(
        row[name] for name in ("limit", "charged", "held", "left", "percent", "window_end")
    )
    assert "4.00" in commands.run("budget", "status", "--tenant", "acme")


def test_an_increase_is_kept_with_its_approval(commands: Control) -> None:
    """Until it is over, also when the limit itself is set anew."""
    base = ("budget", "set", "--tenant", "acme", "--amount")
    limit = commands.json(*base, "5")["id"]
    commands.run("budget", "increase", limit, "--amount", "2", "--until", "2999-01-01", "--approval-code", "FIN-1")
    commands.run(*base, "6")
    (row,) = commands.json("budget", "list")["limits"]
    assert (row["amount"], row["allowed"]) == ("6.00", "8.00")
    assert [one["approval_code"] for one in row["increases"]] == ["FIN-1"]


@pytest.mark.parametrize(
    "text",
    [
        "Date, USD, JPY, \n20 November 2026, 1.2500, 163.20, \n",
        "Date,USD,JPY,\n2026-11-20,1.2500,163.20,\n2026-11-19,1.1,160,\n",
    ],
)
def test_the_central_banks_file_gives_dollars_in_euros(commands: Control, tmp_path: Path, text: str) -> None:
    """Its newest day, turned round: it says what a euro is in dollars."""
    file = tmp_path / "eurofxref.csv"
    file.write_text(text)
    commands.run("rate", "import", str(file))
    (rate,) = commands.json("rate", "list")["rates"]
    assert (rate["base"], rate["rate"], rate["quote"], rate["dated"]) == ("USD", "0.80", "EUR", "2026-11-20")


@pytest.mark.parametrize(
    "text", ["", "Date\n", "Date,JPY\n2026-11-20,1\n", "Date,USD\n2026-11-20,x\n", "Date,USD\n2026-11-20,0\n", "é"]
)
def test_another_file_is_not_the_central_banks(commands: Control, tmp_path: Path, text: str) -> None:
    """One line says so; nothing is changed."""
    file = tmp_path / "eurofxref.csv"
    file.write_text(text)
    result = RUNNER.invoke(APP, ("rate", "import", str(file)))
    assert (result.exit_code, commands.events()) == (2, 0)


def rate(value: str, dated: str, *more: str) -> tuple[str, ...]:
    """The words that set a rate."""
    return "rate", "set", "USD", "EUR", value, "--dated", dated, "--source", "treasury", *more


@pytest.mark.parametrize(("dated", "says"), [("2026-11-19", "is of 2026-11-20"), ("2999-01-01", "has not begun yet")])
def test_a_rate_of_another_time_is_put_in_force_only_when_it_is_meant(commands: Control, dated: str, says: str) -> None:
    """Older than the one in force, or of a day to come: refused, unless --replace says so."""
    commands.run(*rate("0.9", "2026-11-20"))
    assert says in commands.refusal(*rate("0.8", dated))
    commands.run(*rate("0.8", dated, "--replace"))
    assert ["0.80"] == [one["rate"] for one in commands.json("rate", "list")["rates"]]


def test_a_rate_of_the_same_day_may_be_corrected(commands: Control) -> None:
    """Nobody waits a day for that."""
    commands.run(*rate("0.9", "2026-11-20"))
    commands.run(*rate("0.91", "2026-11-20"))
    assert ["0.91"] == [one["rate"] for one in commands.json("rate", "list")["rates"]]


@pytest.mark.parametrize("dated", ["2026-99-99", "2026-02-29", "20261120", "2026-11-2"])
def test_a_rate_has_a_day_of_the_calendar(commands: Control, dated: str) -> None:
    """Four digits, two, and two are not enough."""
    assert "the day it was published for" in commands.refusal(*rate("0.9", dated))


def test_past_rates_are_listed_with_when_they_were_put_in_force(commands: Control) -> None:
    """The latest first, removed ones too."""
    commands.run(*rate("0.9", "2026-11-19"))
    commands.run(*rate("0.91", "2026-11-20"))
    commands.run("rate", "remove", "USD", "EUR")
    found = commands.json("rate", "list", "--past")["rates"]
    assert [("0.91", "2026-11-20"), ("0.90", "2026-11-19")] == [(one["rate"], one["dated"]) for one in found]
    assert found[0]["since"] >= found[1]["since"] > "2026"


def test_a_rate_is_removed(commands: Control) -> None:
    """And no longer listed."""
    commands.run("rate", "set", "USD", "EUR", "0.9", "--dated", "2026-11-20", "--source", "treasury")
    commands.run("rate", "remove", "USD", "EUR")
    assert commands.json("rate", "list")["rates"] == []
