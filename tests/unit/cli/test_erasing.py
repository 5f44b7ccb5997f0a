"""An erasure step by step, on a log and a vault in memory: what is recorded, what is destroyed, and asking again."""

from __future__ import annotations

import pytest

from api.cli.erasing import FORGOTTEN_SECONDS, DataSubject, Destroyed, destroy
from api.cli.times import MICROS_PER_SECOND
from api.control.session import ControlSession
from api.gateway.subjects import KEPT_SECONDS
from schemas.errors import LogUnavailableError
from sinks.postgres.vault_rows import MemoryRows
from streams.memory import MemoryLog
from tests.support.gateway_world import TENANT, codec, memory_vault

USER = "ada@example.com"


class World:
    """A control topic and a vault that knows one person."""

    def __init__(self) -> None:
        """Nobody is erased."""
        self.log, self.rows = MemoryLog(), MemoryRows()

    async def make(self, user: str = USER) -> str:
        """A call of somebody; the handle."""
        return (await memory_vault(rows=self.rows).subject(TENANT, user)).handle

    async def erase(self, user: str | None = USER, handle: str | None = None, tenant: str = TENANT) -> Destroyed | None:
        """The command, in a sitting of its own."""
        session = ControlSession(self.log.publisher(), self.log.reader(), codec(), "cli/0")
        session.refresh()

        async def count(*_: str) -> int:
            return 3

        vault = memory_vault(session.state.erasures.__contains__, self.rows)
        return await destroy(session, vault, DataSubject(tenant, user, handle), count, "DSR-1")

    def written(self) -> list[bytes]:
        """What the log holds."""
        return [one.value or b"" for records in self.log.records.values() for one in records]


async def test_an_erasure_is_recorded_and_the_row_destroyed() -> None:
    """The event has the handle, the key's version and the count, and nothing of who it was."""
    world = World()
    handle = await world.make()

    done = await world.erase()

    assert done is not None
    erasure = done.erasure
    assert (handle, TENANT, "1", 3) == (erasure.handle, erasure.tenant_id, erasure.key_version, erasure.sealed_events)
    assert (True, False, {}) == (done.had_row, done.was_known, world.rows.rows)
    assert erasure.event_id
    (value,) = world.written()
    assert handle.encode() in value
    assert b"ada" not in value


async def test_a_handle_names_a_subject_too() -> None:
    """As events have it."""
    world = World()
    handle = await world.make()

    done = await world.erase(None, handle)

    assert done is not None
    assert {} == world.rows.rows


async def test_asking_again_records_nothing_more() -> None:
    """By handle: it was known, and there was no row."""
    world = World()
    handle = await world.make()
    await world.erase()

    again = await world.erase(None, handle)

    assert again is not None
    assert (True, False, 1) == (again.was_known, again.had_row, len(world.written()))


async def test_an_erasure_that_was_cut_short_is_finished() -> None:
    """The event stands, the row is still there: by user id too it is destroyed, and not recorded twice."""
    world = World()
    await world.make()
    row = next(iter(world.rows.rows.values()))
    await world.erase()
    await world.rows.make(row)

    done = await world.erase()

    assert done is not None
    assert (True, True, 1, {}) == (done.was_known, done.had_row, len(world.written()), world.rows.rows)


@pytest.mark.parametrize("tenant", [TENANT, "globex"])
async def test_somebody_unknown_is_nobody(tenant: str) -> None:
    """Neither a user nor a handle that never was, nor those of another tenant."""
    world = World()
    handle = await world.make("eve")
    asked = [await world.erase(tenant=tenant), await world.erase(None, "cd" * 16, tenant)]
    if tenant != TENANT:
        asked += [await world.erase("eve", None, tenant), await world.erase(None, handle, tenant)]

    assert {None} == set(asked)
    assert ([], 1) == (world.written(), len(world.rows.rows))


async def test_an_erasure_of_another_tenant_is_not_told() -> None:
    """Its handle is nobody to this one."""
    world = World()
    handle = await world.make()
    await world.erase()

    assert await world.erase(None, handle, "globex") is None


async def test_nothing_is_destroyed_that_is_not_recorded() -> None:
    """Kafka is away: the subject stays as it was."""
    world = World()
    await world.make()
    session = ControlSession(world.log.publisher(), world.log.reader(), codec(), "cli/0")
    session.refresh()
    world.log.away = True

    async def count(*_: str) -> None:
        return None

    with pytest.raises(LogUnavailableError):
        await destroy(session, memory_vault(rows=world.rows), DataSubject(TENANT, USER, None), count, None)
    assert 1 == len(world.rows.rows)


async def test_gateways_are_waited_for() -> None:
    """For as long as one may keep a key, from the moment when the row is gone."""
    world = World()
    await world.make()
    done = await world.erase()

    assert done is not None
    assert FORGOTTEN_SECONDS > KEPT_SECONDS
    assert FORGOTTEN_SECONDS <= (done.forgotten_at - done.at) / MICROS_PER_SECOND < FORGOTTEN_SECONDS + 1
