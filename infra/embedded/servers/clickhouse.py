"""ClickHouse as a library behind our own HTTP front: a process of this same Python."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib.metadata import version as package_version
from pathlib import Path
from typing import ClassVar

from infra.embedded.ports import LOOPBACK
from infra.embedded.process import Launch
from infra.embedded.progress import Progress, ProgressCallback
from infra.embedded.servers.base import Server
from infra.embedded.servers.probes import http_answers

ROOT = Path(__file__).parents[3]


def python_path() -> str:
    """Our root first, so that no stray package of the current folder shadows ours."""
    return os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))


class ClickHouseServer(Server):
    """Raw facts and rollups. One process owns the folder; see infra/embedded/clickhouse_front."""

    name: ClassVar[str] = "clickhouse"

    def version(self) -> str:
        """The version of the engine."""
        return package_version("chdb-core")

    def settings(self) -> Mapping[str, str]:
        """Its HTTP address."""
        return {"clickhouse_url": f"http://{LOOPBACK}:{self.port}"}

    def ready(self) -> bool:
        """Whether the front answers `/ping`."""
        return http_answers(self.port, "/ping")

    def prepare(self, progress: ProgressCallback) -> None:
        """Nothing to prepare."""
        progress(Progress(self.name, "preparing"))

    def launch(self) -> Launch:
        """`python -m infra.embedded.clickhouse_front`."""
        arguments = ("--path", str(self.folder.absolute()), "--port", str(self.port))
        command = (sys.executable, "-P", "-m", "infra.embedded.clickhouse_front", *arguments)
        return Launch(self.name, command, self.log, environment={"PYTHONPATH": python_path()})
