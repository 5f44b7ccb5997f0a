"""What the control plane knows, one frozen type per entity kind; their JSON stands in ControlEvent.before and .after.

No secret is ever a field: keys by their SHA-256, provider credentials by reference.
"""

from __future__ import annotations

import hashlib
from typing import Literal, get_args

import msgspec

from schemas.limits import LIMIT_UNITS_MAX
from schemas.money import NANO_PER_UNIT

LIMIT_ID_HEX_DIGITS = 16
PROVIDER_TIMEOUT_SECONDS = 120.0

Scope = Literal["run", "key", "user", "tag", "model", "provider", "project", "team", "tenant"]
#: The narrowest first: the order in which a hold looks for room.
SCOPES: tuple[Scope, ...] = get_args(Scope)
Window = Literal["total", "minute", "hour", "day", "week", "month"]
ThresholdAction = Literal["notify", "cheaper", "approval", "block"]
THRESHOLD_ACTIONS: tuple[ThresholdAction, ...] = get_args(ThresholdAction)
ChannelKind = Literal["slack", "webhook", "email"]
CHANNEL_KINDS: tuple[ChannelKind, ...] = get_args(ChannelKind)
SeverityFloor = Literal["info", "warning", "critical"]
SEVERITY_FLOORS: tuple[SeverityFloor, ...] = get_args(SeverityFloor)
#: A limit on each of a kind apart.
EACH = "*"


def each_of(scope: str, scope_id: str) -> str:
    """What a limit on each of a kind stands on, of the kind that this thing is of: `*`, or name=* of a tag."""
    return f"{scope_id.partition('=')[0]}={EACH}" if scope == "tag" else EACH


def is_each(scope: str, scope_id: str) -> bool:
    """Whether a limit there stands on each of a kind apart. A name that merely ends in `*` is a name."""
    return scope_id == each_of(scope, scope_id)


def is_listed(name: str, entries: tuple[str, ...]) -> bool:
    """Whether a name is in a list; an entry ending in * stands for all that begin so."""
    if name in entries:
        return True
    return any(entry.endswith("*") and name.startswith(entry[:-1]) for entry in entries)


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
        return not self.allowed_models or is_listed(model, self.allowed_models)


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


class Increase(msgspec.Struct, frozen=True, kw_only=True):
    """More than a limit's amount, for a while."""

    #: Nano-units of the limit's currency.
    amount_nano: int
    #: Microseconds since the epoch, from and up to but without.
    valid_from: int
    valid_until: int
    #: Who allowed it, as the approver's own system names it.
    approval_code: str


class Threshold(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A part of a limit from which somebody is told, and the gateway may do more than that."""

    #: Of what the limit allows, whole per cent.
    percent: int
    #: notify; or what calls that would go past it are held to: cheaper (only `models`), approval (only with a code),
    #: block (none).
    action: ThresholdAction = "notify"
    #: What cheaper still admits: models or provider/model; one ending in * stands for all that begin so.
    models: tuple[str, ...] = ()

    def admits(self, *names: str) -> bool:
        """Whether cheaper still admits a model that goes by these names."""
        return any(is_listed(name, self.models) for name in names)


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """A code with which calls may go past a limit's approval threshold."""

    #: SHA-256 of the code's text, hex.
    code_hash: str
    #: Microseconds since the epoch, up to but without.
    valid_until: int
    #: Who allowed it, as the approver's own system names it.
    approval_code: str


class Limit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The most that may be used in a window, by one thing or by each of a kind."""

    #: Fixed by what it stands on and what it counts (`limit_id_of`), so that setting it again changes it.
    limit_id: str
    #: Whose budget.
    tenant_id: str
    #: What it stands on.
    scope: Scope
    #: The one it stands on: an id, a user's handle, name=value of a tag; `*` (or name=*) for each apart.
    scope_id: str
    #: Most per window, nano-units of currency.
    amount_nano: int
    #: What it counts: an ISO 4217 code, TOK or REQ.
    currency: str
    #: How long it counts before it starts anew; total never does.
    window: Window
    #: Whether it refuses calls, or only watches.
    hard: bool = True
    #: IANA name: where its days begin.
    time_zone: str = "UTC"
    #: Microseconds since the epoch; None: always.
    valid_from: int | None = None
    #: Up to but without; None: for ever.
    valid_until: int | None = None
    #: Temporary increases, those that ended included until the limit changes again.
    increases: tuple[Increase, ...] = ()
    #: Tells several limits of one place and window apart.
    name: str = ""
    #: From where on somebody is told, the lowest first. None: as is usual for its window.
    thresholds: tuple[Threshold, ...] | None = None
    #: Codes for its approval thresholds, those that ended included until the limit changes again.
    approvals: tuple[Approval, ...] = ()

    def approves(self, code_hash: str, now_micros: int) -> bool:
        """Whether this is the hash of a code with which calls may go past its approval thresholds now."""
        return any(one.code_hash == code_hash and now_micros < one.valid_until for one in self.approvals)

    @property
    def is_each(self) -> bool:
        """Whether it stands on each of a kind apart, and has a counter for each."""
        return is_each(self.scope, self.scope_id)

    @property
    def guards(self) -> tuple[Threshold, ...]:
        """Its thresholds, or those that its window has when nobody said otherwise."""
        return usual_thresholds(self.window) if self.thresholds is None else self.thresholds

    def in_force(self, now_micros: int) -> bool:
        """Whether it counts at this moment."""
        return (self.valid_from or 0) <= now_micros and (self.valid_until is None or now_micros < self.valid_until)

    def allowed_nano(self, now_micros: int) -> int:
        """Its amount with the increases in force, nano-units; never more than a limit may be, whatever was recorded."""
        if not self.increases:
            return self.amount_nano
        return min(self.increased_nano(now_micros), LIMIT_UNITS_MAX * NANO_PER_UNIT)

    def increased_nano(self, now_micros: int) -> int:
        """The sum of its amount and of the increases in force."""
        more = sum(one.amount_nano for one in self.increases if one.valid_from <= now_micros < one.valid_until)
        return self.amount_nano + more


_USUAL_THRESHOLDS: dict[str, tuple[Threshold, ...]] = {
    "day": (Threshold(percent=80),),
    "month": (Threshold(percent=85), Threshold(percent=95)),
}


def usual_thresholds(window: str) -> tuple[Threshold, ...]:
    """What a limit of this window has when nobody says otherwise."""
    return _USUAL_THRESHOLDS.get(window, ())


class Channel(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a tenant's alerts go. Addresses and secrets are references: both may be somebody's, and the log is kept."""

    #: Its name, unique within the tenant.
    channel_id: str
    #: Whose alerts; '_system' for what concerns the operator.
    tenant_id: str
    #: What listens there.
    kind: ChannelKind
    #: env:NAME or file:PATH of the webhook's URL, or of smtp[s]://user:password@host:port?from=…&to=….
    target_ref: str
    #: env:NAME or file:PATH of the key that signs a webhook's body. None: it is not signed.
    secret_ref: str | None = None
    #: Alerts below it are not sent.
    severity: SeverityFloor = "info"
    #: Microseconds since the epoch; older alerts are not sent.
    created_at: int = 0


class ExchangeRate(msgspec.Struct, frozen=True, kw_only=True):
    """What one unit of a currency is in another, as somebody published it."""

    #: ISO 4217 codes.
    base: str
    quote: str
    #: Units of quote for one of base, in 1e-9.
    rate_nano: int
    #: Day it was published for, YYYY-MM-DD.
    dated: str
    #: Who published it.
    source: str
    #: event_id of the control event that set it; filled in by the fold.
    rate_id: str = ""


class AuditKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key that signs the audit log's checkpoints. Only its public half is ever here."""

    #: The id in its signatures, eight hex digits.
    key_id: str
    #: The log's origin.
    origin: str
    #: The key as text, name+hash+base64.
    vkey: str
    #: The note in which the key before it hands over to it; empty for the first.
    hand_over: str = ""
    #: Microseconds since the epoch. None: it signs, or did until that was recorded.
    removed_at: int | None = None


class Erasure(msgspec.Struct, frozen=True, kw_only=True):
    """A data subject whose key was destroyed. Nothing of it says who that was."""

    #: The random handle that stands in events, which nothing links to a person any more.
    handle: str
    #: Whose end user it was.
    tenant_id: str
    #: Version of the key-encryption key that wrapped the destroyed data key; there is one data key per handle.
    key_version: str
    #: Events with something sealed under it that were known when it was destroyed. None: not counted in time.
    sealed_events: int | None
    #: Microseconds since the epoch.
    erased_at: int = 0
    #: event_id of the control event that says it; filled in by the fold.
    event_id: str = ""


def limit_id_of(
    tenant_id: str,
    scope: str,
    scope_id: str,
    window: str,
    currency: str = "USD",
    name: str = "",
    *,
    hard: bool = True,
) -> str:
    """The id of the one limit of this place, window, currency, hardness and name."""
    parts = [tenant_id, scope, scope_id, window]
    if (currency, name, hard) != ("USD", "", True):
        parts += [currency, name, "hard" if hard else "soft"]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return f"lim_{digest[:LIMIT_ID_HEX_DIGITS]}"
