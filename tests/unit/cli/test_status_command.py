"""`quaestor status` says what waits for Kafka beside the gateway, also when no gateway runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from api.cli import stack as command
from infra.embedded.status import Status


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder in which a gateway that is gone left 12,345 bytes."""
    blank = {"pid": None, "restarts": 0, "lag_events": None, "freshness_seconds": None}
    processes = [{"name": name, "state": "down", **blank} for name in ("gateway", "kafka")]
    monkeypatch.setattr(command, "collect", lambda _: Status("running", tuple(processes)))
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "gateway-gone-ahead-000001.spool").write_bytes(bytes(12_000))
    (tmp_path / "spool" / "gateway-gone-000001.spool").write_bytes(bytes(345))
    return tmp_path


def status(data: Path, *options: str) -> str:
    """What the command prints."""
    app = typer.Typer()
    command.register(app)
    return CliRunner().invoke(app, ["status", "--data", str(data), *options]).stdout


def test_the_table_has_a_column_for_the_spool(data: Path) -> None:
    """With a number where there can be one."""
    shown = status(data)

    assert "spool (bytes)" in shown
    assert ["12345", "-"] == [
        next(line for line in shown.splitlines() if name in line).split("│")[-2].strip()
        for name in ("gateway", "kafka")
    ]


def test_programs_read_the_same_number(data: Path) -> None:
    """Of the gateway alone."""
    told = json.loads(status(data, "--json"))["processes"]

    assert [12_345, None] == [process.get("spool_bytes") for process in told]


@pytest.mark.parametrize("suffix", ["late", "refused", "damaged"])
def test_what_was_put_aside_is_named(data: Path, suffix: str) -> None:
    """With where to read what to do; nobody takes it otherwise."""
    (data / "spool" / f"gateway-gone.{suffix}").write_bytes(bytes(70))

    told = json.loads(status(data, "--json"))["processes"]

    assert [f"gateway-gone.{suffix}"] == list(told[0]["set_aside"])
    assert f"set aside gateway at gateway-gone.{suffix}: 70 bytes" in status(data)
