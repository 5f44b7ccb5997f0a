"""The scripts on a real Valkey take the transitions of the model, through the gateways' store and the sink's slots.

Every state is a tenant, and a transition is taken by a copy of it. Whatever may go side by side goes in one pipeline.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import defaultdict
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

from processors.budgets.live import LiveFold
from schemas.errors import FencedError, GapError, StoreError
from sinks.redis.client import RedisClient
from sinks.redis.connection import texts
from sinks.redis.holds import PlaceHold
from sinks.redis.keys import counter_text, slot_keys
from sinks.redis.restore import Restorer, state_of
from sinks.redis.scripts import Script
from sinks.redis.slot_event import SlotEvent, slot_event
from sinks.redis.slots import Ownership, Slots
from sinks.redis.store import Gate, RedisHoldStore
from tests.budget_world import hold_id, leg
from tests.support.hold_edges import ENDS, Graph, Names, Transition, View
from tests.support.hold_model import DONE, Action, Answer, Entry, Hold, Refusal, Store, Waiting

TOPIC_ID = "topic"
OVERLAY_MILLIS = 3_600_000
AT_ONCE = 1_000
#: A hold that is refused, so that the script looks for what fell away.
PROBE = 99
STATUSES = {"o": "open", "p": "pinned", "d": "dropped"}


def program(name: str, text: str) -> Script:
    """A script of the test's own."""
    return Script(name, text.encode(), hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


COPY = program("copy", "for at = 1, 6 do redis.call('COPY', KEYS[at], KEYS[at + 6]) end")
READ = program(
    "read",
    "local found = {} for at = 1, 5 do found[at] = redis.call('HGETALL', KEYS[at]) end "
    "found[6] = redis.call('LRANGE', KEYS[6], 0, -1) "
    "if ARGV[1] == '1' then redis.call('UNLINK', unpack(KEYS)) end return found",
)
#: The time of holds passes, pinned or not.
AGE = program(
    "age",
    "for _, hold in ipairs(ARGV) do local entry = redis.call('HGET', KEYS[1], hold) "
    "local status, body = string.match(entry or '', '^([op])%d+( .*)$') "
    "if status then redis.call('HSET', KEYS[1], hold, status .. '1' .. body) end end",
)


class Gateway(RedisHoldStore):
    """A gateway that looked at the gates when they said this generation, and open."""

    def __init__(self, url: str, number: int) -> None:
        """Connect nothing yet."""
        super().__init__(url, overlay_milliseconds=OVERLAY_MILLIS, lag_seconds_max=1e12, partitions=1)
        self._number = number

    async def refresh(self) -> None:
        """Nothing new."""
        now = asyncio.get_running_loop().time()
        self._gates = [Gate(f"{self._client.run_id}:{self._number}", True, 0.0, now)]


class Hashes(NamedTuple):
    """A slot as it is kept."""

    state: Mapping[str, str]
    holds: Mapping[str, str]
    overlay: Mapping[str, str]
    done: Mapping[str, str]
    refused: Mapping[str, str]


class Server:
    """Who reaches the server: gateways, one per generation, and the sink."""

    def __init__(self, url: str, graph: Graph, broken: Script | None = None) -> None:
        """Connect nothing yet; `broken` stands in for the script of its name."""
        now_micros = time.time_ns() // 1_000
        self.names = Names(graph.model, now_micros)
        self.probe = hold_id(PROBE, now_micros)
        generations = 2 + max(store.generation for store in graph.made)
        self.gateways = [Gateway(url, number) for number in range(generations)]
        self.client = RedisClient(url)
        self.slots, self.restorer = Slots(self.client), Restorer(self.client)
        if broken is not None:
            for each in (*self.gateways, self.slots):
                if hasattr(each, f"_{broken.name}"):
                    setattr(each, f"_{broken.name}", broken)

    async def __aenter__(self) -> Self:
        """Connect, to an empty server."""
        await self.client.open()
        for gateway in self.gateways:
            await gateway.open()
        await self.client.call("FLUSHALL")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let go of every connection."""
        for gateway in self.gateways:
            await gateway.close()
        await self.client.close()

    def generation(self, number: int) -> str:
        """As the server names it."""
        return f"{self.client.run_id}:{number}"

    def owner(self, generation: int, epoch: int = 1) -> Ownership:
        """Under what a sink writes."""
        return Ownership(epoch, self.generation(generation), TOPIC_ID, is_open=False)


class Slot:
    """A tenant's slot, made and asked with what the product has."""

    def __init__(self, server: Server, tenant_id: str) -> None:
        """Nothing is there yet."""
        self._server, self._tenant_id = server, tenant_id
        keys = slot_keys(tenant_id)
        hold = server.names.holds[0]
        self.keys = (*keys[:3], keys.done_of(hold), keys.refused_of(hold), keys.placed)

    async def begin_first(self) -> None:
        """Open, of the first generation, with nothing applied."""
        await self._claim(0, "1", new_cursor=0)

    async def copy_from(self, other: Slot) -> None:
        """All of it."""
        await self._server.client.evaluate(COPY, other.keys + self.keys, ())

    async def take(self, store: Store, action: Action) -> Answer:
        """Ask, or let happen; `store` is the state that it is in."""
        name, *arguments = action
        answer: Answer = await getattr(self, f"_{name}")(store, *arguments)
        return answer

    async def view(self, *, last: bool) -> View:
        """What is seen of it; nothing is left of it when it is the last look."""
        found = await self._server.client.evaluate(READ, self.keys, ("1" if last else "0",))
        *hashes, placed = map(texts, found)
        return _view(self._server.names, Hashes(*map(_pairs, hashes)), placed)

    async def turned_away(self, store: Store) -> list[str]:
        """What is done for a sink or a gateway that has no right to it, and what comes twice."""
        cursor, entry = len(store.applied), ("COMMITTED", 0, 1)
        gateway, names = self._server.gateways[store.generation + 1], self._server.names
        said = [
            await _refused(
                FencedError, self._write(entry, self._server.owner(store.generation, epoch=0), cursor, cursor)
            ),
            await _refused(GapError, self._write(entry, self._server.owner(store.generation + 1), cursor, cursor)),
            await _refused(GapError, self._write(entry, self._server.owner(store.generation), cursor + 1, cursor + 1)),
        ]
        if cursor:
            await self._write(store.applied[-1], self._server.owner(store.generation), cursor, cursor - 1)
        for ask in (self._asks(0, 1), self._asks(1, 2)):
            answers = [names.answer(ask, each) for each in (await gateway.place(ask), await gateway.extend(ask))]
            said += [str(each) for each in answers if each != ("closed", "budgets_generation_changed")]
        return [each for each in said if each]

    async def _place(self, store: Store, number: int, amount: int) -> Answer:
        ask = self._asks(number, amount)
        return self._server.names.answer(ask, await self._server.gateways[store.generation].place(ask))

    async def _place_late(self, store: Store, number: int) -> Answer:
        await self._age(self._server.names.holds)
        return await self._place(store, number, 1)

    async def _extend(self, store: Store, number: int, amount: int) -> Answer:
        ask = self._asks(number, amount)
        return self._server.names.answer(ask, await self._server.gateways[store.generation].extend(ask))

    async def _confirm(self, store: Store, number: int, generation: int) -> Answer:
        gateway, hold = self._server.gateways[store.generation], self._server.names.holds[number]
        return ((await gateway.confirm(self._tenant_id, hold, self._server.generation(generation))).value.lower(),)

    async def _apply(self, store: Store, *entry: Any) -> Answer:
        cursor = len(store.applied)
        await self._write(entry, self._server.owner(store.generation), cursor, cursor)
        return DONE

    async def _outlive(self, store: Store, number: int) -> Answer:
        await self._age([self._server.names.holds[number]])
        probe = PlaceHold(self._tenant_id, self._server.probe, (leg(1, self._server.names.limits[0]),), (0,))
        await self._server.gateways[store.generation].place(probe)
        await self._server.client.call("HDEL", self.keys[4], probe.hold_id)
        return DONE

    async def _admit(self, store: Store) -> Answer:
        await self._claim(store.generation, "1")
        return DONE

    async def _begin(self, store: Store) -> Answer:
        await self._claim(store.generation + 1, "0")
        return DONE

    async def _restore(self, store: Store, back: int) -> Answer:
        """The server is empty; the sink has a snapshot."""
        await self._server.client.call("UNLINK", *self.keys)
        fold = LiveFold()
        fold.apply(self._tenant_id, [self._move(entry, at) for at, entry in enumerate(store.applied[:back])], back)
        await self._server.restorer.write(self._server.owner(store.generation + 1), state_of(fold, back))
        return DONE

    def _asks(self, number: int, amount: int) -> PlaceHold:
        return self._server.names.asks(number, amount)._replace(tenant_id=self._tenant_id)

    def _move(self, entry: Entry, offset: int) -> SlotEvent:
        move = slot_event(offset, self._server.names.fields[entry])
        assert move is not None
        return move

    async def _write(self, entry: Entry, owner: Ownership, believed: int, offset: int) -> None:
        await self._server.slots.apply(self._tenant_id, [self._move(entry, offset)], owner, believed, offset + 1)

    async def _age(self, holds: Sequence[str]) -> None:
        await self._server.client.evaluate(AGE, (self.keys[2],), tuple(holds))

    async def _claim(self, generation: int, open_word: str, new_cursor: int | None = None) -> None:
        owner = self._server.owner(generation)
        await self._server.slots.claim(
            self._tenant_id, owner, generation=owner.generation, open_word=open_word, new_cursor=new_cursor
        )


async def _refused(kind: type[StoreError], call: Awaitable[object]) -> str:
    try:
        await call
    except kind:
        return ""
    return f"no {kind.__name__}"


def _pairs(words: Sequence[str]) -> dict[str, str]:
    return dict(zip(words[::2], words[1::2], strict=True))


def _amount(words: str) -> int:
    amounts = {int(amount) for amount in words.split()[1::2]}
    assert len(amounts) == 1
    return amounts.pop()


def _sums(fields: Mapping[str, str], prefix: str) -> dict[str, int]:
    found = {name[len(prefix) :]: int(amount) for name, amount in fields.items() if name.startswith(prefix)}
    return {name.partition("|")[0]: amount for name, amount in found.items() if amount}


def _view(names: Names, slot: Hashes, placed: Sequence[str]) -> View:
    """What is placed and not pinned is seen where the order of holds leads to it: it would never fall away else."""
    number_of = names.holds.index
    entries = {name: value for name, value in slot.overlay.items() if name[0] not in "=!"}
    waiting = {
        name: value.partition(" ")
        for name, value in entries.items()
        if not name.endswith("+") and (value[0] != "o" or name in placed)
    }
    growth = {name[:-1]: value.partition(" ")[2] for name, value in entries.items() if name.endswith("+")}
    holds = {number_of(hold): Hold("open", _amount(body)) for hold, body in slot.holds.items()}
    ended = {number_of(hold): _ended(names, hold, end) for hold, end in slot.done.items()}
    assert not holds.keys() & ended.keys()
    return View(
        int(slot.state["generation"].rpartition(":")[2]),
        slot.state["open"] == "1",
        int(slot.state["cursor"]),
        _sums(slot.state, "p:"),
        _sums(slot.state, "h:"),
        _sums(slot.overlay, "="),
        holds | ended,
        frozenset(
            Waiting(number_of(name), STATUSES[head[0]], _amount(body)) for name, (head, _, body) in waiting.items()
        ),
        frozenset((number_of(name), _amount(body)) for name, body in growth.items()),
        frozenset(_refusal(names, hold, value) for hold, value in slot.refused.items()),
    )


def _taken(names: Names, hold: str, digest: str) -> int:
    """The amount on each leg of which a body has this digest."""
    for amount in range(3):
        legs = names.asks(names.holds.index(hold), amount).legs
        body = " ".join(f"{counter_text(each)} {amount}" for each in legs)
        if hashlib.sha1(body.encode(), usedforsecurity=False).hexdigest().startswith(digest):
            return amount
    raise AssertionError(digest)


def _ended(names: Names, hold: str, end: str) -> Hold:
    head, _, charged = end.partition(" ")
    return Hold(ENDS[head[0]], _taken(names, hold, head[1:]), _amount(charged) if charged else 0)


def _refusal(names: Names, hold: str, answer: str) -> Refusal:
    digest, leg_number, left = answer.split()
    return Refusal(names.holds.index(hold), _taken(names, hold, digest), int(leg_number) - 1, int(left))


async def differing(url: str, graph: Graph, broken: Script | None = None) -> list[str]:
    """All transitions of a graph, taken level by level: what differs in the first level in which something does."""
    async with Server(url, graph, broken) as server:
        slots: dict[Store, Slot] = {}
        for level in _levels(graph):
            found = await _made(server, slots, graph, level)
            transitions = [each for store in level for each in graph.transitions(store)]
            for first in range(0, len(transitions), AT_ONCE):
                if not found:
                    found = await _taken_by_copies(server, slots, transitions[first : first + AT_ONCE])
            if found:
                return found
    return []


def _levels(graph: Graph) -> Iterator[list[Store]]:
    """States by how many steps they are from the first one."""
    depths: dict[Store, int] = {}
    levels: defaultdict[int, list[Store]] = defaultdict(list)
    for store, parent in graph.made.items():
        depths[store] = 0 if parent is None else depths[graph.standing(parent[0])] + 1
        levels[depths[store]].append(store)
    for depth in sorted(levels):
        yield levels[depth]


async def _made(server: Server, slots: dict[Store, Slot], graph: Graph, level: Sequence[Store]) -> list[str]:
    """Bring a slot into each state, and see whether it is and stays in it where nobody has a right to change it."""

    async def one(store: Store) -> list[str]:
        slot, parent = slots[store], graph.made[store]
        if parent is None:
            await slot.begin_first()
        else:
            await slot.copy_from(slots[graph.standing(parent[0])])
            await slot.take(*parent)
        wrong = await slot.turned_away(store)
        seen, expected = await slot.view(last=False), server.names.view(store)
        return [f"{store}: {wrong}"] if wrong else [] if seen == expected else [f"{parent}: {seen}, not {expected}"]

    slots.update({store: Slot(server, f"state{len(slots) + at}") for at, store in enumerate(level)})
    return [said for found in await asyncio.gather(*map(one, level)) for said in found]


async def _taken_by_copies(server: Server, slots: Mapping[Store, Slot], transitions: Sequence[Transition]) -> list[str]:
    async def one(number: int, transition: Transition) -> str:
        slot = Slot(server, f"copy{number}")
        await slot.copy_from(slots[transition.before])
        answer = await slot.take(transition.before, transition.action)
        seen = (answer, await slot.view(last=True))
        if seen in [(said, server.names.view(after)) for said, after in transition.allowed]:
            return ""
        return f"{transition.before} {transition.action}: {seen}, not {transition.allowed}"

    return [said for said in await asyncio.gather(*(one(*each) for each in enumerate(transitions))) if said]
