"""What exchange rates the control plane accepts."""

from __future__ import annotations

import re
from datetime import date

from processors.control.check import LIMIT_CURRENCIES, Refusal, first, text
from processors.control.entities import ExchangeRate
from schemas.money import RATE_SCALE

#: A rate beyond this is a slip of the decimal point.
RATE_UNITS_MAX = 1_000_000
_DATED = re.compile(r"\d{4}-\d{2}-\d{2}")


def exchange_rate(value: ExchangeRate) -> Refusal | None:
    """Whether a rate may be used."""
    allowed = ", ".join(LIMIT_CURRENCIES)
    faults = (
        ("base", f"a rate is between two of {allowed}", value.base not in LIMIT_CURRENCIES),
        ("quote", f"a rate is between two of {allowed}", value.quote not in LIMIT_CURRENCIES),
        ("quote", "a rate is between two different currencies", value.base == value.quote),
        ("rate", "a rate is above zero and plausible", not 0 < value.rate_nano <= RATE_UNITS_MAX * RATE_SCALE),
        ("dated", "a rate has the day it was published for, YYYY-MM-DD", not _is_day(value.dated)),
        ("source", "a rate says who published it", not value.source),
    )
    return first(faults) or text("source", value.source)


def _is_day(text: str) -> bool:
    try:
        return bool(_DATED.fullmatch(text)) and date.fromisoformat(text) is not None
    except ValueError:
        return False
