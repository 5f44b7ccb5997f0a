"""Changes of the control plane: the event to publish, or a refusal that says why. Nothing here reads a clock."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from processors.control.entities import Limit, Provider, Route, VirtualKey
from processors.control.state import ControlState
from processors.pricing.prices import PriceBook
from schemas.events import ControlEvent


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
    UNCHANGED = "UNCHANGED"


class Refusal(msgspec.Struct, frozen=True):
    """A change that is not made."""

    #: Why.
    code: RefusalCode
    #: One line for people: what is wrong and what to do.
    message: str


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where a change comes from; the caller's clock and randomness come in here."""

    #: uuid7 of the event.
    event_id: str
    #: Microseconds since the epoch.
    now_micros: int
    #: cli/<uid>, console or supervisor.
    actor: str
    #: Why, in the actor's words.
    reason: str | None = None


def create_key(state: ControlState, key: VirtualKey, origin: Origin) -> ControlEvent | Refusal:
    """A new virtual key; created_at is set from the origin."""
    raise NotImplementedError


def revoke_key(state: ControlState, key_id: str, origin: Origin) -> ControlEvent | Refusal:
    """End a key; it stays known as revoked."""
    raise NotImplementedError


def add_provider(
    state: ControlState, provider: Provider, origin: Origin, *, insecure: bool = False
) -> ControlEvent | Refusal:
    """Add or change a provider. Plain http to a public address needs `insecure`."""
    raise NotImplementedError


def remove_provider(state: ControlState, provider_id: str, origin: Origin) -> ControlEvent | Refusal:
    """Remove a provider; routes that name it pass it over."""
    raise NotImplementedError


def set_route(state: ControlState, route: Route, origin: Origin) -> ControlEvent | Refusal:
    """Set where an alias goes."""
    raise NotImplementedError


def remove_route(state: ControlState, tenant_id: str, alias: str, origin: Origin) -> ControlEvent | Refusal:
    """Remove an alias."""
    raise NotImplementedError


def set_limit(state: ControlState, limit: Limit, origin: Origin) -> ControlEvent | Refusal:
    """Set or change a limit."""
    raise NotImplementedError


def remove_limit(state: ControlState, limit_id: str, origin: Origin) -> ControlEvent | Refusal:
    """Remove a limit."""
    raise NotImplementedError


def publish_prices(state: ControlState, book: PriceBook, origin: Origin) -> ControlEvent | Refusal:
    """Put a provider's price book in force."""
    raise NotImplementedError
