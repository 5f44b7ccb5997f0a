"""Files of a report: each is there whole or not at all, and the same day made again replaces them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from schemas.errors import ConfigurationError


def write_whole(path: Path, text: str) -> None:
    """Write a file beside its place, then put it there; raises ConfigurationError naming what can't be written."""
    try:
        _write(path, text)
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}") from None


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    beside = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o640)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_all(folder: Path, day: str, texts: Mapping[str, str]) -> list[Path]:
    """report-<day>.<suffix> of each suffix, in this order; answers where they are."""
    paths = {folder / f"report-{day}.{suffix}": text for suffix, text in texts.items()}
    for path, text in paths.items():
        write_whole(path, text)
    return list(paths)
