"""The subject vault's master key: 32 random bytes in a file of the data directory, made at the first start.

Gateways on several machines must be given the same file, or they would know the same end user by different handles.
"""

from __future__ import annotations

import os
from pathlib import Path

from schemas.errors import ConfigurationError

FILE = Path("secrets") / "vault.key"
KEY_BYTES = 32


def vault_master_key(data_directory: Path) -> bytes:
    """The key, made when there is none; raises ConfigurationError when the file can't be made or is damaged."""
    path = data_directory / FILE
    try:
        if not path.exists():
            _make(path)
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the vault's master key {path} can't be read or made: {error}") from None
    if len(key) != KEY_BYTES:
        raise ConfigurationError(f"the vault's master key {path} is damaged: restore it from its backup")
    return key


def _make(path: Path) -> None:
    """Whole or not at all, and only once however many workers start together."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        os.write(descriptor, os.urandom(KEY_BYTES).hex().encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
