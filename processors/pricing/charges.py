"""Charge lines from usage, and the bound a hold needs. One rounding per line (schemas.money), half to even."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import msgspec

from processors.pricing.prices import Price, Rates
from schemas.events import Meter
from schemas.limits import CALL_TOKENS_MAX
from schemas.money import PICO_PER_NANO, charge_nano

#: Half a nano-unit for each of three input lines, rounded up; and for each of two output lines.
INPUT_ROUNDING_NANO = 2
OUTPUT_ROUNDING_NANO = 1


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of one call as the provider reports them; parts are included in their totals."""

    #: Input tokens in all.
    input_tokens: int = 0
    #: Part of input_tokens read from the provider's cache.
    cached_input_tokens: int = 0
    #: Part of input_tokens written to the provider's cache.
    cache_write_tokens: int = 0
    #: Output tokens in all.
    output_tokens: int = 0
    #: Part of output_tokens spent on reasoning.
    reasoning_tokens: int = 0


class UsageFinding(StrEnum):
    """What was wrong with a reported usage; the caller logs it and counts it."""

    NEGATIVE = "NEGATIVE"
    #: More than one call can use: a mistake, whoever reports it.
    BEYOND_LIMIT = "BEYOND_LIMIT"
    INPUT_PARTS_EXCEED_TOTAL = "INPUT_PARTS_EXCEED_TOTAL"
    REASONING_EXCEEDS_OUTPUT = "REASONING_EXCEEDS_OUTPUT"


class ChargeLine(msgspec.Struct, frozen=True):
    """One line of a charge, in the price's currency."""

    #: What was metered.
    meter: Meter
    #: Units of the meter, never negative.
    quantity: int
    #: Pico-units per unit.
    unit_price_pico: int
    #: quantity x unit_price_pico, rounded once, nano-units.
    amount_nano: int


def checked_usage(usage: Usage) -> tuple[Usage, tuple[UsageFinding, ...]]:
    """The usage with its parts within their totals, and what had to be changed.

    A total stands as reported; parts that exceed it are cut, the cheaper part (cached) first, so that the dearest
    reading that agrees with the total is charged. Negative numbers count as zero, totals above CALL_TOKENS_MAX as that.
    """
    findings = []
    fields = msgspec.structs.astuple(usage)
    if min(fields) < 0:
        findings.append(UsageFinding.NEGATIVE)
    total_in, cached, write, total_out, reasoning = (max(0, count) for count in fields)
    if max(total_in, total_out) > CALL_TOKENS_MAX:
        findings.append(UsageFinding.BEYOND_LIMIT)
        total_in, total_out = min(total_in, CALL_TOKENS_MAX), min(total_out, CALL_TOKENS_MAX)
    if cached + write > total_in:
        findings.append(UsageFinding.INPUT_PARTS_EXCEED_TOTAL)
        write = min(write, total_in)
        cached = min(cached, total_in - write)
    if reasoning > total_out:
        findings.append(UsageFinding.REASONING_EXCEEDS_OUTPUT)
        reasoning = total_out
    if not findings:
        return usage, ()
    checked = Usage(
        input_tokens=total_in,
        cached_input_tokens=cached,
        cache_write_tokens=write,
        output_tokens=total_out,
        reasoning_tokens=reasoning,
    )
    return checked, tuple(findings)


def price_usage(usage: Usage, price: Price) -> tuple[ChargeLine, ...]:
    """The charge lines of a call: always an INPUT_TOKENS line, the others where they count something.

    INPUT_TOKENS leaves out cached and cache-write tokens, OUTPUT_TOKENS leaves out reasoning when it is priced apart.
    The usage is checked first, see `checked_usage`.
    """
    usage = checked_usage(usage)[0]
    rates = price.rates_for(usage.input_tokens)
    cached, write, reasoning = usage.cached_input_tokens, usage.cache_write_tokens, usage.reasoning_tokens
    lines = [_line(Meter.INPUT_TOKENS, usage.input_tokens - cached - write, rates.input)]
    if cached:
        lines.append(_line(Meter.CACHED_INPUT_TOKENS, cached, _or(rates.cached_input, rates.input)))
    if write:
        lines.append(_line(Meter.CACHE_WRITE_TOKENS, write, _or(rates.cache_write, rates.input)))
    if rates.reasoning is None:
        reasoning = 0
    if usage.output_tokens > reasoning:
        lines.append(_line(Meter.OUTPUT_TOKENS, usage.output_tokens - reasoning, rates.output))
    if reasoning:
        lines.append(_line(Meter.REASONING_TOKENS, reasoning, _or(rates.reasoning, rates.output)))
    return tuple(lines)


def _line(meter: Meter, quantity: int, unit_price_pico: int) -> ChargeLine:
    return ChargeLine(meter, quantity, unit_price_pico, charge_nano(quantity, unit_price_pico))


def _or(rate: int | None, fallback: int) -> int:
    return fallback if rate is None else rate


def total_nano(lines: Iterable[ChargeLine]) -> int:
    """The sum of charge lines, nano-units."""
    return sum(line.amount_nano for line in lines)


def hold_upper_bound_nano(input_tokens_bound: int, output_tokens_bound: int, price: Price) -> int:
    """Never less than the charge of any usage within both bounds, in the price's currency, nano-units.

    Takes the dearest rate of each side over all tiers the input may reach, so that neither the split into cached,
    written and reasoning tokens nor the rounding of lines can exceed it.
    """
    reachable = [price.rates, *(tier.rates for tier in price.tiers if input_tokens_bound > tier.above_input_tokens)]
    dearest_input = max(rates.dearest_input() for rates in reachable)
    dearest_output = max(rates.dearest_output() for rates in reachable)
    bound = -(-(input_tokens_bound * dearest_input) // PICO_PER_NANO)
    bound += -(-(output_tokens_bound * dearest_output) // PICO_PER_NANO)
    return bound + _rounding_nano(reachable, bound)


def _rounding_nano(reachable: Iterable[Rates], bound: int) -> int:
    """What rounding line by line may add; nothing where every rate is a whole number of nano-units."""
    if bound == 0 or all(rate % PICO_PER_NANO == 0 for rates in reachable for rate in rates.all()):
        return 0
    return INPUT_ROUNDING_NANO + OUTPUT_ROUNDING_NANO
