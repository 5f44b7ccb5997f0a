"""How Linux shares the CPU among sessions, as seen from outside."""

from __future__ import annotations

from pathlib import Path

#: Without such groups the kernel names none for this process either, and nothing is to be seen of any of it.
HAS_GROUPS = bool(Path("/proc/self/autogroup").exists() and Path("/proc/self/autogroup").read_text(encoding="ascii"))


def niceness(pid: int) -> int:
    """Of the session that a process belongs to."""
    return int(Path(f"/proc/{pid}/autogroup").read_text(encoding="ascii").rsplit(" ", 1)[1])
