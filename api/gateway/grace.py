"""Grace: what a gateway lets through while budgets can't be checked. Off unless an operator says how much.

It counts what is held, per key and hour, in this process alone: each worker has its share of what the operator said. A
process that is started again within the hour begins with all of its share. Such a hold is PLACED with the reason
`fail_open`; from there on it is counted as any other.
"""

from __future__ import annotations

MICROS_PER_HOUR = 3_600_000_000
KEYS_MAX = 10_000
#: Why a PLACED stands that no store admitted.
FAIL_OPEN = "fail_open"


class Grace:
    """What is left of this hour's grace, by key."""

    __slots__ = ("_amount_nano", "_hour", "_used")

    def __init__(self, amount_nano: int) -> None:
        """`amount_nano` per key and hour, nano-units of the prices' currency; 0: none."""
        self._amount_nano = amount_nano
        self._hour = 0
        self._used: dict[str, int] = {}

    def admits(self, key_id: str, amount_nano: int, now: int) -> bool:
        """Whether a hold of this amount may stand unchecked; counts it where it may."""
        if not self._amount_nano:
            return False
        hour = now // MICROS_PER_HOUR
        if hour != self._hour:
            self._hour, self._used = hour, {}
        used = self._used.get(key_id, 0) + amount_nano
        if used > self._amount_nano or (key_id not in self._used and len(self._used) >= KEYS_MAX):
            return False
        self._used[key_id] = used
        return True
