"""Limits on poison: in a row, in the last records, and unresolved; what a person lifted does not count."""

from __future__ import annotations

from collections.abc import Iterable

from schemas import limits
from schemas.events import QuarantineReason
from sinks.runner.screen import Screen
from sinks.runner.seam import Decoded, Poison, Standing
from sinks.runner.watch import Watch
from streams.log import LogRecord
from tests.support.stories import TOPIC_ID, codec

SCREEN = Screen(codec(), "a@v1")
IN_A_ROW = limits.POISON_IN_A_ROW_MAX
SHARE = limits.POISON_WINDOW_RECORDS * limits.POISON_PERCENT_MAX // 100


def poison(offsets: Iterable[int]) -> list[Poison]:
    """Records that can't be read."""
    records = [LogRecord("quaestor.requests", 0, offset, 1, b"k", b"x", ()) for offset in offsets]
    return [SCREEN.poison(each, TOPIC_ID, QuarantineReason.UNDECODABLE, "bad", 1) for each in records]


def parked(offsets: Iterable[int]) -> list[Poison]:
    """Records that wait."""
    records = [LogRecord("quaestor.requests", 0, offset, 1, b"k", b"x", ()) for offset in offsets]
    return [SCREEN.parked(Decoded(each.offset, {}, each), TOPIC_ID, None, "waits", 1) for each in records]


def test_a_hundred_in_a_row_pass() -> None:
    """The limit itself is allowed, the next one is not, and it is named."""
    assert Watch(Standing()).count(poison(range(IN_A_ROW))) is None
    pause = Watch(Standing()).count(poison(range(IN_A_ROW + 1)))
    assert pause is not None
    assert pause.offset == IN_A_ROW


def test_a_sound_record_ends_a_row() -> None:
    """Two runs with one applied record between them are no run."""
    offsets = [*range(IN_A_ROW), *range(IN_A_ROW + 1, 2 * IN_A_ROW)]
    assert Watch(Standing()).count(poison(offsets)) is None


def test_runs_count_across_batches() -> None:
    """A batch's edge does not end a row."""
    watch = Watch(Standing())
    assert watch.count(poison(range(60))) is None
    assert watch.count(poison(range(60, IN_A_ROW + 1))) is not None


def test_looking_counts_nothing() -> None:
    """`first_too_many` may be asked as often as a batch is tried."""
    watch = Watch(Standing())
    assert [watch.first_too_many(poison(range(IN_A_ROW))) for _ in range(3)] == [None] * 3


def test_a_share_of_the_window_pauses() -> None:
    """More than five per cent of the last 5,000 records, scattered as they may be; a thinner flow goes on for ever."""
    dense, thin = range(0, 20 * (SHARE + 1), 19), range(0, 40_000, 21)
    assert Watch(Standing()).count(poison(dense)) is not None
    assert Watch(Standing()).count(poison(thin)) is None


def test_parked_records_are_no_failures() -> None:
    """What waits counts neither as a row nor as a share."""
    assert Watch(Standing()).count(parked(range(2 * SHARE))) is None


def test_the_quarantine_of_a_partition_is_bounded() -> None:
    """Unresolved records, parked ones too, have a limit; past it the partition stands still and nothing is dropped."""
    pause = Watch(Standing()).count(parked(range(limits.UNRESOLVED_RECORDS_MAX + 1)))
    assert pause is not None
    assert pause.offset == limits.UNRESOLVED_RECORDS_MAX


def test_nothing_counts_below_what_was_lifted() -> None:
    """After `resume --past`, limits count from that offset on."""
    watch = Watch(Standing(lifted_until=1_000))
    pause = watch.count(poison(range(1_000 + IN_A_ROW + 1)))
    assert pause is not None
    assert pause.offset == 1_000 + IN_A_ROW
