"""What is known here of each anchor: the last checkpoint it took, and what went wrong since."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from schemas.errors import IntegrityError
from sinks.audit.files import disk, read_note, sync_folders, write_durable

ID_HEX_DIGITS = 16


@dataclass(frozen=True)
class AnchorState:
    """Where one anchor stands."""

    name: str
    #: Size of the last checkpoint it took; 0 before the first.
    size: int = 0
    #: When it took it, microseconds since the epoch.
    at_micros: int = 0
    #: Tries that failed since.
    failures: int = 0
    #: What the last of them met; None when it went well.
    error: str | None = None
    error_at_micros: int = 0


class AnchorStates:
    """The states of a log's anchors, a file each. Every call blocks on the disk."""

    def __init__(self, folder: Path) -> None:
        """Nothing is touched before it is needed."""
        self._folder = folder

    def load(self, name: str) -> AnchorState:
        """The state of an anchor; raises StoreUnavailableError, IntegrityError when its file is damaged."""
        text = read_note(self._path(name))
        if text is None:
            return AnchorState(name)
        try:
            return AnchorState(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise IntegrityError(f"{self._path(name)} is damaged: remove it, the anchor itself knows better") from error

    def save(self, state: AnchorState) -> None:
        """Keep a state; raises StoreUnavailableError."""
        path = self._path(state.name)
        with disk(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_durable(path, json.dumps(asdict(state), indent=1).encode("utf-8"))
            sync_folders([path.parent])

    def _path(self, name: str) -> Path:
        return self._folder / f"{sha256(name.encode('utf-8')).hexdigest()[:ID_HEX_DIGITS]}.json"
