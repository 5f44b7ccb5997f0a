"""Values that several operations take."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec

from processors.control import Refusal, RefusalCode
from schemas.limits import TEXT_CHARACTERS_MAX, USER_ID_CHARACTERS_MAX
from schemas.money import parse_amount

#: Ids and names of things.
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
#: An end user, as callers name them.
UserId = Annotated[str, msgspec.Meta(min_length=1, max_length=USER_ID_CHARACTERS_MAX)]
#: RFC 3339 with a time zone.
Moment = Annotated[datetime, msgspec.Meta(tz=True)]
#: A decimal, never a JSON number.
Amount = Annotated[str, msgspec.Meta(min_length=1, max_length=40, description="A decimal in a string: 12.50.")]
#: Why, for the record.
Reason = Annotated[
    str,
    msgspec.Meta(max_length=TEXT_CHARACTERS_MAX, pattern=r"^[^\x00-\x1f\x7f]*$", description="Why, for the record."),
]
#: Things of a page where nobody says how many.
PAGE = 50


def amount_of(text: str, currency: str, field: str = "amount") -> int | Refusal:
    """Nano-units of an amount."""
    try:
        return parse_amount(text, currency)
    except ValueError as error:
        return Refusal(RefusalCode.INVALID_AMOUNT, str(error), field)
