"""Capped exponential back-off with full jitter."""

from __future__ import annotations

from random import Random

from schemas import limits

BASE_SECONDS = 0.05
DOUBLINGS_MAX = 16


class Backoff:
    """Delays that grow while a thing stays away; `random` comes from the caller."""

    def __init__(self, random: Random, seconds_max: float = limits.RETRY_SECONDS_MAX) -> None:
        """Begin with short delays."""
        self._random = random
        self._seconds_max = seconds_max
        self.failures = 0

    def next_seconds(self) -> float:
        """The next delay, seconds: between half and all of a span that doubles up to the cap."""
        span = min(self._seconds_max, BASE_SECONDS * (1 << min(self.failures, DOUBLINGS_MAX)))
        self.failures += 1
        return span * (0.5 + self._random.random() / 2)

    def reset(self) -> None:
        """The thing is back."""
        self.failures = 0
