"""`quaestor rate set | import | list | remove`: exchange rates, for limits that count another currency than prices."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from api.cli.control_keys import ReasonOption
from api.cli.control_session import control_session
from api.cli.terminal import DataOption, JsonOption, fail, note, print_json, table, terminal
from api.control.shown import rate_shown, rates_of
from api.settings import load_settings
from processors import control
from processors.control import CURRENCY, ExchangeRate
from processors.pricing.ecb import SOURCE, newest_rate
from schemas.money import format_nano, parse_nano

FILE_BYTES_MAX = 4 * 1024 * 1024

ReplaceOption = Annotated[
    bool, typer.Option("--replace", help="Also when it is older than the one in force, or of a day to come.")
]


def app() -> typer.Typer:
    """The group."""
    group = typer.Typer(help="Exchange rates.", no_args_is_help=True)
    group.command("set")(set_rate)
    group.command("import")(import_rates)
    group.command("list")(list_rates)
    group.command("remove")(remove)
    return group


def set_rate(
    base: Annotated[str, typer.Argument(help="One unit of this currency…")],
    quote: Annotated[str, typer.Argument(help="…is so much of this one.")],
    rate: Annotated[str, typer.Argument(help="For example 0.92.")],
    dated: Annotated[str, typer.Option(help="Day it was published for, YYYY-MM-DD.")],
    source: Annotated[str, typer.Option(help="Who published it.")],
    replace: ReplaceOption = False,
    reason: ReasonOption = None,
    data: DataOption = None,
) -> None:
    """Put a rate in force. Holds that stand keep the rate they were placed at."""
    try:
        rate_nano = parse_nano(rate)
    except ValueError as error:
        fail(f"the rate: {error}", 2)
    _put(ExchangeRate(base=base, quote=quote, rate_nano=rate_nano, dated=dated, source=source), replace, reason, data)


def import_rates(
    file: Annotated[Path, typer.Argument(help="eurofxref.csv or eurofxref-hist.csv of the European Central Bank.")],
    replace: ReplaceOption = False,
    reason: ReasonOption = None,
    data: DataOption = None,
) -> None:
    """Take dollars in euros from the newest day of the European Central Bank's file."""
    _put(read_ecb(file), replace, reason, data)


def list_rates(
    past: Annotated[bool, typer.Option("--past", help="Every rate that was put in force, the latest first.")] = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the rates in force."""
    with control_session(load_settings(data)) as session:
        rates = rates_of(session.state, past=past)
    shown = [rate_shown(rate) for rate in rates]
    if as_json:
        print_json(msgspec.to_builtins({"rates": shown}))
        return
    columns = ("one", "is", "of", "dated", "since", "source", "id")
    cells = [(one.base, one.rate, one.quote, one.dated, one.since or "-", one.source, one.id) for one in shown]
    terminal().print(table("Exchange rates", columns, cells, numbers=(1,)))


def remove(
    base: Annotated[str, typer.Argument(help="From this currency…")],
    quote: Annotated[str, typer.Argument(help="…to this one.")],
    reason: ReasonOption = None,
    data: DataOption = None,
) -> None:
    """Take a rate out of force: calls under a limit that needs it wait until there is one again.

    The next start of the product puts the bundled rate from USD to EUR in force where there is none.
    """
    with control_session(load_settings(data)) as session:
        session.change(lambda state, origin: control.remove_exchange_rate(state, base, quote, origin), reason)
    note(f"there is no rate from {base} to {quote} any more")


def read_ecb(file: Path) -> ExchangeRate:
    """Dollars in euros of the file's newest day; ends the command when it is another file."""
    try:
        if file.stat().st_size > FILE_BYTES_MAX:
            fail(f"{file} is over {FILE_BYTES_MAX} bytes: not a file of the European Central Bank", 2)
        with file.open(encoding="ascii", newline="") as opened:
            return euros_for_dollars(opened)
    except OSError as error:
        fail(f"{file}: {error.strerror}", 2)
    except ValueError:
        fail(f"{file} is not eurofxref.csv or eurofxref-hist.csv: no Date and {CURRENCY} in its first two lines", 2)


def euros_for_dollars(lines: Iterable[str]) -> ExchangeRate:
    """The rate in a file of the European Central Bank; raises ValueError when it is another."""
    found = newest_rate(lines, CURRENCY)
    return ExchangeRate(base=CURRENCY, quote="EUR", rate_nano=found.rate_nano, dated=found.dated, source=SOURCE)


def rate_text(rate: ExchangeRate) -> str:
    """What it says, its day and who said it, for people."""
    return f"1 {rate.base} is {format_nano(rate.rate_nano)} {rate.quote}, {rate.dated}, {rate.source}"


def _put(rate: ExchangeRate, replace: bool, reason: str | None, data: Path | None) -> None:
    with control_session(load_settings(data)) as session:
        session.settle(
            lambda state, origin: control.set_exchange_rate(state, rate, origin, replace=replace),
            reason,
        )
    note(rate_text(rate))
