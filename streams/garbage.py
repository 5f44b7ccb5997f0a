"""Collecting garbage less often, for processes that make an object or more of every record."""

from __future__ import annotations

import gc

#: Every record makes objects that live as long as its batch; the default of 700 would scan them again and again.
COLLECT_AFTER_ALLOCATIONS = 50_000


def collect_seldom() -> None:
    """Leave what is there by now out of every collection, and collect after many allocations only."""
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER_ALLOCATIONS, 20, 100)
