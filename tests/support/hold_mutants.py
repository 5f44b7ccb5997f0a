"""Hold stores and scripts that are broken on purpose: whatever judges stores must catch each, or it sees nothing."""

from __future__ import annotations

import hashlib

from sinks.redis import memory
from sinks.redis.holds import Closed, Confirmation, Extension, Placed, PlaceHold, Placement
from sinks.redis.memory import MemoryHoldStore
from sinks.redis.scripts import Script, script

NO_TOMBSTONE = ("confirm", "if status == 'd' then return 'D' end", "")
#: A script, what stands in it, what stands there instead.
SCRIPTS = {
    "no pin": ("confirm", "redis.call('HSET', KEYS[3], ARGV[2], 'p' .. string.sub(entry, 2))", ""),
    "any generation": ("confirm", "slot[1] ~= ARGV[1] or slot[2] ~= '1'", "not slot[1]"),
    "one limit": (
        "place",
        "for leg = 1, legs do\n    if more[leg] and used",
        "for leg = 1, 1 do\n    if more[leg] and used",
    ),
    "growth stays": ("apply", "  leave_growth(hold, raised)", ""),
    "estimate stays": ("apply", "add(state, 'p:' .. counter, '-' .. amount, true)", ""),
}

#: What the machine of holds meets too rarely, if ever.
RARE_SCRIPTS = {
    "no tombstone": NO_TOMBSTONE,
    "never swept": ("place", "    sweep(math.huge)\n", ""),
    "never remembered": ("place", "redis.call('RPUSH', placed, hold)\n", ""),
    "sweeps what is pinned": (
        "place",
        "string.sub(entry, 1, 1) == 'o' and not drop(ids[at], entry)",
        "not drop(ids[at], (string.gsub(entry, '^p', 'o')))",
    ),
    "closed confirms": ("confirm", " or slot[2] ~= '1'", ""),
    "closed places": ("place", "if applied[2] ~= '1' then return {'C', 'rebuilding'} end", ""),
    "another generation places": ("place", "if applied[1] ~= generation then return {'C', 'generation'} end", ""),
    "refusals are forgotten": ("place", "  return {'R', leg, left}\nend\n\n", "end\n\n"),
    "another body is as good": ("place", "if known == body then return {'P'} end", "if known then return {'P'} end"),
    "what waits does not count": ("place", " + (tonumber(waiting[leg + 2]) or 0)", ""),
    "the same again adds": ("extend", "- tonumber(amount) - waits", "- tonumber(amount)"),
    "extends what is not pinned": ("extend", "'^p%d+ (.*)$'", "'^[op]%d+ (.*)$'"),
    "extends what is dropped": ("extend", " or (entry and string.sub(entry, 1, 1) == 'd')", ""),
    "fences nobody": ("apply", "if slot[1] and tonumber(slot[1]) > epoch then return {'F', slot[1]} end", ""),
    "sees no gap": ("apply", "cursor < believed or slot[5]", "slot[5]"),
    "writes to any generation": ("apply", "elseif slot[2] ~= ARGV[2] then", "elseif false then"),
    "an extension lowers": ("apply", "(#new > #amount or (#new == #amount and new > amount))", "new ~= amount"),
    "a release charges": ("apply", "  if kind ~= 'RELEASED' then post(legs) end", "  post(legs)"),
    "any end is adjusted": (
        "apply",
        "if not ended or string.sub(ended, 1, 1) ~= 'x' then return end",
        "if not ended then return end",
    ),
    "growth outlives its hold": ("apply", "  leave_growth(hold)\n", ""),
    "a dropped hold leaves": (
        "apply",
        "if not entry or string.sub(entry, 1, 1) == 'd' then return false end",
        "if not entry then return false end",
    ),
    "pins outlive a generation": ("slot", "  redis.call('UNLINK', KEYS[2], KEYS[3])\n", ""),
}


def changed(name: str, old: str, new: str) -> Script:
    """A script with other words in it."""
    text = script(name).text.decode()
    assert text.count(old) == 1
    broken = text.replace(old, new).encode()
    return Script(name, broken, hashlib.sha1(broken, usedforsecurity=False).hexdigest())


class NoPin(MemoryHoldStore):
    """Confirms without pinning."""

    async def confirm(self, tenant_id: str, hold_id: str, generation: str) -> Confirmation:
        """As the seam says, and the entry's time goes on."""
        answer = await super().confirm(tenant_id, hold_id, generation)
        slot = self._slots.get(tenant_id)
        if slot is not None and answer is Confirmation.CONFIRMED and hold_id in slot.overlay:
            slot.overlay[hold_id].status = memory._Status.OPEN
        return answer


class NoTombstone(MemoryHoldStore):
    """Forgets what fell away."""

    def _sweep(self, slot: memory._Slot) -> None:
        super()._sweep(slot)
        for hold_id in [each for each, entry in slot.overlay.items() if entry.status is memory._Status.DROPPED]:
            del slot.overlay[hold_id]


class AnyGeneration(MemoryHoldStore):
    """Confirms whatever the generation."""

    async def confirm(self, tenant_id: str, hold_id: str, generation: str) -> Confirmation:
        """As the seam says under the present generation."""
        slot = self._slots.get(tenant_id)
        return await super().confirm(tenant_id, hold_id, slot.generation if slot else generation)


class NoSweep(MemoryHoldStore):
    """Nothing ever falls away."""

    def _sweep(self, slot: memory._Slot) -> None:
        """Not done."""


class HoldsAgain(MemoryHoldStore):
    """Takes an id it knows for a new one."""

    async def place(self, ask: PlaceHold) -> Placement:
        """As the seam says for an id that is new."""
        reason = self.closed_reason(ask.tenant_id)
        return Closed(reason) if reason else self._decide(self._slots[ask.tenant_id], ask)


class AnyBody(MemoryHoldStore):
    """Answers by the id alone."""

    async def place(self, ask: PlaceHold) -> Placement:
        """As the seam says, but never a conflict."""
        answer = await super().place(ask)
        return Placed("") if isinstance(answer, memory.Conflict) else answer


class OneLimit(MemoryHoldStore):
    """Looks at the first limit alone."""

    async def place(self, ask: PlaceHold) -> Placement:
        """As the seam says, with no end to all but the first limit."""
        return await super().place(ask._replace(limits_nano=(ask.limits_nano[0], *[10**9] * (len(ask.legs) - 1))))


class FreeGrowth(MemoryHoldStore):
    """Grants every extension."""

    async def extend(self, ask: PlaceHold) -> Extension:
        """As the seam says, without limits."""
        return await super().extend(ask._replace(limits_nano=(10**9,) * len(ask.legs)))


STORES: list[type[MemoryHoldStore]] = [
    NoPin,
    NoTombstone,
    AnyGeneration,
    NoSweep,
    HoldsAgain,
    AnyBody,
    OneLimit,
    FreeGrowth,
]
