"""Servers that no caller waits for give way, on Linux with autogroups."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from infra.embedded.shares import NICENESS, Shares, give_way
from tests.support.autogroups import HAS_GROUPS, niceness

pytestmark = pytest.mark.skipif(not HAS_GROUPS, reason="this kernel shares the CPU among threads alone")

SECONDS_MAX = 10.0
SLEEP = (sys.executable, "-c", "import time; time.sleep(60)")
BEGINS = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
print(child.pid, flush=True)
sys.stdin.read()
child.kill()
child.wait()
"""
BEGINS_ANOTHER = (sys.executable, "-c", BEGINS)


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


@pytest.fixture
def server_and_child() -> Iterator[tuple[int, int]]:
    """A process, and one that it began, which leads a session of its own."""
    pipe = subprocess.PIPE
    with subprocess.Popen(BEGINS_ANOTHER, start_new_session=True, stdin=pipe, stdout=pipe, text=True) as server:
        assert server.stdout is not None
        yield server.pid, int(server.stdout.readline())
        server.communicate()


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


def test_what_a_server_begins_gives_way_too(server_and_child: tuple[int, int]) -> None:
    """Each process that Postgres begins leads a session, which has a whole share whatever its parent's."""
    server, child = server_and_child
    shares = Shares()

    assert settled(shares, {"postgres": server}, child)
    assert settled(shares, {"postgres": server}, server)
