"""The step between servers and applications: `quaestor migrate` in a process of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from infra.embedded.applications import MIGRATE_SECONDS_MAX, command, exists
from infra.embedded.errors import ServerFailedError
from infra.embedded.process import last_line, rotate
from infra.embedded.progress import Progress, ProgressCallback
from infra.embedded.servers.clickhouse import python_path


def migrate(data: Path, environment: Mapping[str, str], tell: ProgressCallback) -> None:
    """Bring topics, schemas and every store forward; raises ServerFailedError when that did not work.

    Passes over in silence where the command does not exist.
    """
    if not exists("migrate"):
        return
    tell(Progress("migrate", "starting"))
    log = data / "logs" / "migrate.log"
    rotate(log)
    variables = {**environment, "QUAESTOR_DATA": str(data), "PYTHONPATH": python_path()}
    with log.open("ab") as output:
        try:
            done = subprocess.run(
                command("migrate", "--seed"),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=variables,
                timeout=MIGRATE_SECONDS_MAX,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ServerFailedError("migrate", f"did not end within {MIGRATE_SECONDS_MAX} s", log) from None
    if done.returncode != 0:
        raise ServerFailedError("migrate", f"failed: {last_line(log)}", log)
    tell(Progress("migrate", "stopped", "done"))
