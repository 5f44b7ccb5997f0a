"""The step between servers and applications: `quaestor migrate` in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from infra.embedded.applications import MIGRATE_SECONDS_MAX, command, exists
from infra.embedded.errors import ServerFailedError
from infra.embedded.process import Launch, Starter, last_line
from infra.embedded.progress import Progress, ProgressCallback
from infra.embedded.servers.clickhouse import python_path


def migrate(starter: Starter, data: Path, environment: Mapping[str, str], tell: ProgressCallback) -> None:
    """Bring topics, schemas and every store forward; raises ServerFailedError when that did not work.

    Passes over in silence where the command does not exist.
    """
    if not exists("migrate"):
        return
    tell(Progress("migrate", "starting"))
    log = data / "logs" / "migrate.log"
    variables = {**environment, "QUAESTOR_DATA": str(data), "PYTHONPATH": python_path()}
    child = starter.spawn(Launch("migrate", command("migrate", "--seed"), log, variables))
    in_time = child.wait(MIGRATE_SECONDS_MAX)
    child.kill()
    if not in_time:
        raise ServerFailedError("migrate", f"did not end within {MIGRATE_SECONDS_MAX} s", log)
    if child.exit_code != 0:
        raise ServerFailedError("migrate", f"failed: {last_line(log)}", log)
    tell(Progress("migrate", "stopped", "done"))
