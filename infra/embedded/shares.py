"""Who goes first on a full machine: callers and what they wait for, before the servers of what works behind the log.

Linux shares the CPU among sessions first, then among the threads of each (autogroups); whoever owns a session may lower
its share. That costs nothing while nobody else wants the CPU. See docs/decisions/0171-callers-go-first.md.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

#: Niceness of the sessions of servers that admission does not wait for: about a quarter of what another session gets,
#: and half for ClickHouse, whose batch is seven inserts that cost the same however small (docs/decisions/0179).
NICENESS: Mapping[str, int] = {"postgres": 6, "clickhouse": 3}


class Shares:
    """Sees to it that these servers give way, those that were started again too."""

    def __init__(self) -> None:
        """Nobody gives way yet."""
        self._there: frozenset[int] = frozenset()
        self._settled: frozenset[int] = frozenset()

    def settle(self, pids: Mapping[str, int | None]) -> None:
        """For the servers that run, by name; never raises. What can't be done now is tried with the next call."""
        there, settled = set(), set()
        for name, niceness in NICENESS.items():
            for pid in _tree(pids.get(name)):
                there.add(pid)
                # One that has just appeared may be about to lead a session: it is lowered from the next call on.
                if pid in self._settled or (pid in self._there and give_way(pid, niceness)):
                    settled.add(pid)
        self._there, self._settled = frozenset(there), frozenset(settled)


def _tree(server: int | None) -> tuple[int, ...]:
    """A server's process and its children: each of Postgres' leads a session of its own, with a share of its own."""
    if server is None:
        return ()
    try:
        children = Path(f"/proc/{server}/task/{server}/children").read_text(encoding="ascii").split()
    except OSError:
        children = []
    return server, *map(int, children)


def give_way(pid: int, niceness: int) -> bool:
    """Lower the share of the session that a process leads; whether there is nothing left to be done.

    False asks for another call: Linux takes such a change each tenth of a second only. A process that leads no session,
    or a kernel without such groups, stays as it is.
    """
    try:
        if os.getsid(pid) == pid:
            Path(f"/proc/{pid}/autogroup").write_text(f"{niceness}\n", encoding="ascii")
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
