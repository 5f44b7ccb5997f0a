"""When a refused caller may come back: `reset` in the error, and Retry-After."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from processors.budgets import window_of
from processors.control.entities import Window
from schemas.events import BudgetEvent
from tests.support.gateway_world import Response, World, control_state, limit


async def refused_under(tmp_path: Path, window: Window) -> tuple[BudgetEvent, Response]:
    """A call that finds no room in a limit of this window: its REFUSED, and what the caller gets."""
    of_window = msgspec.structs.replace(limit(1_000), window=window)
    async with World(tmp_path, state=control_state(limits=(of_window,))) as world:
        response = await world.call()
        return world.one(BudgetEvent), response


@pytest.mark.parametrize("window", ["minute", "hour", "day", "week", "month"])
async def test_a_refusal_says_when_its_window_ends(tmp_path: Path, window: Window) -> None:
    """`reset` is the end of the limit's window in seconds since the epoch, and Retry-After leads there."""
    refused, response = await refused_under(tmp_path, window)

    ends_at = window_of(window, refused.occurred_at)[1]
    assert (ends_at // 1_000_000, ends_at) == (response.error["reset"], refused.legs[0].window_end)
    assert -(-(ends_at - refused.occurred_at) // 1_000_000) == int(response.headers["retry-after"])


async def test_a_refusal_of_a_limit_in_all_names_no_time(tmp_path: Path) -> None:
    """`total` never starts anew: `reset` is null, there is no Retry-After, and the SDK is told not to try again."""
    _, response = await refused_under(tmp_path, "total")

    assert (429, "budget_exceeded", None) == (response.status, response.error["code"], response.error["reset"])
    assert "retry-after" not in response.headers
    assert "false" == response.headers["x-should-retry"]
