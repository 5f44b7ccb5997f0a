"""Charge lines and bounds of holds."""

from __future__ import annotations

import pytest

from processors.pricing import (
    Price,
    Rates,
    Tier,
    Usage,
    UsageFinding,
    checked_usage,
    hold_upper_bound_nano,
    price_usage,
    total_nano,
)
from schemas.events import Meter

#: gpt-4o: 2.50, 1.25 and 10.00 USD per million tokens.
PLAIN = Rates(input=2_500_000, cached_input=1_250_000, output=10_000_000)
FULL = Rates(input=2_500_000, cached_input=1_250_000, cache_write=3_125_000, output=10_000_000, reasoning=12_000_000)


def price(rates: Rates = PLAIN, tiers: tuple[Tier, ...] = ()) -> Price:
    """A price with these rates."""
    return Price(price_id="p/m", provider_id="p", model="m", rates=rates, tiers=tiers)


def lines(usage: Usage, of: Price) -> dict[Meter, tuple[int, int, int]]:
    """Charge lines by meter: quantity, price, amount."""
    return {line.meter: (line.quantity, line.unit_price_pico, line.amount_nano) for line in price_usage(usage, of)}


def test_a_plain_call_is_input_and_output() -> None:
    """1,000 tokens in and 500 out of gpt-4o cost 0.0025 and 0.005."""
    assert {
        Meter.INPUT_TOKENS: (1_000, 2_500_000, 2_500_000),
        Meter.OUTPUT_TOKENS: (500, 10_000_000, 5_000_000),
    } == lines(Usage(input_tokens=1_000, output_tokens=500), price())


def test_parts_are_taken_out_of_their_totals() -> None:
    """Cached, written and reasoning tokens are charged once, on their own meters."""
    usage = Usage(
        input_tokens=1_000, cached_input_tokens=600, cache_write_tokens=100, output_tokens=500, reasoning_tokens=200
    )

    assert {
        Meter.INPUT_TOKENS: (300, 2_500_000, 750_000),
        Meter.CACHED_INPUT_TOKENS: (600, 1_250_000, 750_000),
        Meter.CACHE_WRITE_TOKENS: (100, 3_125_000, 312_500),
        Meter.OUTPUT_TOKENS: (300, 10_000_000, 3_000_000),
        Meter.REASONING_TOKENS: (200, 12_000_000, 2_400_000),
    } == lines(usage, price(FULL))


def test_reasoning_without_its_own_price_is_output() -> None:
    """Without a reasoning rate there is one line for all output."""
    found = lines(Usage(output_tokens=500, reasoning_tokens=200), price())

    assert {Meter.INPUT_TOKENS: (0, 2_500_000, 0), Meter.OUTPUT_TOKENS: (500, 10_000_000, 5_000_000)} == found


def test_cache_writes_without_a_price_cost_as_input() -> None:
    """A part without a rate of its own keeps its meter at the input rate."""
    found = lines(Usage(input_tokens=10, cache_write_tokens=4), price())

    assert (4, 2_500_000, 10_000) == found[Meter.CACHE_WRITE_TOKENS]


def test_there_is_always_an_input_line() -> None:
    """A call without tokens has an INPUT_TOKENS line of nothing."""
    assert {Meter.INPUT_TOKENS: (0, 2_500_000, 0)} == lines(Usage(), price())


def test_a_long_input_pays_the_tier_for_all_tokens() -> None:
    """One token above the bound puts the whole call on the tier's rates."""
    tiered = price(tiers=(Tier(above_input_tokens=200_000, rates=Rates(input=5_000_000, output=15_000_000)),))

    assert [2_500_000, 5_000_000] == [
        lines(Usage(input_tokens=count), tiered)[Meter.INPUT_TOKENS][1] for count in (200_000, 200_001)
    ]


def test_a_line_is_rounded_once_half_to_even() -> None:
    """Three tokens at half a nano-unit are 1.5 and round to 2; one rounds to 0."""
    half = price(Rates(input=500, output=0))

    assert [0, 2] == [total_nano(price_usage(Usage(input_tokens=count), half)) for count in (1, 3)]


@pytest.mark.parametrize(
    ("reported", "expected", "findings"),
    [
        (
            Usage(input_tokens=100, cached_input_tokens=80, cache_write_tokens=40),
            Usage(input_tokens=100, cached_input_tokens=60, cache_write_tokens=40),
            (UsageFinding.INPUT_PARTS_EXCEED_TOTAL,),
        ),
        (
            Usage(input_tokens=10, cached_input_tokens=500),
            Usage(input_tokens=10, cached_input_tokens=10),
            (UsageFinding.INPUT_PARTS_EXCEED_TOTAL,),
        ),
        (
            Usage(output_tokens=5, reasoning_tokens=9),
            Usage(output_tokens=5, reasoning_tokens=5),
            (UsageFinding.REASONING_EXCEEDS_OUTPUT,),
        ),
        (Usage(input_tokens=-5, output_tokens=3), Usage(output_tokens=3), (UsageFinding.NEGATIVE,)),
        (Usage(input_tokens=5, cached_input_tokens=5), Usage(input_tokens=5, cached_input_tokens=5), ()),
        (
            Usage(input_tokens=2**64, output_tokens=10_000_001),
            Usage(input_tokens=10_000_000, output_tokens=10_000_000),
            (UsageFinding.BEYOND_LIMIT,),
        ),
        (Usage(input_tokens=10_000_000), Usage(input_tokens=10_000_000), ()),
    ],
)
def test_impossible_usage_is_cut_and_reported(
    reported: Usage, expected: Usage, findings: tuple[UsageFinding, ...]
) -> None:
    """Totals stand; parts that exceed them are cut, the cheaper one first."""
    assert (expected, findings) == checked_usage(reported)


def test_the_bound_of_a_plain_price_is_exact() -> None:
    """Where rates are whole nano-units, the bound adds nothing for rounding."""
    assert 7_500_000 == hold_upper_bound_nano(1_000, 500, price())


def test_the_bound_takes_the_dearest_meter_of_each_side() -> None:
    """All input might be written to the cache, all output might be reasoning."""
    assert 1_000 * 3_125 + 500 * 12_000 == hold_upper_bound_nano(1_000, 500, price(FULL))


def test_the_bound_reaches_only_tiers_the_input_can_reach() -> None:
    """A short input never pays the long input's rates."""
    tiered = price(tiers=(Tier(above_input_tokens=1_000, rates=Rates(input=5_000_000, output=15_000_000)),))

    assert [7_500_000, 1_001 * 5_000 + 500 * 15_000] == [
        hold_upper_bound_nano(count, 500, tiered) for count in (1_000, 1_001)
    ]


def test_a_free_model_holds_nothing() -> None:
    """No price, no hold, also where rounding might add something."""
    assert 0 == hold_upper_bound_nano(1_000, 500, price(Rates(input=0, output=0)))
