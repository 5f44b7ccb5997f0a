"""Which of Postgres' faults pass by themselves or by an operator's hand."""

from __future__ import annotations

import asyncpg
import pytest

from schemas.errors import StoreUnavailableError
from sinks.postgres.connect import passing_errors


@pytest.mark.parametrize(
    "fault",
    [asyncpg.DiskFullError, asyncpg.TooManyConnectionsError, asyncpg.AdminShutdownError],
    ids=lambda f: f.__name__,
)
def test_a_store_that_is_full_or_going_is_away(fault: type[Exception]) -> None:
    """The sink waits and tries the same rows again; nothing is quarantined for it."""
    with pytest.raises(StoreUnavailableError, match=fault.__name__), passing_errors():
        raise fault("no room")


def test_a_row_that_the_store_refuses_is_no_absence() -> None:
    """Waiting would not help."""
    with pytest.raises(asyncpg.NumericValueOutOfRangeError), passing_errors():
        raise asyncpg.NumericValueOutOfRangeError("too much")
