"""Reads a public price feed: one JSON object per provider, cents per token (the format of Portkey-AI/models).

Prices come out as integers of pico-units; whatever could not be taken as it stands is reported finding by finding.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any

import msgspec

from processors.pricing.prices import Price, Rates, Tier
from schemas.errors import ConfigurationError
from schemas.money import PICO_PER_UNIT, round_pico

CENTS_PER_UNIT = 100
PLACEHOLDER = "default"
TOKENS_PER_K = 1_000
_SUFFIX = re.compile(r"(?P<model>.+)-(?P<side>lte|gt)-(?P<thousands>\d+)k")
_FIELDS = {
    "request_token": "input",
    "response_token": "output",
    "cache_read_input_token": "cached_input",
    "cache_write_input_token": "cache_write",
}


class FindingKind(StrEnum):
    """What happened to a value of the feed."""

    #: It was finer than a pico-unit and was rounded, half to even.
    ROUNDED = "ROUNDED"
    #: A unit we do not charge (searches, images, audio, regions, batch and priority modes): left out.
    IGNORED = "IGNORED"
    #: The whole entry was left out: a placeholder, or one without a price per token.
    SKIPPED = "SKIPPED"
    #: A cache rate that can't be right; these tokens are charged as input.
    DROPPED = "DROPPED"


class Finding(msgspec.Struct, frozen=True):
    """One line of an importer's report."""

    #: What happened.
    kind: FindingKind
    #: The model, as the feed names it.
    model: str
    #: The value, and what became of it.
    detail: str


class Feed(msgspec.Struct, frozen=True):
    """What a feed says."""

    #: By rising model name.
    prices: tuple[Price, ...]
    #: In the order of the feed.
    findings: tuple[Finding, ...]


def read_feed(text: str, provider_id: str, source: str = "", dated: str = "") -> Feed:
    """The prices of a feed and what had to be changed; raises ConfigurationError when it is no such feed."""
    try:
        entries = json.loads(text, parse_float=Decimal, parse_int=Decimal)
    except (ValueError, InvalidOperation, RecursionError) as error:
        raise ConfigurationError(f"the price feed is no JSON: {error}") from None
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise ConfigurationError("the price feed is no JSON object of one object per model")
    return _Reading(provider_id, source, dated).read(entries)


def pico_of_cents(cents: Decimal) -> tuple[int, bool]:
    """Pico-units of cents, rounded half-even, and whether that was exact."""
    units = cents / CENTS_PER_UNIT
    pico = round_pico(units)
    return pico, units * PICO_PER_UNIT == pico


class _Reading:
    """One feed under reading: collects findings while prices are made."""

    def __init__(self, provider_id: str, source: str, dated: str) -> None:
        self._provider_id = provider_id
        self._source = source
        self._dated = dated
        self._findings: list[Finding] = []

    def read(self, entries: Mapping[str, Any]) -> Feed:
        plain: dict[str, tuple[Rates, tuple[Tier, ...]]] = {}
        split: dict[str, dict[int, dict[str, Rates]]] = {}
        for name, entry in entries.items():
            rates = self._rates(name, _dig(entry, "pricing_config", "pay_as_you_go"))
            if rates is None:
                continue
            match = _SUFFIX.fullmatch(name)
            if match:
                sides = split.setdefault(match["model"], {}).setdefault(int(match["thousands"]) * TOKENS_PER_K, {})
                sides[match["side"]] = rates
            else:
                plain[name] = (rates, tuple(self._tiers(name, entry.get("custom_pricing"))))
        for model, bounds in split.items():
            self._join(model, bounds, plain)
        prices = tuple(self._price(model, *plain[model]) for model in sorted(plain))
        return Feed(prices, tuple(self._findings))

    def _note(self, kind: FindingKind, model: str, detail: str) -> None:
        self._findings.append(Finding(kind, model, detail))

    def _price(self, model: str, rates: Rates, tiers: tuple[Tier, ...]) -> Price:
        return Price(
            price_id=f"{self._provider_id}/{model}",
            provider_id=self._provider_id,
            model=model,
            rates=rates,
            tiers=tiers,
            source=self._source,
            dated=self._dated,
        )

    def _rates(self, model: str, units: Mapping[str, Any]) -> Rates | None:
        """Rates of an entry, None when it is left out."""
        if model == PLACEHOLDER:
            self._note(FindingKind.SKIPPED, model, "a placeholder, no model")
            return None
        values = {}
        for unit, value in units.items():
            if unit not in _FIELDS:
                self._note(FindingKind.IGNORED, model, _described(unit, value))
            elif (pico := self._pico(model, unit, value)) is not None:
                values[_FIELDS[unit]] = pico
        if not values.get("input") and not values.get("output"):
            self._note(FindingKind.SKIPPED, model, "no price per token")
            return None
        if "input" not in values or "output" not in values:
            self._note(FindingKind.SKIPPED, model, "one side has no price")
            return None
        return self._checked(model, Rates(**values))

    def _pico(self, model: str, unit: str, value: Any) -> int | None:
        cents = value.get("price") if isinstance(value, dict) else None
        if not isinstance(cents, Decimal) or not cents.is_finite() or cents < 0:
            self._note(FindingKind.IGNORED, model, f"{unit} is no price: {str(value)[:60]}")
            return None
        pico, exact = pico_of_cents(cents)
        if not exact:
            self._note(FindingKind.ROUNDED, model, f"{unit} {cents} cents is {pico} pico-units")
        return pico

    def _checked(self, model: str, rates: Rates) -> Rates:
        """Without cache rates that are zero (not priced apart) or that can't be right."""
        cached, write = rates.cached_input or None, rates.cache_write or None
        if cached is not None and cached > rates.input:
            self._note(
                FindingKind.DROPPED, model, f"cached input {cached} is dearer than input {rates.input} pico-units"
            )
            cached = None
        if write is not None and write < rates.input:
            self._note(
                FindingKind.DROPPED, model, f"cache write {write} is cheaper than input {rates.input} pico-units"
            )
            write = None
        return msgspec.structs.replace(rates, cached_input=cached, cache_write=write)

    def _tiers(self, model: str, custom: Any) -> Iterator[Tier]:
        """Tiers of the standard mode in the default region; other regions and modes are reported as left out."""
        if not isinstance(custom, dict):
            return
        modes = _dig(custom, "regions", "default", "execution_modes")
        others = [mode for mode in modes if mode != "standard"]
        others += [region for region in _dig(custom, "regions") if region != "default"]
        if others:
            self._note(FindingKind.IGNORED, model, f"modes and regions: {', '.join(others)}")
        named = _dig(custom, "context_tier_map")
        for bound, name in sorted(named.items(), key=lambda item: int(item[0])):
            units = _dig(modes, "standard", "context_tiers", str(name), "pricing_config", "pay_as_you_go")
            if int(bound) and units and (rates := self._rates(model, units)) is not None:
                yield Tier(above_input_tokens=int(bound), rates=rates)

    def _join(
        self, model: str, bounds: Mapping[int, Mapping[str, Rates]], plain: dict[str, tuple[Rates, tuple[Tier, ...]]]
    ) -> None:
        """Make one price of a pair `-lte-Nk` and `-gt-Nk`; an entry without suffix wins, then the highest bound."""
        bound = max(bounds)
        for other in sorted(set(bounds) - {bound}):
            self._note(FindingKind.SKIPPED, model, f"tiers at {other} tokens: those at {bound} stand")
        if model in plain:
            self._note(FindingKind.SKIPPED, model, f"tiers at {bound} tokens: the entry without tiers stands")
            return
        short, long = bounds[bound].get("lte"), bounds[bound].get("gt")
        if short is None or long is None:
            self._note(FindingKind.SKIPPED, model, f"only one side of {bound} tokens has a price")
            return
        tiers = () if short == long else (Tier(above_input_tokens=bound, rates=long),)
        plain[model] = (short, tiers)


def _dig(value: Any, *path: str) -> Mapping[str, Any]:
    """The object at a path, empty where there is none."""
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _described(unit: str, value: Any) -> str:
    """What an ignored unit holds, in short."""
    inner = [name for name in value if name != "price"] if isinstance(value, dict) else []
    return f"{unit}: {', '.join(inner)}" if inner else unit
