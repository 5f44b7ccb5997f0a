"""Who goes first on a full machine: callers and what they wait for, before the servers of what works behind the log.

Linux shares the CPU among sessions first, then among the threads of each (autogroups); whoever owns a session may lower
its share. That costs nothing while nobody else wants the CPU. See docs/decisions/0171-callers-go-first.md.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

#: Niceness of the sessions of servers that no caller waits for: about a quarter of what another session gets.
NICENESS: Mapping[str, int] = {"postgres": 6, "clickhouse": 6}


class Shares:
    """Sees to it that these servers give way, those that were started again too."""

    def __init__(self) -> None:
        """Nobody gives way yet."""
        self._settled: dict[str, int] = {}

    def settle(self, pids: Mapping[str, int | None]) -> None:
        """For the servers that run, by name; never raises. What can't be done now is tried with the next call."""
        for name, niceness in NICENESS.items():
            pid = pids.get(name)
            if pid is not None and self._settled.get(name) != pid and give_way(pid, niceness):
                self._settled[name] = pid


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
