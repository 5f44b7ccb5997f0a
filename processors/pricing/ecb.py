"""The European Central Bank's file of reference rates: what a euro is in other currencies, day by day."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from schemas.money import RATE_SCALE, divide_half_even, parse_nano

SOURCE = "European Central Bank, euro foreign exchange reference rates"


class EuroRate(NamedTuple):
    """What a unit of another currency is in euros."""

    #: The day it was published for, YYYY-MM-DD.
    dated: str
    #: Euros for one unit, in 1e-9.
    rate_nano: int


def newest_rate(lines: Iterable[str], currency: str) -> EuroRate:
    """The rate of the file's newest day; raises ValueError when it is another file or has no such currency.

    Format: a header of Date and currency codes, then days, the newest first; eurofxref.csv writes '20 November 2026',
    eurofxref-hist.csv '2026-11-20'.
    """
    rows = [[cell.strip() for cell in row] for _, row in zip(range(2), csv.reader(lines), strict=False)]
    try:
        head, newest = rows
        dated, units_nano = _day(newest[head.index("Date")]), parse_nano(newest[head.index(currency)])
    except IndexError:
        raise ValueError("a line is too short") from None
    if units_nano <= 0:
        raise ValueError("a rate is above zero")
    return EuroRate(dated, divide_half_even(RATE_SCALE * RATE_SCALE, units_nano))


def _day(text: str) -> str:
    shape = "%Y-%m-%d" if text[:4].isdecimal() else "%d %B %Y"
    return datetime.strptime(text, shape).date().isoformat()  # noqa: DTZ007 - a day has no zone
