"""MemoryHoldStore: the hold protocol in this process, for tests and models: every seam ships its fake."""

from __future__ import annotations

from sinks.redis.holds import ClosedReason, Confirmation, PlaceHold, Placement


class MemoryHoldStore:
    """A HoldStore in memory; `open_tenant`, `apply` and `new_generation` play the sink's part."""

    async def open(self) -> None:
        """Nothing to connect."""

    async def close(self) -> None:
        """Nothing to let go of."""

    def closed_reason(self, tenant_id: str) -> ClosedReason | None:
        """Why `place` would refuse this tenant now; None when admission looks open."""
        raise NotImplementedError

    async def place(self, ask: PlaceHold) -> Placement:
        """Add the hold iff every leg fits."""
        raise NotImplementedError

    async def confirm(self, tenant_id: str, hold_id: str, generation: str) -> Confirmation:
        """Pin the hold after its PLACED is acked."""
        raise NotImplementedError
