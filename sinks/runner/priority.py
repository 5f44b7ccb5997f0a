"""Who goes first where several want the CPU: a sink's session can step back on Linux, and forward again.

Linux shares the CPU among sessions (autogroups), then among the threads of each. Who owns a session may raise its
niceness and lower it again, that of a thread only raise; and it covers every thread at once. It costs nothing while
nobody else wants the CPU.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import structlog

from sinks.runner.seam import BatchPolicy
from sinks.runner.yielding import Yielding, look

log = structlog.get_logger()

#: About a tenth of what another session gets, and all of what nobody else wants.
NICENESS = 10
GROUP = Path("/proc/self/autogroup")


class Priority(Protocol):
    """A process's place among those that want the CPU."""

    gives_way: bool

    def give_way(self, wanted: bool) -> None:
        """Step back, or forward again. Never raises; may be asked for what is so already.

        Where it can't be done, or not yet, `gives_way` stays as it was.
        """


class MemoryPriority(Priority):
    """Changes nothing but what it says."""

    def __init__(self) -> None:
        """As everybody."""
        self.gives_way = False

    def give_way(self, wanted: bool) -> None:
        """As the seam says."""
        self.gives_way = wanted


class SessionPriority(Priority):
    """The niceness of a session that holds this process and what it started, and nothing else.

    Does nothing in a session that somebody else leads, such as a terminal's, and where Linux has no such groups.
    """

    def __init__(self) -> None:
        """As everybody."""
        self.gives_way = False

    def give_way(self, wanted: bool) -> None:
        """As the seam says; Linux takes a change each tenth of a second."""
        if wanted == self.gives_way or os.getsid(0) != os.getpid():
            return
        try:
            GROUP.write_text(f"{NICENESS if wanted else 0}\n", encoding="ascii")
        except OSError as error:
            log.debug("priority_stays", error=str(error))
        else:
            self.gives_way = wanted


class Courtesy:
    """Lets a sink give way while it is far behind. Used by the consuming thread alone."""

    def __init__(self, priority: Priority, behind_seconds: float) -> None:
        """From `behind_seconds` of age of its oldest unapplied event on, a sink is far behind."""
        self._priority = priority
        self._behind_seconds = behind_seconds
        self._yielding = Yielding()

    def policy(self, policy: BatchPolicy) -> BatchPolicy:
        """How batches are cut now."""
        if not self._yielding.gives_way or policy.yielding_records_max is None:
            return policy
        return replace(policy, records_max=min(policy.records_max, policy.yielding_records_max))

    def look(self, now: float, lag_events: int, oldest_seconds: float) -> None:
        """Decide anew, at this monotonic time, seconds."""
        before, self._yielding = (
            self._yielding,
            look(self._yielding, now, lag_events, oldest_seconds, self._behind_seconds),
        )
        if before.gives_way != self._yielding.gives_way:
            log.info("gives_way" if self._yielding.gives_way else "at_full_speed", lag_events=lag_events)
        self._priority.give_way(self._yielding.gives_way)
