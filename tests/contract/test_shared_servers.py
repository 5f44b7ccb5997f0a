"""The servers that tests share come from the one choice: containers where a Docker engine answers.

The engine here is a program that answers and writes down what it is told: what it would start is not ours.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).parents[2]
ENGINE = """#!/bin/sh
echo "$@" >> "$0.told"
for word in "$@"; do case "$word" in *.env) cat "$word" >> "$0.given";; esac; done
"""
#: What tests call, in a process of its own, which stops everything when it ends.
ASKING = """
import json
from tests.support import databases, kafka_server, registry_server

registry_server.register_all = lambda url: None
addresses = [kafka_server.kafka_bootstrap(), kafka_server.kafka_bootstrap(), registry_server.registry_url()]
addresses += [databases.postgres_databases().dsn("tried"), databases.ClickHouseDatabases().url]
with registry_server.registry() as own:
    print(json.dumps([*addresses, own]))
"""
SERVERS = ("kafka", "registry", "postgres", "clickhouse", "registry")


@dataclass(frozen=True)
class Asked:
    """What came of it."""

    addresses: list[str]
    #: Each command line of `docker`.
    told: list[str]
    #: Every variable that its projects got.
    given: list[str]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    """The shared servers of a process on a machine with Docker."""
    engine = tmp_path_factory.mktemp("engine") / "docker"
    engine.write_text(ENGINE, encoding="utf-8")
    engine.chmod(0o755)
    environment = {**os.environ, "PATH": f"{engine.parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", ASKING], capture_output=True, text=True, env=environment, timeout=120, check=False
    )
    assert 0 == done.returncode, done.stderr
    told, given = (Path(f"{engine}.{name}").read_text(encoding="utf-8").splitlines() for name in ("told", "given"))
    return Asked(json.loads(done.stdout), told, given)


def test_shared_servers_are_containers_where_docker_answers(asked: Asked) -> None:
    """Each is started once, waited for, and taken away with its volumes and what it depended on."""
    begun = [line.partition(" --wait ")[2] for line in asked.told if " up " in line]
    ended = [line for line in asked.told if line.endswith("down --volumes")]

    assert (list(SERVERS), len(SERVERS)) == (begun, len(ended))


def test_docker_is_asked_once(asked: Asked) -> None:
    """However many servers are shared."""
    assert 1 == asked.told.count("info")


def test_containers_are_found_on_ports_of_their_own_project(asked: Asked) -> None:
    """So neither a developer's containers nor those of another process are in the way."""
    projects = {line for line in asked.given if line.startswith("COMPOSE_PROJECT_NAME=quaestor-tests-")}
    published = {line.partition("=")[2] for line in asked.given if "_PORT=" in line}
    ports = [urlsplit(each if "://" in each else f"//{each}").port for each in asked.addresses]

    assert len(SERVERS) == len(projects)
    assert {str(port) for port in ports} <= published
    assert asked.addresses[0] == asked.addresses[1]
