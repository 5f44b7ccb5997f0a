"""ControlState, the fold of quaestor.control from its first record, and its look-ups."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import msgspec

from processors.control.entities import (
    AuditKey,
    Channel,
    Erasure,
    ExchangeRate,
    Limit,
    Provider,
    Route,
    VirtualKey,
)
from processors.control.kept import LegalHold, Retention
from processors.pricing.prices import Price, PriceBook
from schemas.events import ControlAction, ControlEvent, EntityKind
from schemas.topics import SYSTEM_TENANT

LimitKey = tuple[str, str, str]


class ControlState(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the control topic says; immutable, every look-up is one or two dictionary reads."""

    #: By key id, revoked ones included.
    keys: Mapping[str, VirtualKey] = {}
    #: By provider id.
    providers: Mapping[str, Provider] = {}
    #: By (tenant, alias).
    routes: Mapping[tuple[str, str], Route] = {}
    #: event_id of each route's last change: its policy version.
    route_versions: Mapping[tuple[str, str], str] = {}
    #: By limit id.
    limits: Mapping[str, Limit] = {}
    #: Price book of each provider.
    books: Mapping[str, PriceBook] = {}
    #: Tenants that have or had keys or limits.
    tenants: frozenset[str] = frozenset()
    #: Events that could not be read and changed nothing; the reader logs when this grows.
    unreadable: int = 0
    #: Keys by hash (index).
    keys_by_hash: Mapping[str, VirtualKey] = {}
    #: Limits by (tenant, scope, scope id) (index).
    limits_by_scope: Mapping[LimitKey, tuple[Limit, ...]] = {}
    #: Scopes of each tenant that have or had a limit: the others need no look-up (index).
    scopes_limited: Mapping[str, frozenset[str]] = {}
    #: Where alerts go, by (tenant, channel id).
    channels: Mapping[tuple[str, str], Channel] = {}
    #: Exchange rates by (base, quote).
    rates: Mapping[tuple[str, str], ExchangeRate] = {}
    #: Every rate that was put in force, by (base, quote), the latest last; removed ones too.
    past_rates: Mapping[tuple[str, str], tuple[ExchangeRate, ...]] = {}
    #: How long each class stays, and what is gone of it, by class.
    retention: Mapping[str, Retention] = {}
    #: Legal holds in force, by hold id.
    holds: Mapping[str, LegalHold] = {}
    #: Keys of audit logs by (origin, key id), removed ones included; the first key of a log only when it is removed.
    audit_keys: Mapping[tuple[str, str], AuditKey] = {}
    #: Data subjects that were erased, by handle: what the vault must not have any more.
    erasures: Mapping[str, Erasure] = {}
    #: Prices by (provider, the provider's model name) (index).
    prices: Mapping[tuple[str, str], Price] = {}

    def key_by_hash(self, key_hash: str) -> VirtualKey | None:
        """The key whose text has this SHA-256 (hex); it may be revoked. None when nobody has it."""
        return self.keys_by_hash.get(key_hash)

    def provider(self, provider_id: str) -> Provider | None:
        """A provider, None when it was never added or is removed."""
        return self.providers.get(provider_id)

    def route(self, tenant_id: str, alias: str) -> Route | None:
        """The tenant's route of this alias, else everybody's, else None."""
        return self.routes.get((tenant_id, alias)) or self.routes.get((SYSTEM_TENANT, alias))

    def price(self, provider_id: str, model: str) -> Price | None:
        """The price of a provider's model, by the provider's own name of it."""
        return self.prices.get((provider_id, model))

    def price_version(self, provider_id: str) -> str | None:
        """The version of a provider's price book in force."""
        book = self.books.get(provider_id)
        return book.version if book else None


def evolve(state: ControlState, event: ControlEvent) -> ControlState:
    """The state after one more event; unknown kinds change nothing, an unreadable one is only counted."""
    return evolve_all(state, (event,))


def evolve_all(state: ControlState, events: Iterable[ControlEvent]) -> ControlState:
    """The state after these events, in order; copies each dictionary once, so fold many at a time when starting."""
    draft = _Draft(state)
    for event in events:
        draft.apply(event)
    return draft.finished()


class _Draft:
    """A state under change: a dictionary is copied at its first change, then changed in place."""

    def __init__(self, state: ControlState) -> None:
        self._state = state
        self._changed: dict[str, Any] = {}

    def finished(self) -> ControlState:
        if not self._changed:
            return self._state
        return msgspec.structs.replace(self._state, **self._changed)

    def apply(self, event: ControlEvent) -> None:
        change = _CHANGES.get(event.entity_kind)
        if change is None or event.action is ControlAction.UNKNOWN:
            return
        entity_type, apply = change
        try:
            entity = None if event.after is None else msgspec.json.decode(event.after, type=entity_type)
        except msgspec.MsgspecError:
            self._changed["unreadable"] = self.read("unreadable") + 1
            return
        apply(self, event, entity)

    def read(self, name: str) -> Any:
        return self._changed.get(name, getattr(self._state, name))

    def table(self, name: str) -> dict[Any, Any]:
        if name not in self._changed:
            self._changed[name] = dict(getattr(self._state, name))
        return cast("dict[Any, Any]", self._changed[name])

    def put(self, name: str, key: Any, value: Any) -> None:
        """Set an entry, or drop it when the value is None or empty."""
        if value is None or value == ():
            self.table(name).pop(key, None)
        else:
            self.table(name)[key] = value

    def tenant(self, tenant_id: str) -> None:
        tenants = self.read("tenants")
        if tenant_id not in tenants:
            self._changed["tenants"] = tenants | {tenant_id}


def _key(draft: _Draft, event: ControlEvent, key: VirtualKey | None) -> None:
    before = draft.read("keys").get(event.entity_id)
    if before is not None:
        draft.put("keys_by_hash", before.key_hash, None)
    draft.put("keys", event.entity_id, key)
    if key is not None:
        draft.put("keys_by_hash", key.key_hash, key)
        draft.tenant(key.tenant_id)


def _provider(draft: _Draft, event: ControlEvent, provider: Provider | None) -> None:
    draft.put("providers", event.entity_id, provider)


def _route(draft: _Draft, event: ControlEvent, route: Route | None) -> None:
    place = (event.tenant_id, event.entity_id)
    draft.put("routes", place, route)
    draft.put("route_versions", place, event.event_id if route else None)


def _limit(draft: _Draft, event: ControlEvent, limit: Limit | None) -> None:
    before: Limit | None = draft.read("limits").get(event.entity_id)
    draft.put("limits", event.entity_id, limit)
    for changed in (before, limit):
        if changed is not None:
            scope = (changed.tenant_id, changed.scope, changed.scope_id)
            others = draft.read("limits_by_scope").get(scope, ())
            kept = tuple(other for other in others if other.limit_id != changed.limit_id)
            draft.put("limits_by_scope", scope, (*kept, limit) if changed is limit else kept)
            draft.tenant(changed.tenant_id)
            _scoped(draft, changed)


def _scoped(draft: _Draft, limit: Limit) -> None:
    scopes = draft.read("scopes_limited").get(limit.tenant_id, frozenset())
    if limit.scope not in scopes:
        draft.put("scopes_limited", limit.tenant_id, scopes | {limit.scope})


def _rate(draft: _Draft, event: ControlEvent, rate: ExchangeRate | None) -> None:
    base, _, quote = event.entity_id.partition("-")
    known = rate and msgspec.structs.replace(rate, rate_id=event.event_id)
    draft.put("rates", (base, quote), known)
    if known is not None:
        draft.put("past_rates", (base, quote), (*draft.read("past_rates").get((base, quote), ()), known))


def _channel(draft: _Draft, event: ControlEvent, channel: Channel | None) -> None:
    draft.put("channels", (event.tenant_id, event.entity_id), channel)


def _retention(draft: _Draft, event: ControlEvent, retention: Retention | None) -> None:
    """A policy leaves the cut as it is, and a cut the policy; a cut never goes back."""
    before = draft.read("retention").get(event.entity_id)
    if retention is None or before is None:
        draft.put("retention", event.entity_id, retention)
    elif event.action is not ControlAction.PRUNED:
        draft.put("retention", event.entity_id, msgspec.structs.replace(retention, cut=before.cut))
    elif retention.kept_from > before.kept_from:
        draft.put("retention", event.entity_id, msgspec.structs.replace(before, cut=retention.cut))


def _hold(draft: _Draft, event: ControlEvent, hold: LegalHold | None) -> None:
    draft.put("holds", event.entity_id, hold)


def _audit_key(draft: _Draft, event: ControlEvent, key: AuditKey | None) -> None:
    if key is not None:
        draft.put("audit_keys", (key.origin, event.entity_id), key)


def _erasure(draft: _Draft, event: ControlEvent, erasure: Erasure | None) -> None:
    """For good: whatever else is said of a handle, its key stays destroyed."""
    is_new = event.entity_id not in draft.read("erasures")
    if erasure is not None and is_new and event.action is ControlAction.ERASED:
        draft.put("erasures", event.entity_id, msgspec.structs.replace(erasure, event_id=event.event_id))


def _book(draft: _Draft, event: ControlEvent, book: PriceBook | None) -> None:
    provider_id = event.entity_id
    before: PriceBook | None = draft.read("books").get(provider_id)
    for price in before.prices if before else ():
        draft.put("prices", (provider_id, price.model), None)
    draft.put("books", provider_id, book)
    for price in book.prices if book else ():
        draft.put("prices", (provider_id, price.model), price)


_CHANGES: Mapping[EntityKind, tuple[type, Callable[[_Draft, ControlEvent, Any], None]]] = {
    EntityKind.KEY: (VirtualKey, _key),
    EntityKind.PROVIDER: (Provider, _provider),
    EntityKind.ROUTE: (Route, _route),
    EntityKind.LIMIT: (Limit, _limit),
    EntityKind.PRICE_BOOK: (PriceBook, _book),
    EntityKind.EXCHANGE_RATE: (ExchangeRate, _rate),
    EntityKind.CHANNEL: (Channel, _channel),
    EntityKind.RETENTION: (Retention, _retention),
    EntityKind.LEGAL_HOLD: (LegalHold, _hold),
    EntityKind.AUDIT_KEY: (AuditKey, _audit_key),
    EntityKind.SUBJECT: (Erasure, _erasure),
}
