"""How long what has come waits for company: the longer, the longer the work on it takes.

What is done at once costs something whatever is in it. While the machine has time to spare, little is done often, and
is fresh; where work takes longer because others want the CPU too, more is done at once, and less is spent on each.
"""

from __future__ import annotations

from collections import deque

#: The quickest of so many tells how busy the machine is; a single slow one (a checkpoint, a merge) tells nothing.
WORKS_REMEMBERED = 4


class Company:
    """What the last works took. Used by one thread."""

    def __init__(self) -> None:
        """Nothing is known."""
        self._took_seconds: deque[float] = deque(maxlen=WORKS_REMEMBERED)

    def took(self, seconds: float) -> None:
        """Note how long a work took."""
        self._took_seconds.append(seconds)

    def wait_seconds(self, works: float, least_seconds: float, most_seconds: float) -> float:
        """How long to wait: `works` times a work, within these two bounds; the least while too little is known."""
        if len(self._took_seconds) < WORKS_REMEMBERED:
            return least_seconds
        return min(max(least_seconds, works * min(self._took_seconds)), max(least_seconds, most_seconds))
