"""`quaestor audit keys | rotate | retire | info`, on a log in a folder and a control plane in memory."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from api.cli import audit, audit_keys
from api.control.session import ControlSession
from api.settings import Settings
from schemas.errors import ConfigurationError, LogUnavailableError
from schemas.events import ControlAction
from streams.codec import Codec, LocalSchemas
from streams.memory import MemoryLog
from streams.records import event_of
from tests.support.audit import ORIGIN, AuditWorld


class Commands:
    """The commands over one log."""

    def __init__(self, world: AuditWorld) -> None:
        """An empty control plane."""
        self.world, self.log = world, MemoryLog()
        self.app = typer.Typer()
        audit.register(self.app)
        #: Whether Kafka is away.
        self.away = False

    @contextlib.contextmanager
    def session(self, _settings: Settings) -> Iterator[ControlSession]:
        """A session on the log in memory."""
        if self.away:
            raise LogUnavailableError
        session = ControlSession(self.log.publisher(), self.log.reader(), Codec(LocalSchemas()), "cli/0")
        session.refresh()
        yield session

    def json(self, *arguments: str) -> Any:
        """What a command prints; raises what it ends with."""
        result = CliRunner().invoke(self.app, ["audit", *arguments, "--json"])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def states(self) -> list[str]:
        """The states of the keys, in order."""
        return [key["state"] for key in self.json("keys")["keys"]]

    def events(self) -> list[tuple[ControlAction, str]]:
        """What was recorded: action and key id."""
        records = [record for kept in self.log.records.values() for record in kept]
        events = [event_of(Codec(LocalSchemas()), record) for record in records]
        return [(event.action, event.entity_id) for event in events]  # type: ignore[union-attr]


@pytest.fixture
async def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """A log of 21 entries."""
    world = AuditWorld(tmp_path)
    await world.claim()
    await world.grow(10)
    made = Commands(world)
    settings = Settings(data=tmp_path, audit_log="test", audit_origin=ORIGIN)
    for module in (audit, audit_keys):
        monkeypatch.setattr(module, "load_settings", lambda _data: settings)
    monkeypatch.setattr(audit_keys, "control_session", made.session)
    return made


def test_a_key_comes_and_goes(commands: Commands) -> None:
    """Rotate, overlap, retire: each shows in `audit keys`, and stands in the log once."""
    made = commands.json("rotate", "--overlap-days", "1")
    old, new = (key["id"] for key in commands.json("keys")["keys"])
    assert ["overlap", "signs"] == commands.states()
    assert {"retired": []} == commands.json("retire")
    assert {"retired": [old]} == commands.json("retire", old)

    assert ["retired", "signs"] == commands.states()
    assert [(ControlAction.CREATED, new), (ControlAction.REMOVED, old)] == commands.events()
    assert (21, False, made["new"].split("+")[1]) == (made["size"], made["finished"], new)
    info = commands.json("info")
    assert (made["new"], [made["old"], made["new"]], 1) == (info["vkey"], info["vkeys"], info["hand_overs"])


def test_without_an_id_what_is_due_is_retired(commands: Commands) -> None:
    """An overlap of no days is over at once."""
    commands.json("rotate", "--overlap-days", "0")
    assert ["due", "signs"] == commands.states()
    old = commands.json("keys")["keys"][0]["id"]

    assert [old] == commands.json("retire")["retired"]
    assert {"retired": []} == commands.json("retire")


def test_nothing_is_changed_while_kafka_is_away(commands: Commands) -> None:
    """A change of keys that could not be recorded is not begun."""
    commands.away = True
    with pytest.raises(LogUnavailableError):
        commands.json("rotate")
    commands.away = False

    assert ["signs"] == commands.states()


def test_what_was_not_recorded_is_recorded_by_the_next_run(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that dies before its event is run again: it makes no other key and records what was done."""

    def die(*_: object) -> None:
        raise LogUnavailableError

    with monkeypatch.context() as patched:
        patched.setattr(ControlSession, "settle", die)
        with pytest.raises(LogUnavailableError):
            commands.json("rotate", "--overlap-days", "0")
    finished = commands.json("rotate")
    with monkeypatch.context() as patched:
        patched.setattr(ControlSession, "settle", die)
        with pytest.raises(LogUnavailableError):
            commands.json("retire")
    old, new = (key["id"] for key in commands.json("keys")["keys"])

    assert (True, new) == (finished["finished"], finished["new"].split("+")[1])
    assert {"retired": [old]} == commands.json("retire")
    assert [(ControlAction.CREATED, new), (ControlAction.REMOVED, old)] == commands.events()


def test_an_unknown_key_is_refused(commands: Commands) -> None:
    """An id that is none, or of no key of this log."""
    for key_id in ("zz", "00000000"):
        with pytest.raises(ConfigurationError, match="no key"):
            commands.json("retire", key_id)
