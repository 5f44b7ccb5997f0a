"""Real servers for a test session: containers when a Docker engine answers, the embedded stack otherwise."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

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
def start_servers(data: Path, servers: Sequence[str] = SERVER_NAMES) -> Iterator[Mapping[str, str]]:
    """Servers that are ready for as long as the block lasts; gives the settings by which clients find them.

    `data` is a folder for the embedded servers' state, usually from `tmp_path_factory`. Use it in a session fixture:
    starting takes about five seconds, and tests keep apart by topic, schema and key names.
    """
    if docker_answers():
        with _containers(servers) as settings:
            yield settings
        return
    with Stack(data, PortPlan.auto(), servers=servers) as stack:
        yield stack.settings()


@contextlib.contextmanager
def _containers(servers: Sequence[str]) -> Iterator[Mapping[str, str]]:
    """The services of docker-compose.yml, on the ports it publishes."""
    from testcontainers.compose import DockerCompose  # noqa: PLC0415 - only where Docker is

    with DockerCompose(ROOT, services=list(servers), wait=True):
        yield {key: value for name in servers for key, value in COMPOSE_SETTINGS[name].items()}


def _compose_settings() -> Mapping[str, Mapping[str, str]]:
    ports = PortPlan()
    return {
        "kafka": {"kafka_bootstrap": f"{LOOPBACK}:{ports.kafka}"},
        "registry": {"registry_url": f"http://{LOOPBACK}:{ports.registry}/apis/ccompat/v7"},
        "postgres": {"postgres_dsn": f"postgresql://postgres:quaestor@{LOOPBACK}:{ports.postgres}/quaestor"},
        "redis": {"redis_url": f"redis://{LOOPBACK}:{ports.redis}/0"},
        "clickhouse": {"clickhouse_url": f"http://{LOOPBACK}:{ports.clickhouse}"},
    }


#: How clients find the services of docker-compose.yml on this machine.
COMPOSE_SETTINGS: Mapping[str, Mapping[str, str]] = _compose_settings()
