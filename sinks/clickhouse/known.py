"""Events as the index of ids keeps them, and the keys it keeps them by."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import overload

import numpy as np

from sinks.clickhouse.plans import Known
from sinks.postgres.tables import HASH_BYTES, body_hash
from sinks.runner.columns import Selection
from streams.pieces import Integers
from streams.texts import pieces_of

KEY_BYTES = 16
TIME_BYTES = 6
NAME_HASH_BYTES = KEY_BYTES - TIME_BYTES
MICROS_PER_MILLI = 1_000


class KnownRows(Sequence[Known]):
    """The events of a selection; what the index takes of all of them is made here, at once and beside a write."""

    def __init__(self, selection: Selection) -> None:
        """In the selection's order."""
        columns = selection.columns
        self.times: Integers = columns.fields["occurred_at"].values
        self.offsets = selection.offsets
        self._tenants = pieces_of(columns, columns.fields["tenant_id"])
        self._ids = pieces_of(columns, columns.fields["event_id"])
        self.hashes = b"".join(map(body_hash, selection.bodies()))
        #: `key_of` of every event, one after the other.
        self.keys = self._keys()

    def __len__(self) -> int:
        """How many."""
        return len(self.offsets)

    @overload
    def __getitem__(self, place: int) -> Known: ...
    @overload
    def __getitem__(self, place: slice) -> list[Known]: ...
    def __getitem__(self, place: int | slice) -> Known | list[Known]:
        """One event, or some."""
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        content = self.hashes[place * HASH_BYTES :][:HASH_BYTES]
        tenant_id, event_id = self._tenants[place].decode(), self._ids[place].decode()
        return Known(tenant_id, event_id, int(self.times[place]), int(self.offsets[place]), content)

    def _keys(self) -> bytes:
        keys = np.empty((len(self), KEY_BYTES), np.uint8)
        millis = (self.times // MICROS_PER_MILLI).astype(">u8").view(np.uint8).reshape(-1, 8)
        keys[:, :TIME_BYTES] = millis[:, -TIME_BYTES:]
        hashes = _name_hashes(self._tenants, self._ids)
        keys[:, TIME_BYTES:] = np.frombuffer(hashes, np.uint8).reshape(-1, NAME_HASH_BYTES)
        return keys.tobytes()


def key_of(event: Known) -> bytes:
    """The time of an event, milliseconds, and a hash of its tenant and id.

    A repeated event repeats its time, and ids in the order of time are entered at the end of the index, not all over.
    """
    millis = (event.occurred_at // MICROS_PER_MILLI).to_bytes(TIME_BYTES, "big")
    return millis + _name_hashes([event.tenant_id.encode()], [event.event_id.encode()])


def _name_hashes(tenants: Sequence[bytes], ids: Sequence[bytes]) -> bytes:
    """The hash of tenant, a zero byte and id of each: a tenant's events go on from one copy of its own hash."""
    begun = {tenant: hashlib.blake2b(tenant + b"\0", digest_size=NAME_HASH_BYTES) for tenant in set(tenants)}
    found = []
    for tenant, event_id in zip(tenants, ids, strict=True):
        hashed = begun[tenant].copy()
        hashed.update(event_id)
        found.append(hashed.digest())
    return b"".join(found)
