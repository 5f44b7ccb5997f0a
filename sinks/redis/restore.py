"""Restorer: writes applied state into slots as a whole, from a fold in memory or from a snapshot, in bounded parts.

A slot that is being restored has no generation until its last part, so whoever dies on the way, and whatever the server
loses on the way, leaves nothing that could be taken for a slot (lua/restore.lua).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, count
from typing import NamedTuple

from processors.budgets.fold import hour_of
from processors.budgets.live import Ended, LiveFold, LiveTenant
from schemas import limits
from schemas.errors import FencedError, GapError
from sinks.redis.client import RedisClient
from sinks.redis.connection import texts
from sinks.redis.groups import in_groups
from sinks.redis.keys import FIRST, Names, hours_of_minute
from sinks.redis.scripts import script
from sinks.redis.slots import Ownership

#: Field and value pairs of one script call.
PAIRS_PER_CALL = 1_000
#: Resolved holds gathered before they are sent, so that a call carries many of them.
HOLDS_AT_ONCE = 50_000
Pairs = Sequence[str]


class AppliedState(NamedTuple):
    """The applied state of a partition's tenants at one offset."""

    #: Every event below it is folded in.
    cursor: int
    tenants: Mapping[str, LiveTenant]
    #: Minutes of hold ids in which holds ended (MINUTE_DIGITS each).
    minutes: Sequence[str]
    #: How the holds of a minute ended; asked for one after the other, so that they need not be in memory together.
    ended: Callable[[str], Awaitable[Ended]]


def state_of(fold: LiveFold, cursor: int) -> AppliedState:
    """What a fold in memory says."""

    async def ended(minute: str) -> Ended:
        return fold.ended[minute]

    return AppliedState(cursor, fold.tenants, sorted(fold.ended), ended)


class Restorer:
    """Restores slots of one server. Raises StoreUnavailableError, FencedError, and GapError when it lost something."""

    def __init__(
        self, client: RedisClient, tombstone_seconds: int = limits.HOLD_TOMBSTONE_SECONDS, names: Names = FIRST
    ) -> None:
        """`tombstone_seconds`: how long a resolved hold is remembered."""
        self._client = client
        self._names = names
        self._life_seconds = str(tombstone_seconds + 3600)
        self._attempts = count(1)

    async def write(self, owner: Ownership, state: AppliedState) -> None:
        """Make every tenant's slot anew, closed, under the owner's generation; one that is as far already stays."""
        token = f"{owner.epoch}:{next(self._attempts)}"
        attempt = _Attempt(self._client, owner, token, self._life_seconds, self._names)
        hours = sorted({hour for minute in state.minutes for hour in hours_of_minute(minute)})
        tenants = sorted(state.tenants)
        begun = await in_groups(
            tenants, lambda tenant_id: attempt.begin(tenant_id, state.tenants[tenant_id].cursor, hours)
        )
        chosen = {tenant_id for tenant_id, is_begun in zip(tenants, begun, strict=True) if is_begun}
        await self._write_ended(attempt, state, chosen)
        await in_groups(sorted(chosen), lambda tenant_id: attempt.end(tenant_id, state.tenants[tenant_id]))

    async def _write_ended(self, attempt: _Attempt, state: AppliedState, chosen: set[str]) -> None:
        waiting: dict[tuple[str, int], list[str]] = {}
        holds = 0
        for minute in state.minutes:
            for tenant_id, ended in (await state.ended(minute)).items():
                if tenant_id in chosen:
                    holds += len(ended)
                    for hour, pairs in _by_hour(minute, ended):
                        waiting.setdefault((tenant_id, hour), []).extend(pairs)
            if holds >= HOLDS_AT_ONCE:
                await attempt.put_ended(waiting)
                waiting, holds = {}, 0
        await attempt.put_ended(waiting)


class _Attempt:
    """One go at restoring: its token tells its parts from those of any other."""

    def __init__(self, client: RedisClient, owner: Ownership, token: str, life_seconds: str, names: Names) -> None:
        self._client = client
        self._keys_of = names.slot
        self._owner = owner
        self._token = token
        self._life_seconds = life_seconds
        self._script = script("restore")

    async def begin(self, tenant_id: str, cursor: int, hours: Sequence[int]) -> bool:
        """Empty the slot; False when it stands at the cursor or further."""
        keys, before = self._keys_of(tenant_id), ""
        while True:
            all_hours = sorted({*hours, *map(int, before.split())})
            done = [f"{keys.done}{hour}" for hour in all_hours]
            words = " ".join(map(str, all_hours))
            answer = await self._call(tenant_id, (*keys[:4], *done), "begin", str(cursor), words, before)
            if answer[0] != "H":
                return answer[0] == "K"
            before = answer[1]

    async def put_ended(self, waiting: Mapping[tuple[str, int], Pairs]) -> None:
        """How holds ended, by tenant and hour."""
        calls = [
            (tenant_id, f"{self._keys_of(tenant_id).done}{hour}", part)
            for (tenant_id, hour), pairs in waiting.items()
            for part in _parts(pairs)
        ]
        await in_groups(calls, lambda call: self._put(*call, self._life_seconds))

    async def end(self, tenant_id: str, live: LiveTenant) -> None:
        """Sums and open holds, and with the cursor the slot is one."""
        keys = self._keys_of(tenant_id)
        sums = chain(_sums("p:", live.posted), _sums("h:", live.held))
        bodies = chain.from_iterable((hold_id, " ".join(body)) for hold_id, body in live.holds.items())
        for key, pairs in ((keys.state, list(sums)), (keys.holds, list(bodies))):
            for part in _parts(pairs):
                await self._put(tenant_id, key, part, "")
        owner = self._owner
        await self._call(tenant_id, (keys.state,), "end", str(live.cursor), owner.generation, owner.topic_id)

    async def _put(self, tenant_id: str, key: str, pairs: Pairs, life_seconds: str) -> None:
        await self._call(tenant_id, (self._keys_of(tenant_id).state, key), "part", life_seconds, *pairs)

    async def _call(self, tenant_id: str, keys: tuple[str, ...], *arguments: str) -> list[str]:
        given = (str(self._owner.epoch), self._token, *arguments)
        answer = texts(await self._client.evaluate(self._script, keys, given))
        if answer[0] == "F":
            raise FencedError(f"slot {tenant_id}", self._owner.epoch)
        if answer[0] == "G":
            raise GapError(f"slot {tenant_id} was lost while it was restored", 0, 0)
        return answer


def _sums(prefix: str, sums: Mapping[str, int]) -> Iterator[str]:
    for counter, amount in sums.items():
        yield prefix + counter
        yield str(amount)


def _parts(pairs: Pairs) -> Iterator[Pairs]:
    for first in range(0, len(pairs), 2 * PAIRS_PER_CALL):
        yield pairs[first : first + 2 * PAIRS_PER_CALL]


def _by_hour(minute: str, ended: Mapping[str, str]) -> Iterable[tuple[int, list[str]]]:
    """Holds of a minute and how they ended, by the hour of their ids: nearly always one."""
    hours = hours_of_minute(minute)
    if len(hours) == 1:
        return [(hours[0], list(chain.from_iterable(ended.items())))]
    found: dict[int, list[str]] = {}
    for hold_id, how in ended.items():
        found.setdefault(hour_of(hold_id), []).extend((hold_id, how))
    return found.items()
