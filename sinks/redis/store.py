"""RedisHoldStore: the hold protocol on Redis or Valkey."""

from __future__ import annotations

from schemas import limits
from sinks.redis.holds import ClosedReason, Confirmation, PlaceHold, Placement


class RedisHoldStore:
    """A HoldStore over one pipelined connection; two of its calls per request are on the gateway's hot path."""

    def __init__(
        self,
        url: str,
        *,
        overlay_milliseconds: int = limits.OVERLAY_SECONDS * 1000,
        tombstone_seconds: int = limits.HOLD_TOMBSTONE_SECONDS,
        lag_seconds_max: float = limits.BUDGET_LAG_SECONDS_MAX,
        call_timeout_seconds: float = 2.0,
    ) -> None:
        """Connect nothing yet; `url` is redis://, rediss:// or unix://."""

    async def open(self) -> None:
        """Connect and learn the gates; returns also when Redis is away."""

    async def close(self) -> None:
        """Let go of the connection and the task that follows the gates."""

    def closed_reason(self, tenant_id: str) -> ClosedReason | None:
        """Why `place` would refuse this tenant now; None when admission looks open."""
        raise NotImplementedError

    async def place(self, ask: PlaceHold) -> Placement:
        """Add the hold iff every leg fits."""
        raise NotImplementedError

    async def confirm(self, tenant_id: str, hold_id: str, generation: str) -> Confirmation:
        """Pin the hold after its PLACED is acked."""
        raise NotImplementedError
