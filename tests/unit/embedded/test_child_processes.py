"""Children: die with their parent, end within a bound, log within a bound."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.embedded.process import (
    LOG_FILES_MAX,
    Launch,
    Spawner,
    last_line,
    rotate,
    started_at,
    truncate_live,
)

ROOT = Path(__file__).parents[3]
WAIT_SECONDS = 30
SLEEP = "import time; time.sleep(600)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
)
#: A parent that starts a child with the product's own code, tells its pid, and waits.
PARENT = """
import sys, time
from pathlib import Path
from infra.embedded.process import Launch, Spawner
spawner = Spawner()
child = spawner.spawn(Launch("child", (sys.executable, "-c", "import time; time.sleep(600)"), Path(sys.argv[1])))
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def spawner() -> Iterator[Spawner]:
    """A spawner that leaves nothing behind."""
    with Spawner() as made:
        yield made


def python(tmp_path: Path, code: str) -> Launch:
    """How to start a Python program."""
    return Launch("program", (sys.executable, "-c", code), tmp_path / "program.log")


def until(condition: Callable[[], bool]) -> bool:
    """Whether a condition comes true within the deadline."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_a_child_writes_to_its_log(tmp_path: Path, spawner: Spawner) -> None:
    """Standard output and standard error go to the log."""
    child = spawner.spawn(python(tmp_path, "import sys; print('out', flush=True); sys.exit('err')"))

    assert child.wait(WAIT_SECONDS)
    assert "err" == last_line(tmp_path / "program.log")
    assert 1 == child.exit_code


def test_a_child_is_stopped_with_its_signal(tmp_path: Path, spawner: Spawner) -> None:
    """A program that ends when asked ended in order."""
    child = spawner.spawn(python(tmp_path, SLEEP))

    assert child.stop(signal.SIGTERM, WAIT_SECONDS)
    assert -signal.SIGTERM == child.exit_code


def test_a_stubborn_child_is_killed(tmp_path: Path, spawner: Spawner) -> None:
    """A program that does not end when asked is killed when its time is up."""
    child = spawner.spawn(python(tmp_path, STUBBORN))
    assert until(lambda: last_line(tmp_path / "program.log") == "ready")

    assert not child.stop(signal.SIGTERM, 0.2)
    assert -signal.SIGKILL == child.exit_code


def test_of_a_java_trace_the_fault_is_told(tmp_path: Path) -> None:
    """Not the frames below it."""
    log = tmp_path / "registry.log"
    log.write_text(
        "started\nCaused by: java.net.BindException: Address already in use\n\tat a.B.c(B.java:7)\n\t... 4 more\n\n"
    )

    assert last_line(log) == "Caused by: java.net.BindException: Address already in use"


def test_a_full_disk_is_told_before_whatever_came_of_it(tmp_path: Path) -> None:
    """With what to do; the last line may say anything."""
    log = tmp_path / "logs" / "postgres.log"
    log.parent.mkdir()
    log.write_text("could not write to file: No space left on device\nshutting down\n")

    assert f"the disk under {tmp_path} is full: free some space and run it again" == last_line(log)


def test_what_a_child_started_ends_with_it(tmp_path: Path, spawner: Spawner) -> None:
    """Stopping a child kills its whole process group."""
    started = f"subprocess.Popen([sys.executable, '-c', {SLEEP!r}])"
    code = f"import subprocess, sys, time; print({started}.pid, flush=True); time.sleep(600)"
    child = spawner.spawn(python(tmp_path, code))
    assert until(lambda: last_line(tmp_path / "program.log").isdigit())
    grandchild = int(last_line(tmp_path / "program.log"))

    child.stop(signal.SIGTERM, WAIT_SECONDS)

    assert until(lambda: started_at(grandchild) is None)


def test_a_child_dies_with_a_killed_parent(tmp_path: Path) -> None:
    """SIGKILL of the parent, which no code survives, ends the child."""
    command = [sys.executable, "-c", PARENT, str(tmp_path / "child.log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert started_at(child) is not None

        parent.kill()

    assert until(lambda: started_at(child) is None)


def test_a_child_survives_the_thread_that_asked_for_it(tmp_path: Path, spawner: Spawner) -> None:
    """The parent-death signal belongs to a thread: the one that starts children is not the one that asks."""
    pids: list[int] = []
    thread = threading.Thread(target=lambda: pids.append(spawner.spawn(python(tmp_path, STUBBORN)).pid))
    thread.start()
    thread.join(WAIT_SECONDS)

    assert until(lambda: last_line(tmp_path / "program.log") == "ready")
    assert started_at(pids[0]) is not None


def test_closing_the_spawner_kills_what_runs(tmp_path: Path) -> None:
    """Nothing outlives its spawner."""
    with Spawner() as spawner:
        child = spawner.spawn(python(tmp_path, SLEEP))

    assert -signal.SIGKILL == child.exit_code


def test_a_command_that_is_missing_is_told(tmp_path: Path, spawner: Spawner) -> None:
    """A program that can't be run raises where it was asked for."""
    with pytest.raises(FileNotFoundError):
        spawner.spawn(Launch("missing", (str(tmp_path / "missing"),), tmp_path / "missing.log"))


def test_a_log_that_grew_too_large_moves_aside(tmp_path: Path) -> None:
    """The newest few logs are kept, older ones go."""
    log = tmp_path / "program.log"
    for number in range(LOG_FILES_MAX + 2):
        log.write_text(f"{number}" * 100)
        rotate(log, bytes_max=10)

    kept = sorted(path.name for path in tmp_path.iterdir())
    assert [f"program.log.{number}" for number in range(1, LOG_FILES_MAX)] == kept
    assert f"{LOG_FILES_MAX + 1}" == (tmp_path / "program.log.1").read_text()[0]


def test_a_log_in_use_is_cut_where_it_stands(tmp_path: Path) -> None:
    """A running process goes on appending to the same file, whose newest part was kept beside it."""
    log = tmp_path / "program.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"old" * 100 + b"new" * 100)
        truncate_live(log, bytes_max=600 - 1)
        writer.write(b"next")

    assert b"next" == log.read_bytes()
    assert (tmp_path / "program.log.1").read_bytes().endswith(b"new")


def test_a_process_is_known_by_its_start() -> None:
    """The start time of a process that runs is told, that of one that is gone is not."""
    assert started_at(os.getpid()) is not None
    assert started_at(2**22 + 1) is None
