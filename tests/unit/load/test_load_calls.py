"""Traces and mixes."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.load.calls import mixed_calls, prompt, read_trace
from schemas.errors import ConfigurationError

TRACE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:16:06.6805900,0,0
"""


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """A trace of three requests."""
    path = tmp_path / "trace.csv"
    path.write_text(TRACE, encoding="utf-8")
    return path


def test_a_trace_keeps_its_pace_times_the_speed(trace: Path) -> None:
    """Twenty seconds at speed 20 become one; fractions of seven digits are understood."""
    calls = read_trace(trace, speed=20, limit=None, model="default", stream_share=0)

    assert [0.0, pytest.approx(0.215729), pytest.approx(1.0)] == [call.due_seconds for call in calls]


def test_a_trace_keeps_its_token_counts(trace: Path) -> None:
    """Context and generated tokens come through; zero becomes one, providers refuse empty prompts."""
    calls = read_trace(trace, speed=1, limit=None, model="default", stream_share=0)

    assert [(374, 44), (396, 109), (1, 1)] == [(call.input_tokens, call.output_tokens) for call in calls]


def test_a_limit_cuts_the_trace(trace: Path) -> None:
    """Only the first rows are taken."""
    assert 2 == len(read_trace(trace, speed=1, limit=2, model="default", stream_share=0))


def test_the_stream_share_is_spread_evenly(trace: Path) -> None:
    """A third of three calls is one."""
    calls = read_trace(trace, speed=1, limit=None, model="default", stream_share=0.34)

    assert 1 == sum(call.stream for call in calls)


def test_a_wrong_line_is_named(tmp_path: Path) -> None:
    """The message has file and line."""
    path = tmp_path / "bad.csv"
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,many,1\n", encoding="utf-8")

    with pytest.raises(ConfigurationError, match=r"bad\.csv:2"):
        read_trace(path, speed=1, limit=None, model="default", stream_share=0)


def test_a_prompt_has_exactly_its_words() -> None:
    """The simulated provider counts words, so the prompt has as many as the trace asks."""
    assert [1, 2, 3, 500] == [len(prompt(tokens, 7).split()) for tokens in (1, 2, 3, 500)]


def test_a_mix_is_the_same_for_the_same_seed() -> None:
    """Two runs of a seed make the same calls."""
    one = mixed_calls(50, 10, seed=3, keys=3, models=("a", "b"))

    assert one == mixed_calls(50, 10, seed=3, keys=3, models=("a", "b"))
