"""What values the control plane accepts; each check answers a refusal or None."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from itertools import pairwise

import msgspec

from processors.calendar import WINDOWS, zone_of
from processors.control.entities import (
    CHANNEL_KINDS,
    EACH,
    SCOPES,
    SEVERITY_FLOORS,
    THRESHOLD_ACTIONS,
    Channel,
    Increase,
    Limit,
    Threshold,
)
from processors.control.kept import LegalHold, held_by
from processors.pricing.prices import Price, PriceBook
from schemas.errors import ConfigurationError
from schemas.ids import is_name
from schemas.limits import ATTEMPTS_MAX, CALL_TOKENS_MAX, LIMIT_UNITS_MAX, TEXT_CHARACTERS_MAX
from schemas.money import (
    COUNTED_REQUESTS,
    COUNTED_TOKENS,
    NANO_PER_UNIT,
    PICO_PER_NANO,
    PICO_PER_UNIT,
    format_with_unit,
)

#: The currency of prices, and of a limit that names none.
CURRENCY = "USD"
#: Currencies that a limit may count.
LIMIT_CURRENCIES = ("USD", "EUR")
#: What a limit may count.
LIMIT_UNITS = (*LIMIT_CURRENCIES, COUNTED_TOKENS, COUNTED_REQUESTS)
INCREASES_PER_LIMIT_MAX = 100
APPROVALS_PER_LIMIT_MAX = 100
THRESHOLDS_PER_LIMIT_MAX = 10
THRESHOLD_PERCENT_MAX = 1_000
CHANNELS_PER_TENANT_MAX = 20
LIMITS_PER_PLACE_MAX = 16
MODELS_PER_KEY_MAX = 100
MODELS_PER_PROVIDER_MAX = 1_000
CANDIDATES_PER_ROUTE_MAX = 16
PRICES_PER_BOOK_MAX = 2_000
MODEL_CHARACTERS_MAX = 256
URL_CHARACTERS_MAX = 1_024
TIMEOUT_SECONDS_MAX = 300.0
#: A hundred units of currency for one token: no price is near it.
RATE_PICO_MAX = 100 * PICO_PER_UNIT
# What all attempts of a request cost is an Avro long, whatever providers report.
assert ATTEMPTS_MAX * 2 * CALL_TOKENS_MAX * RATE_PICO_MAX // PICO_PER_NANO < 2**63

_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._\-]+)(?::(?P<port>\d{1,5}))?(?P<path>/[^\s?#]*)?"
)
_ENVIRONMENT = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]{0,127}")
_FILE = re.compile(r"file:[^\x00-\x1f]{1,1024}")
_MODEL = re.compile(r"[!-~]{1,256}")
_DAY = re.compile(r"(\d{4}-\d{2}-\d{2})?")


class RefusalCode(StrEnum):
    """Why a change was refused."""

    INVALID_NAME = "INVALID_NAME"
    INVALID_URL = "INVALID_URL"
    INVALID_REFERENCE = "INVALID_REFERENCE"
    INVALID_AMOUNT = "INVALID_AMOUNT"
    INVALID_PRICE = "INVALID_PRICE"
    INVALID_VALUE = "INVALID_VALUE"
    TOO_MANY = "TOO_MANY"
    TAKEN = "TAKEN"
    UNKNOWN_KEY = "UNKNOWN_KEY"
    UNKNOWN_PROVIDER = "UNKNOWN_PROVIDER"
    UNKNOWN_ROUTE = "UNKNOWN_ROUTE"
    UNKNOWN_LIMIT = "UNKNOWN_LIMIT"
    UNKNOWN_RATE = "UNKNOWN_RATE"
    UNKNOWN_CHANNEL = "UNKNOWN_CHANNEL"
    UNKNOWN_HOLD = "UNKNOWN_HOLD"
    HELD = "HELD"
    UNCHANGED = "UNCHANGED"


class Refusal(msgspec.Struct, frozen=True):
    """A change that is not made."""

    #: Why.
    code: RefusalCode
    #: One line for people: what is wrong and what to do.
    message: str
    #: What of the change is wrong, as people name it; empty where it is not one field of a limit or rate.
    field: str = ""


def names(**values: str) -> Refusal | None:
    """Whether each value may name a thing."""
    for what, value in values.items():
        if not is_name(value):
            text = f"{value!r} can't be a {what}: use letters, digits and _ . : - (at most 128, no leading punctuation)"
            return Refusal(RefusalCode.INVALID_NAME, text, what)
    return None


def tenant(value: str) -> Refusal | None:
    """Whether the value may name a tenant of people; names that begin with _ are the system's."""
    if value.startswith("_"):
        message = f"{value!r} can't be a tenant: names that begin with _ are the system's"
        return Refusal(RefusalCode.INVALID_NAME, message, "tenant")
    return names(tenant=value)


def models(values: Iterable[str], most: int) -> Refusal | None:
    """Whether each value may name a model, and whether there are not too many."""
    listed = list(values)
    if len(listed) > most:
        return Refusal(RefusalCode.TOO_MANY, f"{len(listed)} models are more than the {most} allowed here")
    for value in listed:
        if not _MODEL.fullmatch(value):
            message = (
                f"{value[:40]!r} can't be a model's name: visible ASCII, at most {MODEL_CHARACTERS_MAX} characters"
            )
            return Refusal(RefusalCode.INVALID_NAME, message)
    return None


def text(what: str, value: str) -> Refusal | None:
    """Whether a free text is printable and short."""
    if len(value) <= TEXT_CHARACTERS_MAX and (not value or value.isprintable()):
        return None
    message = f"the {what} must be printable, at most {TEXT_CHARACTERS_MAX} characters"
    return Refusal(RefusalCode.INVALID_VALUE, message, what)


def not_held(holds: Mapping[str, LegalHold], tenant_id: str, subject_handle: str) -> Refusal | None:
    """Whether no legal hold stands against the erasure of a data subject."""
    hold = held_by(holds, tenant_id, subject_handle)
    if hold is None:
        return None
    message = f"subject {subject_handle} may not be erased: legal hold {hold.hold_id} ({hold.reason}) stands against it"
    return Refusal(RefusalCode.HELD, message)


def base_url(url: str, *, insecure: bool) -> Refusal | None:
    """Whether the URL is https (http only within a private network), without credentials or query."""
    if "@" in url:
        return Refusal(
            RefusalCode.INVALID_URL, "the base URL must not carry credentials: use --secret env:NAME or file:PATH"
        )
    match = _URL.fullmatch(url) if len(url) <= URL_CHARACTERS_MAX else None
    if match is None or int(match["port"] or 1) not in range(1, 65_536):
        return Refusal(RefusalCode.INVALID_URL, "give a base URL such as https://api.example.com/v1, without query")
    if match["scheme"] == "http" and not insecure and not is_private(match["host"]):
        message = (
            f"http:// to {match['host']} would send keys and prompts in the clear: use https, or --insecure to allow it"
        )
        return Refusal(RefusalCode.INVALID_URL, message)
    return None


def is_private(host: str) -> bool:
    """Whether a host is this machine or in a private network; a name without a dot is no public name."""
    host = host.strip("[]")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith(".localhost")
    return address.is_private or address.is_loopback


def secret_reference(reference: str | None) -> Refusal | None:
    """Whether it points at a secret; the message never repeats it, since it might be the secret itself."""
    if reference is None or _ENVIRONMENT.fullmatch(reference) or _FILE.fullmatch(reference):
        return None
    return Refusal(RefusalCode.INVALID_REFERENCE, "a secret is given by reference only: env:NAME or file:PATH")


def currency(code: str) -> Refusal | None:
    """Whether a price may be in this currency."""
    if code == CURRENCY:
        return None
    return Refusal(RefusalCode.INVALID_VALUE, f"{code!r}: prices are kept in {CURRENCY}; limits may count others")


def limit_amount(amount_nano: int) -> Refusal | None:
    """Whether a limit's amount can be compared exactly everywhere."""
    if 0 <= amount_nano <= LIMIT_UNITS_MAX * NANO_PER_UNIT:
        return None
    message = f"a limit is from 0 to {LIMIT_UNITS_MAX:,} units of currency per window"
    return Refusal(RefusalCode.INVALID_AMOUNT, message, "amount")


def _most_allowed(value: Limit) -> Refusal | None:
    """Whether it stays comparable while its increases are in force, those that overlap together."""
    most_nano = max((value.increased_nano(one.valid_from) for one in value.increases), default=value.amount_nano)
    if most_nano > LIMIT_UNITS_MAX * NANO_PER_UNIT:
        most = format_with_unit(most_nano, value.currency)
        message = f"with its increases it would allow {most} at once, and a limit is {LIMIT_UNITS_MAX:,} units at most"
        return Refusal(RefusalCode.INVALID_AMOUNT, message, "amount")
    acting = [one.percent for one in value.guards if one.action != "notify"]
    if not value.hard and most_nano * max(acting, default=0) > 100 * LIMIT_UNITS_MAX * NANO_PER_UNIT:
        message = f"a threshold that refuses calls lies at {LIMIT_UNITS_MAX:,} units at most"
        return Refusal(RefusalCode.INVALID_AMOUNT, message, "thresholds")
    return None


def first(faults: Iterable[tuple[str, str, bool]]) -> Refusal | None:
    """The first that is so, of field, message and whether it is."""
    found = ((message, field) for field, message, broken in faults if broken)
    return next((Refusal(RefusalCode.INVALID_VALUE, *fault) for fault in found), None)


def limit(value: Limit) -> Refusal | None:
    """Whether a limit's own values make sense; what it stands on is looked up elsewhere."""
    units, scopes, windows = (", ".join(each) for each in (LIMIT_UNITS, reversed(SCOPES), WINDOWS))
    return (
        first(
            (
                ("scope", f"a limit stands on one of {scopes}", value.scope not in SCOPES),
                (
                    "currency",
                    f"a limit counts one of {units}, not {value.currency!r}",
                    value.currency not in LIMIT_UNITS,
                ),
                ("window", f"the window is one of {windows}, not {value.window!r}", value.window not in WINDOWS),
                (
                    "valid_until",
                    "a limit ends after it begins",
                    (value.valid_until or 1 << 62) <= (value.valid_from or 0),
                ),
                ("", f"at most {INCREASES_PER_LIMIT_MAX} increases", len(value.increases) > INCREASES_PER_LIMIT_MAX),
                ("", f"at most {APPROVALS_PER_LIMIT_MAX} approvals", len(value.approvals) > APPROVALS_PER_LIMIT_MAX),
            )
        )
        or tenant(value.tenant_id)
        or limit_amount(value.amount_nano)
        or _most_allowed(value)
        or _place(value)
        or _zone(value.time_zone)
        or _thresholds(value.thresholds or ())
        or next((wrong for one in value.approvals if (wrong := _approval_code(one.approval_code))), None)
    )


def _thresholds(values: tuple[Threshold, ...]) -> Refusal | None:
    percents = [value.percent for value in values]
    faults = {
        f"at most {THRESHOLDS_PER_LIMIT_MAX} thresholds": len(values) > THRESHOLDS_PER_LIMIT_MAX,
        f"a threshold is from 1 to {THRESHOLD_PERCENT_MAX} per cent": any(
            not 1 <= percent <= THRESHOLD_PERCENT_MAX for percent in percents
        ),
        "thresholds rise, and none is named twice": percents != sorted(set(percents)),
        f"a threshold does one of {', '.join(THRESHOLD_ACTIONS)}": any(
            value.action not in THRESHOLD_ACTIONS for value in values
        ),
        "cheaper, and only it, names the models that it still admits": any(
            (value.action == "cheaper") != bool(value.models) for value in values
        ),
    }
    return first(("thresholds", message, broken) for message, broken in faults.items()) or next(
        (_in_field("thresholds", wrong) for value in values if (wrong := models(value.models, MODELS_PER_KEY_MAX))),
        None,
    )


def channel(value: Channel) -> Refusal | None:
    """Whether a channel's values make sense; what its references hold is read when it is used."""
    faults = {
        f"a channel is one of {', '.join(CHANNEL_KINDS)}": value.kind not in CHANNEL_KINDS,
        f"the least severity is one of {', '.join(SEVERITY_FLOORS)}": value.severity not in SEVERITY_FLOORS,
        "only a webhook is signed": value.secret_ref is not None and value.kind != "webhook",
    }
    fault = next((message for message, broken in faults.items() if broken), None)
    if fault:
        return Refusal(RefusalCode.INVALID_VALUE, fault)
    return (
        names(channel=value.channel_id, tenant=value.tenant_id)
        or secret_reference(value.target_ref)
        or secret_reference(value.secret_ref)
    )


def _in_field(field: str, refusal: Refusal | None) -> Refusal | None:
    """The refusal of a part, as that of the field it stands in."""
    return refusal and msgspec.structs.replace(refusal, field=field)


def _place(value: Limit) -> Refusal | None:
    """Whether what a limit stands on can be named so."""
    if value.scope == "tenant" and value.scope_id != value.tenant_id:
        return Refusal(RefusalCode.INVALID_VALUE, "a tenant's limit stands on the tenant itself", "scope_id")
    if value.name and (wrong := names(name=value.name)):
        return wrong
    return _in_field("scope_id", _thing(value))


def _thing(value: Limit) -> Refusal | None:
    key, equals, tagged = value.scope_id.partition("=")
    if value.scope == "tag" and not (equals and is_name(key) and (EACH in tagged or is_name(tagged))):
        return Refusal(RefusalCode.INVALID_NAME, "a tag is given as name=value, or name=* for each of its values")
    if value.is_each:
        return None
    wrong = whole(value.scope, value.scope_id)
    if wrong or value.scope == "tag":
        return wrong
    return models((value.scope_id,), 1) if value.scope == "model" else names(**{value.scope: value.scope_id})


def whole(what: str, value: str) -> Refusal | None:
    """Whether a limit's value is a whole name: unlike the lists of keys and thresholds, limits match no beginnings."""
    if EACH not in value:
        return None
    message = (
        f"{value[:40]!r} would match no call: a limit stands on a whole {what}, or on each apart "
        f"({'name=*' if what == 'tag' else '* alone'}); name one {what} in full, and set a limit for every one you mean"
    )
    return Refusal(RefusalCode.INVALID_NAME, message, what)


def tag_counts(value: Limit, tags_allowed: Collection[str]) -> Refusal | None:
    """Whether gateways with this allow-list see the tag that a limit stands on; other tags are sealed unread."""
    key, equals, _ = value.scope_id.partition("=")
    if value.scope != "tag" or not equals or key in tags_allowed:
        return None
    message = (
        f"no call would count: tags named {key!r} are sealed, and limits see those in the clear only "
        f"({', '.join(sorted(tags_allowed))}); add it to tags_allowed (QUAESTOR_TAGS_ALLOWED) of gateways and of this"
    )
    return Refusal(RefusalCode.INVALID_VALUE, message, "scope_id")


def _zone(name: str) -> Refusal | None:
    try:
        zone_of(name)
    except ConfigurationError as error:
        return Refusal(RefusalCode.INVALID_VALUE, str(error), "time_zone")
    return None


def increase(value: Increase) -> Refusal | None:
    """Whether a temporary increase is one."""
    wrong = _approval_code(value.approval_code)
    if wrong:
        return wrong
    if value.valid_until <= value.valid_from:
        return Refusal(RefusalCode.INVALID_VALUE, "an increase ends after it begins", "valid_until")
    if value.amount_nano <= 0:
        return Refusal(RefusalCode.INVALID_AMOUNT, "an increase is more than nothing", "amount")
    return limit_amount(value.amount_nano)


def _approval_code(value: str) -> Refusal | None:
    if value and not text("approval code", value):
        return None
    message = "say who allowed it: the approval code must be one printable line"
    return Refusal(RefusalCode.INVALID_VALUE, message, "approval_code")


def price(value: Price, provider_id: str) -> Refusal | None:
    """Whether a price may stand in the book of this provider."""
    place = f"price of {value.model[:60]!r}"
    wrong = models((value.model,), 1) or currency(value.currency) or text(f"source of the {place}", value.source)
    if wrong:
        return wrong
    rates = [rate for tier in (value.rates, *(tier.rates for tier in value.tiers)) for rate in tier.all()]
    bounds = [0, *(tier.above_input_tokens for tier in value.tiers)]
    tokens = [bound for bound in (value.max_output_tokens, value.context_tokens) if bound is not None]
    home = (provider_id, f"{provider_id}/{value.model}")
    faults = {
        "rates must be from 0 to 100 units of currency per token": min(rates) < 0 or max(rates) > RATE_PICO_MAX,
        "tiers must begin above 0 input tokens and rise": any(low >= high for low, high in pairwise(bounds)),
        "bounds of tokens must be positive": min(tokens, default=1) < 1,
        "it belongs to another provider": (value.provider_id, value.price_id) != home,
        "the date must be YYYY-MM-DD": not _DAY.fullmatch(value.dated),
    }
    fault = next((message for message, broken in faults.items() if broken), None)
    return Refusal(RefusalCode.INVALID_PRICE, f"{place}: {fault}") if fault else None


def price_book(book: PriceBook) -> Refusal | None:
    """Whether every price of the book may stand, and whether there are not too many."""
    if len(book.prices) > PRICES_PER_BOOK_MAX:
        return Refusal(
            RefusalCode.TOO_MANY, f"{len(book.prices)} prices are more than the {PRICES_PER_BOOK_MAX} of one provider"
        )
    return next((wrong for value in book.prices if (wrong := price(value, book.provider_id))), None)
