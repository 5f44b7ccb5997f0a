"""Files of the secrets folder: one secret each, readable by their owner only."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

from schemas.errors import ConfigurationError

ADMIN_TOKEN_FILE = "admin_token.sha256"  # noqa: S105 - a file name
#: What people are told once.
ADMIN_TOKEN_SHOWN = "admin token, shown only now: {token}\n"  # noqa: S105 - a message
FOLDER_MODE = 0o700
FILE_MODE = 0o600


def secrets_folder(data: Path) -> Path:
    """The folder of a data directory's secrets, made when it is not there."""
    data.mkdir(parents=True, exist_ok=True, mode=FOLDER_MODE)
    folder = data / "secrets"
    folder.mkdir(exist_ok=True, mode=FOLDER_MODE)
    folder.chmod(FOLDER_MODE)
    return folder


def write_secret(path: Path, secret: str) -> None:
    """Write a secret so that no other user can read it at any moment, and never half of it."""
    secrets_folder(path.parent.parent)
    draft = path.with_name(f".{path.name}.draft")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
    with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
        handle.write(secret)
        handle.flush()
        os.fsync(handle.fileno())
    draft.replace(path)


def read_secret(path: Path) -> str:
    """The secret in a file; raises ConfigurationError when it is not there."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigurationError(f"{path} is missing or unreadable: run `quaestor up`") from error


def mint_admin_token(data: Path) -> str | None:
    """A new admin token when the data directory has none yet, else None; only its hash is kept."""
    path = secrets_folder(data) / ADMIN_TOKEN_FILE
    if path.exists():
        return None
    token = f"qa_{secrets.token_urlsafe(32)}"
    write_secret(path, hashlib.sha256(token.encode()).hexdigest())
    return token


def is_admin_token(data: Path, token: str) -> bool:
    """Whether this is the admin token of the data directory."""
    path = data / "secrets" / ADMIN_TOKEN_FILE
    return path.is_file() and secrets.compare_digest(read_secret(path), hashlib.sha256(token.encode()).hexdigest())
