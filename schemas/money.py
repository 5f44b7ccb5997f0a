"""Money: integers of nano-units (1e-9) of a currency; prices: integers of pico-units (1e-12) per unit.

No float touches money, and only this module rounds. A charge line is rounded once,
half to even, when pico becomes nano.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal, localcontext

NANO_PER_UNIT = 1_000_000_000
PICO_PER_UNIT = 1_000_000_000_000
PICO_PER_NANO = 1_000
RATE_SCALE = 1_000_000_000
#: What a limit may count besides money, as a currency whose nano-unit is one of it; and what people call them.
COUNTED_TOKENS, COUNTED_REQUESTS = "TOK", "REQ"
UNIT_NAMES = {COUNTED_TOKENS: "tokens", COUNTED_REQUESTS: "requests"}
_CODES = {name: code for code, name in UNIT_NAMES.items()}


def divide_half_even(numerator: int, denominator: int) -> int:
    """The quotient numerator / denominator rounded half to even. The denominator is positive."""
    quotient, remainder = divmod(numerator, denominator)
    twice = 2 * remainder
    if twice > denominator or (twice == denominator and quotient % 2):
        quotient += 1
    return quotient


def charge_nano(quantity: int, unit_price_pico: int) -> int:
    """The amount of one charge line: quantity x price, in nano-units, rounded half-even once."""
    return divide_half_even(quantity * unit_price_pico, PICO_PER_NANO)


def convert_nano(amount_nano: int, rate_nano: int) -> int:
    """An amount in another currency; rate_nano is target units per source unit times 1e9. Rounded half-even once."""
    return divide_half_even(amount_nano * rate_nano, RATE_SCALE)


def convert_up_nano(amount_nano: int, rate_nano: int) -> int:
    """As `convert_nano`, never less than the amount is worth: for what is held."""
    return -(-amount_nano * rate_nano // RATE_SCALE)


def parse_nano(text: str) -> int:
    """Nano-units of a decimal such as '12.50'; raises ValueError when it is finer than nine decimals."""
    return _scaled(text, NANO_PER_UNIT)


def parse_pico(text: str) -> int:
    """Pico-units of a decimal such as '0.0000025'; raises ValueError when it is finer than twelve decimals."""
    return _scaled(text, PICO_PER_UNIT)


def _scaled(text: str, scale: int) -> int:
    with localcontext() as context:
        context.prec = 60
        try:
            value = Decimal(text) * scale
        except ArithmeticError:
            raise ValueError(f"{text!r} is not a decimal number") from None
        if not value.is_finite() or value != value.to_integral_value():
            raise ValueError(f"{text!r} is finer than 1/{scale}")
        return int(value)


def round_pico(value: Decimal) -> int:
    """Pico-units nearest to a decimal amount of units, half-even: for price feeds that are finer than we keep."""
    with localcontext() as context:
        context.prec = 60
        return int((value * PICO_PER_UNIT).to_integral_value(rounding=ROUND_HALF_EVEN))


def format_nano(amount_nano: int, decimals_min: int = 2) -> str:
    """Decimal text of an amount, exact, with at least `decimals_min` decimals: 1234500000 -> '1.2345'."""
    sign = "-" if amount_nano < 0 else ""
    units, fraction = divmod(abs(amount_nano), NANO_PER_UNIT)
    digits = f"{fraction:09d}".rstrip("0").ljust(decimals_min, "0")
    return f"{sign}{units}.{digits}" if digits else f"{sign}{units}"


def format_amount(amount_nano: int, currency: str) -> str:
    """An amount as people read it: decimal money, whole tokens and requests."""
    return str(amount_nano) if currency in UNIT_NAMES else format_nano(amount_nano)


def format_with_unit(amount_nano: int, currency: str) -> str:
    """An amount with its unit: 12.50 USD, 3 tokens, 1 request."""
    unit = unit_name(currency)
    one = currency in UNIT_NAMES and abs(amount_nano) == 1
    return f"{format_amount(amount_nano, currency)} {unit.removesuffix('s') if one else unit}"


def parse_amount(text: str, currency: str) -> int:
    """The opposite; raises ValueError for a text that is no such amount."""
    if currency not in UNIT_NAMES:
        return parse_nano(text)
    if not text.isdecimal():
        raise ValueError(f"{text!r} is not a whole number of {UNIT_NAMES[currency]}")
    return int(text)


def currency_of(unit: str) -> str:
    """The currency of what people call a unit; a code stays what it is."""
    return _CODES.get(unit, unit)


def unit_name(currency: str) -> str:
    """What people call the unit."""
    return UNIT_NAMES.get(currency, currency)
