"""How a command ends whose work could not be done."""

from __future__ import annotations

import errno
import os
import sys

import pytest

from api.cli import main as command
from api.cli.main import fault_of, main, reason
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


@pytest.mark.parametrize(
    ("number", "says"),
    [(errno.ENOSPC, "free some space"), (errno.EROFS, "can be written"), (errno.EIO, "`quaestor status`")],
    ids=errno.errorcode.get,
)
def test_a_fault_of_the_machine_is_one_line_with_what_to_do(
    number: int, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whichever command met it, by itself or among several at once."""

    def meet() -> None:
        raise ExceptionGroup("calls", [OSError(number, os.strerror(number), "/away/report"), OSError(number, "again")])

    monkeypatch.setattr(sys, "argv", ["quaestor", "load"])
    monkeypatch.setattr(command, "application", lambda _: meet)
    with pytest.raises(SystemExit) as ended:
        main()

    said = capsys.readouterr().err
    assert (1, 1) == (ended.value.code, said.count("\n"))
    assert f"/away/report: {os.strerror(number)}; " in said
    assert says in said


def test_a_fault_of_our_own_keeps_its_trace() -> None:
    """Also among others that have a line: a line would hide what is to be mended."""
    assert fault_of(ExceptionGroup("calls", [OSError(errno.ENOSPC, "full"), KeyError("id")])) is None
