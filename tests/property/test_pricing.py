"""Properties of pricing: holds cover charges, lines add up, imports lose nothing."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from processors.pricing import (
    Price,
    Rates,
    Tier,
    Usage,
    checked_usage,
    hold_upper_bound_nano,
    make_book,
    price_usage,
    total_nano,
)
from processors.pricing.feed import pico_of_cents
from schemas.money import PICO_PER_NANO

TOKENS = st.integers(0, 2_000_000)
RATE = st.integers(0, 10**9) | st.sampled_from([0, 1, 499, 500, 501, 1_500, 2_500_000])
RATES = st.builds(
    Rates,
    input=RATE,
    output=RATE,
    cached_input=st.none() | RATE,
    cache_write=st.none() | RATE,
    reasoning=st.none() | RATE,
)


@st.composite
def prices(draw: st.DrawFn) -> Price:
    """Any price, with up to three tiers."""
    bounds = sorted(draw(st.sets(st.integers(1, 1_000_000), max_size=3)))
    tiers = tuple(Tier(above_input_tokens=bound, rates=draw(RATES)) for bound in bounds)
    return Price(price_id="p/m", provider_id="p", model="m", rates=draw(RATES), tiers=tiers)


@st.composite
def usages(draw: st.DrawFn, input_most: int = 2_000_000, output_most: int = 2_000_000) -> Usage:
    """A usage with its parts within its totals."""
    total_in = draw(st.integers(0, input_most))
    cached = draw(st.integers(0, total_in))
    total_out = draw(st.integers(0, output_most))
    return Usage(
        input_tokens=total_in,
        cached_input_tokens=cached,
        cache_write_tokens=draw(st.integers(0, total_in - cached)),
        output_tokens=total_out,
        reasoning_tokens=draw(st.integers(0, total_out)),
    )


ANY_USAGE = st.builds(
    Usage,
    input_tokens=st.integers(-5, 2_000),
    cached_input_tokens=st.integers(-5, 2_000),
    cache_write_tokens=st.integers(-5, 2_000),
    output_tokens=st.integers(-5, 2_000),
    reasoning_tokens=st.integers(-5, 2_000),
)


@given(st.data(), prices(), TOKENS, TOKENS)
def test_a_hold_is_never_below_the_charge_of_tokens_within_its_bounds(
    data: st.DataObject, price: Price, input_bound: int, output_bound: int
) -> None:
    """Whatever the split into meters and the tier, the hold covers the charge."""
    usage = data.draw(usages(input_bound, output_bound))

    assert total_nano(price_usage(usage, price)) <= hold_upper_bound_nano(input_bound, output_bound, price)


@given(prices(), TOKENS, TOKENS)
def test_a_hold_of_more_tokens_is_never_smaller(price: Price, input_bound: int, output_bound: int) -> None:
    """The bound grows with its tokens."""
    less = hold_upper_bound_nano(input_bound, output_bound, price)

    assert less <= min(
        hold_upper_bound_nano(input_bound + 1, output_bound, price),
        hold_upper_bound_nano(input_bound, output_bound + 1, price),
    )


@given(usages(), prices())
def test_every_token_is_charged_on_exactly_one_line(usage: Usage, price: Price) -> None:
    """Quantities add up to the totals, and no meter stands twice."""
    lines = price_usage(usage, price)

    assert (usage.input_tokens + usage.output_tokens, len(lines)) == (
        sum(line.quantity for line in lines),
        len({line.meter for line in lines}),
    )


@given(usages(), prices())
def test_each_line_is_within_half_a_nano_unit_of_its_exact_amount(usage: Usage, price: Price) -> None:
    """A line is rounded once."""
    assert all(
        2 * abs(line.amount_nano * PICO_PER_NANO - line.quantity * line.unit_price_pico) <= PICO_PER_NANO
        for line in price_usage(usage, price)
    )


@given(ANY_USAGE)
def test_a_checked_usage_is_possible_and_stays_so(usage: Usage) -> None:
    """Parts lie within their totals, nothing is negative, and checking again finds nothing."""
    checked = checked_usage(usage)[0]

    assert (True, (checked, ())) == (
        0 <= checked.cached_input_tokens
        and 0 <= checked.cache_write_tokens
        and checked.cached_input_tokens + checked.cache_write_tokens <= checked.input_tokens
        and 0 <= checked.reasoning_tokens <= checked.output_tokens,
        checked_usage(checked),
    )


@given(ANY_USAGE, prices())
def test_no_usage_whatever_is_charged_less_than_nothing(usage: Usage, price: Price) -> None:
    """A provider that reports nonsense earns nobody money."""
    assert all(line.quantity >= 0 and line.amount_nano >= 0 for line in price_usage(usage, price))


@given(st.decimals(min_value=0, max_value=1_000, allow_nan=False, allow_infinity=False, places=20))
def test_an_imported_price_is_within_half_a_pico_unit(cents: Decimal) -> None:
    """Rounding is to the nearest, and exactness is told truly."""
    pico, exact = pico_of_cents(cents)
    error = abs(cents * 10**10 - pico)

    assert (True, exact) == (error <= Decimal("0.5"), error == 0)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), RATES), max_size=12), st.randoms(use_true_random=False))
def test_the_version_of_a_book_does_not_depend_on_order(models: list[tuple[str, Rates]], random: object) -> None:
    """Equal prices have equal versions."""
    unique = dict(models)
    listed = [
        Price(price_id=f"p/{model}", provider_id="p", model=model, rates=rates) for model, rates in unique.items()
    ]
    shuffled = list(listed)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis hands over a Random

    assert make_book("p", listed) == make_book("p", shuffled)
