"""What was told, and which channel is still to get it."""

from __future__ import annotations

from typing import Any

import pytest

from processors.control import Channel
from processors.guardrails import AlertBook, delivery_event
from schemas.events import Alert, Severity
from schemas.limits import ALERT_DELIVERY_SECONDS_MAX
from tests.support.events import NOW_MICROS, TENANT, alert

MICROS = 1_000_000


def channel(name: str = "ops", **fields: Any) -> Channel:
    """A channel that takes everything."""
    given: dict[str, Any] = {"tenant_id": TENANT, "kind": "slack", "target_ref": "env:X"}
    return Channel(channel_id=name, **given | fields)


def due(book: AlertBook, *channels: Channel, now: int = NOW_MICROS) -> list[tuple[str, str]]:
    """Alert and channel of what is due."""
    return [(one.alert.event_id, one.channel.channel_id) for one in book.due(channels, now)]


def book_of(*alerts: Alert) -> AlertBook:
    """A book that has these."""
    book = AlertBook()
    for one in alerts:
        book.apply(one)
    return book


def test_an_alert_is_due_at_each_channel_of_its_tenant() -> None:
    """And at nobody else's."""
    book = book_of(alert("a1"), alert("a2"))
    found = due(book, channel("ops"), channel("mail"), channel("theirs", tenant_id="other"))
    assert [("a1", "ops"), ("a1", "mail"), ("a2", "ops"), ("a2", "mail")] == found


@pytest.mark.parametrize("fault", [None, "HTTP 404"])
def test_a_channel_is_done_with_an_alert_when_its_delivery_ended(fault: str | None) -> None:
    """Sent or failed; the other channel goes on."""
    one = alert("a1")
    book = book_of(one, delivery_event(one, "ops", NOW_MICROS, attempts=1, fault=fault))
    assert [("a1", "mail")] == due(book, channel("ops"), channel("mail"))


def test_an_alert_that_comes_twice_is_one() -> None:
    """The topic may hold it twice."""
    assert [("a1", "ops")] == due(book_of(alert("a1"), alert("a1")), channel())


def test_a_delivery_is_no_alert() -> None:
    """It is told to nobody."""
    end = delivery_event(alert("a1"), "ops", NOW_MICROS, attempts=1, fault=None)
    book = book_of(end)
    assert ([], False) == (due(book, channel()), book.knows(end.event_id))


@pytest.mark.parametrize(("floor", "taken"), [("info", ["i", "w", "c"]), ("warning", ["w", "c"]), ("critical", ["c"])])
def test_a_channel_takes_what_is_severe_enough(floor: str, taken: list[str]) -> None:
    """From its own floor on."""
    severities = {"i": Severity.INFO, "w": Severity.WARNING, "c": Severity.CRITICAL}
    book = book_of(*(alert(name, severity=severity) for name, severity in severities.items()))
    assert taken == [name for name, _ in due(book, channel(severity=floor))]


def test_what_was_told_before_a_channel_was_added_is_not_sent_there() -> None:
    """A new channel is not flooded with the past."""
    assert [] == due(book_of(alert("a1")), channel(created_at=NOW_MICROS + 1))


def test_an_alert_that_is_too_old_is_for_nobody() -> None:
    """After a day it is history, and still known."""
    book = book_of(alert("a1"))
    assert [("a1", "ops")] == due(book, channel(), now=NOW_MICROS + ALERT_DELIVERY_SECONDS_MAX * MICROS)
    assert [] == due(book, channel(), now=NOW_MICROS + ALERT_DELIVERY_SECONDS_MAX * MICROS + 1)
    assert book.knows("a1")


def test_the_oldest_alerts_are_forgotten_beyond_a_limit() -> None:
    """Memory is bounded."""
    book = AlertBook(remembered_max=2)
    for name in ("a1", "a2", "a3"):
        book.apply(alert(name))
    assert [False, True, True] == [book.knows(name) for name in ("a1", "a2", "a3")]


def test_alerts_of_runs_displace_none_of_other_limits() -> None:
    """A tenant's own limit is not told again because a hundred thousand runs were told since."""
    book = AlertBook(remembered_max=2)
    book.apply(alert("own", limit_id="lim_1"))
    forgot = []
    for number in range(3):
        book.apply(alert(f"run{number}", limit_id=f"lim_2.{number}"))
        forgot.append(book.has_forgotten_some_of_many)
    assert ([False, False, True], True) == (forgot, book.knows("own"))
    assert [False, True, True] == [book.knows(f"run{number}") for number in range(3)]


def test_an_alert_that_nobody_is_to_get_is_put_away() -> None:
    """What waits is what is to be sent: a channel that comes later gets none that is older than itself."""
    book = book_of(alert("a1"))
    assert [] == due(book)
    assert ([], True) == (due(book, channel()), book.knows("a1"))
