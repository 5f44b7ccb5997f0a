"""A throw-away Postgres for tests that hurt it: embedded on every machine, in a folder of its own."""

from __future__ import annotations

import shutil
import signal
import tempfile
from pathlib import Path

from infra.embedded.ports import free_ports
from infra.embedded.process import Spawner
from infra.embedded.servers.base import ServerContext
from infra.embedded.servers.postgres import DATABASE
from infra.embedded.servers.postgres import PostgresServer as EmbeddedPostgres

STOP_SECONDS = 30.0


class PostgresServer:
    """One server; durable settings as in production, so that kill -9 means what it says."""

    def __init__(self) -> None:
        """Make its folder; `start` makes the cluster."""
        self._folder = Path(tempfile.mkdtemp(prefix="quaestor-postgres-"))
        self._spawner = Spawner()
        self._server = EmbeddedPostgres(ServerContext(self._folder, self._spawner), free_ports(1)[0])

    def start(self) -> None:
        """Start and wait until it accepts connections."""
        self._server.start()

    def stop(self, mode: str = "fast") -> None:
        """Stop; mode `immediate` is what a crash looks like."""
        if mode == "immediate" and self._server.child is not None:
            self._server.child.stop(signal.SIGQUIT, STOP_SECONDS)
        self._server.stop()

    def remove(self) -> None:
        """Stop and delete everything."""
        self.stop("immediate")
        self._spawner.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def dsn(self, database: str) -> str:
        """Where a database is."""
        return self._server.settings()["postgres_dsn"].removesuffix(DATABASE) + database
