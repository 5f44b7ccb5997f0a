"""state.json: what the supervisor of a data directory runs, for `status` and for the next `up`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from infra.embedded.endpoints import write_atomically
from infra.embedded.process import started_at

STATE_FILE = "state.json"
LEFTOVER_STOP_SECONDS = 10.0
POLL_SECONDS = 0.05

Phase = Literal["starting", "running", "stopping"]


@dataclass(frozen=True, slots=True)
class PartState:
    """One process as the supervisor sees it; `started_at` tells a reused pid apart."""

    name: str
    kind: Literal["server", "application"]
    pid: int | None
    started_at: float | None
    state: str
    restarts: int
    monitor_port: int | None = None


@dataclass(frozen=True, slots=True)
class State:
    """The whole stack as the supervisor sees it."""

    phase: Phase
    supervisor_pid: int
    supervisor_started_at: float | None
    parts: Sequence[PartState] = ()
    versions: Mapping[str, str] = field(default_factory=dict)

    def write(self, data: Path) -> None:
        """Replace the file at once."""
        write_atomically(data / STATE_FILE, asdict(self))

    @classmethod
    def read(cls, data: Path) -> State | None:
        """The state of a data directory; None when there is none or it is damaged."""
        try:
            raw = json.loads((data / STATE_FILE).read_text(encoding="utf-8"))
            raw["parts"] = tuple(PartState(**part) for part in raw["parts"])
            return cls(**raw)
        except (OSError, ValueError, KeyError, TypeError):
            return None


def end_leftovers(state: State | None) -> Sequence[str]:
    """End what a supervisor that is gone left running, by pid and start time; the names of what was ended.

    Nothing should be left: every process dies with its parent. This is for kernels and accidents that say otherwise.
    """
    left = [part for part in state.parts if _still_runs(part)] if state else []
    for part in left:
        _signal_group(part, signal.SIGINT if part.name == "postgres" else signal.SIGKILL)
    deadline = time.monotonic() + LEFTOVER_STOP_SECONDS
    while any(_still_runs(part) for part in left) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    for part in left:
        _signal_group(part, signal.SIGKILL)
    return [part.name for part in left]


def _still_runs(part: PartState) -> bool:
    return part.pid is not None and part.started_at is not None and started_at(part.pid) == part.started_at


def _signal_group(part: PartState, how: signal.Signals) -> None:
    if part.pid is not None and _still_runs(part):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(part.pid, how)
