"""One real schema registry with our schemas for a whole test run, started when first asked for."""

from __future__ import annotations

import atexit
import contextlib
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from infra.embedded.ports import free_ports
from infra.embedded.process import Spawner
from infra.embedded.servers.base import ServerContext
from infra.embedded.servers.registry import RegistryServer
from streams.registry import register_all


@cache
def registry_url() -> str:
    """Where it listens; for tests that register nothing but our schemas."""
    running = contextlib.ExitStack()
    atexit.register(running.close)
    return running.enter_context(registry())


@contextlib.contextmanager
def registry() -> Iterator[str]:
    """A registry of a test's own, with our schemas; its address."""
    with tempfile.TemporaryDirectory(prefix="quaestor-registry-") as folder, Spawner() as spawner:
        server = RegistryServer(ServerContext(Path(folder), spawner), free_ports(1)[0])
        server.start()
        try:
            url = server.settings()["registry_url"]
            register_all(url)
            yield url
        finally:
            server.stop()
