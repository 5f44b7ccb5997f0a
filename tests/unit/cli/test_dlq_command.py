"""`quaestor dlq` chooses records by topic and by when they were written."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from api.cli import dlq
from api.cli.main import application
from schemas.events import QuarantinedRecord, QuarantineReason
from sinks.fake_quarantine import MemoryQuarantine
from sinks.runner.screen import Screen
from streams.log import LogRecord
from tests.support.stories import START_MICROS, TOPIC_ID, codec

SCREEN = Screen(codec(), "postgres@v1")
MINUTE_MILLIS = 60_000
#: Half an hour behind the last of the records.
NOW_MICROS = START_MICROS + 90 * MINUTE_MILLIS * 1_000
#: Topic and minute of each record, after 2026-11-01 00:00 UTC.
WRITTEN = (("quaestor.requests", 0), ("quaestor.costs", 30), ("quaestor.requests", 60))


class Letters(MemoryQuarantine):
    """What the command finds where it looks for Postgres."""

    async def close(self) -> None:
        """Nothing to let go."""


def set_aside() -> list[QuarantinedRecord]:
    """Records that nobody could read."""
    records = [
        LogRecord(topic, 0, offset, START_MICROS // 1_000 + minute * MINUTE_MILLIS, b"acme/one", b"garbage", ())
        for offset, (topic, minute) in enumerate(WRITTEN)
    ]
    reason = QuarantineReason.UNDECODABLE
    return [SCREEN.poison(record, TOPIC_ID, reason, "garbage", 1).event for record in records]


def listed(*options: str) -> list[tuple[str, int]]:
    """Topic and offset of what the command lists."""
    return [(each["topic"], each["offset"]) for each in answered("list", *options)["records"]]


def answered(*arguments: str) -> Any:
    """What `quaestor dlq … --json` answers."""
    given = ["dlq", *arguments, "--json"]
    result = CliRunner().invoke(application(given), given)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(autouse=True)
def letters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The records are there, and it is half past one."""
    kept = Letters()
    asyncio.run(kept.put(set_aside()))
    monkeypatch.setenv("QUAESTOR_DATA", str(tmp_path))
    monkeypatch.setattr(dlq, "PostgresDeadLetters", lambda _: kept)
    monkeypatch.setattr(dlq, "now_micros", lambda: NOW_MICROS)


FIRST, COST, LAST = (("quaestor.requests", 0), ("quaestor.costs", 1), ("quaestor.requests", 2))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), [FIRST, COST, LAST]),
        (("--topic", "quaestor.requests"), [FIRST, LAST]),
        (("--topic", "quaestor.costs"), [COST]),
        (("--topic", "quaestor.health"), []),
    ],
)
def test_records_of_one_topic_are_listed(options: tuple[str, ...], expected: list[tuple[str, int]]) -> None:
    """Of every topic without the option."""
    assert expected == listed(*options)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--since", "2026-11-01T00:30"), [COST, LAST]),
        (("--until", "2026-11-01T00:30"), [FIRST]),
        (("--since", "2026-11-01T01:30+01:00"), [COST, LAST]),
        (("--since", "2026-11-01T00:30:00.000001"), [LAST]),
        (("--since", "2026-11-01", "--until", "2026-11-02"), [FIRST, COST, LAST]),
        (("--since", "2026-11-01T00:10", "--until", "2026-11-01T00:50"), [COST]),
        (("--since", "1h"), [COST, LAST]),
        (("--until", "1h"), [FIRST]),
        (("--since", "3600s", "--until", "30m"), [COST]),
        (("--since", "7d", "--until", "2d"), []),
    ],
)
def test_records_of_a_time_are_listed(options: tuple[str, ...], expected: list[tuple[str, int]]) -> None:
    """From a time on and before one, each as it was or so long ago; UTC unless it says otherwise."""
    assert expected == listed(*options)


def test_options_narrow_together() -> None:
    """A record must be what each of them says."""
    assert [LAST] == listed("--topic", "quaestor.requests", "--since", "1h")


@pytest.mark.parametrize(("command", "done"), [("park", "parked"), ("discard", "discarded")])
def test_only_what_was_chosen_is_decided_on(command: str, done: str) -> None:
    """Of the records of one topic, those from a time on."""
    chosen = ("--topic", "quaestor.requests", "--since", "1h")

    assert {done: 1} == answered(command, *chosen, "--reason", "made by a test")
    assert [FIRST, COST] == listed("--state", "quarantined")
