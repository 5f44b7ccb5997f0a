"""What every KeyEncryption must do: rings of a file and of a variable, and the fake of a key management service."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from api.gateway.vault_keys import ring_file, vault_secrets
from schemas.errors import IntegrityError
from sinks.postgres.key_encryption import WRAPPED_BYTES_MAX, KeyEncryption, MemoryKms, WrappedKey
from sinks.postgres.vault_keys import KeyRing, new_ring

TENANT, HANDLE, DATA_KEY = "acme", "ab" * 16, bytes(range(32))


class Keys(NamedTuple):
    """One of them, and what its operator does."""

    encryption: KeyEncryption
    #: Gives it a new version; the key encryption to use from then on.
    rotated: Callable[[], KeyEncryption]
    #: A key encryption that never had the keys of this one.
    other: KeyEncryption


def of_file(folder: Path, _: pytest.MonkeyPatch) -> Keys:
    """The default."""
    keys = vault_secrets("file", folder).keys

    def rotated() -> KeyEncryption:
        ring_file("file", folder).add_version()
        return keys

    return Keys(keys, rotated, vault_secrets("file", folder / "other").keys)


def of_variable(_: Path, monkeypatch: pytest.MonkeyPatch) -> Keys:
    """A ring in the environment, which a process reads once: a new version is seen by the next."""
    ring, other = new_ring(bytes([1] * 64)), new_ring(bytes([2] * 64))

    def given(one: KeyRing) -> KeyEncryption:
        monkeypatch.setenv("VAULT_KEYS", one.text().replace("\n", ","))
        return vault_secrets("env:VAULT_KEYS", Path()).keys

    return Keys(given(ring), lambda: given(ring.with_new(bytes([3] * 32))), given(other))


def of_service(*_: object) -> Keys:
    """The shipped fake."""
    service = MemoryKms()

    def rotated() -> KeyEncryption:
        service.rotate(TENANT)
        return service

    return Keys(service, rotated, MemoryKms())


@pytest.fixture(params=[of_file, of_variable, of_service])
def keys(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keys:
    """Each of them."""
    made: Keys = request.param(tmp_path, monkeypatch)
    return made


async def test_what_is_wrapped_unwraps(keys: Keys) -> None:
    """It names its version, is no longer than a row takes, and shows nothing of the data key."""
    wrapped = await keys.encryption.wrap(TENANT, HANDLE, DATA_KEY)

    assert await keys.encryption.unwrap(TENANT, HANDLE, wrapped) == DATA_KEY
    assert wrapped.key_version
    assert DATA_KEY not in wrapped.wrapped
    assert len(DATA_KEY) < len(wrapped.wrapped) <= WRAPPED_BYTES_MAX


async def test_a_key_is_never_wrapped_alike_twice(keys: Keys) -> None:
    """Nothing tells that two rows have the same key."""
    one, two = [await keys.encryption.wrap(TENANT, HANDLE, DATA_KEY) for _ in range(2)]

    assert one.wrapped != two.wrapped


@pytest.mark.parametrize(("tenant", "handle"), [("globex", HANDLE), (TENANT, "cd" * 16)], ids=["tenant", "handle"])
async def test_a_key_opens_only_where_it_belongs(keys: Keys, tenant: str, handle: str) -> None:
    """Under its tenant and its handle: rows can't be exchanged."""
    await keys.encryption.wrap("globex", HANDLE, DATA_KEY)
    wrapped = await keys.encryption.wrap(TENANT, HANDLE, DATA_KEY)

    with pytest.raises(IntegrityError):
        await keys.encryption.unwrap(tenant, handle, wrapped)


@pytest.mark.parametrize("at", [0, 20, -1], ids=["nonce", "ciphertext", "tag"])
async def test_altered_bytes_open_nothing(keys: Keys, at: int) -> None:
    """One bit is enough."""
    version, wrapped = await keys.encryption.wrap(TENANT, HANDLE, DATA_KEY)
    altered = bytearray(wrapped)
    altered[at] ^= 1

    with pytest.raises(IntegrityError):
        await keys.encryption.unwrap(TENANT, HANDLE, WrappedKey(version, bytes(altered)))


async def test_other_keys_open_nothing(keys: Keys) -> None:
    """Neither of the same version nor of one that never was."""
    wrapped = await keys.encryption.wrap(TENANT, HANDLE, DATA_KEY)
    await keys.other.wrap(TENANT, HANDLE, DATA_KEY)

    with pytest.raises(IntegrityError):
        await keys.other.unwrap(TENANT, HANDLE, wrapped)
    with pytest.raises(IntegrityError):
        await keys.encryption.unwrap(TENANT, HANDLE, wrapped._replace(key_version="none"))


async def test_a_new_version_wraps_and_the_old_one_still_opens(keys: Keys) -> None:
    """So that a key can be replaced without a moment at which some rows don't open."""
    first = await keys.encryption.wrap(TENANT, HANDLE, DATA_KEY)
    rotated = keys.rotated()
    second = await rotated.wrap(TENANT, HANDLE, DATA_KEY)

    assert first.key_version != second.key_version
    assert [DATA_KEY, DATA_KEY] == [await rotated.unwrap(TENANT, HANDLE, one) for one in (first, second)]
