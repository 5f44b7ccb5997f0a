"""Calls to many slots: a bounded number under way at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from schemas.errors import FencedError, GapError

S = TypeVar("S")
T = TypeVar("T")

#: Scripts sent at once when many slots are claimed, opened or written.
SLOTS_AT_ONCE = 200


async def in_groups(items: Sequence[S], call: Callable[[S], Awaitable[T]]) -> list[T]:
    """The results of `call`, a bounded number under way at once; when some fail, all end and the gravest is raised."""
    results: list[T] = []
    for first in range(0, len(items), SLOTS_AT_ONCE):
        group = await asyncio.gather(*map(call, items[first : first + SLOTS_AT_ONCE]), return_exceptions=True)
        faults = [outcome for outcome in group if isinstance(outcome, BaseException)]
        for kind in (FencedError, GapError, BaseException):
            for fault in faults:
                if isinstance(fault, kind):
                    raise fault
        results += [outcome for outcome in group if not isinstance(outcome, BaseException)]
    return results
