"""The latest end of a hold that may enter the log is counted by every fold."""

from __future__ import annotations

import pytest

from processors.budgets import BudgetFold, Sums
from processors.budgets.horizon import comes_too_late
from processors.budgets.live import LiveFold
from processors.ledger.poster import LedgerPoster
from processors.reaper import Reaper
from schemas.events import BudgetEvent
from schemas.limits import HOLD_MARGIN_SECONDS, HOLD_TOMBSTONE_SECONDS
from sinks.redis.slot_event import slot_event
from tests.budget_world import NOW_MICROS, TENANT, Events, fields_of, hold_id, leg

MICROS_PER_SECOND = 1_000_000
HOUR_SECONDS = 3_600
LATEST_SECONDS = HOLD_TOMBSTONE_SECONDS - HOLD_MARGIN_SECONDS
HOLD = hold_id(1)


def folded(events: list[tuple[int, BudgetEvent]]) -> tuple[list[Sums], dict[str, int]]:
    """What BudgetFold and LiveFold have of events, each asked to forget at its time."""
    fold, live = BudgetFold(), LiveFold()
    for offset, (now_micros, event) in enumerate(events):
        moved = slot_event(offset, fields_of(event))
        fold.forget(now_micros)
        live.forget(now_micros // 1_000)
        fold.apply(event)
        live.apply(TENANT, [moved] if moved else [], offset + 1)
    return list(fold.sums.values()), live.tenants[TENANT].posted


@pytest.mark.parametrize("ahead_seconds", [0, HOLD_MARGIN_SECONDS])
def test_the_latest_commit_takes_the_estimate_back_everywhere(ahead_seconds: int) -> None:
    """A tenant whose holds end all the time, and a gateway whose clock is as far ahead as is believed."""
    make = Events()
    placed, story = make.placed(HOLD, leg(100)), list[tuple[int, BudgetEvent]]()
    story += [(NOW_MICROS, placed), (NOW_MICROS, make.expired(placed))]
    last = NOW_MICROS + LATEST_SECONDS * MICROS_PER_SECOND
    for number, seconds in enumerate(range(0, LATEST_SECONDS + 1, HOUR_SECONDS)):
        now = NOW_MICROS + seconds * MICROS_PER_SECOND
        other = make.placed(hold_id(2 + number, now + ahead_seconds * MICROS_PER_SECOND), leg(5))
        story += [(now, other), (now, make.released(other))]
    story.append((last + ahead_seconds * MICROS_PER_SECOND, make.committed(placed, 60)))

    sums, posted = folded(story)

    assert not comes_too_late(HOLD, last, HOLD_TOMBSTONE_SECONDS)
    assert [Sums(60, 0)] == sums
    assert [60] == list(posted.values())


def test_whoever_takes_a_partition_over_reads_back_to_the_oldest_hold_that_may_end() -> None:
    """Whose gateway's clock may be ahead, too."""
    assert LATEST_SECONDS + HOLD_MARGIN_SECONDS <= min(Reaper().warm_up_seconds, LedgerPoster().warm_up_seconds)
