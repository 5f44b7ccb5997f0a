"""What the control plane knows, one frozen type per entity kind; their JSON stands in ControlEvent.before and .after.

No secret is ever a field: keys by their SHA-256, provider credentials by reference.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

LIMIT_ID_HEX_DIGITS = 16
PROVIDER_TIMEOUT_SECONDS = 120.0

Scope = Literal["tenant", "key"]
Window = Literal["total", "day", "month"]


class VirtualKey(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A key that callers of the gateway use."""

    #: key_ and twelve hex digits.
    key_id: str
    #: The organisation that pays.
    tenant_id: str
    #: The team within it.
    team_id: str
    #: The project within it.
    project_id: str
    #: SHA-256 of the key's text, hex.
    key_hash: str
    #: Models or aliases it may ask for; one ending in * stands for all that begin so. Empty: all.
    allowed_models: tuple[str, ...] = ()
    #: What people call it.
    name: str = ""
    #: Microseconds since the epoch.
    created_at: int = 0
    #: Microseconds since the epoch. None: in force.
    revoked_at: int | None = None

    @property
    def revoked(self) -> bool:
        """Whether it is no longer accepted."""
        return self.revoked_at is not None

    def allows(self, model: str) -> bool:
        """Whether the key may ask for a model or alias by this name."""
        if not self.allowed_models or model in self.allowed_models:
            return True
        return any(entry.endswith("*") and model.startswith(entry[:-1]) for entry in self.allowed_models)


class Provider(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An OpenAI-compatible server."""

    #: Its name.
    provider_id: str
    #: Base URL up to and without /chat/completions, no trailing slash.
    base_url: str
    #: env:NAME or file:PATH where the gateway finds the bearer token. None: it needs none.
    secret_ref: str | None = None
    #: Region; '-' where it has none.
    region: str = "-"
    #: Names that callers use, to the provider's own. Empty: names pass through unchanged.
    models: dict[str, str] = {}
    #: Longest call, seconds; the gateway's own limit stands above it.
    timeout_seconds: float = PROVIDER_TIMEOUT_SECONDS

    def resolve(self, model: str) -> str | None:
        """The provider's name of a model that callers name so; None when it serves no such model."""
        return self.models.get(model) if self.models else model


class RouteCandidate(msgspec.Struct, frozen=True):
    """One place a route may send a call to."""

    #: The provider.
    provider_id: str
    #: The model as callers would name it there (Provider.resolve gives the provider's own name).
    model: str


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """An alias and where calls to it go, in the order they are tried."""

    #: The name callers use as the model.
    alias: str
    #: Whose alias; '_system' is everybody's, behind a tenant's own.
    tenant_id: str
    #: Tried in this order.
    candidates: tuple[RouteCandidate, ...]


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """The most that a tenant or a key may spend in a window."""

    #: Fixed by tenant, scope and window (`limit_id_of`), so that setting it again changes it.
    limit_id: str
    #: Whose budget.
    tenant_id: str
    #: What it stands on.
    scope: Scope
    #: The tenant or the key.
    scope_id: str
    #: Most per window, nano-units of currency.
    amount_nano: int
    #: ISO 4217 code.
    currency: str
    #: In UTC; total never starts anew.
    window: Window
    #: Whether it refuses calls.
    hard: bool = True


def limit_id_of(tenant_id: str, scope: str, scope_id: str, window: str) -> str:
    """The id of the one limit there can be for this tenant, scope and window."""
    digest = hashlib.sha256(f"{tenant_id}\n{scope}\n{scope_id}\n{window}".encode()).hexdigest()
    return f"lim_{digest[:LIMIT_ID_HEX_DIGITS]}"
