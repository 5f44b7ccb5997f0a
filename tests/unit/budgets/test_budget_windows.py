"""Windows of limits, and which limits a request stands under."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from processors.budgets import applicable_limits, check_limit, legs_for, window_of
from schemas.errors import ConfigurationError


@dataclass
class Limit:
    """A limit as control has it."""

    limit_id: str = "limit_1"
    tenant_id: str = "acme"
    scope: str = "tenant"
    scope_id: str = "acme"
    amount_nano: int = 100
    currency: str = "USD"
    window: str = "total"


def micros(text: str) -> int:
    """Microseconds of an ISO time in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


@pytest.mark.parametrize(
    ("window", "now", "start", "end"),
    [
        ("day", "2026-11-21T00:00:00", "2026-11-21", "2026-11-22"),
        ("day", "2026-11-21T23:59:59", "2026-11-21", "2026-11-22"),
        ("day", "2028-02-29T12:00:00", "2028-02-29", "2028-03-01"),
        ("month", "2026-11-01T00:00:00", "2026-11-01", "2026-12-01"),
        ("month", "2026-12-31T23:59:59", "2026-12-01", "2027-01-01"),
        ("month", "2028-02-29T23:59:59", "2028-02-01", "2028-03-01"),
    ],
)
def test_windows_are_those_of_utc(window: str, now: str, start: str, end: str) -> None:
    """The start belongs to the window, the end to the next one."""
    assert window_of(Limit(window=window), micros(now)) == (micros(start), micros(end))


def test_a_total_has_no_window() -> None:
    """Both bounds are zero."""
    assert window_of(Limit(), micros("2026-11-21")) == (0, 0)


def test_an_unknown_window_is_refused() -> None:
    """The message names the limit and what it may be."""
    with pytest.raises(ConfigurationError, match=r"limit_1.*'week' is not total, day or month"):
        window_of(Limit(window="week"), 0)


def test_limits_of_the_key_and_of_the_tenant_apply() -> None:
    """The narrowest scope first; others' limits do not apply."""
    key, tenant = Limit("b", scope="key", scope_id="key_1"), Limit("a")
    others = [Limit("c", scope="key", scope_id="key_2"), Limit("d", tenant_id="other", scope_id="other")]
    assert applicable_limits([tenant, *others, key], "acme", "key_1") == (key, tenant)
    assert applicable_limits([tenant, *others, key], "acme", None) == (tenant,)


def test_a_leg_pins_amount_and_window() -> None:
    """One leg per limit."""
    now = micros("2026-11-21T10:00:00")
    (leg,) = legs_for([Limit(window="day")], 7, "USD", now)
    assert (leg.limit_id, leg.amount_nano, leg.held_nano, leg.currency) == ("limit_1", 7, 7, "USD")
    assert (leg.window_start, leg.window_end) == (micros("2026-11-21"), micros("2026-11-22"))


def test_a_limit_in_another_currency_is_refused() -> None:
    """Never passed over: it would guard nothing."""
    with pytest.raises(ConfigurationError, match="keeps EUR, the tenant is charged in USD"):
        legs_for([Limit(currency="EUR")], 7, "USD", 0)


@pytest.mark.parametrize("amount_nano", [-1, 9_000_000 * 10**9 + 1])
def test_a_limit_beyond_exact_comparison_is_refused(amount_nano: int) -> None:
    """Nine million units are the most."""
    with pytest.raises(ConfigurationError, match="0 to 9,000,000 units"):
        check_limit("limit_1", amount_nano)
    check_limit("limit_1", 9_000_000 * 10**9)
