"""How late a hold may end, and how long folds remember how holds ended: the first is the shorter, for every fold.

A hold's age is that of the uuid7 it is named by. An end that comes later than folds remember would be counted by some
and passed over by others, so it never enters the log: who would write it asks here first (docs/decisions/0176).
"""

from __future__ import annotations

from schemas.ids import uuid7_millis
from schemas.limits import HOLD_MARGIN_SECONDS

MARGIN_MILLIS = HOLD_MARGIN_SECONDS * 1_000


def comes_too_late(hold_id: str, now_micros: int, remembered_seconds: int) -> bool:
    """Whether some fold may have forgotten by now how this hold ended; also where its id is of the future."""
    try:
        age_millis = now_micros // 1_000 - uuid7_millis(hold_id)
    except ValueError:
        return False  # what has no such id is counted by no fold
    return not -MARGIN_MILLIS <= age_millis <= remembered_seconds * 1_000 - MARGIN_MILLIS


def reached(newest_millis: int, now_millis: int) -> int:
    """How far a fold is, milliseconds: ids are old against ids, and the newest one is not believed beyond the time.

    A log that is written late (a spool, an import) is as far as its holds; the clock of one gateway may run ahead.
    """
    return min(newest_millis, now_millis)


def is_over(made_before_millis: int, reached_millis: int, remembered_seconds: int) -> bool:
    """Whether a fold that is so far may forget how holds ended that were made before this time."""
    return made_before_millis < reached_millis - remembered_seconds * 1_000 - 2 * MARGIN_MILLIS
