"""Live budgets that others fold while the sink takes what comes behind: on a real Valkey, over the log in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import msgspec
import pytest

from schemas import limits
from sinks.redis.apart import Apart, Folded, Folder, ThreadFolder, begun
from sinks.redis.errands import Errand
from sinks.redis.keys import PROJECTION
from tests.budget_world import TENANT, leg
from tests.integration.test_redis_sink import FAULTS, suffer
from tests.support.live_budgets import CODEC, LIMIT, PARTITION, Log, World, until
from tests.valkey import Valkey

ENTRIES_MAX = 10_000


class Held(Folder):
    """Has read all of it at once, and says what came of it when it is told to."""

    def __init__(self, inner: Folder) -> None:
        """Let `inner` do it."""
        self._inner = inner
        self.begun: list[tuple[Apart, Apart]] = []

    def begin(self, errands: Sequence[Errand]) -> list[Apart]:
        """As the seam says."""
        outer = begun(errands)
        for each in outer:
            each.read = each.errand.end
        self.begun += zip(outer, self._inner.begin(errands), strict=True)
        return outer

    async def close(self) -> None:
        """As the seam says."""
        await self._inner.close()

    @property
    def waiting(self) -> list[tuple[Apart, Apart]]:
        """Those of the tenant's partition that somebody waits for."""
        return [each for each in self.begun if each[0].errand.partition == PARTITION and not each[0].result.done()]

    async def tell(self) -> None:
        """All that was folded."""
        for outer, inner in self.begun:
            folded = await inner.result
            if not outer.result.done():
                outer.result.set_result(folded)


def thread_folder(log: Log) -> ThreadFolder:
    """Folds the log."""
    return ThreadFolder(log.reader, CODEC, PROJECTION, ENTRIES_MAX)


class Apartness(World):
    """A world that was lost while its folder keeps silent."""

    folder: Held

    def __init__(self, valkey: Valkey) -> None:
        """Over the log in memory."""
        log = Log(None)
        super().__init__(log, valkey, None, Held(thread_folder(log)))

    async def spend(self, amount: int) -> None:
        """A hold that is charged, and one that stays open."""
        placed = self.events.placed(self.hold(), leg(amount))
        await self.record(placed, self.events.committed(placed, amount), self.events.placed(self.hold(), leg(1)))

    async def lose(self) -> None:
        """FLUSHALL; ends when the log is being folded apart."""
        await self.settled()
        known = len(self.folder.begun)
        self.valkey.command("FLUSHALL")

        async def is_begun() -> bool:
            return any(outer.errand.partition == PARTITION for outer, _ in self.folder.begun[known:])

        await until(is_begun, "folding apart")

    async def has_barrier(self) -> None:
        """Wait until the gate says that all is read: by then its barrier is taken."""
        ((outer, _),) = self.folder.waiting

        async def is_read() -> bool:
            return any(
                each.read == outer.errand.end for each in await self.reads.gates() if each.partition == PARTITION
            )

        await until(is_read, "a barrier")

    async def taken_behind(self, events_min: int) -> None:
        """Wait until the sink has taken so many events behind what is folded."""
        ((outer, _),) = self.folder.waiting

        async def are_taken() -> bool:
            return sum(len(events) for _, events, _ in outer.behind) >= events_min

        await until(are_taken, "events behind")


@pytest.fixture
async def world(valkey: Valkey) -> AsyncIterator[Apartness]:
    """With one tenant that has spent."""
    world = Apartness(valkey)
    await world.start()
    try:
        await world.name_tenant(TENANT)
        await world.spend(10)
        yield world
    finally:
        await world.stop()


@pytest.mark.parametrize("fault", sorted(FAULTS))
async def test_a_lost_server_overspends_and_leaks_nothing(valkey: Valkey, fault: str) -> None:
    """As where the sink folds by itself: every nano-unit is spent once, none more."""
    log = Log(None)
    world = World(log, valkey, None, thread_folder(log))
    await world.start()
    try:
        await world.name_tenant(TENANT)
        traffic = await suffer(world, fault, seed=7)
        assert (await world.left(), traffic.calls <= LIMIT) == (0, True), traffic.answers
        assert await world.differences() == []
        assert (await world.reads.tenant_state(TENANT)).holds == {}
    finally:
        await world.stop()


async def test_nothing_is_admitted_while_others_fold(world: Apartness) -> None:
    """Opened only when what they folded is in the slots, with what came behind it."""
    await world.lose()
    await world.has_barrier()
    await world.spend(20)
    await world.taken_behind(2)
    assert not any(each.is_open for each in await world.reads.gates() if each.partition == PARTITION)
    assert (await world.reads.tenant_state(TENANT)).holds == {}
    await world.folder.tell()
    await world.settled()

    assert await world.left() == LIMIT - 10 - 20 - 2
    assert await world.differences() == []


async def test_too_much_behind_waits_for_what_is_in_front(world: Apartness, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sink takes no more of it then, and loses none."""
    monkeypatch.setattr(limits, "REBUILD_BEHIND_MAX", 2)
    await world.lose()
    for _ in range(6):
        await world.spend(1)
    await world.taken_behind(3)
    await world.folder.tell()
    await world.settled()

    assert await world.left() == LIMIT - 10 - 1 - 6 * 2
    assert await world.differences() == []


async def test_who_gets_nowhere_is_not_asked_again(world: Apartness) -> None:
    """The sink folds by itself, from where they began."""
    await world.lose()
    await world.spend(20)
    ((outer, inner),) = world.folder.waiting
    fold = (await inner.result).fold
    fold.tenants.clear()
    fold.ended.clear()
    outer.result.set_result(Folded(fold, outer.errand.first))
    times = len(world.folder.begun)
    await world.settled()

    assert (len(world.folder.begun), await world.left()) == (times, LIMIT - 10 - 20 - 2)
    assert await world.differences() == []


async def test_who_ends_early_is_gone_on_from(world: Apartness) -> None:
    """What they have is kept; the rest the sink folds by itself."""
    await world.spend(20)
    await world.lose()
    ((outer, _),) = world.folder.waiting
    middle = outer.errand.end - 2
    shorter = msgspec.structs.replace(outer.errand, end=middle)
    (other,) = thread_folder(world.log).begin([shorter])
    outer.result.set_result(await other.result)
    await world.folder.tell()
    await world.settled()

    assert ((await other.result).cursor, await world.left()) == (middle, LIMIT - 10 - 20 - 2)
    assert await world.differences() == []


async def test_a_server_lost_again_begins_again(world: Apartness) -> None:
    """What was folded for the generation before counts for nothing."""
    await world.lose()
    ((first, _),) = world.folder.waiting
    await world.spend(20)
    world.valkey.command("FLUSHALL")

    async def is_again() -> bool:
        return any(outer is not first for outer, _ in world.folder.waiting)

    await until(is_again, "folding apart again")
    assert first.result.cancelled()
    await world.folder.tell()
    await world.settled()

    assert await world.left() == LIMIT - 10 - 20 - 2
    assert await world.differences() == []
