"""`quaestor stream budgets`: the reaper on the stream runtime."""

from __future__ import annotations

import asyncio

from processors.budgets import ExpiredCharge
from processors.reaper import Reaper
from schemas import limits
from streams.codec import Codec
from streams.log import Membership
from streams.monitor import Monitor
from streams.runtime import run_stream


async def run_reaper(
    *,
    bootstrap: str,
    codec: Codec,
    monitor: Monitor,
    stop: asyncio.Event,
    expired_hold_charge: str = ExpiredCharge.FULL,
    lease_seconds: int = limits.LEASE_SECONDS,
    clock_skew_seconds: int = limits.CLOCK_SKEW_SECONDS,
    spool_grace_seconds: int = limits.SPOOL_GRACE_SECONDS,
    tombstone_seconds: int = limits.HOLD_TOMBSTONE_SECONDS,
    membership: Membership | None = None,
) -> None:
    """Expire leases on Kafka until `stop`; raises what run_stream raises."""
    reaper = Reaper(
        policy=ExpiredCharge(expired_hold_charge),
        clock_skew_seconds=clock_skew_seconds,
        spool_grace_seconds=spool_grace_seconds,
        tombstone_seconds=tombstone_seconds,
        lease_seconds=lease_seconds,
    )
    await run_stream(reaper, bootstrap=bootstrap, codec=codec, monitor=monitor, stop=stop, membership=membership)
