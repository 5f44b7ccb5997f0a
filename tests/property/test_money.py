"""Money: exact integers, rounded once, half to even."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.money import (
    PICO_PER_NANO,
    RATE_SCALE,
    charge_nano,
    convert_nano,
    divide_half_even,
    format_nano,
    format_with_unit,
    parse_nano,
    parse_pico,
    round_pico,
)

AMOUNT = st.integers(-(10**24), 10**24)
POSITIVE = st.integers(1, 10**18)


@given(AMOUNT, POSITIVE)
def test_division_is_the_nearest_and_even_on_a_tie(numerator: int, denominator: int) -> None:
    """As Python's exact fractions round."""
    assert divide_half_even(numerator, denominator) == round(Fraction(numerator, denominator))


@given(AMOUNT, POSITIVE)
def test_division_is_odd(numerator: int, denominator: int) -> None:
    """A correction takes back exactly what was charged."""
    assert divide_half_even(-numerator, denominator) == -divide_half_even(numerator, denominator)


@given(st.integers(0, 10**9), st.integers(0, 10**12))
def test_a_charge_is_off_by_at_most_half_a_nano(quantity: int, price_pico: int) -> None:
    """One rounding, no more."""
    assert abs(2 * (charge_nano(quantity, price_pico) * PICO_PER_NANO - quantity * price_pico)) <= PICO_PER_NANO


@given(AMOUNT)
def test_conversion_at_one_changes_nothing(amount_nano: int) -> None:
    """The rate of a currency to itself."""
    assert amount_nano == convert_nano(amount_nano, RATE_SCALE)


@given(AMOUNT, st.integers(0, 9))
def test_text_comes_back(amount_nano: int, decimals_min: int) -> None:
    """Formatting is exact."""
    assert amount_nano == parse_nano(format_nano(amount_nano, decimals_min))


@given(st.decimals(-(10**12), 10**12, places=9))
def test_parsing_is_exact(value: Decimal) -> None:
    """Nine decimals are nano-units."""
    with localcontext() as context:
        context.prec = 60
        assert parse_nano(str(value)) == int(value * 10**9)


@pytest.mark.parametrize("text", ["", "x", "1,5", "NaN", "Infinity", "-Infinity", "0.0000000001", "1e-10"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    """Neither rounded nor guessed."""
    with pytest.raises(ValueError, match=r".+"):
        parse_nano(text)


def test_prices_have_twelve_decimals() -> None:
    """One pico-unit is exact, finer is refused."""
    assert parse_pico("0.000000000001") == 1
    with pytest.raises(ValueError, match="finer"):
        parse_pico("0.0000000000001")


@given(st.decimals(0, 10**6, places=18))
def test_prices_finer_than_ours_are_rounded_half_even(value: Decimal) -> None:
    """For feeds; the importer reports it."""
    with localcontext() as context:
        context.prec = 60
        assert round_pico(value) == int((value * 10**12).quantize(Decimal(1), ROUND_HALF_EVEN))


@pytest.mark.parametrize(
    ("amount_nano", "text"),
    [(0, "0.00"), (1, "0.000000001"), (-1, "-0.000000001"), (1_234_500_000, "1.2345"), (5_000_000_000, "5.00")],
)
def test_amounts_as_text(amount_nano: int, text: str) -> None:
    """Exact, at least two decimals."""
    assert text == format_nano(amount_nano)


@pytest.mark.parametrize(
    ("amount_nano", "currency", "text"),
    [
        (1, "REQ", "1 request"),
        (0, "REQ", "0 requests"),
        (-1, "TOK", "-1 token"),
        (2, "TOK", "2 tokens"),
        (1_000_000_000, "USD", "1.00 USD"),
    ],
)
def test_amounts_with_their_unit(amount_nano: int, currency: str, text: str) -> None:
    """One of what is counted is one."""
    assert text == format_with_unit(amount_nano, currency)
