"""The log's secrets on disk, signing key and salt secret: 32 bytes as hex each, readable by their owner alone."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from processors.audit.commitment import Salts
from processors.audit.note import Signer
from schemas.errors import ConfigurationError
from sinks.audit.files import disk, sync_folders, write_durable
from sinks.audit.layout import Probe

SEED_BYTES = 32
OWNER_ONLY = 0o600
OTHERS_MASK = 0o077


def load_or_make_signer(path: Path, origin: str) -> Signer:
    """The signer of a log, made at first use; raises ConfigurationError when the file is unusable."""
    make_secret(path)
    return load_signer(path, origin)


def load_or_make_salts(path: Path) -> Salts:
    """The salts of a log, their secret made at first use; raises ConfigurationError when the file is unusable."""
    make_secret(path)
    return load_salts(path)


def make_secret(path: Path) -> None:
    """Put a random secret there, durably, if there is none; raises ConfigurationError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
    except FileExistsError:
        return
    except OSError as error:
        raise ConfigurationError(f"the audit key {path} can't be made: {error.strerror}") from error
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_bytes(SEED_BYTES).hex() + "\n")
        file.flush()
        os.fsync(file.fileno())


def load_signer(path: Path, origin: str) -> Signer:
    """The signer of a log that has one; raises ConfigurationError when the file is missing, open to others, damaged."""
    return Signer(origin, load_secret(path))


def load_salts(path: Path) -> Salts:
    """The salts of a log that has a secret for them; raises ConfigurationError as `load_signer` does."""
    return Salts(load_secret(path))


def load_secret(path: Path) -> bytes:
    """The 32 bytes of a file of ours; raises ConfigurationError when it is missing, open to others, damaged."""
    try:
        if path.stat().st_mode & OTHERS_MASK:
            raise ConfigurationError(f"the audit key {path} is readable by others; run: chmod 600 {path}")
        seed = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except OSError as error:
        raise ConfigurationError(f"the audit key {path} can't be read: {error.strerror}") from error
    except ValueError:
        seed = b""
    if len(seed) != SEED_BYTES:
        raise ConfigurationError(
            f"the audit key {path} is damaged: it should hold 64 hex digits; restore it from backup"
        )
    return seed


def write_seed(path: Path, seed: bytes, probe: Probe) -> None:
    """Put a key in place, whole and durable, for its owner alone; raises StoreUnavailableError."""
    with disk(path):
        write_durable(path, f"{seed.hex()}\n".encode("ascii"), probe, OWNER_ONLY)
        sync_folders([path.parent])


def destroy_seed(path: Path, probe: Probe) -> None:
    """Take a key away, overwrite and remove it; raises StoreUnavailableError.

    What the disk or a backup keeps of overwritten files is out of reach from here.
    """
    hidden = path.with_name(f".{path.name}.tmp")
    with disk(path):
        probe(f"hide {path.name}")
        path.replace(hidden)  # first of all, so that nobody ever reads half a key
        sync_folders([path.parent])
    shred(hidden, probe)


def shred(path: Path, probe: Probe) -> None:
    """Overwrite and remove a file; raises StoreUnavailableError."""
    with disk(path):
        with path.open("r+b") as file:
            probe(f"overwrite {path.name}")
            file.write(bytes(path.stat().st_size))
            file.flush()
            os.fsync(file.fileno())
        probe(f"remove {path.name}")
        path.unlink()
        sync_folders([path.parent])
