"""What a part of the stack tells while it starts or stops; people see a table, tests a list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

State = Literal[
    "waiting", "downloading", "preparing", "starting", "running", "stopping", "stopped", "restarting", "failed"
]


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of one part; `done` and `total` count bytes while downloading and are 0 otherwise."""

    part: str
    state: State
    detail: str = ""
    done: int = 0
    total: int = 0


ProgressCallback = Callable[[Progress], None]


def ignore(_: Progress) -> None:
    """A callback for callers who don't want to know."""
