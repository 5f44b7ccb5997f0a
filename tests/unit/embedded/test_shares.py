"""Servers that no caller waits for give way, on Linux with autogroups."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.embedded.shares import NICENESS, Shares, give_way

SECONDS_MAX = 10.0
SLEEP = (sys.executable, "-c", "import time; time.sleep(60)")
#: Without such groups the kernel names none for this process either, and nothing is to be seen of any of it.
HAS_GROUPS = bool(Path("/proc/self/autogroup").exists() and Path("/proc/self/autogroup").read_text(encoding="ascii"))


@pytest.fixture
def start() -> Iterator[Callable[[], int]]:
    """Processes that do nothing, each in a session of its own."""
    begun: list[subprocess.Popen[bytes]] = []

    def one() -> int:
        begun.append(subprocess.Popen(SLEEP, start_new_session=True))
        return begun[-1].pid

    yield one
    for process in begun:
        process.kill()
        process.wait()


def niceness(pid: int) -> int:
    """Of a session, as Linux says it; what it should be where Linux has none."""
    told = Path(f"/proc/{pid}/autogroup")
    return int(told.read_text(encoding="ascii").rsplit(" ", 1)[1]) if HAS_GROUPS else NICENESS["postgres"]


def settled(shares: Shares, pids: dict[str, int | None], pid: int) -> bool:
    """Whether it gives way at last: Linux takes a change each tenth of a second."""
    until = time.monotonic() + SECONDS_MAX
    while time.monotonic() < until:
        shares.settle(pids)
        if niceness(pid) == NICENESS["postgres"]:
            return True
        os.sched_yield()
    return False


def test_a_server_that_was_started_again_gives_way_too(start: Callable[[], int]) -> None:
    """Its successor leads another session."""
    shares, first, second = Shares(), start(), start()

    assert settled(shares, {"postgres": first, "kafka": None}, first)
    assert settled(shares, {"postgres": second}, second)


@pytest.mark.skipif(not HAS_GROUPS, reason="this kernel shares the CPU among threads alone: there is nothing to lower")
def test_servers_that_callers_wait_for_stay_as_they_are(start: Callable[[], int]) -> None:
    """Kafka and Redis answer before a caller is answered."""
    shares, kafka, postgres = Shares(), start(), start()
    assert settled(shares, {"kafka": kafka, "redis": kafka, "postgres": postgres}, postgres)

    assert 0 == niceness(kafka)


def test_a_process_that_leads_no_session_stays_as_it_is() -> None:
    """It would be somebody else's session that gives way, a terminal's; one that is gone is nobody's."""
    with subprocess.Popen(SLEEP) as process:
        before = niceness(process.pid)
        asked, after = give_way(process.pid, 6), niceness(process.pid)
        process.kill()

    assert asked
    assert before == after
    assert give_way(process.pid, 6)
