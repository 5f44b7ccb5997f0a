"""What every Priority keeps, on the fake and on the session of a real process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sinks.runner.priority import CROWDED_SHARE, GROUP, NICENESS, TIMES, MemoryPriority, Priority, SessionPriority

ROOT = Path(__file__).parent.parent.parent
#: Linux takes a change each tenth of a second, whoever asks: it is asked until it is so.
PROGRAM = f"""
from pathlib import Path
from sinks.runner.priority import SessionPriority

priority = SessionPriority()

def ask(wanted, times):
    for _ in range(times):
        priority.give_way(wanted)
        if priority.gives_way == wanted:
            break
    print(priority.gives_way, *Path("{GROUP}").read_text().split()[-1:])

ask(False, 1)
ask(True, 10_000_000)
ask(True, 1)
ask(False, 10_000_000)
"""
needs_sessions = pytest.mark.skipif(not GROUP.exists(), reason="this Linux has no groups of sessions")


def told(*, own_session: bool) -> list[str]:
    """What a process says after each call: whether it gives way, and its session's niceness."""
    command = [sys.executable, "-c", PROGRAM if own_session else PROGRAM.replace("10_000_000", "1")]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=ROOT, start_new_session=own_session, timeout=60
    )
    return done.stdout.splitlines()


def test_the_fake_steps_back_and_forward() -> None:
    """It says what was asked for last."""
    priority = MemoryPriority()
    said = [priority.gives_way]
    for wanted in (True, True, False):
        priority.give_way(wanted)
        said.append(priority.gives_way)

    assert said == [False, True, True, False]


@needs_sessions
def test_a_session_steps_back_and_forward() -> None:
    """Its niceness is what was asked for, in both directions."""
    assert told(own_session=True) == ["False 0", f"True {NICENESS}", f"True {NICENESS}", "False 0"]


@needs_sessions
def test_a_session_that_somebody_else_leads_is_left_alone() -> None:
    """A sink started in a terminal, or by this test, does not slow what was started there beside it."""
    # Nothing stands there in a session as old as the machine, which has no group of its own.
    niceness = GROUP.read_text(encoding="ascii").split()[-1:]

    assert told(own_session=False) == [" ".join(["False", *niceness])] * 4


@pytest.mark.parametrize("priority", [MemoryPriority(), MemoryPriority(0.5), SessionPriority()])
def test_the_share_of_waiting_is_a_share(priority: Priority) -> None:
    """Of the time since the last call, however often it is asked."""
    assert all(0.0 <= priority.waited_share() <= 1.0 for _ in range(100))


@pytest.mark.skipif(not TIMES.exists(), reason="this Linux counts no times of threads")
def test_a_thread_that_others_keep_from_running_has_waited() -> None:
    """More threads than cores that never rest: each waits for some of its time, and the share says so."""
    with hogs(2 * (os.cpu_count() or 1)):
        priority = SessionPriority()
        priority.waited_share()
        # Until it is so: which of them runs is up to Linux.
        while priority.waited_share() < CROWDED_SHARE:
            sum(range(100_000))


@contextmanager
def hogs(count: int) -> Iterator[None]:
    """So many processes that never rest, on the cores and in the session of this one."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for each in running:
            each.kill()
            each.wait()
