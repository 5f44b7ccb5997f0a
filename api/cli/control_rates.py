"""`quaestor rate set | import | list | remove`: exchange rates, for limits that count another currency than prices."""

from __future__ import annotations

import csv
from datetime import datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from api.cli.control_keys import ReasonOption
from api.cli.control_session import control_session
from api.cli.terminal import DataOption, JsonOption, fail, note, print_json, table, terminal
from api.control.shown import rate_shown
from api.settings import load_settings
from processors import control
from processors.control import CURRENCY, ExchangeRate
from schemas.money import RATE_SCALE, divide_half_even, format_nano, parse_nano

ECB = "European Central Bank, euro foreign exchange reference rates"
FILE_BYTES_MAX = 4 * 1024 * 1024


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
    reason: ReasonOption = None,
    data: DataOption = None,
) -> None:
    """Put a rate in force. Holds that stand keep the rate they were placed at."""
    try:
        rate_nano = parse_nano(rate)
    except ValueError as error:
        fail(f"the rate: {error}", 2)
    _put(ExchangeRate(base=base, quote=quote, rate_nano=rate_nano, dated=dated, source=source), reason, data)


def import_rates(
    file: Annotated[Path, typer.Argument(help="eurofxref.csv or eurofxref-hist.csv of the European Central Bank.")],
    reason: ReasonOption = None,
    data: DataOption = None,
) -> None:
    """Take dollars in euros from the newest day of the European Central Bank's file."""
    dated, dollars_nano = read_ecb(file)
    rate_nano = divide_half_even(RATE_SCALE * RATE_SCALE, dollars_nano)
    _put(ExchangeRate(base="USD", quote="EUR", rate_nano=rate_nano, dated=dated, source=ECB), reason, data)


def list_rates(data: DataOption = None, as_json: JsonOption = False) -> None:
    """List the rates in force."""
    with control_session(load_settings(data)) as session:
        rates = [session.state.rates[pair] for pair in sorted(session.state.rates)]
    if as_json:
        print_json(msgspec.to_builtins({"rates": [rate_shown(rate) for rate in rates]}))
        return
    columns = ("one", "is", "of", "dated", "source", "id")
    cells = [(one.base, format_nano(one.rate_nano), one.quote, one.dated, one.source, one.rate_id) for one in rates]
    terminal().print(table("Exchange rates", columns, cells, numbers=(1,)))


def remove(
    base: Annotated[str, typer.Argument(help="From this currency…")],
    quote: Annotated[str, typer.Argument(help="…to this one.")],
    reason: ReasonOption = None,
    data: DataOption = None,
) -> None:
    """Take a rate out of force: calls under a limit that needs it wait until there is one again."""
    with control_session(load_settings(data)) as session:
        session.change(lambda state, origin: control.remove_exchange_rate(state, base, quote, origin), reason)
    note(f"there is no rate from {base} to {quote} any more")


def read_ecb(file: Path) -> tuple[str, int]:
    """Newest day (YYYY-MM-DD) and dollars for one euro, in 1e-9, of the file; ends the command when it is another.

    Format: a header of Date and currency codes, then days, the newest first; eurofxref.csv writes '20 November 2026',
    eurofxref-hist.csv '2026-11-20'.
    """
    try:
        if file.stat().st_size > FILE_BYTES_MAX:
            fail(f"{file} is over {FILE_BYTES_MAX} bytes: not a file of the European Central Bank", 2)
        with file.open(encoding="ascii", newline="") as opened:
            head, newest = [
                [cell.strip() for cell in row] for _, row in zip(range(2), csv.reader(opened), strict=False)
            ]
        return _day(newest[head.index("Date")]), parse_nano(newest[head.index(CURRENCY)])
    except OSError as error:
        fail(f"{file}: {error.strerror}", 2)
    except (ValueError, IndexError):
        fail(f"{file} is not eurofxref.csv or eurofxref-hist.csv: no Date and {CURRENCY} in its first two lines", 2)


def _day(text: str) -> str:
    shape = "%Y-%m-%d" if text[:4].isdecimal() else "%d %B %Y"
    return datetime.strptime(text, shape).date().isoformat()  # noqa: DTZ007 - a day has no zone


def _put(rate: ExchangeRate, reason: str | None, data: Path | None) -> None:
    with control_session(load_settings(data)) as session:
        session.settle(lambda state, origin: control.set_exchange_rate(state, rate, origin), reason)
    note(f"1 {rate.base} is {format_nano(rate.rate_nano)} {rate.quote}, {rate.dated}, {rate.source}")
