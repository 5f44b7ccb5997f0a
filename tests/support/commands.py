"""Commands of the product: each kind runs once as a user starts it, then forked from a process that has imported it.

A command takes half a second to a second and a half of CPU until it begins to work, nearly all of it imports, and the
end-to-end tests run hundreds. They are forked as the product forks its own processes (docs/decisions/0140).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from itertools import count, takewhile
from pathlib import Path

from api.cli.main import COMMANDS
from infra.embedded.applications import shared_environment
from infra.embedded.fork_server import PYTHON, ForkServer
from infra.embedded.process import Launch, Spawner

QUAESTOR = Path(sys.executable).parent / "quaestor"
#: Loaded before a fork: those of the command line, and what some of them load when they need it.
MODULES = (
    *dict.fromkeys(f"api.cli.{module}" for module in COMMANDS.values()),
    "streams.kafka",
    "streams.registry",
)
#: They start and end what outlives a command.
NEVER_FORKED = {("up",), ("down",)}


class Commands:
    """Runs commands one after the other, in one folder."""

    def __init__(self, folder: Path) -> None:
        """Start nothing yet; outputs of forked commands stand in the folder until they are read."""
        self._folder = folder
        self._spawner = Spawner()
        self._server: ForkServer | None = None
        self._begun: set[tuple[str, ...]] = set()
        self._numbers = count()

    def run(self, *arguments: str, environment: Mapping[str, str], timeout: float) -> subprocess.CompletedProcess[str]:
        """What a command printed, and its exit code; raises TimeoutExpired."""
        kind = tuple(takewhile(str.isidentifier, arguments))
        if kind in self._begun - NEVER_FORKED:
            return self._fork(arguments, environment, timeout)
        self._begun.add(kind)
        return subprocess.run(
            [str(QUAESTOR), *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            env=environment,
            check=False,
            cwd=self._folder,
        )

    def close(self) -> None:
        """End what forks."""
        if self._server is not None:
            self._server.close()
        self._spawner.close()

    def _fork(
        self, arguments: tuple[str, ...], environment: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        number = next(self._numbers)
        output, errors = (self._folder / f"command-{number}.{name}" for name in ("output", "errors"))
        words = ("tests.support.command", str(output), json.dumps(environment), *arguments)
        child = self._forks().spawn(
            Launch("command", (*PYTHON, *words), errors, shared_environment(), directory=self._folder)
        )
        try:
            if not child.wait(timeout):
                raise subprocess.TimeoutExpired(arguments, timeout)
            said = [path.read_text(encoding="utf-8") for path in (output, errors)]
            return subprocess.CompletedProcess(arguments, child.exit_code or 0, *said)
        finally:
            child.kill()
            output.unlink(missing_ok=True)
            errors.unlink(missing_ok=True)

    def _forks(self) -> ForkServer:
        if self._server is None:
            self._server = ForkServer(self._spawner, self._folder / "commands.log", MODULES, shared_environment())
        return self._server
