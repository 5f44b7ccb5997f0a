"""The fork server: what it forks is a process like any other, and nothing outlives it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from infra.embedded import applications
from infra.embedded.fork_server import PYTHON, ForkServer
from infra.embedded.process import Launch, Spawner, last_line, started_at

ROOT = Path(__file__).parents[3]
WAIT_SECONDS = 30
SLEEP = "import time; print('ready', flush=True); time.sleep(600)"
#: Says how it finds itself: everything that a process of its own would find.
MIRROR = """
import json, os, signal, sys, threading
descriptors = sorted(int(each) for each in os.listdir("/proc/self/fd"))[:-1]  # without that of the listing
print(json.dumps({
    "arguments": sys.argv[1:], "name": __name__, "environment": dict(os.environ), "folder": os.getcwd(),
    "leader": os.getsid(0) == os.getpid(), "descriptors": descriptors,
    "child": str(signal.getsignal(signal.SIGCHLD)), "threads": threading.active_count(),
}), flush=True)
sys.exit(7)
"""
#: A parent that has a child forked with the product's own code, tells both pids, and waits.
PARENT = """
import os, sys, time
from pathlib import Path
from infra.embedded.fork_server import PYTHON, ForkServer
from infra.embedded.process import Launch, Spawner
folder = Path(sys.argv[1])
server = ForkServer(Spawner(), folder / "server.log", (), {"PYTHONPATH": os.environ["PYTHONPATH"]})
child = server.spawn(Launch("sleeper", (*PYTHON, "sleeper"), folder / "sleeper.log"))
print(server.pid, child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def forks(tmp_path: Path) -> Iterator[ForkServer]:
    """A fork server that has imported json and finds modules in the test's folder."""
    with Spawner() as spawner:
        variables = {"PYTHONPATH": python_path(tmp_path), "OF_THE_SERVER": "alone"}
        server = ForkServer(spawner, tmp_path / "server.log", ("json",), variables)
        yield server
        server.close()


def python_path(folder: Path) -> str:
    """Where the modules of a test and ours are found."""
    return f"{folder}{os.pathsep}{ROOT}"


def module(tmp_path: Path, code: str, *arguments: str, name: str = "program") -> Launch:
    """How to start a module with this code."""
    (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
    variables = {"PYTHONPATH": python_path(tmp_path), "COLOUR": "blue"}
    return Launch(name, (*PYTHON, name, *arguments), tmp_path / f"{name}.log", variables)


def until(condition: Callable[[], bool]) -> bool:
    """Whether a condition comes true within the deadline."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_a_forked_process_finds_what_a_process_of_its_own_would(tmp_path: Path, forks: ForkServer) -> None:
    """Arguments, environment, session, signals and descriptors are those of the command, run by itself."""
    told = []
    launch = module(tmp_path, MIRROR, "sink", "postgres")
    with Spawner() as spawner:
        for starter in (forks, spawner):
            child = starter.spawn(launch)
            assert child.wait(WAIT_SECONDS)
            assert 7 == child.exit_code
            told.append(json.loads(last_line_whole(launch.log)))

    forked, by_itself = told
    assert by_itself == forked
    assert ("blue", True) == (forked["environment"]["COLOUR"], forked["leader"])


def last_line_whole(log: Path) -> str:
    """The last line of a log, however long."""
    return log.read_text(encoding="utf-8").splitlines()[-1]


def test_a_forked_process_is_called_by_its_command(tmp_path: Path, forks: ForkServer) -> None:
    """`ps` and `top` show what it is, not what it was forked from."""
    child = forks.spawn(module(tmp_path, SLEEP, "sink", "postgres"))
    assert until(lambda: last_line(tmp_path / "program.log") == "ready")

    process = psutil.Process(child.pid)
    assert ["quaestor", "sink", "postgres"] == [word for word in process.cmdline() if word]
    assert "sink-postgres" == process.name()


def test_a_forked_process_ends_with_its_signal(tmp_path: Path, forks: ForkServer) -> None:
    """One that ends when asked ended in order, and its exit code says how."""
    child = forks.spawn(module(tmp_path, SLEEP))
    assert until(lambda: last_line(tmp_path / "program.log") == "ready")

    assert child.stop(signal.SIGTERM, WAIT_SECONDS)
    assert -signal.SIGTERM == child.exit_code


def test_every_end_is_told(tmp_path: Path, forks: ForkServer) -> None:
    """Processes that end at the same moment are all noticed, and none stays a zombie."""
    launch = module(tmp_path, "")
    children = [forks.spawn(launch) for _ in range(20)]

    assert all(child.wait(WAIT_SECONDS) for child in children)
    assert {0} == {child.exit_code for child in children}
    assert [] == psutil.Process(forks.pid).children()


def test_a_fault_is_in_the_log(tmp_path: Path, forks: ForkServer) -> None:
    """A module that raises ends with code 1 and the reason as its log's last line."""
    child = forks.spawn(module(tmp_path, "raise ValueError('why')"))

    assert child.wait(WAIT_SECONDS)
    assert (1, "ValueError: why") == (child.exit_code, last_line(tmp_path / "program.log"))


def test_what_is_no_module_of_ours_is_started_by_itself(tmp_path: Path, forks: ForkServer) -> None:
    """Another command is no child of the fork server."""
    child = forks.spawn(Launch("other", (sys.executable, "-c", SLEEP), tmp_path / "other.log"))

    assert psutil.Process(child.pid).ppid() == os.getpid()
    child.kill()


def test_a_killed_fork_server_takes_all_with_it_and_starts_go_on(tmp_path: Path, forks: ForkServer) -> None:
    """What it forked dies and is told so; the next start is a process of its own."""
    launch = module(tmp_path, SLEEP)
    child = forks.spawn(launch)
    os.kill(forks.pid, signal.SIGKILL)

    assert child.wait(WAIT_SECONDS)
    assert until(lambda: started_at(child.pid) is None)
    assert -signal.SIGKILL == child.exit_code
    again = forks.spawn(launch)
    assert psutil.Process(again.pid).ppid() == os.getpid()
    again.kill()


def test_a_fork_server_that_does_not_answer_is_ended(
    tmp_path: Path, forks: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen one is killed before a process of its own starts, so that a late fork can't run beside it."""
    monkeypatch.setattr("infra.embedded.fork_server.FORK_SECONDS_MAX", 0.2)
    os.kill(forks.pid, signal.SIGSTOP)

    child = forks.spawn(module(tmp_path, SLEEP))

    assert psutil.Process(child.pid).ppid() == os.getpid()
    assert started_at(forks.pid) is None
    child.kill()


def test_a_module_that_does_not_import_costs_only_speed(tmp_path: Path) -> None:
    """A fork server that ends at its imports leaves starts to the spawner, and the reason in its log."""
    with Spawner() as spawner:
        server = ForkServer(spawner, tmp_path / "server.log", ("missing_module",), {"PYTHONPATH": str(ROOT)})
        child = server.spawn(module(tmp_path, SLEEP))

        assert psutil.Process(child.pid).ppid() == os.getpid()
        assert "missing_module" in last_line(tmp_path / "server.log")
        server.close()


def test_a_process_with_threads_is_not_forked(tmp_path: Path) -> None:
    """An import that begins a thread ends the fork server: a lock held by it would never be free in a fork."""
    (tmp_path / "threaded.py").write_text(
        "import threading, time; threading.Thread(target=time.sleep, args=(600,)).start()"
    )
    with Spawner() as spawner:
        variables = {"PYTHONPATH": python_path(tmp_path)}
        server = ForkServer(spawner, tmp_path / "server.log", ("threaded",), variables)
        child = server.spawn(module(tmp_path, SLEEP))

        assert psutil.Process(child.pid).ppid() == os.getpid()
        assert last_line(tmp_path / "server.log").startswith("2 threads")
        server.close()


def test_what_is_forked_dies_with_a_killed_supervisor(tmp_path: Path) -> None:
    """SIGKILL of the process that has a fork server ends that, and what it forked."""
    module(tmp_path, SLEEP, name="sleeper")
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    variables = {**os.environ, "PYTHONPATH": python_path(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=variables) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert None not in [started_at(pid) for pid in pids]

        parent.kill()

    assert until(lambda: [started_at(pid) for pid in pids] == [None, None])


def test_what_applications_share_can_be_forked(tmp_path: Path) -> None:
    """All of it imports, begins no thread, and opens no socket or file."""
    with Spawner() as spawner:
        variables = {**applications.shared_environment(), "PYTHONPATH": python_path(tmp_path)}
        server = ForkServer(spawner, tmp_path / "server.log", applications.SHARED_MODULES, variables)
        child = server.spawn(module(tmp_path, MIRROR))

        assert child.wait(WAIT_SECONDS)
        assert psutil.Process(server.pid).is_running()
        assert [0, 1, 2] == json.loads(last_line_whole(tmp_path / "program.log"))["descriptors"]
        server.close()
