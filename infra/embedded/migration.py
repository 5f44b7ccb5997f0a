"""The step between servers and applications: `quaestor migrate` in processes of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from infra.embedded.applications import MIGRATE_SECONDS_MAX, command, exists
from infra.embedded.errors import ServerFailedError
from infra.embedded.process import Launch, Starter, last_line
from infra.embedded.progress import Progress, ProgressCallback
from infra.embedded.servers.clickhouse import python_path

MigratedPart = Literal["log", "stores"]


def as_variables(settings: Mapping[str, str]) -> Mapping[str, str]:
    """Settings as the environment variables that a process of ours reads."""
    return {f"QUAESTOR_{name.upper()}": value for name, value in settings.items()}


def migrate(
    starter: Starter, data: Path, part: MigratedPart, environment: Mapping[str, str], tell: ProgressCallback
) -> None:
    """Bring topics and schemas, or the stores, forward; raises ServerFailedError when that did not work.

    `environment` says where they are.
    Passes over in silence where the command does not exist.
    """
    if not exists("migrate"):
        return
    name = f"migrate-{part}"
    tell(Progress(name, "starting"))
    log = data / "logs" / f"{name}.log"
    arguments = ("--seed",) if part == "log" else ()
    variables = {**environment, "QUAESTOR_DATA": str(data), "PYTHONPATH": python_path()}
    child = starter.spawn(Launch(name, command("migrate", "--only", part, *arguments), log, variables))
    in_time = child.wait(MIGRATE_SECONDS_MAX)
    child.kill()
    if not in_time:
        raise ServerFailedError(name, f"did not end within {MIGRATE_SECONDS_MAX} s", log)
    if child.exit_code != 0:
        raise ServerFailedError(name, f"failed: {last_line(log)}", log)
    tell(Progress(name, "stopped", "done"))
