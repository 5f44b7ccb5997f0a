"""endpoints.json: where the running stack is, for the settings of every other command."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

ENDPOINTS_FILE = "endpoints.json"
FILE_MODE = 0o600


@dataclass(frozen=True, slots=True)
class ProcessEntry:
    """One process of the stack; `monitor_port` is None when it has no /status of ours."""

    pid: int | None
    monitor_port: int | None = None


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Settings by which clients find the stack, its processes, and the ports of its parts."""

    settings: Mapping[str, str]
    processes: Mapping[str, ProcessEntry] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)

    def write(self, data: Path) -> None:
        """Replace the file of a data directory at once, readable by its owner only: the DSN holds a password."""
        raw = {
            "settings": dict(self.settings),
            "processes": {
                name: {"pid": entry.pid, "monitor_port": entry.monitor_port} for name, entry in self.processes.items()
            },
            "ports": dict(self.ports),
        }
        write_atomically(data / ENDPOINTS_FILE, raw)

    @classmethod
    def read(cls, data: Path) -> Endpoints | None:
        """The endpoints of a data directory; None when nothing runs there or the file is damaged."""
        try:
            raw = json.loads((data / ENDPOINTS_FILE).read_text(encoding="utf-8"))
            processes = {name: ProcessEntry(**entry) for name, entry in raw["processes"].items()}
            return cls(raw["settings"], processes, raw.get("ports", {}))
        except (OSError, ValueError, KeyError, TypeError):
            return None


def write_atomically(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, and only its owner may read it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
    with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
        json.dump(value, handle, indent=1)
    draft.replace(path)


def without_credentials(url: str) -> str:
    """A URL without user and password; text that is no URL comes back as it is."""
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
