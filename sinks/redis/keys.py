"""Names of everything Quaestor keeps in Redis. The part in braces is the hash slot, one per tenant."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from processors.budgets.fold import hour_of
from processors.budgets.live import MINUTE_DIGITS
from schemas.events import HoldLeg

BUDGETS = "budgets@v1"
HEALTH = "health@v1"
MINUTES_CACHED_MAX = 4_096
HEALTH_CURSOR = f"{HEALTH}:{{health}}:cursor"
HEALTH_INDEX = f"{HEALTH}:{{health}}:index"


class SlotKeys(NamedTuple):
    """The keys of one tenant's slot."""

    #: Hash: generation, open, cursor, epoch, topic_id, and applied sums p:<counter> (posted), h:<counter> (held).
    state: str
    #: Hash: open holds the log has confirmed, hold id to body (`counter amount ...`).
    holds: str
    #: Hash: holds the log has not confirmed, hold id to status (o open, p pinned, d dropped), when its time ends
    #: (milliseconds) and body; <hold id>+ to what a hold is extended by that the log has not confirmed, as status e
    #: without a time; sums =<counter>; ! when it was swept last.
    overlay: str
    #: Prefix of the hashes of resolved holds, one per hour of their ids: c committed, r released, x expired, f refused.
    done: str

    def done_of(self, hold_id: str) -> str:
        """The key that remembers how this hold ended."""
        # Asked twice per request, and a minute of uuid7s is of one hour, nearly always.
        hours = hours_of_minute(hold_id[:MINUTE_DIGITS]) if hold_id[14:15] == "7" else ()
        return f"{self.done}{hours[0] if len(hours) == 1 else hour_of(hold_id)}"


def slot_keys(tenant_id: str) -> SlotKeys:
    """The keys of a tenant."""
    prefix = f"{BUDGETS}:{{{tenant_id}}}:"
    return SlotKeys(prefix + "state", prefix + "holds", prefix + "overlay", prefix + "done:")


@lru_cache(maxsize=MINUTES_CACHED_MAX)
def hours_of_minute(minute: str) -> tuple[int, ...]:
    """The hours of every uuid7 that begins with these digits: one, nearly always, or two."""
    first, last = hour_of(f"{minute}-0000-7000-8000-000000000000"), hour_of(f"{minute}-ffff-7000-8000-000000000000")
    return (first,) if first == last else (first, last)


def gate_key(partition: int) -> str:
    """The gate of a partition.

    Generation, open, cursor, epoch, topic_id, rebuilding, read, applied_at_millis, end_offset, lag.
    """
    return f"{BUDGETS}:gate:{{p{partition}}}"


def tenants_key(partition: int) -> str:
    """The tenants of a budgets partition with the cursor of each."""
    return f"{BUDGETS}:tenants:{{p{partition}}}"


def health_key(name: str) -> str:
    """The last closed window of <provider>/<model>/<region>."""
    return f"{HEALTH}:{{health}}:last:{name}"


def counter_text(leg: HoldLeg) -> str:
    """The counter of a leg as the slot names it; equal to str(counter_of(leg)), without the tuple."""
    return f"{leg.limit_id}|{leg.currency}|{leg.window_start}|{leg.window_end}"
