"""`quaestor verify`: proves that the stores agree with the log, and the log with the clients."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from api.cli.terminal import DataOption, JsonOption, agreement, note, print_json, progress, table, terminal
from api.settings import Settings, load_settings
from api.verify.run import SCOPES, Scope, Verification, nothing_was_compared
from processors.parity.checks import Check
from schemas.errors import ConfigurationError

DIFFERENCE_CHARACTERS_MAX = 160


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("verify")(verify)


def verify(
    scopes: Annotated[
        list[str] | None,
        typer.Argument(
            help="Any of parity (stores = log), budgets, ledger, audit; all when none is named.",
            metavar="SCOPE",
            show_default=False,
        ),
    ] = None,
    answers: Annotated[
        Path | None, typer.Option(help="Answers file of `quaestor load`: all must be COMPLETED, none twice.")
    ] = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Compare every field of every row with the log, not only ids and money.")
    ] = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Prove that every store holds what the log says; exit code 0 only when nothing differs."""
    asked = parse_scopes(scopes or ["all"])
    if answers is not None and "parity" not in asked:
        raise ConfigurationError("--answers is compared by parity; name that scope too, or none for all")
    known = read_answers(answers)
    checks = run_verification(load_settings(data), asked, known, quiet=as_json, deep=deep)
    ok = all(check.ok for check in checks)
    if as_json:
        listed = [check.as_json() for check in checks]
        print_json({"ok": ok, "answers": None if known is None else len(known), "checks": listed})
    else:
        show_checks(checks)
    raise typer.Exit(0 if ok else 1)


def parse_scopes(texts: Sequence[str]) -> frozenset[Scope]:
    """The scopes a person typed; raises ConfigurationError naming the ones there are."""
    for text in texts:
        if text not in {*SCOPES, "all"}:
            raise ConfigurationError(f"there is no scope {text!r}; choose {', '.join(SCOPES)}, all")
    return frozenset(SCOPES if "all" in texts else [scope for scope in SCOPES if scope in texts])


def read_answers(path: Path | None) -> list[str] | None:
    """The request ids of an answers file; raises ConfigurationError naming the line that is wrong."""
    if path is None:
        return None
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigurationError(f"cannot read the answers file {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        words = f"{path} is not UTF-8 text: name the file that `quaestor load --answers` wrote"
        raise ConfigurationError(words) from None
    return [_request_id(path, number, line) for number, line in enumerate(lines, 1)]


def _request_id(path: Path, number: int, line: str) -> str:
    try:
        return str(json.loads(line)["request_id"])
    except (ValueError, KeyError, TypeError):
        raise ConfigurationError(f"{path}:{number}: not a line of an answers file") from None


def run_verification(
    settings: Settings, scopes: Collection[Scope], answers: list[str] | None, *, quiet: bool, deep: bool = False
) -> list[Check]:
    """Run the checks with a progress bar on standard error."""
    with progress(quiet=quiet) as bar:
        task = bar.add_task("verify", total=None, note="")

        def show(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        return asyncio.run(Verification(settings, show).run(scopes, answers, deep=deep))


def show_checks(checks: list[Check]) -> None:
    """Print the checks, differing ones with their first difference."""
    rows = [(agreement(ok=each.ok), each.name, each.actual, _difference(each)) for each in checks]
    terminal().print(table("Verification", ("", "check", "found", "first difference"), rows, numbers=(2,)))
    if checks and all(each.ok for each in checks):
        note(Text(f"{len(checks)} {'check' if len(checks) == 1 else 'checks'}, nothing differs", "green"))
    if nothing_was_compared(checks):
        note("the log is empty: nothing was lost, because nothing was sent; try `quaestor load --requests 100`")


def _difference(check: Check) -> str:
    return (check.first_difference or "")[:DIFFERENCE_CHARACTERS_MAX]
