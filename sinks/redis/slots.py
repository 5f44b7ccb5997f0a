"""The sink's side of a tenant's slot: claiming, opening, closing it, applying events to it, by scripts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from processors.budgets.fold import hour_of
from processors.budgets.live import MINUTE_DIGITS
from processors.budgets.sound import UUID_VERSION_AT
from schemas import limits
from schemas.errors import FencedError, GapError
from sinks.redis.client import RedisClient
from sinks.redis.connection import texts
from sinks.redis.keys import FIRST, Names, SlotKeys, hours_of_minute
from sinks.redis.scripts import script
from sinks.redis.slot_event import SlotEvent

#: What `claim` answers as the generation of a slot that is half restored.
RESTORING = "restoring"
#: Events of one script call: it blocks the server, and every admission with it, for a few milliseconds at most.
EVENTS_PER_CALL = 500


class Slot(NamedTuple):
    """What a slot says of itself; the cursor is None when there is no slot."""

    cursor: int | None
    generation: str


class Ownership(NamedTuple):
    """Under what a sink writes."""

    epoch: int
    generation: str
    topic_id: str
    #: Whether a slot that is made now may admit holds at once.
    is_open: bool


class Slots:
    """Writes tenants' slots of one server. Raises StoreUnavailableError, FencedError and GapError."""

    def __init__(
        self, client: RedisClient, tombstone_seconds: int = limits.HOLD_TOMBSTONE_SECONDS, names: Names = FIRST
    ) -> None:
        """`tombstone_seconds`: how long a resolved hold is remembered."""
        self._client = client
        self._keys_of = names.slot
        self._tombstone_seconds = tombstone_seconds
        self._apply = script("apply")
        self._slot = script("slot")

    async def claim(
        self,
        tenant_id: str,
        owner: Ownership,
        *,
        generation: str = "",
        open_word: str = "",
        new_cursor: int | None = None,
    ) -> Slot:
        """Fence earlier owners of the slot; set its generation and gate ('0', '1') where given; make it if asked.

        Another generation than before empties the overlay. `new_cursor` None leaves a missing slot missing.
        """
        keys = self._keys_of(tenant_id)
        cursor = "" if new_cursor is None else str(new_cursor)
        arguments = (str(owner.epoch), generation, open_word, owner.topic_id, cursor)
        answer = texts(await self._client.evaluate(self._slot, (keys.state, keys.overlay, keys.placed), arguments))
        if answer[0] == "F":
            raise FencedError(f"slot {tenant_id}", owner.epoch)
        return Slot(int(answer[1]) if answer[1] else None, answer[2])

    async def apply(
        self,
        tenant_id: str,
        events: Sequence[SlotEvent],
        owner: Ownership,
        believed_cursor: int,
        next_cursor: int,
        *,
        is_late: bool = False,
    ) -> int:
        """Fold the events in and move the cursor with them, atomically per EVENTS_PER_CALL; answers the cursor.

        Events below the slot's cursor are passed over, unless `is_late` says that they were set aside: then the slot
        remembers each offset, and passes over those it has met. Raises GapError when the cursor is below
        `believed_cursor`: the slot lost what it had.
        """
        keys = self._keys_of(tenant_id)
        cursor = believed_cursor
        for first in range(0, len(events), EVENTS_PER_CALL):
            part = events[first : first + EVENTS_PER_CALL]
            following = next_cursor if first + EVENTS_PER_CALL >= len(events) else part[-1].offset + 1
            cursor = await self._apply_part(tenant_id, keys, part, owner, cursor, following, is_late)
        return cursor

    async def _apply_part(
        self,
        tenant_id: str,
        keys: SlotKeys,
        events: Sequence[SlotEvent],
        owner: Ownership,
        believed: int,
        following: int,
        is_late: bool,
    ) -> int:
        hours: dict[int, int] = {}
        packed = []
        for offset, kind, hold_id, legs in events:
            # Nearly all holds of a minute are of one hour: their ids need not be taken apart one by one.
            one_or_two = hours_of_minute(hold_id[:MINUTE_DIGITS])
            is_plain = len(one_or_two) == 1 and hold_id[UUID_VERSION_AT : UUID_VERSION_AT + 1] == "7"
            hour = one_or_two[0] if is_plain else hour_of(hold_id)
            packed.append((offset, kind, hold_id, hours.setdefault(hour, len(hours) + 1), legs))
        done = [f"{keys.done}{hour}" for hour in hours]
        arguments = (
            str(owner.epoch),
            owner.generation,
            "1" if owner.is_open else "0",
            str(believed),
            str(following),
            owner.topic_id,
            str(self._tombstone_seconds),
            msgspec.msgpack.encode(packed),
            "1" if is_late else "",
        )
        answer = texts(await self._client.evaluate(self._apply, (*keys[:3], *done), arguments))
        if answer[0] == "F":
            raise FencedError(f"slot {tenant_id}", owner.epoch)
        if answer[0] == "G":
            raise GapError(f"slot {tenant_id}", int(answer[1]), believed)
        if answer[0] == "N":
            raise GapError(f"slot {tenant_id} of another generation", 0, believed)
        return int(answer[1])
