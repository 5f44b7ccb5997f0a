"""Price books, their versions, and the bundled file."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

import processors.pricing
from processors.control.check import price_book
from processors.pricing import Price, PriceBook, Rates, make_book, merged_book
from processors.pricing.bundle import per_token_pico, read_bundle
from schemas.errors import ConfigurationError

BUNDLED = read_bundle((Path(processors.pricing.__file__).parent / "data/prices.json").read_text(encoding="utf-8"))


def price(model: str, rate: int = 1) -> Price:
    """A price of provider p."""
    return Price(price_id=f"p/{model}", provider_id="p", model=model, rates=Rates(input=rate, output=rate))


def test_equal_prices_have_one_version() -> None:
    """The version says what the prices are, not in which order they were given."""
    assert make_book("p", [price("a"), price("b")]) == make_book("p", [price("b"), price("a")])


def test_other_prices_have_another_version() -> None:
    """A changed rate changes the version."""
    assert make_book("p", [price("a", 1)]).version != make_book("p", [price("a", 2)]).version


def test_merging_replaces_and_adds() -> None:
    """A merged book has the new price of a model and keeps the others."""
    merged = merged_book(make_book("p", [price("a"), price("b")]), "p", [price("b", 2), price("c")])

    assert (price("a"), price("b", 2), price("c")) == merged.prices


def test_no_model_with_a_price_for_reasoning_shows_all_that_it_writes() -> None:
    """Its streams are never held for in steps."""
    prices = [price for book in BUNDLED for price in book.prices]
    assert any(price.visible_output for price in prices)
    assert not any(price.visible_output for price in prices if price.rates.reasoning is not None)


def test_merging_keeps_bounds_that_a_feed_does_not_know() -> None:
    """A feed without token bounds does not make holds forget them."""
    bounded = msgspec.structs.replace(price("a"), max_output_tokens=5, context_tokens=9, visible_output=True)
    merged = merged_book(make_book("p", [bounded]), "p", [price("a", 2)])

    assert (5, 9, True, 2) == (
        merged.prices[0].max_output_tokens,
        merged.prices[0].context_tokens,
        merged.prices[0].visible_output,
        merged.prices[0].rates.input,
    )


@pytest.mark.parametrize(("text", "pico"), [("2.50", 2_500_000), ("0", 0), ("0.000001", 1), ("0.075", 75_000)])
def test_amounts_per_million_become_pico_units_per_token(text: str, pico: int) -> None:
    """A dollar per million tokens is a million pico-units per token."""
    assert pico == per_token_pico(text)


@pytest.mark.parametrize("text", ["0.0000001", "-1", "many", "NaN", ""])
def test_amounts_that_are_too_fine_or_none_are_refused(text: str) -> None:
    """Nothing is rounded on the way into our own file."""
    with pytest.raises(ValueError):
        per_token_pico(text)


@pytest.mark.parametrize("book", BUNDLED, ids=lambda book: book.provider_id)
def test_the_bundled_books_may_be_published(book: PriceBook) -> None:
    """Every bundled price passes the checks of the control plane."""
    assert price_book(book) is None


@pytest.mark.parametrize("book", BUNDLED, ids=lambda book: book.provider_id)
def test_every_bundled_price_has_a_source_and_a_date(book: PriceBook) -> None:
    """A fact without source and date is none."""
    assert [] == [price.model for price in book.prices if not price.source or not price.dated]


def test_prices_of_the_simulator_are_marked_as_invented() -> None:
    """Nobody takes a made-up price for a real one."""
    simulator = next(book for book in BUNDLED if book.provider_id == "simulator")

    assert {True} == {price.source.startswith("Invented") for price in simulator.prices}


@pytest.mark.parametrize(
    ("provider_id", "model", "rates"),
    [
        ("openai", "gpt-4o", Rates(input=2_500_000, cached_input=1_250_000, output=10_000_000)),
        ("openai", "gpt-4o-mini", Rates(input=150_000, cached_input=75_000, output=600_000)),
        ("openai", "gpt-4.1", Rates(input=2_000_000, cached_input=500_000, output=8_000_000)),
        ("openai", "text-embedding-3-small", Rates(input=20_000, output=0)),
        (
            "anthropic",
            "claude-sonnet-4-5",
            Rates(input=3_000_000, cached_input=300_000, cache_write=3_750_000, output=15_000_000),
        ),
    ],
)
def test_known_prices_are_in_the_book(provider_id: str, model: str, rates: Rates) -> None:
    """Well-known list prices stand in the book to the pico-unit."""
    prices = {(price.provider_id, price.model): price for book in BUNDLED for price in book.prices}

    assert rates == prices[provider_id, model].rates


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"format": "other/1", "books": []}',
        '{"format": "quaestor-prices/1", "books": [{"provider_id": "p"}]}',
        (
            '{"format": "quaestor-prices/1", "books": [{"provider_id": "p", "source": "s", "dated": "", '
            '"currency": "USD", "prices": [{"model": "m", "input": "0.00000001", "output": "1"}]}]}'
        ),
    ],
)
def test_a_damaged_file_is_refused(text: str) -> None:
    """A file that can't be read exactly ends in one line."""
    with pytest.raises(ConfigurationError):
        read_bundle(text)
