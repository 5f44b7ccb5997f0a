"""Where the subject vault's secrets come from: a file of the data directory, a variable, or a key management service.

    file                       secrets/vault.key of the data directory, made at the first start
    file:PATH                  a key ring elsewhere
    env:NAME                   a key ring in the environment; its lines may be parted by commas
    kms:MODULE:FACTORY         FACTORY() of a Python module gives the KeyEncryption; the file keeps the look-up secret

Gateways on several machines must be given the same ring, or they would know the same end user by different handles.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TypeVar

from api.providers.errors import SecretUnavailableError
from api.providers.secrets import Secrets
from schemas.errors import ConfigurationError
from sinks.postgres.key_encryption import KeyEncryption, RingKeys
from sinks.postgres.vault import SubjectVault, VaultSecrets
from sinks.postgres.vault_keys import KEY_BYTES, KeyRing, new_ring, parse_ring
from sinks.postgres.vault_rows import PostgresRows

FILE = Path("secrets") / "vault.key"
OTHERS_MASK = 0o077
Found = TypeVar("Found")


def open_vault(dsn: str, setting: str, data_directory: Path, erased: Callable[[str], bool]) -> SubjectVault:
    """The vault of a product, not connected yet; raises ConfigurationError when its keys are unusable."""
    return SubjectVault(PostgresRows(dsn), vault_secrets(setting, data_directory), erased)


def vault_secrets(setting: str, data_directory: Path) -> VaultSecrets:
    """What `vault_keys` names; raises ConfigurationError when it is unusable."""
    kind, _, name = setting.partition(":")
    if kind == "env":
        ring = parse_ring(_variable(setting), setting)
        return VaultSecrets(ring.lookup, RingKeys(lambda: ring))
    file = ring_file(setting, data_directory)
    return VaultSecrets(file.ring().lookup, _service(setting, name) if kind == "kms" else RingKeys(file.ring))


def ring_file(setting: str, data_directory: Path) -> RingFile:
    """The file that a setting names; that of the data directory is made where there is none."""
    kind, _, name = setting.partition(":")
    is_ours = kind == "kms" or not name
    return RingFile(data_directory / FILE if is_ours else Path(name), make=is_ours)


class RingFile:
    """A key ring in a file, readable by its owner alone, and read again when it changed."""

    def __init__(self, path: Path, *, make: bool) -> None:
        """`make`: at the first start there is none, and it is made."""
        self.path = path
        self._read_at: tuple[int, int] | None = None
        self._ring: KeyRing
        if make:
            _using(path, lambda: _make_missing(path))

    def ring(self) -> KeyRing:
        """The ring as the file has it now; raises ConfigurationError when it can't be read or is damaged."""
        status = _using(self.path, self.path.stat)
        read_at = (status.st_mtime_ns, status.st_ino)
        if read_at != self._read_at:
            if status.st_mode & OTHERS_MASK:
                raise ConfigurationError(f"the vault's keys {self.path} are open to others; run: chmod 600 {self.path}")
            self._ring = parse_ring(_using(self.path, lambda: self.path.read_text(encoding="ascii")), str(self.path))
            self._read_at = read_at
        return self._ring

    def add_version(self) -> int:
        """Add a new key-encryption key, which wraps from now on; its version. Raises ConfigurationError."""
        ring = self.ring().with_new(os.urandom(KEY_BYTES))
        _using(self.path, lambda: _written(self.path, ring).replace(self.path))
        return ring.newest


def _using(path: Path, use: Callable[[], Found]) -> Found:
    """Use a key file; what fails becomes a ConfigurationError."""
    try:
        return use()
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the vault's keys {path} can't be read or written: {error}") from None


def _make_missing(path: Path) -> None:
    """Whole or not at all, and only once however many workers start together."""
    if path.exists():
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = _written(path, new_ring(os.urandom(2 * KEY_BYTES)))
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()


def _written(path: Path, ring: KeyRing) -> Path:
    """A draft of the file, durable."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        os.write(descriptor, ring.text().encode("ascii"))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return temporary


def _variable(setting: str) -> str:
    try:
        return Secrets().resolve(setting) or ""
    except SecretUnavailableError as error:
        raise ConfigurationError(f"the vault's keys: {error}") from None


def _service(setting: str, name: str) -> KeyEncryption:
    module, _, factory = name.partition(":")
    try:
        made: KeyEncryption = getattr(import_module(module), factory)()
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(f"setting 'vault_keys' names no key management service: {setting}: {error}") from None
    return made
