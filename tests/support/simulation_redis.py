"""A Redis of a simulation: what the sink's scripts do, in Python, on hashes that can be lost or put back."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from processors.budgets import BudgetFold
from processors.budgets.fold import Counter, Sums
from processors.budgets.live import MINUTE_DIGITS, LiveFold, LiveTenant
from schemas.events import BudgetEvent, BudgetKind, HoldLeg
from sinks.redis.scripts import Script
from tests.budget_world import Events, hold_id, leg
from tests.support.simulation_loop import VirtualLoop, Wire

TEMPLATE = Events().placed(hold_id(1), leg(1))
#: The tenant of every slot's fold.
SLOT = "slot"
Hash = dict[str, str]
#: kind, hold id, counter, amount, counter, amount, ...
Movement = tuple[str, str, tuple[str, ...]]


def event_of(movement: Movement) -> BudgetEvent:
    """The movement as the fold takes it."""
    kind, hold, legs = movement
    pairs = zip(legs[::2], legs[1::2], strict=True)
    return msgspec.structs.replace(
        TEMPLATE, kind=BudgetKind(kind), hold_id=hold, legs=tuple(_leg(counter, amount) for counter, amount in pairs)
    )


def _leg(counter: str, amount: str) -> HoldLeg:
    limit_id, currency, start, end = counter.split("|")
    return HoldLeg(
        limit_id=limit_id,
        amount_nano=int(amount),
        held_nano=0,
        currency=currency,
        window_start=int(start),
        window_end=int(end),
    )


def folded(movements: Sequence[Movement]) -> tuple[dict[Counter, Sums], set[str]]:
    """Sums that are not zero, and open holds, after these movements."""
    return _folded(tuple(movements))


@lru_cache(maxsize=10_000)
def _folded(movements: tuple[Movement, ...]) -> tuple[dict[Counter, Sums], set[str]]:
    fold = BudgetFold()
    for movement in movements:
        fold.apply(event_of(movement))
    return {counter: sums for counter, sums in fold.sums.items() if sums != Sums()}, set(fold.open_holds)


def standing(fold: LiveFold | None) -> tuple[dict[Counter, Sums], set[str]]:
    """The same of a slot."""
    live = fold.tenants.get(SLOT, LiveTenant()) if fold is not None else LiveTenant()
    found = {
        _counter(name): Sums(live.posted.get(name, 0), live.held.get(name, 0))
        for name in live.posted.keys() | live.held.keys()
    }
    return {counter: sums for counter, sums in found.items() if sums != Sums()}, set(live.holds)


def _counter(name: str) -> Counter:
    limit_id, currency, start, end = name.split("|")
    return Counter(limit_id, currency, int(start), int(end))


def _slot_of(hashes: dict[str, Hash], state: str, prefix: str) -> LiveFold:
    """A slot that was restored, from its keys."""
    fold, live = LiveFold(), LiveTenant()
    for name, value in hashes[state].items():
        if name[:2] in {"p:", "h:"}:
            (live.posted if name[0] == "p" else live.held)[name[2:]] = int(value)
    live.holds = {hold: body.split() for hold, body in hashes.get(prefix + "holds", {}).items()}
    fold.tenants[SLOT] = live
    for key, ended in hashes.items():
        if key.startswith(prefix + "done:"):
            for hold, how in ended.items():
                fold.ended.setdefault(hold[:MINUTE_DIGITS], {}).setdefault(SLOT, {})[hold] = how
    return fold


class RedisServer:
    """Hashes, and what is applied to each slot."""

    def __init__(self, loop: VirtualLoop) -> None:
        """Empty; `loop` is its clock."""
        self._loop = loop
        self.run_id = "run0"
        self.hashes: dict[str, Hash] = {}
        #: By the key of a slot's state.
        self.slots: dict[str, LiveFold] = {}
        self._runs = 0
        self._replica: tuple[dict[str, Hash], dict[str, LiveFold]] = ({}, {})
        self._scripts: dict[str, Callable[[Sequence[str], Sequence[Any]], Any]] = {
            "gate_claim": self._gate_claim,
            "gate_generation": self._gate_generation,
            "gate_write": self._gate_write,
            "slot": self._slot,
            "apply": self._apply,
            "restore": self._restore,
        }

    def keep(self) -> None:
        """A replica is as far as this."""
        self._replica = copy.deepcopy((self.hashes, self.slots))

    def fail_over(self) -> None:
        """The replica takes over: what came after is lost."""
        self.hashes, self.slots = copy.deepcopy(self._replica)
        self._restart()

    def flush(self) -> None:
        """Everything is lost, with the server's run going on."""
        self.hashes, self.slots = {}, {}
        self._replica = ({}, {})

    def restart(self) -> None:
        """The server is started again from its disk."""
        self._restart()

    def run(self, name: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Run a script."""
        return self._scripts[name](keys, arguments)

    def _restart(self) -> None:
        self._runs += 1
        self.run_id = f"run{self._runs}"

    def _millis(self) -> int:
        return 1_000_000 + round(self._loop.now * 1_000)

    def _gate_claim(self, keys: Sequence[str], _arguments: Sequence[Any]) -> Any:
        gate = self.hashes.setdefault(keys[0], {})
        gate["epoch"] = str(max(self._millis(), int(gate.get("epoch", 0)) + 1))
        pairs = [word.encode() for pair in self.hashes.get(keys[1], {}).items() for word in pair]
        names = ("epoch", "generation", "open", "cursor", "topic_id", "rebuilding")
        return [*(gate.get(name, "").encode() for name in names), pairs]

    def _gate_generation(self, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        epoch, run_id, cursor, topic_id, rebuilding = arguments
        gate = self.hashes.setdefault(keys[0], {})
        if int(gate.get("epoch", 0)) > int(epoch):
            return [b"F", gate["epoch"].encode()]
        last = int(gate.get("generation", ":0").rpartition(":")[2])
        generation = f"{run_id}:{max(self._millis(), last + 1)}"
        gate |= {"epoch": epoch, "generation": generation, "open": "0", "cursor": cursor, "topic_id": topic_id}
        gate["rebuilding"] = rebuilding
        return [b"K", generation.encode()]

    def _gate_write(self, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        epoch, generation, cursor, open_word, _, end_offset, rebuilding, _, *moved = arguments
        gate = self.hashes.setdefault(keys[0], {})
        if int(gate.get("epoch", 0)) > int(epoch):
            return [b"F", gate["epoch"].encode()]
        if gate.get("generation") != generation or int(gate.get("cursor", 0)) > int(cursor):
            return [b"N", gate.get("generation", "").encode()]
        gate |= {"cursor": cursor, "end_offset": end_offset, "rebuilding": rebuilding}
        if open_word:
            gate["open"] = open_word
        self.hashes.setdefault(keys[1], {}).update(zip(moved[::2], moved[1::2], strict=True))
        return [b"K", str(self._millis()).encode()]

    def _slot(self, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        epoch, generation, open_word, topic_id, new_cursor = arguments
        slot = self.hashes.get(keys[0], {})
        if int(slot.get("epoch", 0)) > int(epoch):
            return [b"F", slot["epoch"].encode()]
        if "restoring" in slot:
            return [b"K", b"", b"restoring"]
        if "generation" not in slot:
            if not new_cursor:
                return [b"K", b"", b""]
            slot = self.hashes[keys[0]] = {"cursor": new_cursor, "topic_id": topic_id, "generation": "", "open": "0"}
        if generation:
            slot["generation"] = generation
        if open_word:
            slot["open"] = open_word
        slot["epoch"] = epoch
        return [b"K", slot["cursor"].encode(), slot["generation"].encode()]

    def _apply(self, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        epoch, generation, open_word, believed, following, topic_id, _, packed, *late = arguments
        slot = self.hashes.get(keys[0], {})
        if int(slot.get("epoch", 0)) > int(epoch):
            return [b"F", slot["epoch"].encode()]
        cursor = int(slot.get("cursor", 0))
        if cursor < int(believed) or "restoring" in slot:
            return [b"G", str(cursor).encode()]
        if "generation" not in slot:
            slot = self.hashes[keys[0]] = {"generation": generation, "open": open_word, "topic_id": topic_id}
        elif slot["generation"] != generation:
            return [b"N", slot["generation"].encode()]
        fold = self.slots.setdefault(keys[0], LiveFold())
        for offset, kind, hold, _, legs in msgspec.msgpack.decode(packed):
            mark = f"r:{offset}"
            is_late = late == ["1"]
            if (is_late and mark not in slot) or (not is_late and offset >= cursor):
                fold.apply(SLOT, [(offset, kind, hold, legs)], offset)
            if is_late:
                slot[mark] = "1"
        slot |= {"cursor": str(max(cursor, int(following))), "epoch": epoch}
        return [b"K", slot["cursor"].encode()]

    def _restore(self, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        epoch, token, step, *more = arguments
        slot = self.hashes.get(keys[0], {})
        if int(slot.get("epoch", 0)) > int(epoch):
            return [b"F", slot["epoch"].encode()]
        if step == "begin":
            return self._begin_restore(keys, epoch, token, more)
        if slot.get("restoring") != token:
            return [b"G"]
        if step == "part":
            self.hashes.setdefault(keys[1], {}).update(zip(more[1::2], more[2::2], strict=True))
        else:
            self.slots[keys[0]] = _slot_of(self.hashes, keys[0], keys[0].removesuffix("state"))
            slot |= {"cursor": more[0], "generation": more[1], "topic_id": more[2], "open": "0"}
            del slot["restoring"], slot["hours"]
        return [b"K"]

    def _begin_restore(self, keys: Sequence[str], epoch: str, token: str, more: Sequence[str]) -> Any:
        slot, (cursor, hours, known) = self.hashes.get(keys[0], {}), more
        if "generation" in slot and int(slot["cursor"]) >= int(cursor):
            return [b"A", slot["cursor"].encode()]
        if slot.get("hours", hours) not in {hours, known}:
            return [b"H", slot["hours"].encode()]
        for key in keys:
            self.hashes.pop(key, None)
        self.slots.pop(keys[0], None)
        self.hashes[keys[0]] = {"epoch": epoch, "restoring": token, "hours": hours}
        return [b"K"]


class RedisConnection:
    """What the sink needs of sinks.redis.client.RedisClient, over the wire of the simulation."""

    eviction = ""
    connected = True

    def __init__(self, server: RedisServer, wire: Wire, process: str) -> None:
        """Of one process."""
        self._server = server
        self._wire = wire
        self._process = process

    @property
    def run_id(self) -> str:
        """The server's; a connection that broke is made again at once."""
        return self._server.run_id

    async def open(self) -> None:
        """Nothing to wait for."""

    async def close(self) -> None:
        """Nothing to let go of."""

    async def evaluate(self, program: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Run a script."""
        return await self.run(program.name, keys, *arguments)

    async def run(self, name: str, keys: Sequence[str], *arguments: Any) -> Any:
        """Run a script by its name."""
        given = tuple(arguments)
        return await self._wire.call(self._process, name, lambda: self._server.run(name, keys, given))
