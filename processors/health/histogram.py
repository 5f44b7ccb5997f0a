"""Counts of values in buckets at most 3 % wide: percentiles that do not depend on the order of arrival."""

from __future__ import annotations

#: Values keep their six leading bits: the bucket below 64 is exact, above it at most 1/32 wide.
BITS_KEPT = 6


class Histogram:
    """A bounded multiset of values that are not negative."""

    def __init__(self) -> None:
        """Empty."""
        self._counts: dict[int, int] = {}
        self.count = 0

    def add(self, value: int) -> None:
        """One more value; a negative one counts as 0."""
        shift = max(max(value, 0).bit_length() - BITS_KEPT, 0)
        bucket = max(value, 0) >> shift << shift
        self._counts[bucket] = self._counts.get(bucket, 0) + 1
        self.count += 1

    def percentile(self, percent: int) -> int:
        """The lower bound of the bucket in which the value of this rank lies; 0 when empty."""
        rank = -(-self.count * percent // 100)
        for bucket in sorted(self._counts):
            rank -= self._counts[bucket]
            if rank <= 0:
                return bucket
        return 0
