"""Real servers for a test session: containers when a Docker engine answers, the embedded stack otherwise."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from uuid import uuid4

from infra.embedded.ports import LOOPBACK, PortPlan
from infra.embedded.stack import SERVER_NAMES, Stack

ROOT = Path(__file__).parents[2]
DOCKER_SECONDS_MAX = 10


def docker_answers() -> bool:
    """Whether a Docker engine can be used from here."""
    docker = shutil.which("docker")
    if docker is None:
        return False
    try:
        asked = subprocess.run([docker, "info"], capture_output=True, timeout=DOCKER_SECONDS_MAX, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0


@contextlib.contextmanager
def start_servers(
    data: Path, servers: Sequence[str] = SERVER_NAMES, *, in_containers: bool | None = None
) -> Iterator[Mapping[str, str]]:
    """Servers that are ready for as long as the block lasts; gives the settings by which clients find them.

    `data` is a folder for the servers' state, usually from `tmp_path_factory`. Use it in a session fixture: starting
    takes about five seconds, and tests keep apart by topic, schema and key names. `in_containers` is the answer of
    `docker_answers`, for who has asked already.
    """
    if docker_answers() if in_containers is None else in_containers:
        with _containers(data, servers) as settings:
            yield settings
        return
    with Stack(data, PortPlan.auto(), servers=servers) as stack:
        yield stack.settings()


@contextlib.contextmanager
def _containers(data: Path, servers: Sequence[str]) -> Iterator[Mapping[str, str]]:
    """The services of docker-compose.yml as a project of their own, on free ports; gone afterwards with their volumes.

    A developer's own project of the same file, and those of other processes of a test run, are left alone.
    """
    from testcontainers.compose import DockerCompose  # noqa: PLC0415 - only where Docker is

    ports = PortPlan.auto()
    variables = data / "compose.env"
    given = {f"QUAESTOR_{name.upper()}_PORT": ports.of(name) for name in SERVER_NAMES}
    project = {"COMPOSE_PROJECT_NAME": f"quaestor-tests-{uuid4().hex}"}
    variables.write_text("".join(f"{name}={value}\n" for name, value in (project | given).items()), encoding="utf-8")
    compose = DockerCompose(ROOT, services=list(servers), wait=True, env_file=str(variables))
    try:
        compose.start()
        found = compose_settings(ports)
        yield {key: value for name in servers for key, value in found[name].items()}
    finally:
        compose.services = None  # those that the asked for depend on go too
        compose.stop()


def compose_settings(ports: PortPlan) -> Mapping[str, Mapping[str, str]]:
    """How clients find the services of docker-compose.yml on this machine, published on these ports."""
    return {
        "kafka": {"kafka_bootstrap": f"{LOOPBACK}:{ports.kafka}"},
        "registry": {"registry_url": f"http://{LOOPBACK}:{ports.registry}/apis/ccompat/v7"},
        "postgres": {"postgres_dsn": f"postgresql://postgres:quaestor@{LOOPBACK}:{ports.postgres}/quaestor"},
        "redis": {"redis_url": f"redis://{LOOPBACK}:{ports.redis}/0"},
        "clickhouse": {"clickhouse_url": f"http://{LOOPBACK}:{ports.clickhouse}"},
    }
