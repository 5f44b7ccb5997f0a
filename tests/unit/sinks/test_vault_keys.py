"""Where the vault's keys come from: files, variables and services, and what is refused."""

from __future__ import annotations

import hmac
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from api.gateway.vault_keys import FILE, ring_file, vault_secrets
from schemas.errors import ConfigurationError, IntegrityError
from sinks.postgres.key_encryption import MemoryKms, WrappedKey
from sinks.postgres.vault_keys import lookup_hash, new_ring, parse_ring

OLD_KEY = bytes(range(32))
HANDLE = "ab" * 16


async def test_a_data_directory_of_before_opens(tmp_path: Path) -> None:
    """Its file has one line, the master key: what was wrapped and hashed under it is found and opened."""
    path = tmp_path / FILE
    path.parent.mkdir(mode=0o700)
    path.write_text(OLD_KEY.hex())
    path.chmod(0o600)

    def derived(use: bytes) -> bytes:
        info = b"quaestor/vault/v1/" + use + b"\0acme"
        return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(OLD_KEY)

    wrapped = b"n" * 12 + AESGCM(derived(b"wrap")).encrypt(b"n" * 12, b"k" * 32, HANDLE.encode())
    secrets = vault_secrets("file", tmp_path)

    assert b"k" * 32 == await secrets.keys.unwrap("acme", HANDLE, WrappedKey("1", wrapped))
    assert hmac.digest(derived(b"lookup"), b"ada", "sha256") == lookup_hash(secrets.lookup, "acme", "ada")


def test_a_file_is_made_once_and_for_its_owner(tmp_path: Path) -> None:
    """However often it is asked for; its two secrets have nothing to do with each other."""
    first, second = (ring_file("file", tmp_path).ring() for _ in range(2))

    assert first == second
    assert first.lookup != first.versions[1]
    assert 0o600 == (tmp_path / FILE).stat().st_mode & 0o777


def test_a_file_open_to_others_is_refused(tmp_path: Path) -> None:
    """It says what to do."""
    ring_file("file", tmp_path)
    (tmp_path / FILE).chmod(0o640)

    with pytest.raises(ConfigurationError, match="chmod 600"):
        vault_secrets("file", tmp_path)


def test_a_file_elsewhere_is_not_made(tmp_path: Path) -> None:
    """A wrong path must not begin a vault of its own."""
    with pytest.raises(ConfigurationError, match="No such file"):
        vault_secrets(f"file:{tmp_path / 'missing.key'}", tmp_path)


@pytest.mark.parametrize(
    "text",
    ["", "abcd", f"1 {'00' * 32}", f"lookup {'00' * 32}", f"{'00' * 32}\n1 {'11' * 32}", f"two {'00' * 32}"],
    ids=["empty", "short", "no look-up", "no key", "twice", "name"],
)
def test_damaged_keys_are_refused(tmp_path: Path, text: str) -> None:
    """A new file in their place would lose every handle."""
    ring_file("file", tmp_path)
    (tmp_path / FILE).write_text(text)

    with pytest.raises(ConfigurationError, match="damaged"):
        vault_secrets("file", tmp_path)


def test_a_variable_that_is_not_set_is_refused() -> None:
    """By its name."""
    with pytest.raises(ConfigurationError, match="env:NO_SUCH_KEYS"):
        vault_secrets("env:NO_SUCH_KEYS", Path())


def test_a_service_is_named_by_its_factory(tmp_path: Path) -> None:
    """The look-up secret stays with us."""
    secrets = vault_secrets("kms:sinks.postgres.key_encryption:MemoryKms", tmp_path)

    assert isinstance(secrets.keys, MemoryKms)
    assert ring_file("file", tmp_path).ring().lookup == secrets.lookup


@pytest.mark.parametrize("name", ["no.such.module:make", "sinks.postgres.vault:no_such_factory"])
def test_a_service_that_is_not_there_is_refused(tmp_path: Path, name: str) -> None:
    """With the setting's name."""
    with pytest.raises(ConfigurationError, match="vault_keys"):
        vault_secrets(f"kms:{name}", tmp_path)


async def test_a_new_version_is_seen_at_once_by_who_has_the_file(tmp_path: Path) -> None:
    """A gateway that runs wraps under it; a version whose line is taken out opens no more."""
    running, file = vault_secrets("file", tmp_path).keys, ring_file("file", tmp_path)
    first = await running.wrap("acme", HANDLE, b"k" * 32)

    assert 2 == file.add_version()
    second = await running.wrap("acme", HANDLE, b"k" * 32)
    kept = [line for line in file.path.read_text().splitlines() if not line.startswith("1 ")]
    file.path.write_text("\n".join(kept))

    assert ("1", "2") == (first.key_version, second.key_version)
    assert b"k" * 32 == await running.unwrap("acme", HANDLE, second)
    with pytest.raises(IntegrityError, match="'1'"):
        await running.unwrap("acme", HANDLE, first)


def test_a_ring_is_read_as_it_is_written() -> None:
    """Line by line, or in one line for a variable."""
    ring = new_ring(bytes(range(64))).with_new(b"2" * 32)

    assert ring == parse_ring(ring.text(), "text") == parse_ring(ring.text().replace("\n", "; "), "text")
    assert 2 == ring.newest
