"""How much output an attempt is held for, all at once or in steps."""

from __future__ import annotations

import pytest

from processors.estimation import OutputHold, output_in_steps
from schemas.limits import STREAM_MARK_TOKENS

STEP = 100


@pytest.mark.parametrize(
    ("choices", "model_max", "tokens", "tokens_max"),
    [(1, None, 100, None), (1, 1_000, 100, 1_000), (1, 60, 60, 60), (3, 1_000, 300, 3_000), (3, 60, 180, 180)],
)
def test_a_first_step_is_within_what_the_model_gives(
    choices: int, model_max: int | None, tokens: int, tokens_max: int | None
) -> None:
    """A step for each choice."""
    first = output_in_steps(STEP, choices, model_max)
    assert (first.tokens, first.tokens_max) == (tokens, tokens_max)
    assert first.grows is (tokens_max is None or tokens < tokens_max)


def test_marks_that_no_text_shows_are_kept_free() -> None:
    """Per choice; a hold that can't grow covers whatever comes."""
    assert output_in_steps(STEP, 3, None).text_bytes == 3 * (STEP - STREAM_MARK_TOKENS)
    assert output_in_steps(STEP, 3, STEP).text_bytes is None
    assert OutputHold(0, 0).text_bytes is None


@pytest.mark.parametrize(("text_bytes", "tokens"), [(0, 200), (84, 200), (184, 200), (185, 300), (1_000, 1_100)])
def test_a_step_more_covers_all_that_came(text_bytes: int, tokens: int) -> None:
    """By whole steps, at least one."""
    assert output_in_steps(STEP, 1, None).covering(text_bytes).tokens == tokens


def test_the_last_step_ends_at_the_most_that_may_come() -> None:
    """And covers whatever comes."""
    last = output_in_steps(STEP, 1, 150).covering(500)
    assert (last.tokens, last.grows, last.text_bytes) == (150, False, None)
