"""What tests of the control plane's commands share."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from typer.main import get_command

from tests.support.control_commands import Control, control_commands


@pytest.fixture(autouse=True, scope="module")
def read_once() -> Iterator[None]:
    """Typer would read the signatures of all commands anew for every line."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.testing._get_command", cache(get_command))
        yield


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Control:
    """The commands over an empty log, in an empty directory."""
    return control_commands(monkeypatch, tmp_path)
