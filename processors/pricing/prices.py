"""Prices and price books: integers of pico-units (1e-12 of a currency unit) per token.

A price book is all prices of one provider and one entity of the control topic. Its version is a digest of its content,
so that the same version always means the same prices, whoever published them and in which order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

VERSION_HEX_DIGITS = 12


class Rates(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Pico-units per token. None: the provider does not price this part apart."""

    #: Input tokens.
    input: int
    #: Input tokens read from the provider's cache. None: as input.
    cached_input: int | None = None
    #: Input tokens written to the provider's cache. None: as input.
    cache_write: int | None = None
    #: Output tokens.
    output: int
    #: Output tokens spent on reasoning. None: they are output tokens like others, in one charge line with them.
    reasoning: int | None = None

    def dearest_input(self) -> int:
        """The most that one token on the input side can cost."""
        return max(self.input, self.cached_input or 0, self.cache_write or 0)

    def dearest_output(self) -> int:
        """The most that one token on the output side can cost."""
        return max(self.output, self.reasoning or 0)

    def all(self) -> tuple[int, ...]:
        """Every rate that is given."""
        given = (self.input, self.cached_input, self.cache_write, self.output, self.reasoning)
        return tuple(rate for rate in given if rate is not None)


class Tier(msgspec.Struct, frozen=True, kw_only=True):
    """Rates for whole calls whose input is longer than a bound."""

    #: Calls with more input tokens than this pay these rates, for all their tokens.
    above_input_tokens: int
    #: The rates.
    rates: Rates


class Price(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one model of one provider costs."""

    #: Identity within the price book: <provider>/<model>.
    price_id: str
    #: The provider.
    provider_id: str
    #: The provider's name of the model.
    model: str
    #: ISO 4217 code of the rates.
    currency: str = "USD"
    #: Rates of an ordinary call.
    rates: Rates
    #: Rates of calls with long input, by rising bound. Empty: the same whatever the length.
    tiers: tuple[Tier, ...] = ()
    #: Most output tokens the model gives. None: not known.
    max_output_tokens: int | None = None
    #: Most tokens of input and output together. None: not known.
    context_tokens: int | None = None
    #: Whether a stream shows every output token as text; False where it reasons out of sight. None: not known.
    visible_output: bool | None = None
    #: Where the fact comes from.
    source: str = ""
    #: Day of the fact, YYYY-MM-DD. Empty: not known.
    dated: str = ""

    def rates_for(self, input_tokens: int) -> Rates:
        """The rates of a call with so many input tokens, cached ones included."""
        chosen = self.rates
        for tier in self.tiers:
            if input_tokens > tier.above_input_tokens:
                chosen = tier.rates
        return chosen


class PriceBook(msgspec.Struct, frozen=True, kw_only=True):
    """All prices of one provider; build it with `make_book`."""

    #: The provider.
    provider_id: str
    #: <provider>@<digest of the prices>.
    version: str
    #: Prices by rising model name, one per model.
    prices: tuple[Price, ...]


def book_version(provider_id: str, prices: Iterable[Price]) -> str:
    """The version of these prices: equal for equal prices, whatever their order."""
    ordered = sorted(prices, key=lambda price: price.model)
    digest = hashlib.sha256(msgspec.json.encode(ordered, order="deterministic")).hexdigest()
    return f"{provider_id}@{digest[:VERSION_HEX_DIGITS]}"


def make_book(provider_id: str, prices: Iterable[Price]) -> PriceBook:
    """A price book; the last price of a model named twice stands."""
    by_model = {price.model: price for price in prices}
    ordered = tuple(by_model[model] for model in sorted(by_model))
    return PriceBook(provider_id=provider_id, version=book_version(provider_id, ordered), prices=ordered)


def merged_book(book: PriceBook | None, provider_id: str, prices: Iterable[Price]) -> PriceBook:
    """The book with these prices added or replaced; what they do not know of a model's tokens stays as it was."""
    old = {price.model: price for price in book.prices} if book else {}
    return make_book(provider_id, (*old.values(), *(_bounded(price, old.get(price.model)) for price in prices)))


def _bounded(price: Price, old: Price | None) -> Price:
    if old is None:
        return price
    return msgspec.structs.replace(
        price,
        max_output_tokens=price.max_output_tokens or old.max_output_tokens,
        context_tokens=price.context_tokens or old.context_tokens,
        visible_output=old.visible_output if price.visible_output is None else price.visible_output,
    )
