"""What the supervisor decides: pauses, leftovers, changed environments, plans."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from infra.embedded.daemon import decode, encode, is_running, locked
from infra.embedded.environment import compare
from infra.embedded.parts import BACKOFF_SECONDS_MAX, STABLE_SECONDS, Backoff
from infra.embedded.ports import PortPlan
from infra.embedded.process import Launch, Spawner, started_at
from infra.embedded.secret_files import is_admin_token, mint_admin_token
from infra.embedded.state import PartState, State, end_leftovers
from infra.embedded.supervisor import Plan
from schemas.errors import ConfigurationError

SLEEP = (sys.executable, "-c", "import time; time.sleep(600)")


def test_pauses_double_up_to_half_a_minute() -> None:
    """A part that dies again and again waits ever longer, within a bound."""
    backoff = Backoff()

    pauses = [backoff.failed(now=0.0, ran_seconds=1.0) for _ in range(100)]

    assert [0.5, 1.0, 2.0, 4.0] == pauses[:4]
    assert BACKOFF_SECONDS_MAX == pauses[-1]


def test_a_part_that_ran_long_starts_over() -> None:
    """A death after a minute of work is the first."""
    backoff = Backoff()
    for _ in range(5):
        backoff.failed(now=0.0, ran_seconds=1.0)

    assert 0.5 == backoff.failed(now=0.0, ran_seconds=STABLE_SECONDS)


def test_nothing_starts_before_its_pause_is_over() -> None:
    """The pause is kept, unless somebody asks to forget it."""
    backoff = Backoff()
    pause = backoff.failed(now=10.0, ran_seconds=0.0)

    assert not backoff.may_start(10.0)
    assert backoff.may_start(10.0 + pause)
    backoff.forget()
    assert backoff.may_start(0.0)


def test_leftovers_are_ended_by_pid_and_start(tmp_path: Path) -> None:
    """What the last supervisor left is ended; a process that only has its pid is left alone."""
    with Spawner() as spawner:
        left = spawner.spawn(Launch("left", SLEEP, tmp_path / "left.log"))
        other = spawner.spawn(Launch("other", SLEEP, tmp_path / "other.log"))
        parts = (
            PartState("left", "server", left.pid, started_at(left.pid), "running", 0),
            PartState("other", "server", other.pid, 1.0, "running", 0),
        )

        ended = end_leftovers(State("running", 1, None, parts))

        assert ["left"] == list(ended)
        assert left.wait(10)
        assert -signal.SIGKILL == left.exit_code
        assert other.exit_code is None


def test_state_survives_its_file(tmp_path: Path) -> None:
    """What is written is read again; a damaged file is none."""
    state = State("running", 7, 1.5, (PartState("kafka", "server", 8, 2.5, "running", 1),), {"kafka": "4"})
    state.write(tmp_path)

    assert state == State.read(tmp_path)

    (tmp_path / "state.json").write_text("{")
    assert State.read(tmp_path) is None


@pytest.mark.parametrize(
    ("new", "values", "settings"),
    [
        pytest.param({"A": "1"}, {}, False, id="same"),
        pytest.param({}, {}, False, id="missing stays"),
        pytest.param({"A": "2"}, {"A": "2"}, False, id="changed"),
        pytest.param({"OPENAI_API_KEY": "k"}, {"OPENAI_API_KEY": "k"}, False, id="new"),
        pytest.param({"QUAESTOR_LOG_LEVEL": "debug"}, {"QUAESTOR_LOG_LEVEL": "debug"}, True, id="setting"),
        pytest.param({"PWD": "/x", "SHLVL": "9", "TERM": "z", "_": "q", "SSH_TTY": "t"}, {}, False, id="session"),
        pytest.param({"QUAESTOR_DATA": "d", "PYTHONPATH": "p"}, {}, False, id="our own"),
    ],
)
def test_only_variables_that_mean_something_are_a_change(
    new: dict[str, str], values: dict[str, str], settings: bool
) -> None:
    """A further `up` from another window restarts nothing; a new secret or setting does."""
    change = compare({"A": "1", "PWD": "/y"}, new)

    assert (values, settings) == (dict(change.values), change.settings)


def test_a_plan_survives_the_command_line() -> None:
    """The supervisor's process gets the plan that was made."""
    plan = Plan(Path("/data x"), PortPlan(kafka=1), Path("/cache"), servers_only=True)

    assert plan == decode(encode(plan))


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    """A data directory has one supervisor; its lock goes with its process."""
    with locked(tmp_path) as first, locked(tmp_path) as second:
        assert (True, False) == (first, second)
        assert is_running(tmp_path)

    assert not is_running(tmp_path)


def test_a_data_directory_that_is_a_file_is_named(tmp_path: Path) -> None:
    """A data directory that can't be used is a one-line reason."""
    path = tmp_path / "file"
    path.write_text("")

    with pytest.raises(ConfigurationError, match="file"), locked(path):
        pass


def test_an_admin_token_is_minted_once(tmp_path: Path) -> None:
    """The token is told once and kept as a hash that only its owner can read."""
    token = mint_admin_token(tmp_path)

    assert token is not None
    assert mint_admin_token(tmp_path) is None
    assert is_admin_token(tmp_path, token)
    assert not is_admin_token(tmp_path, token + "x")
    path = tmp_path / "secrets" / "admin_token.sha256"
    assert token not in path.read_text()
    assert (0o600, 0o700) == (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777)
