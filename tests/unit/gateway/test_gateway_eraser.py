"""Erasures that the control topic tells, carried out by a gateway: keys dropped, rows destroyed, backups cleared."""

from __future__ import annotations

from collections.abc import Collection

from api.gateway.eraser import SWEEP_SECONDS, Eraser
from api.gateway.subjects import Subjects
from processors.control import Erasure
from schemas.errors import StoreUnavailableError
from sinks.postgres.vault_rows import MemoryRows
from tests.support.gateway_world import TENANT, StandingControl, control_state, memory_vault


class Rows(MemoryRows):
    """Rows that can be away, and remember what was asked of them."""

    away = False

    def __init__(self) -> None:
        """Nothing was asked."""
        super().__init__()
        self.asked: list[set[str]] = []

    async def destroy(self, handles: Collection[str]) -> int:
        """As the seam says."""
        self.asked.append(set(handles))
        if self.away:
            raise StoreUnavailableError
        return await super().destroy(handles)


class World:
    """A gateway's eraser and what it works on."""

    def __init__(self) -> None:
        """Nothing is erased."""
        self.now = 0.0
        self.rows, self.control = Rows(), StandingControl(control_state())
        vault = memory_vault(self.erased, self.rows)
        self.subjects = Subjects(vault, (), self.erased, lambda: self.now)
        self.eraser = Eraser(self.control, self.subjects, vault, lambda: self.now)

    def erased(self, handle: str) -> bool:
        """As the control topic says."""
        return handle in self.control.state.erasures

    def erase(self, *handles: str) -> None:
        """The control topic tells of these too."""
        told = [Erasure(handle=one, tenant_id=TENANT, key_version="1", sealed_events=0) for one in handles]
        self.control.state = control_state(
            erasures={**self.control.state.erasures, **{one.handle: one for one in told}}
        )

    async def handle(self, user: str) -> str:
        """A call of this user."""
        return (await self.subjects.personal(TENANT, user, {}, b"", "id")).subject_handle or ""


async def test_an_erasure_is_carried_out() -> None:
    """The key is out of memory, the row out of the vault; others stay, and the same person is somebody new."""
    world = World()
    ada, eve = await world.handle("ada"), await world.handle("eve")
    world.erase(ada)

    await world.eraser.look()

    assert [(TENANT, "eve")] == list(world.subjects._seals)
    assert [eve] == [row.handle for row in world.rows.rows.values()]
    assert ada != await world.handle("ada")


async def test_a_start_clears_what_a_backup_brought_back() -> None:
    """All that was ever erased is deleted, whether or not anybody calls."""
    world = World()
    ada = await world.handle("ada")
    world.erase(ada, "cd" * 16)

    await Eraser(world.control, world.subjects, memory_vault(world.erased, world.rows), lambda: world.now).look()

    assert ([{ada, "cd" * 16}], {}) == (world.rows.asked, world.rows.rows)


async def test_what_is_new_is_destroyed_at_once_and_all_again_every_minute() -> None:
    """A backup may bring rows back at any time."""
    world = World()
    world.erase("aa" * 16)
    await world.eraser.look()
    await world.eraser.look()
    world.erase("bb" * 16)
    await world.eraser.look()
    world.now = SWEEP_SECONDS
    await world.eraser.look()

    both = {"aa" * 16, "bb" * 16}
    assert [{"aa" * 16}, {"bb" * 16}, both] == world.rows.asked


async def test_a_vault_that_is_away_is_asked_again() -> None:
    """The key is let go of at once all the same."""
    world = World()
    ada = await world.handle("ada")
    world.rows.away = True
    world.erase(ada)
    await world.eraser.look()
    kept = list(world.subjects._seals)
    world.rows.away = False
    await world.eraser.look()

    assert ([], {}) == (kept, world.rows.rows)


async def test_without_erasures_nobody_is_asked() -> None:
    """The vault has no work with it."""
    world = World()
    await world.eraser.look()

    assert [] == world.rows.asked
