"""What killed gateways leave behind: clients, provider, log and Redis are compared, call by call and hold by hold."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Self

from processors.budgets import BudgetFold, Counter
from schemas.events import BudgetEvent, BudgetKind, Event, RequestEvent, RequestKind
from schemas.ids import uuid7
from schemas.limits import OVERLAY_SECONDS
from schemas.topics import BUDGETS
from sinks.redis.check import check_budgets, read_states
from sinks.redis.holds import PlaceHold, Refused
from sinks.redis.reads import RedisReads, TenantState
from sinks.redis.store import RedisHoldStore
from streams.codec import Codec
from streams.kafka import KafkaReader
from streams.log import Partition
from streams.registry import RegistrySchemas
from tests.budget_world import leg, limit_on
from tests.faults.callers import Callers, FaultyProvider
from tests.faults.verdict import Verdict
from tests.faults.world import DEADLINE_SECONDS, METADATA_SECONDS, StuckError
from tests.support.gateway_stack import GatewayStack

LEASE_SECONDS = 9
GRACE_SECONDS = 1
#: Beyond lease and grace: the reaper's tick, its way through the log, a machine with other work.
MARGIN_SECONDS = 20.0
HELD_SECONDS_MAX = max(LEASE_SECONDS + GRACE_SECONDS, OVERLAY_SECONDS) + MARGIN_SECONDS
LOOK_SECONDS = 0.3
#: Of `quaestor verify`.
SCOPES = ("budgets", "ledger")
#: The hard limit of a minute by tenant, nano-units: the first has room for one call in ten or so.
MINUTE_NANO = {"tight": 1_000_000, "roomy": 10**12, "wide": 10**12}
TOTAL_NANO = 10**13
#: How far a call came that a kill cut off, in the order of a call.
UNRECORDED, UNCALLED, UNANSWERED, UNSETTLED, UNTOLD = (
    "held in Redis alone",
    "PLACED, not called",
    "in the call",
    "answered, not COMMITTED",
    "COMMITTED, not answered",
)


def total_of(tenant: str) -> str:
    """The id of the limit that is never reached."""
    return limit_on("tenant", tenant, TOTAL_NANO, tenant_id=tenant, window="total").limit_id


class Aftermath:
    """Looks after each kill, judges what is held between rounds, and every call at the end."""

    def __init__(self, stack: GatewayStack, callers: Callers, provider: FaultyProvider) -> None:
        """Connects with `async with`."""
        self._stack, self._callers, self._provider = stack, callers, provider
        self._reads = RedisReads(stack.settings.redis_url)
        self._store = RedisHoldStore(stack.settings.redis_url)
        self._codec = Codec(RegistrySchemas(stack.settings.registry_url))
        #: The round of each call that a kill met, and of each hold that was seen unconfirmed.
        self._met: dict[str, int] = {}
        self._unconfirmed: dict[str, int] = {}
        self._rounds: dict[str, set[int]] = {
            kind: set() for kind in (UNRECORDED, UNCALLED, UNANSWERED, UNSETTLED, UNTOLD)
        }

    async def __aenter__(self) -> Self:
        """Connect."""
        await self._reads.open()
        await self._store.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let go."""
        await self._store.close()
        await self._reads.close()

    async def look(self, number: int, marks: set[str]) -> None:
        """Take down which calls were under way at the kill, and which holds the log may not know."""
        self._met |= dict.fromkeys(marks, number)
        for state in (await read_states(self._reads)).values():
            for hold_id in state.unconfirmed:
                self._unconfirmed.setdefault(hold_id, number)

    def counts(self) -> dict[str, int]:
        """Calls answered and refused, and in how many rounds one was cut off at each point."""
        calls = {"calls answered": len(self._callers.answers), "refused by a limit": self._callers.ends[429]}
        return calls | {f"rounds with one {kind}": len(rounds) for kind, rounds in self._rounds.items()}

    async def holds(self) -> Verdict:
        """Pause the calls until every lease is over: nothing is held, Redis is the log's fold, books are right."""
        await self._callers.pause()
        try:
            await _until(self._nothing_held, "every hold is resolved and applied")
            await _until(self._room_is_whole, "the overlay holds nothing")
            states = await read_states(self._reads)
            found = [str(each) for each in await asyncio.to_thread(self._differences, states)]
            await _until(self._books_are_wrong, "the ledger has booked what was charged", DEADLINE_SECONDS)
        except StuckError as error:
            found = [str(error)]
        finally:
            self._callers.resume()
        return _lost(found)

    async def _nothing_held(self) -> str:
        """What is still held, or not applied."""
        ends = await asyncio.to_thread(self._ends)
        cursors = await self._reads.cursors()
        lagging = [str(at) for at, end in ends.items() if cursors.get(at, 0) < end]
        states = await read_states(self._reads)
        return " ".join(lagging + [hold_id for state in states.values() for hold_id in state.holds])

    async def _room_is_whole(self) -> str:
        """Ask for more room than there is, which sweeps the overlay: what is left must be what was not spent."""
        for tenant, state in (await read_states(self._reads)).items():
            limit_id, now = total_of(tenant), time.time_ns() // 1_000
            sums = state.sums.get(Counter(limit_id, "USD", 0, 0))
            legs = (leg(TOTAL_NANO + 1, limit_id),)
            answer = await self._store.place(
                PlaceHold(tenant, uuid7(now, now.to_bytes(10, "big")), legs, (TOTAL_NANO,))
            )
            unspent = TOTAL_NANO - (sums.posted_nano if sums else 0)
            left = answer.remaining_nano if isinstance(answer, Refused) else -1
            if left != unspent or (await self._reads.tenant_state(tenant)).unconfirmed:
                return f"{tenant} has {left} left, {unspent} unspent: {answer}"
        return ""

    async def _books_are_wrong(self) -> str:
        """What `quaestor verify budgets ledger` finds wrong; nothing when it ends with 0."""
        verified = await asyncio.to_thread(self._stack.run, "verify", *SCOPES, "--json")
        if verified.returncode == 0:
            return ""
        try:
            checks = json.loads(verified.stdout)["checks"]
        except ValueError:
            return f"verify ended with {verified.returncode}: {verified.stderr[-400:]}"
        wrong = [f"{check['name']}: {check['first_difference']}" for check in checks if not check["ok"]]
        return "; ".join(wrong) or f"verify ended with {verified.returncode}"

    def _ends(self) -> dict[Partition, int]:
        with contextlib.closing(KafkaReader(self._stack.settings.kafka_bootstrap, "aftermath")) as reader:
            return reader.end_offsets(reader.partitions([BUDGETS.name], METADATA_SECONDS), METADATA_SECONDS)

    def _differences(self, states: dict[str, TenantState]) -> Sequence[object]:
        with contextlib.closing(KafkaReader(self._stack.settings.kafka_bootstrap, "aftermath")) as reader:
            return check_budgets(states, reader, self._codec).differences

    async def story(self) -> Verdict:
        """Every answer is COMPLETED, once; no limit was overspent at any offset; and what the kills cut off."""
        events = await asyncio.to_thread(self._stack.events, "requests", "budgets")
        movements = [event for event in events if isinstance(event, BudgetEvent)]
        self._classify(movements)
        completed: dict[str | None, set[str]] = {}
        for event in events:
            if isinstance(event, RequestEvent) and event.kind is RequestKind.COMPLETED:
                completed.setdefault(event.request_id, set()).add(event.event_id)
        lost = [mark for mark, request_id in self._callers.answers.items() if request_id not in completed]
        twice = [f"{request_id} is COMPLETED as {sorted(ids)}" for request_id, ids in completed.items() if len(ids) > 1]
        twice += [f"{mark} was called {times} times" for mark, times in self._provider.called.items() if times > 1]
        found = [f"{mark} was answered, and is not COMPLETED" for mark in lost] + _overspent(movements)
        return _lost(found) + Verdict(doubled=len(twice), first_difference=next(iter(twice), ""))

    def _classify(self, movements: Sequence[Event]) -> None:
        of_kind: dict[str, set[str]] = {}
        for event in movements:
            if isinstance(event, BudgetEvent):
                of_kind.setdefault(event.kind, set()).update((event.hold_id, event.run_id or ""))
        placed, committed = of_kind.get(BudgetKind.PLACED, set()), of_kind.get(BudgetKind.COMMITTED, set())
        for hold_id, number in self._unconfirmed.items():
            if hold_id not in placed:
                self._rounds[UNRECORDED].add(number)
        for mark, number in self._met.items():
            if mark not in placed or mark in self._callers.answers:
                continue
            if mark in committed:
                kind = UNTOLD
            elif mark in self._provider.answered:
                kind = UNSETTLED
            else:
                kind = UNANSWERED if mark in self._provider.called else UNCALLED
            self._rounds[kind].add(number)


def _lost(found: Sequence[str]) -> Verdict:
    return Verdict(lost=len(found), first_difference=next(iter(found), ""))


def _overspent(movements: Sequence[BudgetEvent]) -> list[str]:
    """Where posted and held are above a hard limit after some event of the log."""
    limits = {total_of(tenant): TOTAL_NANO for tenant in MINUTE_NANO}
    for tenant, amount_nano in MINUTE_NANO.items():
        limits[limit_on("tenant", tenant, tenant_id=tenant, window="minute").limit_id] = amount_nano
    fold, found = BudgetFold(), []
    for event in movements:
        effect = fold.apply(event)
        for counter in {change[0] for change in effect.changes} if effect is not None else ():
            sums = fold.sums.get(counter)
            used = sums.posted_nano + sums.held_nano if sums is not None else 0
            if used > limits[counter.limit_id]:
                found.append(f"{counter} has {used} posted and held after {event.event_id}")
    return found


async def _until(wrong: Callable[[], Awaitable[str]], what: str, seconds: float = HELD_SECONDS_MAX) -> None:
    """Ask until nothing is wrong; raises StuckError with the last answer."""
    deadline = time.monotonic() + seconds
    while said := await wrong():
        if time.monotonic() > deadline:
            raise StuckError(f"not within {seconds:.0f} s of the last call: {what}: {said[:400]}")
        await asyncio.sleep(LOOK_SECONDS)
