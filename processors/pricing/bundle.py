"""Our own file of price books: amounts per million tokens as decimal text, as providers publish them."""

from __future__ import annotations

import msgspec

from processors.pricing.prices import Price, PriceBook, Rates, Tier, make_book
from schemas.errors import ConfigurationError
from schemas.money import parse_pico

FORMAT = "quaestor-prices/1"
TOKENS_PER_PRICE = 1_000_000


class FileRates(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Units of currency per million tokens, decimal text."""

    input: str
    output: str
    cached_input: str | None = None
    cache_write: str | None = None
    reasoning: str | None = None

    def rates(self) -> Rates:
        """The same in pico-units per token; raises ValueError when one is finer than that."""
        return Rates(
            input=per_token_pico(self.input),
            output=per_token_pico(self.output),
            cached_input=None if self.cached_input is None else per_token_pico(self.cached_input),
            cache_write=None if self.cache_write is None else per_token_pico(self.cache_write),
            reasoning=None if self.reasoning is None else per_token_pico(self.reasoning),
        )


class FileTier(FileRates, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rates of calls with more input tokens than a bound."""

    above_input_tokens: int


class FilePrice(FileRates, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model."""

    model: str
    tiers: tuple[FileTier, ...] = ()
    max_output_tokens: int | None = None
    context_tokens: int | None = None
    visible_output: bool | None = None


class FileBook(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One provider, and where its facts come from."""

    provider_id: str
    source: str
    dated: str
    currency: str
    prices: tuple[FilePrice, ...]


class File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    format: str
    books: tuple[FileBook, ...]
    about: str = ""


def per_token_pico(per_million: str) -> int:
    """Pico-units per token of an amount per million tokens; raises ValueError when it is no such amount or too fine."""
    pico, rest = divmod(parse_pico(per_million), TOKENS_PER_PRICE)
    if rest or pico < 0:
        raise ValueError(f"{per_million!r} per million tokens is negative or finer than a pico-unit per token")
    return pico


def read_bundle(text: str) -> tuple[PriceBook, ...]:
    """The price books of a file; raises ConfigurationError with what is wrong."""
    try:
        file = msgspec.json.decode(text, type=File)
        if file.format != FORMAT:
            raise ConfigurationError(f"the price file says format {file.format!r}, not {FORMAT!r}")
        return tuple(_book(book) for book in file.books)
    except (msgspec.MsgspecError, ValueError) as error:
        raise ConfigurationError(f"the price file is damaged: {error}") from None


def _book(book: FileBook) -> PriceBook:
    return make_book(book.provider_id, (_price(book, price) for price in book.prices))


def _price(book: FileBook, price: FilePrice) -> Price:
    tiers = (Tier(above_input_tokens=tier.above_input_tokens, rates=tier.rates()) for tier in price.tiers)
    return Price(
        price_id=f"{book.provider_id}/{price.model}",
        provider_id=book.provider_id,
        model=price.model,
        currency=book.currency,
        rates=price.rates(),
        tiers=tuple(tiers),
        max_output_tokens=price.max_output_tokens,
        context_tokens=price.context_tokens,
        visible_output=price.visible_output,
        source=book.source,
        dated=book.dated,
    )
