"""A hold store and the part that the sink plays for it: in memory, and on a real Valkey."""

from __future__ import annotations

import itertools
import time
from typing import Protocol, Self

from schemas.events import BudgetEvent
from schemas.topics import BUDGETS
from sinks.redis.client import RedisClient
from sinks.redis.connection import texts
from sinks.redis.holds import HoldStore
from sinks.redis.keys import gate_key, slot_keys, tenants_key
from sinks.redis.memory import MemoryHoldStore
from sinks.redis.reads import RedisReads
from sinks.redis.slot_event import slot_event
from sinks.redis.slots import Ownership, Slots
from sinks.redis.store import RedisHoldStore
from streams.partitioner import partition_of
from tests.budget_world import TENANT, fields_of, hold_id

MILLIS = 1_000
HOUR_MILLIS = 3_600_000


class World(Protocol):
    """A store and the part the sink plays for it."""

    store: HoldStore

    async def open_tenant(self, tenant_id: str = TENANT) -> None:
        """Open the tenant's slot."""

    async def apply(self, event: BudgetEvent) -> None:
        """The sink applies an event."""

    async def new_generation(self, *, is_open: bool) -> None:
        """Begin a generation that keeps what was applied."""

    async def pass_overlay_time(self) -> None:
        """Let the overlay's time to live pass."""

    async def step_clock_back(self) -> None:
        """Set the store's clock an hour back."""

    def hold(self, number: int) -> str:
        """An id made now."""

    async def unconfirmed(self) -> frozenset[str]:
        """Holds of which something counts that the log has not confirmed."""


class MemoryWorld:
    """The store in memory, with a clock that tests move."""

    def __init__(self) -> None:
        """No tenant is open yet."""
        self._clock_millis = time.time_ns() // 1_000_000
        self._generations = itertools.count(2)
        self._memory = MemoryHoldStore(lambda: self._clock_millis)
        self.store: HoldStore = self._memory

    async def open_tenant(self, tenant_id: str = TENANT) -> None:
        """As the protocol says."""
        self._memory.open_tenant(tenant_id)

    async def apply(self, event: BudgetEvent) -> None:
        """As the protocol says."""
        self._memory.apply(event.tenant_id, event)

    async def new_generation(self, *, is_open: bool) -> None:
        """As the protocol says."""
        generation = f"memory:{next(self._generations)}"
        self._memory.close_tenant(TENANT, generation)
        if is_open:
            self._memory.open_tenant(TENANT, generation)

    async def pass_overlay_time(self) -> None:
        """As the protocol says."""
        self._clock_millis += 11_000

    async def step_clock_back(self) -> None:
        """As the protocol says."""
        self._clock_millis -= HOUR_MILLIS

    def hold(self, number: int) -> str:
        """As the protocol says."""
        return hold_id(number, self._clock_millis * MILLIS)

    async def unconfirmed(self) -> frozenset[str]:
        """As the protocol says."""
        return self._memory.unconfirmed(TENANT)


class RedisWorld:
    """The store on a real Valkey, whose clock passes by itself: entries live for a few milliseconds on demand."""

    def __init__(self, url: str) -> None:
        """Connect nothing yet."""
        self.url = url
        self._client = RedisClient(url)
        self._slots = Slots(self._client)
        self._offset = 0
        self._stores: list[RedisHoldStore] = []
        self.store: HoldStore = self._make(10_000)

    def _make(self, overlay_milliseconds: int) -> RedisHoldStore:
        store = RedisHoldStore(self.url, overlay_milliseconds=overlay_milliseconds)
        self._stores.append(store)
        return store

    async def __aenter__(self) -> Self:
        """Connect, open the gate, and TENANT's slot."""
        await self._client.open()
        partition = partition_of(TENANT.encode(), BUDGETS.partitions)
        self._gate = (gate_key(partition), tenants_key(partition))
        epoch = int(texts(await self._client.run("gate_claim", self._gate))[0])
        self._owner = Ownership(epoch, "", "topic", is_open=True)
        await self._begin()
        await self.store.open()
        await self.open_tenant()
        return self

    async def _begin(self, *, is_open: bool = True) -> None:
        epoch = str(self._owner.epoch)
        answer = texts(
            await self._client.run("gate_generation", self._gate, epoch, self._client.run_id, "0", "topic", "")
        )
        self._owner = self._owner._replace(generation=answer[1])
        now = str(time.time_ns() // 1_000_000)
        word = "1" if is_open else "0"
        await self._client.run("gate_write", self._gate, epoch, self._owner.generation, "0", word, now, "0", "", "0")

    async def open_tenant(self, tenant_id: str = TENANT) -> None:
        """As the protocol says."""
        await self._slots.claim(
            tenant_id, self._owner, generation=self._owner.generation, open_word="1", new_cursor=self._offset
        )

    async def apply(self, event: BudgetEvent) -> None:
        """As the protocol says."""
        movement = slot_event(self._offset, fields_of(event))
        assert movement is not None
        await self._slots.apply(TENANT, [movement], self._owner, self._offset, self._offset + 1)
        self._offset += 1

    async def new_generation(self, *, is_open: bool) -> None:
        """As the protocol says."""
        await self._begin(is_open=is_open)
        word = "1" if is_open else "0"
        await self._slots.claim(TENANT, self._owner, generation=self._owner.generation, open_word=word)
        await self.refresh()

    async def refresh(self) -> None:
        """The gateway looks at the gates, and at how full the server is."""
        for store in self._stores:
            await store.refresh()

    async def pass_overlay_time(self) -> None:
        """Date every unpinned entry back, as if its time had passed."""
        keys = slot_keys(TENANT)
        names = texts(await self._client.call("HGETALL", keys.overlay))
        for name, value in zip(names[::2], names[1::2], strict=True):
            if value[0] == "o":
                await self._client.call("HSET", keys.overlay, name, f"o1 {value.partition(' ')[2]}")

    async def step_clock_back(self) -> None:
        """Date what the server wrote forward, as if it had been written by the clock of before."""
        keys, later = slot_keys(TENANT), time.time_ns() // 1_000_000 + HOUR_MILLIS
        names = texts(await self._client.call("HGETALL", keys.overlay))
        for name, value in zip(names[::2], names[1::2], strict=True):
            if value[0] == "o":
                await self._client.call("HSET", keys.overlay, name, f"o{later + 10_000} {value.partition(' ')[2]}")

    def hold(self, number: int) -> str:
        """As the protocol says."""
        return hold_id(number, time.time_ns() // 1_000)

    async def unconfirmed(self) -> frozenset[str]:
        """As the protocol says; what is there adds up."""
        reads = RedisReads(self.url)
        await reads.open()
        try:
            state = await reads.tenant_state(TENANT)
        finally:
            await reads.close()
        added: dict[object, int] = {}
        for counter, amount in (pair for body in state.unconfirmed.values() for pair in body):
            added[counter] = added.get(counter, 0) + amount
        assert {counter: amount for counter, amount in added.items() if amount} == state.unconfirmed_sums
        return frozenset(name.rstrip("+") for name in state.unconfirmed)

    async def __aexit__(self, *_: object) -> None:
        """Let go of every connection."""
        for store in self._stores:
            await store.close()
        await self._client.close()
