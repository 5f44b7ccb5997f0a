"""The subject vault on rows in memory and on a real Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import asyncpg
import pytest

from schemas.errors import IntegrityError, StoreUnavailableError
from sinks.postgres.key_encryption import KeyEncryption, MemoryKms, RingKeys
from sinks.postgres.vault import SubjectVault, VaultSecrets
from sinks.postgres.vault_keys import KeyRing
from sinks.postgres.vault_rows import MemoryRows, PostgresRows, SubjectRows
from tests.support.databases import postgres_databases

RING = KeyRing(b"l" * 32, {1: b"m" * 32})
USER = "ada@example.com"


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.stack)])
async def rows(request: pytest.FixtureRequest) -> AsyncIterator[SubjectRows]:
    """Of an empty vault."""
    if request.param == "memory":
        yield MemoryRows()
        return
    made = PostgresRows(await postgres_databases().emptied("vault"))
    yield made
    await made.close()


def vault_of(
    rows: SubjectRows, erased: Callable[[str], bool] = lambda _: False, keys: KeyEncryption | None = None
) -> SubjectVault:
    """A vault on these rows, in a process of its own."""
    return SubjectVault(rows, VaultSecrets(RING.lookup, keys or RingKeys(lambda: RING)), erased)


async def test_a_subject_keeps_its_handle_and_key(rows: SubjectRows) -> None:
    """The same user of the same tenant is the same subject to every gateway; another tenant's is another."""
    first = await vault_of(rows).subject("acme", USER)
    other = await vault_of(rows).subject("globex", USER)

    assert first == await vault_of(rows).subject("acme", USER)
    assert (first.handle != other.handle, first.data_key != other.data_key) == (True, True)


async def test_subjects_are_one_for_all_who_ask_at_once(rows: SubjectRows) -> None:
    """Two gateways that meet a user first at the same moment get the same handle and key."""
    vaults = [vault_of(rows), vault_of(rows)]

    subjects = await asyncio.gather(*(vault.subject("acme", USER) for vault in vaults * 10))

    assert 1 == len(set(subjects))


async def test_rows_keep_no_user_id_and_no_key(rows: SubjectRows) -> None:
    """Nothing of a row is the user's id, or the data key."""
    vault = vault_of(rows)
    subject = await vault.subject("acme", USER)
    row = await vault.find("acme", USER)
    assert row is not None

    content = b" ".join((row.tenant_id.encode(), row.lookup_hash, row.handle.encode(), *map(_bytes, row.wrapped)))
    assert USER.encode() not in content
    assert subject.data_key not in content
    assert row == await vault.find_handle(subject.handle)


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


async def test_looking_makes_nobody(rows: SubjectRows) -> None:
    """Neither by user id nor by handle."""
    vault = vault_of(rows)

    assert (None, None) == (await vault.find("acme", USER), await vault.find_handle("ab" * 16))
    assert [] == await rows.page("", 10)


async def test_a_destroyed_subject_is_somebody_new(rows: SubjectRows) -> None:
    """With another handle and another key; destroying again finds nothing, and others stay."""
    vault = vault_of(rows)
    first, other = await vault.subject("acme", USER), await vault.subject("acme", "eve")

    assert (1, 0) == (await vault.destroy([first.handle]), await vault.destroy([first.handle, "cd" * 16]))
    second = await vault.subject("acme", USER)
    assert (first.handle != second.handle, first.data_key != second.data_key) == (True, True)
    assert other == await vault.subject("acme", "eve")


async def test_a_row_that_came_back_is_refused_and_deleted(rows: SubjectRows) -> None:
    """A backup of before the erasure is restored: what it brings back is never served."""
    erased: set[str] = set()
    vault = vault_of(rows, erased.__contains__)
    first = await vault.subject("acme", USER)
    (row,) = await rows.page("", 10)
    erased.add(first.handle)
    await vault.destroy([first.handle])
    await rows.make(row)
    assert await vault.find_handle(first.handle) == row

    second = await vault.subject("acme", USER)

    assert first.handle != second.handle
    assert [second.handle] == [one.handle for one in await rows.page("", 10)]


async def test_many_are_destroyed_at_once(rows: SubjectRows) -> None:
    """More than one statement takes."""
    vault = vault_of(rows)
    subjects = [await vault.subject("acme", f"user {number}") for number in range(30)]
    made_up = [f"{number:032x}" for number in range(2_500)]

    destroyed = await vault.destroy([*made_up[:1_500], *(one.handle for one in subjects), *made_up[1_500:]])

    assert (30, []) == (destroyed, await rows.page("", 10))


async def test_rewrapped_keys_stay_what_they_are(rows: SubjectRows) -> None:
    """Every row names the newest version then, and the old key may be destroyed."""
    service = MemoryKms()
    vault = vault_of(rows, keys=service)
    before = [await vault.subject("acme", f"user {number}") for number in range(5)]
    service.rotate("acme")
    done: list[int] = []

    counts = await vault.rewrap(done.append)
    service.destroy("acme", "acme/1")

    assert ({"acme/2": 5}, [5]) == (counts, done)
    assert before == [await vault.subject("acme", f"user {number}") for number in range(5)]


async def test_a_wrapping_that_is_no_longer_the_rows_changes_nothing(rows: SubjectRows) -> None:
    """Two who wrap anew at once: the second one's is of a wrapping that is gone."""
    vault = vault_of(rows)
    subject = await vault.subject("acme", USER)
    row = await vault.find_handle(subject.handle)
    assert row is not None
    await rows.replace(row.handle, row.wrapped._replace(wrapped=bytes(60)), row.wrapped._replace(key_version="9"))

    assert row == await vault.find_handle(subject.handle)


async def test_what_is_erased_while_it_is_rewrapped_stays_away(rows: SubjectRows) -> None:
    """The new wrapping is of a row that is gone."""
    vault = vault_of(rows)
    subject = await vault.subject("acme", USER)
    row = await vault.find("acme", USER)
    assert row is not None
    await vault.destroy([subject.handle])
    await rows.replace(row.handle, row.wrapped, row.wrapped._replace(key_version="2"))

    assert await vault.find("acme", USER) is None


async def test_a_row_of_other_keys_is_told(rows: SubjectRows) -> None:
    """Instead of making a second subject of the same person."""
    await vault_of(rows).subject("acme", USER)
    other = KeyRing(RING.lookup, {1: b"o" * 32})

    with pytest.raises(IntegrityError):
        await vault_of(rows, keys=RingKeys(lambda: other)).subject("acme", USER)


async def test_a_service_that_is_away_makes_nobody(rows: SubjectRows) -> None:
    """The caller may try again; no row without a key is left."""
    service = MemoryKms()
    service.away = True

    with pytest.raises(StoreUnavailableError):
        await vault_of(rows, keys=service).subject("acme", USER)
    assert [] == await rows.page("", 10)


@pytest.mark.stack
async def test_a_table_of_before_still_opens() -> None:
    """Rows from when there was one master key, whose file has one line: version 1 is that key."""
    dsn = await postgres_databases().emptied("vault")
    made = PostgresRows(dsn)
    subject = await vault_of(made).subject("acme", USER)
    connection = await asyncpg.connect(dsn)
    assert "1" == await connection.fetchval("SELECT key_version FROM quaestor.subject")
    await connection.execute("UPDATE quaestor.subject SET key_version = DEFAULT")
    await connection.close()

    assert subject == await vault_of(made).subject("acme", USER)
    await made.close()
