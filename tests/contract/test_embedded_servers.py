"""One suite for every embedded server: it starts from nothing, answers, keeps its data, comes back, names its port."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from redis import Redis

from infra.embedded.errors import PortTakenError, ServerFailedError
from infra.embedded.ports import INNER_PORTS, PortPlan, free_ports, held, is_free
from infra.embedded.process import Spawner
from infra.embedded.servers import SERVERS, Server, ServerContext
from infra.embedded.servers.postgres import _program
from infra.embedded.stack import Stack
from infra.embedded.testing import start_servers
from schemas.errors import ConfigurationError

WAIT_SECONDS = 30


@dataclass
class Running:
    """A server of its own, with its port."""

    server: Server
    spawner: Spawner

    def setting(self) -> str:
        """Where it is."""
        (setting,) = self.server.settings().values()
        return setting


@pytest.fixture(scope="module", params=SERVERS, ids=lambda server: server.name)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server started from an empty folder, shared by the tests of its class, each of which leaves it running."""
    data = tmp_path_factory.mktemp(request.param.name)
    with Spawner() as spawner:
        server = request.param(ServerContext(data, spawner), free_ports(1)[0])
        server.start()
        yield Running(server, spawner)
        server.stop()


def test_it_is_ready_after_start(running: Running) -> None:
    """After `start` it runs and answers a real question."""
    assert running.server.alive
    assert running.server.ready()


def test_it_says_its_version(running: Running) -> None:
    """The version is a number of at least two parts."""
    assert running.server.version().replace(".", "").removesuffix("post2").isdigit()


def test_it_listens_on_loopback_alone(running: Running) -> None:
    """No server can be reached from the network."""
    assert running.server.child is not None
    listening = _listening(running.server.child.pid)

    assert f"127.0.0.1:{running.server.port}" in listening
    assert [] == [address for address in listening if not address.startswith(("127.", "::1:"))]


def test_a_second_start_names_the_port_and_its_setting(running: Running) -> None:
    """A port that is taken is refused before anything starts, with the setting that changes it."""
    second = type(running.server)(running.server.context, running.server.port)

    with pytest.raises(PortTakenError, match=f"QUAESTOR_{running.server.name.upper()}_PORT"):
        second.start()

    assert running.server.ready()


def test_stop_and_start_keep_the_data(running: Running) -> None:
    """What was written before an orderly stop is there after the next start."""
    write, read = USERS[running.server.name]
    value = uuid.uuid4().hex
    write(running.setting(), value)

    ended = running.server.stop()

    assert ended
    assert not running.server.ready()
    assert is_free(running.server.port)
    running.server.start()
    assert value == read(running.setting())


def test_a_kill_keeps_the_data(running: Running) -> None:
    """What was acknowledged before SIGKILL is there after the next start."""
    write, read = USERS[running.server.name]
    value = uuid.uuid4().hex
    write(running.setting(), value)
    assert running.server.child is not None

    os.kill(running.server.child.pid, signal.SIGKILL)
    assert running.server.child.wait(WAIT_SECONDS)

    assert not running.server.alive
    start_again(running.server)
    assert value == read(running.setting())


def start_again(server: Server) -> None:
    """As the supervisor does: again, while processes of a killed Postgres still hold its memory."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            server.start()
        except ServerFailedError:
            if time.monotonic() > deadline:
                raise
        else:
            return


def test_a_stack_with_a_part_that_fails_leaves_nothing_running(tmp_path: Path) -> None:
    """The first fault is the reason told, and what had started is stopped."""
    (tmp_path / "redis" / "appendonlydir").mkdir(parents=True)
    (tmp_path / "redis" / "appendonlydir" / "appendonly.aof.manifest").write_text("damaged")
    stack = Stack(tmp_path, PortPlan.auto(), servers=("postgres", "redis"))

    with pytest.raises(ServerFailedError, match="redis ended while starting"):
        stack.start()

    assert all(is_free(server.port) for server in stack.servers.values())
    stack.close()


def test_a_stack_says_where_it_is_while_it_runs(tmp_path: Path) -> None:
    """endpoints.json has the settings of the servers, and goes with them."""
    with Stack(tmp_path, PortPlan.auto(), servers=("redis",)) as stack:
        written = json.loads((tmp_path / "endpoints.json").read_text(encoding="utf-8"))
        assert dict(stack.settings()) == written["settings"]

    assert not (tmp_path / "endpoints.json").exists()


def test_automatic_ports_prefer_the_last_ones() -> None:
    """Ports of an earlier run are taken again where they are free, others are not."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        (kept,) = free_ports(1)

        plan = PortPlan.auto({"kafka": kept, "redis": taken.getsockname()[1]})

    assert kept == plan.kafka
    assert plan.redis not in {0, kept}


def test_free_ports_are_none_that_an_outgoing_connection_is_given() -> None:
    """A server starts seconds after its port was picked: nobody's call may take it meanwhile."""
    outgoing = Path("/proc/sys/net/ipv4/ip_local_port_range")
    first = int(outgoing.read_text(encoding="ascii").split()[0]) if outgoing.exists() else 32_768

    ports = free_ports(200)

    assert len(set(ports)) == 200
    assert all(is_free(port) and 1_024 <= port < first for port in ports)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems let nobody listen on a port that is held")
def test_a_held_port_is_drawn_by_nobody_and_taken_by_its_server() -> None:
    """Between a draw and the server's start lie seconds, in which another stack draws from the same range."""
    (port,) = free_ports(1)
    alone = range(port, port + 1)

    with held(alone), socket.socket() as server:
        with pytest.raises(ConfigurationError, match="is free"):
            free_ports(1, alone)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen()
        assert not is_free(port)

    assert [port] == free_ports(1, alone)


def test_ports_that_only_the_stack_knows_are_never_those_of_a_part() -> None:
    """Either are drawn while the others may not be taken yet: one of both would keep a process from starting."""
    inner, parts = free_ports(200, INNER_PORTS), free_ports(200)

    assert set(inner) <= set(INNER_PORTS)
    assert set(parts).isdisjoint(INNER_PORTS)


def _kafka_write(bootstrap: str, value: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for created in admin.create_topics([NewTopic(value, 1, 1)]).values():
        created.result(WAIT_SECONDS)
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all"})
    producer.produce(value, value.encode())
    assert 0 == producer.flush(WAIT_SECONDS)
    Kept.value = value


def _kafka_read(bootstrap: str) -> str:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "reader", "enable.auto.commit": False})
    try:
        consumer.assign([TopicPartition(Kept.value, 0, 0)])
        message = consumer.poll(WAIT_SECONDS)
        assert message is not None
        content = message.value()
        assert content is not None
        return bytes(content).decode()
    finally:
        consumer.close()


class Kept:
    """The topic written last."""

    value = ""


def _registry_write(url: str, value: str) -> None:
    # Two schemas that differ in their doc alone are one to the registry: the value is a default.
    field = {"name": "value", "type": "string", "default": value}
    schema = json.dumps({"type": "record", "name": "Kept", "fields": [field]})
    body = json.dumps({"schema": schema}).encode()
    headers = {"content-type": "application/vnd.schemaregistry.v1+json"}
    request = urllib.request.Request(f"{url}/subjects/kept/versions", body, headers)  # noqa: S310 - our own server
    with urllib.request.urlopen(request, timeout=WAIT_SECONDS) as answer:  # noqa: S310 - our own server
        assert json.load(answer)["id"] > 0


def _registry_read(url: str) -> str:
    with urllib.request.urlopen(f"{url}/subjects/kept/versions/latest", timeout=WAIT_SECONDS) as answer:  # noqa: S310
        return str(json.loads(json.load(answer)["schema"])["fields"][0]["default"])


def _psql(dsn: str, statement: str) -> str:
    command = [_program("psql"), dsn, "-v", "ON_ERROR_STOP=1", "-Atc", statement]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=WAIT_SECONDS).stdout.strip()


def _postgres_write(dsn: str, value: str) -> None:
    insert = f"INSERT INTO kept VALUES ('{value}')"  # noqa: S608 - a uuid of ours
    _psql(dsn, f"CREATE TABLE IF NOT EXISTS kept (value text); DELETE FROM kept; {insert}")  # noqa: S608


def _redis_write(url: str, value: str) -> None:
    with Redis.from_url(url) as client:
        client.set("kept", value)


def _redis_read(url: str) -> str:
    with Redis.from_url(url, decode_responses=True) as client:
        return str(client.get("kept"))


def _clickhouse(url: str, statement: str) -> str:
    with urllib.request.urlopen(url, statement.encode(), timeout=WAIT_SECONDS) as answer:  # noqa: S310 - our own server
        return str(answer.read().decode().strip())


def _clickhouse_write(url: str, value: str) -> None:
    columns = "value String, written DateTime64(9) DEFAULT now64(9)"
    _clickhouse(url, "CREATE DATABASE IF NOT EXISTS kept")  # `default` reads files, which is not granted
    _clickhouse(url, f"CREATE TABLE IF NOT EXISTS kept.kept ({columns}) ENGINE = MergeTree ORDER BY written")
    _clickhouse(url, f"INSERT INTO kept.kept (value) VALUES ('{value}')")  # noqa: S608 - a uuid of ours


#: How a client of each server keeps a value and finds it again.
USERS: dict[str, tuple[Callable[[str, str], None], Callable[[str], str]]] = {
    "kafka": (_kafka_write, _kafka_read),
    "registry": (_registry_write, _registry_read),
    "postgres": (_postgres_write, lambda dsn: _psql(dsn, "SELECT value FROM kept")),
    "redis": (_redis_write, _redis_read),
    "clickhouse": (
        _clickhouse_write,
        lambda url: _clickhouse(url, "SELECT value FROM kept.kept ORDER BY written DESC LIMIT 1"),
    ),
}


def _listening(pid: int) -> list[str]:
    """The addresses a process listens on."""
    process = psutil.Process(pid)
    found = [each for each in process.net_connections("inet") if each.status == psutil.CONN_LISTEN]
    return [f"{each.laddr.ip}:{each.laddr.port}".removeprefix("::ffff:") for each in found]


def test_start_servers_gives_the_settings_of_what_was_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a Docker engine tests get embedded servers, and the settings by which clients find them."""
    monkeypatch.setattr("shutil.which", lambda _: None)

    with start_servers(tmp_path, ("redis",)) as settings:
        assert {"redis_url"} == set(settings)
        _redis_write(settings["redis_url"], "here")
        assert "here" == _redis_read(settings["redis_url"])
