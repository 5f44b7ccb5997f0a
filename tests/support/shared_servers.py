"""Servers that tests share: containers where a Docker engine answers, embedded ones otherwise (docs/decisions/0155).

For tests that need a server and leave it alone. Who kills, freezes, restarts or starves one takes the embedded kind by
name (`start_kafka`, `PostgresServer`, `ClickHouseServer`, `tests.valkey`), on every machine.
"""

from __future__ import annotations

import atexit
import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from infra.embedded.ports import free_ports
from infra.embedded.process import Spawner
from infra.embedded.servers import SERVERS, ServerContext
from infra.embedded.testing import docker_answers, start_servers


@cache
def address_of(server: str) -> str:
    """The setting of the one that all tests of this process share, started when first asked for, stopped with them."""
    running = contextlib.ExitStack()
    atexit.register(running.close)
    return running.enter_context(server_of_its_own(server))


@contextlib.contextmanager
def server_of_its_own(server: str) -> Iterator[str]:
    """The setting of one that a test has for itself, as long as the block lasts."""
    with tempfile.TemporaryDirectory(prefix=f"quaestor-{server}-", ignore_cleanup_errors=True) as folder:
        if _containers_are_chosen():
            begun = start_servers(Path(folder), (server,), in_containers=True)
        else:
            begun = _embedded(Path(folder), server)
        with begun as settings:
            (address,) = settings.values()
            yield address


@contextlib.contextmanager
def _embedded(folder: Path, server: str) -> Iterator[Mapping[str, str]]:
    """As `start_servers` does, without the threads of a Stack: at the end of a process none can be started."""
    kind = next(each for each in SERVERS if each.name == server)
    with Spawner() as spawner:
        made = kind(ServerContext(folder, spawner), free_ports(1)[0])
        made.start()
        try:
            yield made.settings()
        finally:
            made.stop()


@cache
def _containers_are_chosen() -> bool:
    """Docker is asked once per process: the answer takes a moment, and may not change between two servers."""
    return docker_answers()
