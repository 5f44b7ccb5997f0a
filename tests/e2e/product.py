"""A running product and its command line, as the end-to-end tests use it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from schemas.events import Event
from tests.support.commands import QUAESTOR, Commands
from tests.support.gateway_stack import events_of

ROOT = Path(__file__).parents[2]
UP_TIMEOUT_SECONDS = 300
COMMAND_TIMEOUT_SECONDS = 240
TOKEN = re.compile(r"qa_[\w-]{20,}")


@dataclass
class Product:
    """A running product and its command line."""

    data: Path
    #: The admin token, as the first `up` showed it.
    token: str = ""
    #: Settings of its own, as variables of the environment.
    variables: dict[str, str] = field(default_factory=dict)
    _commands: Commands = field(init=False)

    def __post_init__(self) -> None:
        """Commands run beside its data."""
        self._commands = Commands(self.data.parent)

    def close(self) -> None:
        """Stop it, if it runs."""
        self.run("down", check=False)
        self._commands.close()

    def up(self) -> None:
        """Start it, and remember the token."""
        shown = self.run("up", timeout=UP_TIMEOUT_SECONDS, stderr=True)
        found = TOKEN.search(shown)
        self.token = found[0] if found else self.token

    def environment(self) -> dict[str, str]:
        """What commands run with: this data directory, free ports."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("QUAESTOR_")}
        usual = {"QUAESTOR_DATA": str(self.data), "QUAESTOR_PORTS": "auto", "QUAESTOR_SPOOL_GRACE_SECONDS": "5"}
        return clean | usual | self.variables

    def run(
        self, *arguments: str, check: bool = True, timeout: float = COMMAND_TIMEOUT_SECONDS, stderr: bool = False
    ) -> str:
        """Standard output of a command, or its standard error, which stands in the failure too."""
        done = self.done(*arguments, timeout=timeout)
        if check and done.returncode:
            raise AssertionError(
                f"quaestor {' '.join(arguments)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
            )
        return done.stderr if stderr else done.stdout

    def done(self, *arguments: str, timeout: float = COMMAND_TIMEOUT_SECONDS) -> subprocess.CompletedProcess[str]:
        """A command that has ended, however it did."""
        return self._commands.run(*arguments, environment=self.environment(), timeout=timeout)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """A command that goes on in the background."""
        return subprocess.Popen(
            [str(QUAESTOR), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment(),
            cwd=self.data.parent,
        )

    def json(self, *arguments: str, check: bool = True) -> Any:
        """What a command prints with --json."""
        return json.loads(self.run(*arguments, "--json", check=check))

    def setting(self, name: str) -> str:
        """A setting of the running stack, for example gateway_url."""
        return str(json.loads((self.data / "endpoints.json").read_text(encoding="utf-8"))["settings"][name])

    def events(self, *topics: str) -> list[Event]:
        """What its log has of these topics now."""
        return events_of(self.setting("kafka_bootstrap"), self.setting("registry_url"), *topics)

    def processes(self) -> dict[str, dict[str, Any]]:
        """What `status` says of each process."""
        return {process["name"]: process for process in self.json("status", check=False)["processes"]}

    def key(self, tenant: str, team: str = "red", project: str = "blue") -> str:
        """A new virtual key."""
        return str(self.json("key", "create", "--tenant", tenant, "--team", team, "--project", project)["key"])
