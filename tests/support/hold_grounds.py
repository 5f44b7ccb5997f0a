"""Where a machine of holds runs: a hold store as gateways reach it, and the sink's part, which is stepped from outside.

`MemoryGround` plays the sink itself; `ValkeyGround` (hold_ground_valkey.py) drives the real sink on a real server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Protocol

from schemas.events import BudgetEvent
from sinks.redis.holds import HoldStore
from sinks.redis.memory import MemoryHoldStore
from tests.budget_world import NOW_MICROS
from tests.support.hold_auditor import View

MICROS_PER_MILLI = 1_000
OVERLAY_MILLIS = 11_000
#: By tenant: its part of quaestor.budgets, and the partition with it.
Logs = Mapping[str, Sequence[BudgetEvent]]


class Ground(Protocol):
    """The live store and who writes to it."""

    #: The present moment, for ids of holds.
    now_micros: int

    def store(self, gateway: int) -> HoldStore:
        """As a gateway reaches it."""

    async def start(self, logs: Logs) -> None:
        """Every tenant has a slot; admission is open."""

    async def stop(self) -> None:
        """Let go of everything."""

    async def view(self, tenant_id: str) -> View:
        """What the live store says of a tenant."""

    async def learn(self, gateway: int) -> None:
        """A gateway looks at the gates."""

    async def apply(self, tenant_id: str, events: int) -> None:
        """The sink reads so many events more."""

    async def beat(self, tenant_id: str) -> None:
        """The sink learns where the log ends, opens what has caught up, and notices what is lost."""

    async def replace_sink(self, tenant_id: str, *, in_the_middle: bool) -> None:
        """The sink dies and another takes over; it may die when slots are written and the gate is not."""

    async def keep(self) -> None:
        """What is there now is what a replica has, and what a snapshot says."""

    async def lose(self) -> None:
        """FLUSHALL."""

    async def fail_over(self) -> None:
        """The server goes on as it was when it was kept last."""

    async def pass_overlay_time(self) -> None:
        """The time of whatever is not pinned is over."""


class MemoryGround:
    """The store in memory."""

    def __init__(self) -> None:
        """No tenant is there yet."""
        self.now_micros = NOW_MICROS
        self._millis = NOW_MICROS // MICROS_PER_MILLI
        self.holds = MemoryHoldStore(lambda: self._millis)
        self._generations = count(1)
        self._logs: Logs = {}
        self._cursors: dict[str, int] = {}
        self._kept: dict[str, int] = {}
        #: By tenant: end offset at which it opens; None where none is taken yet.
        self.closed: dict[str, int | None] = {}
        #: Tenants whose slot is gone, and from where the next one begins.
        self._gone: dict[str, int] = {}

    def store(self, gateway: int) -> HoldStore:
        """As the protocol says."""
        return self.holds

    async def start(self, logs: Logs) -> None:
        """As the protocol says."""
        self._logs = logs
        self._kept, self._gone = dict.fromkeys(logs, 0), dict.fromkeys(logs, 0)
        for tenant_id in logs:
            await self.beat(tenant_id)

    async def stop(self) -> None:
        """As the protocol says."""

    async def view(self, tenant_id: str) -> View:
        """As the protocol says."""
        slot = self.holds._slots.get(tenant_id)
        if slot is None:
            return View(None, False, 0, {}, {}, frozenset())
        sums = self.holds.sums(tenant_id)
        posted = {str(counter): each.posted_nano for counter, each in sums.items()}
        held = {str(counter): each.held_nano for counter, each in sums.items()}
        unconfirmed = self.holds.unconfirmed(tenant_id)
        return View(slot.generation, slot.is_open, self._cursors[tenant_id], posted, held, unconfirmed)

    async def learn(self, gateway: int) -> None:
        """There are no gates."""

    async def apply(self, tenant_id: str, events: int) -> None:
        """As the protocol says."""
        self._claim(tenant_id)
        first = self._cursors[tenant_id]
        for event in self._logs[tenant_id][first : first + events]:
            self.holds.apply(tenant_id, event)
            self._cursors[tenant_id] += 1
        self._open(tenant_id)

    async def beat(self, tenant_id: str) -> None:
        """As the protocol says."""
        self._claim(tenant_id)
        if tenant_id in self.closed and self.closed[tenant_id] is None:
            self.closed[tenant_id] = len(self._logs[tenant_id])
        self._open(tenant_id)

    async def replace_sink(self, tenant_id: str, *, in_the_middle: bool) -> None:
        """What was read before is read again, and passed over."""

    async def keep(self) -> None:
        """As the protocol says."""
        self._kept = dict(self._cursors)

    async def lose(self) -> None:
        """As the protocol says."""
        self._kept = dict.fromkeys(self._logs, 0)
        await self.fail_over()

    async def fail_over(self) -> None:
        """As the protocol says."""
        self.holds.lose()
        self._gone = dict(self._kept)
        self.closed.clear()

    async def pass_overlay_time(self) -> None:
        """As the protocol says."""
        self._millis += OVERLAY_MILLIS
        self.now_micros += OVERLAY_MILLIS * MICROS_PER_MILLI

    def _claim(self, tenant_id: str) -> None:
        """A slot that is gone is begun anew, closed, as far as it was kept."""
        if tenant_id not in self._gone:
            return
        first = self._gone.pop(tenant_id)
        self.holds.close_tenant(tenant_id, f"memory:{next(self._generations)}")
        for event in self._logs[tenant_id][:first]:
            self.holds.apply(tenant_id, event)
        self._cursors[tenant_id] = first
        self.closed[tenant_id] = None

    def _open(self, tenant_id: str) -> None:
        barrier = self.closed.get(tenant_id)
        if barrier is not None and self._cursors[tenant_id] >= barrier:
            del self.closed[tenant_id]
            self.holds.open_tenant(tenant_id, self.holds._slots[tenant_id].generation)
