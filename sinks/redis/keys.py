"""Names of everything Quaestor keeps in Redis. The part in braces is the hash slot, one per tenant."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from processors.budgets.fold import hour_of
from processors.budgets.live import MINUTE_DIGITS
from schemas.events import HoldLeg
from sinks.projections import version_of

MINUTES_CACHED_MAX = 4_096
#: The first digits of a uuid7 that all ids of 65.5 seconds share.
REFUSED_DIGITS = 8
PROJECTION = "redis@v1"


class SlotKeys(NamedTuple):
    """The keys of one tenant's slot."""

    #: Hash: generation, open, cursor, epoch, topic_id, and applied sums p:<counter> (posted), h:<counter> (held).
    state: str
    #: Hash: open holds the log has confirmed, hold id to body (`counter amount ...`).
    holds: str
    #: Hash: holds the log has not confirmed, hold id to status (o open, p pinned, d dropped), when its time ends
    #: (milliseconds) and body; <hold id>+ to what a hold is extended by that the log has not confirmed, as status e
    #: without a time; sums =<counter>; ! where the next look at its fields begins.
    overlay: str
    #: List: ids of the overlay's holds in the order in which they were placed, until each was looked at after its time.
    placed: str
    #: Prefix of the hashes of resolved holds, one per hour of their ids: c committed, r released, x expired.
    done: str
    #: Prefix of the hashes of refused holds, one per minute or so of their ids: digest, leg, what it had left.
    refused: str

    def done_of(self, hold_id: str) -> str:
        """The key that remembers how this hold ended."""
        # Asked twice per request, and a minute of uuid7s is of one hour, nearly always.
        hours = hours_of_minute(hold_id[:MINUTE_DIGITS]) if hold_id[14:15] == "7" else ()
        return f"{self.done}{hours[0] if len(hours) == 1 else hour_of(hold_id)}"

    def refused_of(self, hold_id: str) -> str:
        """The key that remembers that this hold was refused, for the minutes in which anybody may ask again."""
        return f"{self.refused}{hold_id[:REFUSED_DIGITS]}"


class Names:
    """The keys of one version of the projection: nothing that another version reads or writes."""

    def __init__(self, projection: str = PROJECTION) -> None:
        """`projection` is redis@v<number>; raises ConfigurationError when it is not."""
        version = version_of(projection, "redis")
        #: What a snapshot of the budgets is kept under, too.
        self.budgets = f"budgets@v{version}"
        self._health = f"health@v{version}"
        self.health_cursor = f"{self._health}:{{health}}:cursor"
        self.health_index = f"{self._health}:{{health}}:index"

    def slot(self, tenant_id: str) -> SlotKeys:
        """The keys of a tenant."""
        prefix = f"{self.budgets}:{{{tenant_id}}}:"
        return SlotKeys(*(prefix + name for name in ("state", "holds", "overlay", "placed", "done:", "refused:")))

    def gate(self, partition: int) -> str:
        """The gate of a partition.

        Generation, open, cursor, epoch, topic_id, rebuilding, read, applied_at_millis, end_offset, lag.
        """
        return f"{self.budgets}:gate:{{p{partition}}}"

    def tenants(self, partition: int) -> str:
        """The tenants of a budgets partition with the cursor of each."""
        return f"{self.budgets}:tenants:{{p{partition}}}"

    def health(self, name: str) -> str:
        """The last closed window of <provider>/<model>/<region>."""
        return f"{self._health}:{{health}}:last:{name}"


#: What the gateway asks, and whoever does not say otherwise.
FIRST = Names()
slot_keys, gate_key, tenants_key = FIRST.slot, FIRST.gate, FIRST.tenants


@lru_cache(maxsize=MINUTES_CACHED_MAX)
def hours_of_minute(minute: str) -> tuple[int, ...]:
    """The hours of every uuid7 that begins with these digits: one, nearly always, or two."""
    first, last = hour_of(f"{minute}-0000-7000-8000-000000000000"), hour_of(f"{minute}-ffff-7000-8000-000000000000")
    return (first,) if first == last else (first, last)


def counter_text(leg: HoldLeg) -> str:
    """The counter of a leg as the slot names it; equal to str(counter_of(leg)), without the tuple."""
    return f"{leg.limit_id}|{leg.currency}|{leg.window_start}|{leg.window_end}"
