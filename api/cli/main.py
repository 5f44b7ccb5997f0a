"""The `quaestor` command: finds the module of a subcommand and loads only that, so that every command starts fast.

A module of this folder offers `register(app)`, which adds its commands to the Typer application.
"""

from __future__ import annotations

import errno
import logging
import sys
from importlib import import_module
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from schemas.errors import QuaestorError

#: Which module holds which subcommand.
COMMANDS: dict[str, str] = {
    "up": "stack",
    "down": "stack",
    "status": "stack",
    "endpoints": "stack",
    "gateway": "serve",
    "stream": "serve",
    "sink": "serve",
    "console": "serve",
    "simulator": "serve",
    "migrate": "migrate",
    "schemas": "schemas",
    "key": "control",
    "provider": "control",
    "route": "control",
    "price": "control",
    "budget": "control",
    "rate": "control",
    "demo": "demo",
    "load": "load",
    "tail": "tail",
    "why": "why",
    "verify": "verify",
    "report": "report",
    "ledger": "ledger",
    "alert": "alert",
    "audit": "audit",
    "dlq": "dlq",
}
#: What to do about a fault of the machine that no command knows better.
WHAT_TO_DO: dict[int, str] = {
    errno.ENOSPC: "free some space and run it again",
    errno.EDQUOT: "free some space and run it again",
    errno.EROFS: "name a folder that can be written",
    errno.EACCES: "name another place, or run it as the user that owns this one",
    errno.EPERM: "name another place, or run it as the user that owns this one",
    errno.ENOENT: "name a place that is there",
    errno.ENOTDIR: "name a folder",
    errno.EISDIR: "name a file",
    errno.EMFILE: "allow more open files (`ulimit -n`) and run it again",
}


def modules_for(arguments: list[str]) -> list[str]:
    """The modules to load for a command line: the one of its subcommand, or all for help and errors."""
    name = next((argument for argument in arguments if not argument.startswith("-")), None)
    if name in COMMANDS:
        return [COMMANDS[name]]
    return list(dict.fromkeys(COMMANDS.values()))


def application(arguments: list[str]) -> typer.Typer:
    """The Typer application with the commands that these arguments need."""
    app = typer.Typer(
        name="quaestor",
        help="The treasurer and the flight recorder of an organisation's LLM traffic.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )
    app.callback()(_root)
    for module in modules_for(arguments):
        import_module(f"api.cli.{module}").register(app)
    return app


def _root() -> None:
    """Keep subcommand names even when only one module is loaded."""


def main() -> None:
    """Run the command; faults of the product end in one line and exit code 1."""
    from schemas.errors import QuaestorError  # noqa: PLC0415 - keeps `quaestor --help` fast

    # ClickHouse's client logs every try that fails; the line that ends the command says it once.
    logging.getLogger("clickhouse_connect").addHandler(logging.NullHandler())
    try:
        application(sys.argv[1:])()
    except (QuaestorError, OSError, ExceptionGroup) as error:
        told = fault_of(error)
        if told is None:
            raise
        from api.cli.terminal import visible  # noqa: PLC0415 - as above

        sys.stderr.write(f"quaestor: {visible(reason(told))}\n")
        sys.exit(1)


def fault_of(error: Exception) -> QuaestorError | OSError | None:
    """The fault to be told, also from among several at once; None for what only a trace explains."""
    from schemas.errors import QuaestorError  # noqa: PLC0415 - as above

    if not isinstance(error, ExceptionGroup):
        return error if isinstance(error, QuaestorError | OSError) else None
    found = [fault_of(each) for each in error.exceptions]
    return None if None in found else found[0]


def reason(error: QuaestorError | OSError) -> str:
    """One line: why a command ended, and what to do about it."""
    from schemas.errors import LogUnavailableError, StoreUnavailableError  # noqa: PLC0415 - as above

    if isinstance(error, OSError):
        return _of_the_machine(error)
    said = str(error)
    if not isinstance(error, LogUnavailableError | StoreUnavailableError) or "`" in said:
        return said
    return f"{said.rstrip('.')}; `quaestor status` shows what runs, `quaestor up` starts it"


def _of_the_machine(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    why = error.strerror or str(error) or type(error).__name__
    return f"{where}{why}; {WHAT_TO_DO.get(error.errno or 0, 'see `quaestor status` and the logs in the data folder')}"


if __name__ == "__main__":
    main()
