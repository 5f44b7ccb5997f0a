"""A new Postgres that can't be made says why, also when its log, on the same full disk, can't."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.embedded.errors import ServerFailedError
from infra.embedded.process import Spawner
from infra.embedded.servers.base import ServerContext
from infra.embedded.servers.postgres import NEW_CLUSTER_BYTES, PostgresServer
from schemas.errors import ConfigurationError


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PostgresServer]:
    """One of which nothing was made."""
    spawner = Spawner()
    (tmp_path / "logs").mkdir()
    yield PostgresServer(ServerContext(tmp_path, spawner), 1)
    spawner.close()


@pytest.mark.parametrize(
    ("free", "error", "says"),
    [
        (NEW_CLUSTER_BYTES - 1, ConfigurationError, "is full: free some space"),
        (NEW_CLUSTER_BYTES, ServerFailedError, "could not make its database"),
    ],
)
def test_a_full_disk_is_the_reason(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch, free: int, error: type[Exception], says: str
) -> None:
    """A program that gave up may have given back what it took: what it would need is the measure."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2 * free, free, free))  # type: ignore[attr-defined]  # as it answers
    with pytest.raises(error, match=says):
        server._run(("false",), "")
