"""`quaestor audit anchors` and `anchors verify`, over a file and an authority nobody answers for."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from api.anchors.uri import make_plans
from api.cli import audit, audit_anchors
from api.settings import Settings
from sinks.audit.anchors.keeper import AnchorKeeper
from sinks.audit.anchors.state import AnchorStates
from sinks.audit.files import LogFiles
from sinks.audit.process import now_micros
from tests.support.audit import ORIGIN, AuditWorld


class Commands:
    """The commands over a log of 21 entries, anchored in a file."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing is anchored yet."""
        self.file = folder / "anchor.jsonl"
        self.world = AuditWorld(folder)
        self.settings = Settings(
            data=folder, audit_log="test", audit_origin=ORIGIN, audit_anchors=(f"file:{self.file}",)
        )
        monkeypatch.setattr(audit_anchors, "load_settings", lambda _data: self.settings)
        self.app = typer.Typer()
        audit.register(self.app)

    def run(self, *arguments: str) -> tuple[int, Any]:
        """Exit code and JSON of a command; in a thread's own loop, as a command has one."""
        result = CliRunner().invoke(self.app, ["audit", "anchors", *arguments, "--json"])
        return result.exit_code, json.loads(result.stdout)

    async def anchor(self) -> None:
        """One step of the keeper."""
        layout = self.world.layout
        (plan,) = make_plans(self.settings.audit_anchors, layout)
        files, states = LogFiles(layout.directory), AnchorStates(layout.anchor_directory)
        await AnchorKeeper([plan], files, states, now_micros).step(plan)
        await plan.anchor.close()


@pytest.fixture
async def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """A log of 21 entries."""
    made = Commands(tmp_path, monkeypatch)
    await made.world.claim()
    await made.world.grow(10)
    return made


async def test_an_anchor_is_listed_with_its_age(commands: Commands) -> None:
    """Before it took anything without one."""
    before = await asyncio.to_thread(commands.run)
    await commands.anchor()
    after = await asyncio.to_thread(commands.run)

    assert (0, f"file:{commands.file}", 0, None) == (before[0], *list(before[1]["anchors"][0].values())[:3])
    row = after[1]["anchors"][0]
    assert (21, 0, None) == (row["size"], row["failures"], row["error"])
    assert row["age_seconds"] >= 0


async def test_what_is_wrong_with_an_anchor_is_listed(commands: Commands) -> None:
    """Its last error and how often it failed since."""
    commands.file.mkdir()
    await commands.anchor()

    row = (await asyncio.to_thread(commands.run))[1]["anchors"][0]
    assert (0, 1) == (row["size"], row["failures"])
    assert "directory" in row["error"]


async def test_verify_answers_by_its_exit_code(commands: Commands) -> None:
    """Green with a sound anchor, red with a changed one, and red with none at all: nothing was shown then."""
    await commands.anchor()
    sound = await asyncio.to_thread(commands.run, "verify")
    commands.file.write_text(commands.file.read_text("utf-8").replace("test\\n21\\n", "test\\n22\\n"), "utf-8")
    changed = await asyncio.to_thread(commands.run, "verify")
    commands.settings = commands.settings.model_copy(update={"audit_anchors": ()})

    assert (0, True) == (sound[0], sound[1]["ok"])
    assert (1, False) == (changed[0], changed[1]["ok"])
    assert "line 1" in changed[1]["checks"][0]["first_difference"]
    assert (1, {"ok": False, "checks": []}) == await asyncio.to_thread(commands.run, "verify")
