"""Who goes first where several want the CPU: a sink's session can step back on Linux, and forward again.

Linux shares the CPU among sessions (autogroups), then among the threads of each. Who owns a session may raise its
niceness and lower it again, that of a thread only raise; and it covers every thread at once. It costs nothing while
nobody else wants the CPU.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import structlog

from sinks.runner.seam import BatchPolicy
from sinks.runner.yielding import Yielding, look
from streams.log import Partition

log = structlog.get_logger()

#: About a tenth of what another session gets, and all of what nobody else wants.
NICENESS = 10
#: Where others want the CPU, a sink that gives way rests twelve times as long as it wrote, half a second at most.
REST_SHARE, REST_SECONDS_MAX = 12.0, 0.5
GROUP = Path("/proc/self/autogroup")
#: Nanoseconds that a thread ran, and that it could have run and waited for the CPU.
TIMES = Path("/proc/thread-self/schedstat")
#: From this share of waiting on, others want the CPU; a server that works for this sink alone makes less of it.
CROWDED_SHARE = 0.2
#: For how long that holds: a sink that rests waits less, and callers are not there in each second.
CROWDED_SECONDS = 30.0


class Priority(Protocol):
    """A process's place among those that want the CPU."""

    gives_way: bool

    def give_way(self, wanted: bool) -> None:
        """Step back, or forward again. Never raises; may be asked for what is so already.

        Where it can't be done, or not yet, `gives_way` stays as it was.
        """

    def waited_share(self) -> float:
        """How long the calling thread waited for the CPU since its last call, of the time it could have run: 0 to 1.

        Never raises; 0 where nobody knows.
        """


class MemoryPriority(Priority):
    """Changes nothing but what it says."""

    def __init__(self, waited: float = 0.0) -> None:
        """As everybody; with this share of waiting."""
        self.gives_way = False
        self._waited = waited

    def waited_share(self) -> float:
        """As given."""
        return self._waited

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
        self._ran_nanos = self._waited_nanos = 0

    def waited_share(self) -> float:
        """As the seam says, by what Linux counts of each thread."""
        try:
            ran, waited = (int(each) for each in TIMES.read_text(encoding="ascii").split()[:2])
        except (OSError, ValueError):
            return 0.0
        ran_since, waited_since = ran - self._ran_nanos, waited - self._waited_nanos
        self._ran_nanos, self._waited_nanos = ran, waited
        return max(0.0, waited_since / max(1, ran_since + waited_since))

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
        self._calls: Mapping[Partition, int] = {}
        self._crowded_at = -math.inf
        self._is_crowded = False

    @property
    def rests(self) -> bool:
        """Whether it gives way now to callers that are there: it works in short pieces, one thing at a time, and rests.

        Whatever its niceness, work that never ends keeps a core from being free, and each of a call's many steps that
        finds none free waits for a slice of time.
        """
        return self._yielding.gives_way and self._is_crowded

    def policy(self, policy: BatchPolicy) -> BatchPolicy:
        """How batches are cut now."""
        if not self.rests or policy.yielding_records_max is None:
            return policy
        return replace(policy, records_max=min(policy.records_max, policy.yielding_records_max))

    def rest_seconds(self, spent_seconds: float) -> float:
        """For how long nothing is asked of the server after a write that took so long."""
        return min(REST_SHARE * spent_seconds, REST_SECONDS_MAX) if self.rests else 0.0

    def look(self, now: float, lag_events: int, oldest_seconds: float, calls: Mapping[Partition, int]) -> None:
        """Decide anew, at this monotonic time, seconds; `calls` is where the log of requests ends by now."""
        before, self._yielding = (
            self._yielding,
            look(self._yielding, now, lag_events, oldest_seconds, self._behind_seconds),
        )
        if before.gives_way != self._yielding.gives_way:
            log.info("gives_way" if self._yielding.gives_way else "at_full_speed", lag_events=lag_events)
        self._priority.give_way(self._yielding.gives_way)
        waits = self._priority.waited_share() >= CROWDED_SHARE
        # A partition that came with a rebalance has not grown.
        somebody_calls = any(end > self._calls.get(partition, end) for partition, end in calls.items())
        if waits and somebody_calls and self._yielding.gives_way:
            self._crowded_at = now
        self._calls = calls
        self._is_crowded = now - self._crowded_at < CROWDED_SECONDS
