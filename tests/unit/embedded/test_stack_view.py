"""What people read while the stack starts, and what programs read about where it is."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from api.cli.stack_view import StackView, endpoint_rows, memory_text, rebuild_table
from infra.embedded.endpoints import Endpoints, ProcessEntry, without_credentials
from infra.embedded.process import Spawner
from infra.embedded.servers import PostgresServer, ServerContext


def step(part: str, state: str, detail: str = "", done: int = 0, total: int = 0) -> dict[str, object]:
    """A progress event."""
    return {"event": "progress", "part": part, "state": state, "detail": detail, "done": done, "total": total}


def test_a_start_without_a_terminal_is_told_in_lines() -> None:
    """One line per step, ten per download, and it is good at the end."""
    stream = io.StringIO()
    with StackView(stream) as view:
        for done in range(101):
            view.show(step("kafka", "downloading", "kafka 4.1", done * 10**6, 10**8))
        view.show(step("kafka", "running", "port 1"))
        view.show({"event": "done"})

    lines = stream.getvalue().splitlines()
    assert 11 == sum("downloading" in line for line in lines)
    assert "kafka: running port 1" in lines
    assert view.good


def test_a_part_that_failed_is_named() -> None:
    """Done with a part that is not ready is not good."""
    with StackView(io.StringIO()) as view:
        view.show(step("gateway", "failed"))
        view.show({"event": "done"})

    assert not view.good
    assert view.message.startswith("gateway not ready")


def test_a_part_that_came_back_is_forgiven() -> None:
    """What counts is how a part ended."""
    with StackView(io.StringIO()) as view:
        view.show(step("gateway", "failed"))
        view.show(step("gateway", "running"))
        view.show({"event": "done"})

    assert view.good


def test_a_start_that_was_stopped_is_not_good() -> None:
    """Also when nobody says why; a stop that was asked for is."""
    with StackView(io.StringIO()) as started, StackView(io.StringIO(), stopping=True) as ended:
        for view in (started, ended):
            view.show(step("kafka", "stopped"))
            view.show({"event": "stopped"})

    assert (False, True) == (started.good, ended.good)
    assert "supervisor.log" in started.message


def test_an_end_without_done_is_not_good() -> None:
    """A supervisor that ended while starting did not start."""
    with StackView(io.StringIO()) as view:
        view.show({"event": "failed", "message": "port 1 is taken"})

    assert (False, "port 1 is taken") == (view.good, view.message)


def test_credentials_are_taken_out_of_urls() -> None:
    """User and password go; everything else stays, also of what is no URL."""
    assert "postgresql://127.0.0.1:1/db" == without_credentials("postgresql://u:p%40@127.0.0.1:1/db")
    assert "127.0.0.1:9092" == without_credentials("127.0.0.1:9092")


def test_endpoints_have_host_port_and_url() -> None:
    """Every address of the stack is told in parts and whole, without credentials."""
    found = Endpoints(
        {"kafka_bootstrap": "127.0.0.1:9092", "postgres_dsn": "postgresql://u:secret@127.0.0.1:5432/quaestor"},
        {"gateway": ProcessEntry(1, 9000), "kafka": ProcessEntry(2)},
    )

    rows = {row["name"]: row for row in endpoint_rows(found)}

    assert {"kafka", "postgres", "gateway metrics"} == set(rows)
    assert ("127.0.0.1", 9092) == (rows["kafka"]["host"], rows["kafka"]["port"])
    assert "secret" not in str(rows)


def test_endpoints_survive_their_file(tmp_path: Path) -> None:
    """What is written is read again, and only its owner may read it."""
    endpoints = Endpoints({"kafka_bootstrap": "a:1"}, {"kafka": ProcessEntry(1, None)}, {"kafka": 1})
    endpoints.write(tmp_path)

    assert endpoints == Endpoints.read(tmp_path)
    assert 0o600 == (tmp_path / "endpoints.json").stat().st_mode & 0o777


def test_a_deep_data_directory_gets_no_unix_socket(tmp_path: Path) -> None:
    """Where the kernel's limit on a socket's path is crossed, Postgres listens on TCP alone."""
    deep = tmp_path / ("d" * 100)
    with Spawner() as spawner:
        folders = [PostgresServer(ServerContext(data, spawner), 1)._socket_folder() for data in (Path("/d"), deep)]

    assert ["/d/postgres/cluster", ""] == folders


def shown(**fields: object) -> str:
    """A rebuild as people see it."""
    told = {"partition": 3, "source": "snapshot", "detail": "no gate", "from": 100, "at": 150, "per_cent": 25}
    console = Console(file=io.StringIO(), width=160)
    console.print(rebuild_table([told | {"barrier": 300} | fields]))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_rebuild_says_how_far_it_is() -> None:
    """Partition, share, from, at and barrier, and why."""
    line = shown()

    for word in ("rebuilding budgets/3", "25 %", "offset 150 of 300, from 100", "snapshot: no gate"):
        assert word in line


def test_a_rebuild_without_a_barrier_has_no_share() -> None:
    """Nobody knows yet how far it has to go."""
    assert "%" not in shown(barrier=None, per_cent=0)


@pytest.mark.parametrize(
    ("used", "words"),
    [(10, "redis uses 10 of 100 MB (10 %)"), (80, "at 95 % admission ends"), (95, "no call under a limit is admitted")],
)
def test_the_memory_of_redis_says_what_to_do(used: int, words: str) -> None:
    """Nothing while there is enough."""
    told = {"used_bytes": used * 1_000_000, "ceiling_bytes": 100_000_000, "per_cent": used}

    assert words in memory_text(told).plain
    assert ("give it more maxmemory" in memory_text(told).plain) == (used >= 80)
