"""What calls cost: prices, charge lines from usage, upper bounds for holds, and the reading of price feeds. Pure."""

from __future__ import annotations

from processors.pricing.charges import (
    ChargeLine,
    Usage,
    UsageFinding,
    checked_usage,
    hold_upper_bound_nano,
    price_usage,
    total_nano,
)
from processors.pricing.prices import Price, PriceBook, Rates, Tier, book_version, make_book, merged_book

__all__ = [
    "ChargeLine",
    "Price",
    "PriceBook",
    "Rates",
    "Tier",
    "Usage",
    "UsageFinding",
    "book_version",
    "checked_usage",
    "hold_upper_bound_nano",
    "make_book",
    "merged_book",
    "price_usage",
    "total_nano",
]
