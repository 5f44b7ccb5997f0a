"""`quaestor report` as it is typed, without stores; and its guide."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from api.cli import report as command
from api.cli.main import application
from processors.report.figures import Report
from sinks.postgres.report_reads import CLAIMS
from tests.support.reports import broken, day, report
from tests.unit.report.test_report_building import SHAPE

GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "report.md"


def run(*arguments: str) -> Result:
    """What the command says."""
    given = ["report", *arguments]
    return CliRunner().invoke(application(given), given)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--day", "2999-01-01"), "has not begun"),
        (("--day", "soon"), "is no day"),
        (("--time-zone", "Mars"), "is no time zone"),
        (("--out", "reports", "--tenant", "acme"), "leave --tenant out"),
    ],
)
def test_what_it_does_not_take_ends_with_two(arguments: tuple[str, ...], words: str) -> None:
    """In one line that says what to give."""
    result = run(*arguments)

    assert 2 == result.exit_code
    assert words in result.stderr
    assert 1 == result.stderr.count("\n")


@pytest.mark.parametrize(
    ("made", "code"), [(report(), 0), (report({"acme": broken()}), 1), (report(of=day("today")), 1)],
    ids=["whole", "differs", "not final"],
)  # fmt: skip
def test_exit_codes_and_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, made: Report, code: int) -> None:
    """Zero only when the day is over and all of it matches; the files are written either way."""

    async def prepared(*_: object) -> Report:
        return made

    monkeypatch.setattr(command, "make_report", prepared)

    assert code == run("--out", str(tmp_path)).exit_code == run("--json").exit_code == run().exit_code
    assert {f"report-{made.day}.{suffix}" for suffix in ("txt", "html", "json")} == {
        path.name for path in tmp_path.iterdir()
    }
    assert (tmp_path / f"report-{made.day}.json").read_text() == run("--json").stdout


def test_the_guide_names_every_rule_and_field() -> None:
    """The page and the code say the same."""
    guide = GUIDE.read_text(encoding="utf-8")
    promised = set(SHAPE) | set(SHAPE["tenants"][0])  # type: ignore[index] # a list of one

    assert [] == [name for name in (*CLAIMS, *promised) if f"`{name}`" not in guide and f"`.{name}[]`" not in guide
                  and f"`{name}[]`" not in guide]  # fmt: skip
