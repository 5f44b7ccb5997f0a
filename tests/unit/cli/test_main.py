"""How a command ends whose work could not be done."""

from __future__ import annotations

import pytest

from api.cli.main import reason
from schemas.errors import ConfigurationError, LogUnavailableError, QuaestorError, StoreUnavailableError


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (LogUnavailableError(), "in time; `quaestor status`"),
        (StoreUnavailableError("Postgres: ConnectionRefusedError"), "`quaestor up` starts it"),
    ],
    ids=["log", "store"],
)
def test_what_is_away_comes_with_what_to_do(error: QuaestorError, says: str) -> None:
    """In one line."""
    assert says in reason(error)


@pytest.mark.parametrize("error", [LogUnavailableError("try `quaestor up`"), ConfigurationError("no such file")])
def test_what_says_it_itself_is_left_alone(error: QuaestorError) -> None:
    """A command that knows better is not corrected."""
    assert str(error) == reason(error)
