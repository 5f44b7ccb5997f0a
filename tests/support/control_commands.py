"""The commands of the control plane, on a log in memory."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from api.cli import (
    control,
    control_budgets,
    control_keys,
    control_prices,
    control_rates,
    control_routes,
    control_seed,
)
from api.control.session import ControlRefusedError, ControlSession
from api.settings import Settings
from processors.control import ControlState
from streams.codec import Codec, LocalSchemas
from streams.memory import MemoryLog

RUNNER = CliRunner()
APP = typer.Typer()
control.register(APP)
MODULES = (control_keys, control_routes, control_prices, control_budgets, control_rates, control_seed)


class Control:
    """The commands over one log."""

    def __init__(self, log: MemoryLog) -> None:
        """The log they share."""
        self.log = log

    @contextlib.contextmanager
    def session(self, _settings: Settings | None, actor: str | None = None) -> Iterator[ControlSession]:
        """A session on the log, as `control_session` gives one on Kafka."""
        session = ControlSession(self.log.publisher(), self.log.reader(), Codec(LocalSchemas()), actor or "cli/0")
        session.refresh()
        yield session

    def run(self, *arguments: str) -> str:
        """What a command prints; raises what it refuses with."""
        result = RUNNER.invoke(APP, arguments)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.stdout

    def json(self, *arguments: str) -> Any:
        """What a command prints with --json."""
        return json.loads(self.run(*arguments, "--json"))

    def events(self) -> int:
        """How many events the log holds."""
        return sum(len(records) for records in self.log.records.values())

    def refusal(self, *arguments: str) -> str:
        """What a command refuses with."""
        with pytest.raises(ControlRefusedError) as raised:
            self.run(*arguments)
        return str(raised.value)

    def state(self) -> ControlState:
        """What the log says."""
        with self.session(None) as session:
            return session.state


def control_commands(monkeypatch: pytest.MonkeyPatch, directory: Path) -> Control:
    """The commands over an empty log, in this directory."""
    made = Control(MemoryLog())
    monkeypatch.chdir(directory)
    for module in MODULES:
        monkeypatch.setattr(module, "control_session", made.session)
    return made
