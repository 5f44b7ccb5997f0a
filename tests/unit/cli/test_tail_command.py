"""`quaestor tail`: which records, from where, and how they look."""

from __future__ import annotations

import json

import pytest
import typer

from api.cli import tail
from schemas.events import BudgetKind, Event
from schemas.topics import ALERTS, BUDGETS
from streams.codec import Codec, LocalSchemas
from streams.log import LogRecord, OutgoingRecord, Partition
from streams.memory import MemoryLog
from streams.records import outgoing
from tests.support.events import alert, budget, leg

CODEC = Codec(LocalSchemas())
AT = Partition(ALERTS.name, 0)


def filled(*events: Event) -> MemoryLog:
    """A log with these events."""
    log = MemoryLog()
    log.publisher().publish([outgoing(CODEC, event) for event in events], lambda _: None)
    return log


def first(log: MemoryLog, topic: str) -> LogRecord:
    """The only record of a topic."""
    (record,) = [record for at, records in log.records.items() if at.topic == topic for record in records]
    return record


@pytest.mark.parametrize(("start", "cursor"), [("beginning", 0), ("end", 3), ("0", 0), ("2", 2), ("99", 3)], ids=str)
def test_where_to_begin(start: str, cursor: int) -> None:
    """Named ends, or an offset brought within the log."""
    reader = filled(alert("a"), alert("b"), alert("c")).reader()

    assert tail.positions(reader, ALERTS.name, start) == ({AT: cursor}, {AT: 3})


def test_an_offset_that_is_none_ends_the_command() -> None:
    """With exit code 2."""
    with pytest.raises(typer.Exit) as ended:
        tail.positions(filled().reader(), ALERTS.name, "soon")

    assert ended.value.exit_code == 2


def test_without_following_it_stops_at_the_end() -> None:
    """Everything up to the end taken at the start, no more."""
    log = filled(alert("a"), alert("b"))
    cursors, ends = tail.positions(log.reader(), ALERTS.name, "beginning")
    log.publisher().publish([outgoing(CODEC, alert("c"))], lambda _: None)

    assert len(list(tail.read(log.reader(), cursors, ends))) == 2
    assert [] == list(tail.read(log.reader(), ends, ends))


def test_it_shows_what_comes_while_it_looks() -> None:
    """From the end on, one after the other, and never ends by itself."""
    log = filled(alert("a"))
    _, ends = tail.positions(log.reader(), ALERTS.name, "end")
    coming = tail.read(log.reader(), ends, None)
    shown = []
    for name in ("b", "c"):
        log.publisher().publish([outgoing(CODEC, alert(name))], lambda _: None)
        shown.append(tail.decoded(CODEC, next(coming))["event_id"])

    assert [alert("b").event_id, alert("c").event_id] == shown


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ({}, True),
        ({"tenant": "acme"}, True),
        ({"tenant": "other"}, False),
        ({"kind": "placed"}, True),
        ({"kind": "RELEASED"}, False),
        ({"request": "r"}, True),
        ({"request": "q"}, False),
        ({"tenant": "acme", "kind": "PLACED", "request": "r"}, True),
    ],
    ids=str,
)
def test_filters(asked: dict[str, str], wanted: bool) -> None:
    """All that are given must hold."""
    fields = {"tenant_id": "acme", "request_id": "r", "kind": "PLACED"}
    given = {"tenant": None, "kind": None, "request": None} | asked

    assert wanted is tail.chosen(**given)(fields)


def test_a_line_says_what_matters() -> None:
    """Time, place, kind, tenant, request and the fields that say something; amounts as money."""
    log = filled(budget(BudgetKind.PLACED, "h", "e", leg("day", 1_500_000_000), amount_nano=1_500_000_000))
    record = first(log, BUDGETS.name)

    text = tail.line(record, tail.decoded(CODEC, record)).plain

    assert text.startswith("22:13:20.000")
    assert "PLACED" in text
    assert " acme r " in text
    assert "amount=1.50" in text
    assert "reason" not in text


def test_a_document_can_be_read_by_programs() -> None:
    """JSON with position, key and the fields."""
    record = first(filled(alert("e")), ALERTS.name)

    document = json.loads(json.dumps(tail.document(record, tail.decoded(CODEC, record)), default=tail._hexadecimal))

    assert (document["topic"], document["offset"], document["key"]) == (ALERTS.name, 0, "acme")
    assert document["event"]["event_id"] == "e"


def test_a_record_that_cannot_be_read_is_shown_as_such() -> None:
    """It does not end the command."""
    log = MemoryLog()
    log.publisher().publish([OutgoingRecord(ALERTS.name, b"k", b"junk", ())], lambda _: None)
    record = first(log, ALERTS.name)

    assert "undecodable=" in tail.line(record, tail.decoded(CODEC, record)).plain
