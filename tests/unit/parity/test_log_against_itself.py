"""The log's checks over real records, and what may be under way when they are made."""

from __future__ import annotations

from api.settings import Settings
from api.verify.expected import Expected
from api.verify.run import due_at
from processors.parity.checks import log_checks
from schemas import events
from tests.support.parity_world import ParityWorld
from tests.support.stories import START_MICROS, request_story

LATER = START_MICROS + 24 * 3600 * 1_000_000


def failing(story: list[events.Event], now: int) -> list[str]:
    """Names of the checks that fail over a log of these events."""
    fold = ParityWorld(story).fold(Expected({}))
    return [check.name for check in log_checks(fold, None, due_at(now, Settings())) if not check.ok]


def test_the_records_of_an_answered_request_pass() -> None:
    """Every check reads the fields as the schema has them."""
    assert [] == failing(request_story(1), LATER)


def test_a_lost_completion_is_found_when_a_spool_had_its_time() -> None:
    """First that an attempt succeeded to nobody, later that the request never ended; a moment after it, nothing."""
    story, settings = request_story(0)[:-1], Settings()
    late = START_MICROS + settings.late_seconds * 1_000_000
    ended = START_MICROS + int(settings.story_seconds * 1_000_000)

    assert [] == failing(story, late)
    assert ["succeeded attempts = COMPLETED"] == failing(story, late + 1)
    assert ["succeeded attempts = COMPLETED", "requests have ended"] == failing(story, ended + 1)
