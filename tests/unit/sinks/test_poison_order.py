"""What waits behind a record that is set aside, and what a redrive may apply: the pure rules."""

from __future__ import annotations

import pytest

from processors.quarantine.order import Aside, Waiting, may_go, order_key_of
from processors.quarantine.rules import CHECKS, RULES
from schemas.ids import uuid7
from schemas.topics import TOPICS, key_of, topic_of
from sinks.runner.screen import _KEYS
from tests.support.stories import START_MICROS, codec, request_story

#: Beyond every record of these tests.
END = 1_000
REQUESTS, BUDGETS = "quaestor.requests", "quaestor.budgets"
MILLIS = START_MICROS // 1_000


def hold(seconds: float) -> str:
    """A hold made so many seconds after the start."""
    return uuid7(START_MICROS + int(seconds * 1_000_000), bytes(10))


def waiting(offset: int, order_key: str | None, *, follows: bool = False, key: bytes = b"acme") -> Waiting:
    """A record that is set aside, written at the start."""
    return Waiting(f"id-{offset}", offset, order_key, key, MILLIS, follows)


def test_what_has_the_same_key_waits() -> None:
    """Behind a record of a request waits what has its key and comes later, nothing else."""
    aside = Aside(REQUESTS)
    aside.add(waiting(5, "acme/one"))
    found = [aside.before(key, b"", offset) for key, offset in (("acme/one", 6), ("acme/two", 6), ("acme/one", 4))]
    assert found == ["id-5", None, None]


def test_the_first_of_a_chain_is_named() -> None:
    """What waits is behind the earliest open record of its key."""
    aside = Aside(REQUESTS)
    aside.add(waiting(9, "acme/one"))
    aside.add(waiting(5, "acme/one"))
    assert aside.before("acme/one", b"", 10) == "id-5"


@pytest.mark.parametrize(("seconds", "waits"), [(-60, True), (4, True), (6, False)])
def test_a_tenants_younger_holds_go_on(seconds: float, waits: bool) -> None:
    """Behind a budget event that can't be read, holds made before it (and a clock's error) wait, later ones do not."""
    aside = Aside(BUDGETS)
    aside.add(waiting(5, None))
    assert (aside.before(hold(seconds), b"acme", 6) is not None) is waits


def test_other_tenants_go_on() -> None:
    """A budget event that can't be read stops nobody but its tenant."""
    aside = Aside(BUDGETS)
    aside.add(waiting(5, None))
    assert aside.before(hold(-1), b"other", 6) is None


@pytest.mark.parametrize("topic", ["quaestor.health", "quaestor.alerts", "quaestor.quarantine"])
def test_nothing_waits_where_each_record_stands_for_itself(topic: str) -> None:
    """Topics without order have no order_key, read or not."""
    assert order_key_of(topic, b"key", {"event_id": "x"}) is None


def test_a_record_without_a_key_holds_nothing_up() -> None:
    """Null is not a key that others share."""
    assert order_key_of(REQUESTS, None, None) is None


def test_records_that_are_read_again_are_forgotten() -> None:
    """What stands at or behind the offset to be read from no longer blocks."""
    aside = Aside(REQUESTS)
    aside.add(waiting(5, "a"))
    aside.add(waiting(9, "b"))
    earlier = aside.up_to(9)
    assert [earlier.before(key, b"", 20) for key in "ab"] == ["id-5", None]


def test_a_redrive_takes_what_waits_behind_it_along() -> None:
    """The head asked for goes with its followers, in the order of offsets; other chains stay."""
    rows = [waiting(7, "a", follows=True), waiting(5, "a"), waiting(6, "b"), waiting(8, "b", follows=True)]
    assert [each.offset for each in may_go(REQUESTS, rows, {"id-5"}, END)] == [5, 7]


def test_a_follower_does_not_overtake() -> None:
    """What waits behind a record nobody asked for stays, although it was asked for itself."""
    rows = [waiting(5, "a"), waiting(7, "a", follows=True)]
    assert may_go(REQUESTS, rows, {"id-7"}, END) == []


def test_followers_without_a_head_go() -> None:
    """Once the record before them is settled, followers may go without being asked for."""
    assert [each.offset for each in may_go(REQUESTS, [waiting(7, "a", follows=True)], set(), END)] == [7]


def test_what_the_cursor_has_not_passed_stays() -> None:
    """It was kept by an owner who died before the cursor moved, and will be read again."""
    rows = [waiting(5, "a", follows=True), waiting(7, "a", follows=True)]
    assert [each.offset for each in may_go(REQUESTS, rows, {"id-7"}, 7)] == [5]


def test_a_follower_waits_for_every_unread_record_before_it() -> None:
    """One of two records that could be its hold's is not enough."""
    rows = [waiting(5, None), waiting(6, None), waiting(7, hold(-1), follows=True)]
    assert [each.offset for each in may_go(BUDGETS, rows, {"id-5"}, END)] == [5]
    assert [each.offset for each in may_go(BUDGETS, rows, {"id-5", "id-6"}, END)] == [5, 6, 7]


def test_every_topic_has_rules() -> None:
    """No topic is applied unchecked."""
    assert set(RULES) == {topic.name for topic in TOPICS}


def test_keys_from_fields_are_those_of_the_topic_table() -> None:
    """The screen's quick keys say what schemas.topics says."""
    reader = codec()
    for event in request_story(1):
        topic = topic_of(event).name
        assert _KEYS[topic](reader.decode(topic, reader.encode(event))) == key_of(event)


def test_real_events_break_no_rule() -> None:
    """The story of an answered request passes."""
    reader = codec()
    decoded = [(topic_of(event).name, reader.encode(event)) for event in request_story(1)]
    assert [CHECKS[topic](reader.decode(topic, value)) for topic, value in decoded] == [None] * len(decoded)


@pytest.mark.parametrize(
    ("topic", "change", "problem"),
    [
        ("quaestor.requests", {"occurred_at": 5}, "occurred_at is outside of the years 2020 to 2099"),
        ("quaestor.requests", {"event_id": "no"}, "event_id is not a UUID"),
        ("quaestor.requests", {"tenant_id": "a/b"}, "tenant_id is not a name"),
        ("quaestor.requests", {"input_tokens": -1}, "input_tokens is negative"),
        ("quaestor.requests", {"started_at": -1}, "started_at is outside of the years 1970 to 2199"),
        ("quaestor.costs", {"amount_nano": -1}, "a charge is negative"),
        ("quaestor.costs", {"kind": "CORRECTION"}, "a correction names nothing that it corrects"),
        ("quaestor.ledger", {"kind": "POST"}, "POST and VOID resolve a pending transfer, others do not"),
        ("quaestor.ledger", {"credit_account": "x", "debit_account": "x"}, "a transfer from an account to itself"),
    ],
)
def test_a_broken_rule_is_named(topic: str, change: dict[str, object], problem: str) -> None:
    """Each kind of rule, in words without the value."""
    reader = codec()
    event = next(each for each in request_story(1) if topic_of(each).name == topic)
    assert CHECKS[topic](reader.decode(topic, reader.encode(event)) | change) == problem
