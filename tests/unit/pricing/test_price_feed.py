"""The importer of price feeds: cents per token to integers of pico-units."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from processors.pricing import Price, Rates, Tier
from processors.pricing.feed import Feed, Finding, FindingKind, pico_of_cents, read_feed
from schemas.errors import ConfigurationError


def units(request: float | str, response: float | str, **others: object) -> dict[str, object]:
    """The units of an entry, cents per token."""
    cache = {
        f"{name}_input_token": {"price": others.pop(name)} for name in ("cache_read", "cache_write") if name in others
    }
    return {"request_token": {"price": request}, "response_token": {"price": response}} | cache | others


def entry(pay_as_you_go: dict[str, object], **others: object) -> dict[str, object]:
    """An entry of the feed."""
    return {"pricing_config": {"pay_as_you_go": pay_as_you_go} | others}


def read(**entries: object) -> Feed:
    """What the importer makes of these entries; a dash stands for an underscore in their names."""
    return read_feed(
        json.dumps({name.replace("_", "-"): value for name, value in entries.items()}), "p", "a feed", "2026-01-02"
    )


def test_cents_per_token_become_pico_units() -> None:
    """2.5e-4 cents are 2,500,000 pico-units."""
    assert (Price(
        price_id="p/m",
        provider_id="p",
        model="m",
        rates=Rates(input=2_500_000, cached_input=1_250_000, output=10_000_000),
        source="a feed",
        dated="2026-01-02",
    ),) == read(m=entry(units(0.00025, 0.001, cache_read=0.000125))).prices  # fmt: skip


@pytest.mark.parametrize(
    ("cents", "expected"),
    [
        ("0.00007499999999999999", (750_000, False)),
        ("7.499e-5", (749_900, True)),
        ("5e-11", (0, False)),
        ("1.5e-10", (2, False)),
        ("2.5e-10", (2, False)),
        ("0", (0, True)),
    ],
)
def test_what_is_finer_than_a_pico_unit_is_rounded_half_even(cents: str, expected: tuple[int, bool]) -> None:
    """Halves go to the even neighbour, and rounding is said."""
    assert expected == pico_of_cents(Decimal(cents))


def test_a_rounded_price_is_reported() -> None:
    """The report names the model, the unit, the value and what became of it."""
    feed = read_feed('{"m": {"pricing_config": {"pay_as_you_go": {"request_token": {"price": 0.00007499999999999999}, '
                     '"response_token": {"price": 0.0001}}}}}', "p")  # fmt: skip

    detail = "request_token 0.00007499999999999999 cents is 750000 pico-units"
    assert (Finding(FindingKind.ROUNDED, "m", detail),) == feed.findings


def test_placeholders_and_models_without_a_price_are_skipped() -> None:
    """The entry `default` and entries of zeros make no price."""
    feed = read(default=entry(units(0.1, 0.1)), image=entry(units(0, 0)))

    assert ((), [FindingKind.SKIPPED] * 2) == (feed.prices, [finding.kind for finding in feed.findings])


def test_a_model_with_one_side_missing_is_skipped() -> None:
    """A price for input only would give output away."""
    feed = read(m=entry({"request_token": {"price": 0.1}}))

    assert (Finding(FindingKind.SKIPPED, "m", "one side has no price"),) == feed.findings


def test_additional_units_are_ignored_with_a_report() -> None:
    """Searches and images are not charged, and that is said."""
    feed = read(m=entry(units(0.1, 0.1, additional_units={"web_search": {"price": 1}, "file_search": {"price": 2}})))

    assert (Finding(FindingKind.IGNORED, "m", "additional_units: web_search, file_search"),) == feed.findings


def test_cache_rates_of_zero_are_not_priced_apart() -> None:
    """A zero stands where the provider has no such meter, so these tokens cost as input."""
    feed = read(m=entry(units(0.1, 0.1, cache_read=0, cache_write=0)))

    assert (None, None) == (feed.prices[0].rates.cached_input, feed.prices[0].rates.cache_write)


def test_cache_rates_that_can_not_be_right_are_dropped() -> None:
    """Reading a cache is never dearer than input, writing one never cheaper."""
    feed = read(m=entry(units(0.0002, 0.1, cache_read=0.00045, cache_write=0.00002)))

    assert [FindingKind.DROPPED] * 2 == [finding.kind for finding in feed.findings]


def test_a_pair_of_entries_makes_a_tier() -> None:
    """`-lte-128k` and `-gt-128k` are one model with a tier."""
    feed = read(m_lte_128k=entry(units(0.0001, 0.001)), m_gt_128k=entry(units(0.0002, 0.002)))

    assert ("m", (Tier(above_input_tokens=128_000, rates=Rates(input=2_000_000, output=20_000_000)),)) == (
        feed.prices[0].model,
        feed.prices[0].tiers,
    )


def test_a_pair_of_equal_entries_makes_no_tier() -> None:
    """Where both sides cost the same there is nothing to tell apart."""
    feed = read(m_lte_128k=entry(units(0.0001, 0.001)), m_gt_128k=entry(units(0.0001, 0.001)))

    assert () == feed.prices[0].tiers


def test_tiers_of_the_standard_mode_are_taken() -> None:
    """Tiers of the default region and standard mode are rates; other modes and regions are reported."""
    modes = {
        "standard": {"context_tiers": {"long": entry(units(0.0004, 0.002))}},
        "batch": {},
    }
    custom = {"context_tier_map": {"0": "short", "272000": "long"}, "regions": {"default": {"execution_modes": modes}}}
    feed = read(m=entry(units(0.0002, 0.001)) | {"custom_pricing": custom})

    assert (
        (Tier(above_input_tokens=272_000, rates=Rates(input=4_000_000, output=20_000_000)),),
        (Finding(FindingKind.IGNORED, "m", "modes and regions: batch"),),
    ) == (feed.prices[0].tiers, feed.findings)


def test_an_entry_without_tiers_wins_over_a_pair() -> None:
    """What names the model itself stands, and the pair is reported."""
    feed = read(m=entry(units(1, 1)), m_lte_128k=entry(units(2, 2)), m_gt_128k=entry(units(3, 3)))

    assert (["m"], [FindingKind.SKIPPED]) == (
        [price.model for price in feed.prices],
        [finding.kind for finding in feed.findings],
    )


@pytest.mark.parametrize("wrong", [-1, "0.1", None, True])
def test_what_is_no_price_is_reported(wrong: object) -> None:
    """A negative or missing number is no price."""
    feed = read(m=entry({"request_token": {"price": wrong}, "response_token": {"price": 0.1}}))

    assert ((), FindingKind.IGNORED) == (feed.prices, feed.findings[0].kind)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"m": 3}', '{"m": NaN}'])
def test_what_is_no_feed_is_refused(text: str) -> None:
    """A file that is no such feed ends in one line."""
    with pytest.raises(ConfigurationError):
        read_feed(text, "p")
