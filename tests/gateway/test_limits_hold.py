"""What limits allowed, in real Postgres: who asks whether they were overspent goes by what was in force."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import msgspec
import pytest

from processors.calendar import window_of
from schemas import events
from schemas.topics import BUDGETS
from tests.support.ledger_desk import Desk, opened_desk
from tests.support.stories import START_MICROS, control_event, request_story

pytestmark = pytest.mark.stack
DAY_MICROS = 86_400_000_000
#: Long after every test.
FAR_MICROS = 10_000_000_000_000_000


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    """A fresh database that knows the price book."""
    async with opened_desk("ledger") as made:
        yield made


def limited(number: int, amount_nano: int, **fields: object) -> events.ControlEvent:
    """The limit of the stories, set to an amount."""
    after = msgspec.json.encode({"amount_nano": amount_nano, **fields}).decode()
    return control_event(number, events.ControlAction.UPDATED, after)


def more(amount_nano: int, valid_from: int, valid_until: int) -> dict[str, object]:
    """A temporary increase."""
    return {"amount_nano": amount_nano, "valid_from": valid_from, "valid_until": valid_until, "approval_code": "A-1"}


@pytest.mark.parametrize(
    ("history", "holds"),
    [
        ([limited(1, 7_500)], True),
        ([limited(1, 7_499)], False),
        ([limited(1, 7_499, hard=False)], True),
        ([limited(1, 7_000, increases=[more(500, 0, FAR_MICROS)])], True),
        ([limited(1, 7_000, increases=[more(500, FAR_MICROS, FAR_MICROS + 1)])], False),
        ([limited(1, 7_000, increases=[more(500, 0, FAR_MICROS)]), limited(2, 10)], True),
        ([limited(1, 7_000, increases=[more(500, 0, START_MICROS - DAY_MICROS)]), limited(2, 10)], False),
        ([limited(1, 9_000), limited(2, 10)], True),
        ([limited(1, 10), limited(2, 20)], False),
        ([control_event(1, events.ControlAction.REMOVED, None)], True),
    ],
)
async def test_a_limit_that_was_overspent_is_named(desk: Desk, history: list[events.ControlEvent], holds: bool) -> None:
    """Against the most that it allowed while the window was open; soft limits and removed ones allow anything."""
    await desk.write(history)
    for number in range(5):
        await desk.write(request_story(number))
    assert await desk.broken() == ([] if holds else ["limits_hold"])


def within(story: list[events.Event], window: tuple[int, int]) -> list[events.Event]:
    """The same story under a limit of this window."""
    start, end = window
    found: list[events.Event] = []
    for event in story:
        if isinstance(event, events.BudgetEvent):
            legs = tuple(msgspec.structs.replace(leg, window_start=start, window_end=end) for leg in event.legs)
            found.append(msgspec.structs.replace(event, legs=legs))
        elif isinstance(event, events.LedgerEntry) and event.source_topic == BUDGETS.name:
            found.append(msgspec.structs.replace(event, window_start=start))
        else:
            found.append(event)
    return found


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata"])
@pytest.mark.parametrize(
    ("begins", "ends", "counts"), [(-7, -6, False), (-1, 0, False), (-1, 0.1, True), (0, 1, True), (1, 2, False)]
)
async def test_an_increase_counts_in_the_windows_that_it_is_in(
    desk: Desk, zone: str, begins: float, ends: float, counts: bool
) -> None:
    """One of last week allowed nothing today, nor does one of tomorrow; days are those of the limit's clock."""
    window = window_of("day", time.time_ns() // 1_000, zone)
    dated = more(500, *(window[0] + round(days * DAY_MICROS) for days in (begins, ends)))
    await desk.write([limited(1, 7_000, increases=[dated], window="day", time_zone=zone)])

    for number in range(5):
        await desk.write(within(request_story(number), window))

    assert await desk.broken() == ([] if counts else ["limits_hold"])


async def test_what_was_let_through_unchecked_is_above_the_limit(desk: Desk) -> None:
    """As overage is: recorded, and no overspend."""
    await desk.write([limited(1, 6_000)])
    for number in range(5):
        story = request_story(number)
        if number == 4:
            story = [
                msgspec.structs.replace(event, reason="fail_open")
                if isinstance(event, events.BudgetEvent) and event.kind is events.BudgetKind.PLACED
                else event
                for event in story
            ]
        await desk.write(story)
    assert await desk.broken() == []
