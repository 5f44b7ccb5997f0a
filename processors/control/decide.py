"""Changes of the control plane: the event to publish, or a refusal that says why. Nothing here reads a clock."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Literal, TypeVar

import msgspec

from processors.calendar import ZONELESS_WINDOWS, day_begun_somewhere
from processors.control import check
from processors.control.check import Refusal, RefusalCode
from processors.control.check_rates import exchange_rate
from processors.control.entities import (
    EACH,
    Approval,
    AuditKey,
    Channel,
    Erasure,
    ExchangeRate,
    Increase,
    Limit,
    Provider,
    Route,
    VirtualKey,
)
from processors.control.paths import too_long
from processors.control.state import ControlState
from processors.pricing.prices import PriceBook
from schemas.events import ControlAction, ControlEvent, EntityKind
from schemas.limits import RECORD_BYTES_MAX
from schemas.topics import SYSTEM_TENANT

#: What a record has besides before and after: flat fields, frame and headers.
RECORD_OVERHEAD_BYTES = 4_096
#: What of a limit stays as it was when nobody says otherwise.
LimitField = Literal["time_zone", "valid_from", "valid_until"]


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


class _Place(msgspec.Struct, frozen=True):
    """Which entity changes."""

    kind: EntityKind
    tenant_id: str
    entity_id: str


def create_key(state: ControlState, key: VirtualKey, origin: Origin) -> ControlEvent | Refusal:
    """A new virtual key; created_at is set from the origin."""
    wrong = (
        check.tenant(key.tenant_id)
        or check.names(key=key.key_id, team=key.team_id, project=key.project_id)
        or check.models(key.allowed_models, check.MODELS_PER_KEY_MAX)
        or check.text("name", key.name)
    )
    if wrong:
        return wrong
    if key.key_id in state.keys or key.key_hash in state.keys_by_hash:
        return Refusal(RefusalCode.TAKEN, f"key {key.key_id} exists already")
    created = msgspec.structs.replace(key, created_at=origin.now_micros, revoked_at=None)
    return _changed(_Place(EntityKind.KEY, key.tenant_id, key.key_id), None, created, origin)


def revoke_key(state: ControlState, key_id: str, origin: Origin) -> ControlEvent | Refusal:
    """End a key; it stays known as revoked, so that a call with it is refused by name."""
    key = state.keys.get(key_id)
    if key is None:
        return Refusal(RefusalCode.UNKNOWN_KEY, f"there is no key {key_id!r}; `quaestor key list` shows them")
    if key.revoked:
        return Refusal(RefusalCode.UNCHANGED, f"key {key_id} is revoked already")
    place = _Place(EntityKind.KEY, key.tenant_id, key_id)
    revoked = msgspec.structs.replace(key, revoked_at=origin.now_micros)
    return _changed(place, key, revoked, origin, action=ControlAction.REMOVED)


def add_provider(
    state: ControlState, provider: Provider, origin: Origin, *, insecure: bool = False, replace: bool = False
) -> ControlEvent | Refusal:
    """Add a provider, or change it with `replace`. Plain http to a public address needs `insecure`."""
    wrong = (
        check.names(provider=provider.provider_id)
        or check.base_url(provider.base_url, insecure=insecure)
        or check.secret_reference(provider.secret_ref)
        or check.text("region", provider.region)
        or check.models((*provider.models, *provider.models.values()), 2 * check.MODELS_PER_PROVIDER_MAX)
    )
    if wrong:
        return wrong
    if not 0 < provider.timeout_seconds <= check.TIMEOUT_SECONDS_MAX:
        return Refusal(
            RefusalCode.INVALID_VALUE, f"the timeout is above 0, at most {check.TIMEOUT_SECONDS_MAX} seconds"
        )
    before = state.provider(provider.provider_id)
    provider = msgspec.structs.replace(provider, base_url=provider.base_url.rstrip("/"))
    if before is not None and before != provider and not replace:
        return Refusal(RefusalCode.TAKEN, f"provider {provider.provider_id!r} exists already; --replace changes it")
    return _changed(_Place(EntityKind.PROVIDER, SYSTEM_TENANT, provider.provider_id), before, provider, origin)


def remove_provider(state: ControlState, provider_id: str, origin: Origin) -> ControlEvent | Refusal:
    """Remove a provider; routes that name it pass it over."""
    before = state.provider(provider_id)
    if before is None:
        return _unknown_provider(provider_id)
    return _changed(_Place(EntityKind.PROVIDER, SYSTEM_TENANT, provider_id), before, None, origin)


def set_route(state: ControlState, route: Route, origin: Origin) -> ControlEvent | Refusal:
    """Set where an alias goes."""
    wrong = check.names(alias=route.alias, tenant=route.tenant_id) or _wrong_candidates(state, route)
    if wrong:
        return wrong
    before = state.routes.get((route.tenant_id, route.alias))
    return _changed(_Place(EntityKind.ROUTE, route.tenant_id, route.alias), before, route, origin)


def _wrong_candidates(state: ControlState, route: Route) -> Refusal | None:
    if not 0 < len(route.candidates) <= check.CANDIDATES_PER_ROUTE_MAX:
        return Refusal(RefusalCode.TOO_MANY, f"a route has 1 to {check.CANDIDATES_PER_ROUTE_MAX} candidates")
    if len(set(route.candidates)) < len(route.candidates):
        return Refusal(RefusalCode.INVALID_VALUE, "a candidate is named twice")
    for candidate in route.candidates:
        provider = state.provider(candidate.provider_id)
        if provider is None:
            return _unknown_provider(candidate.provider_id)
        if provider.resolve(candidate.model) is None:
            message = f"provider {candidate.provider_id!r} does not serve {candidate.model!r}"
            return Refusal(RefusalCode.INVALID_VALUE, message)
    return check.models((candidate.model for candidate in route.candidates), check.CANDIDATES_PER_ROUTE_MAX)


def remove_route(state: ControlState, tenant_id: str, alias: str, origin: Origin) -> ControlEvent | Refusal:
    """Remove an alias."""
    before = state.routes.get((tenant_id, alias))
    if before is None:
        return Refusal(RefusalCode.UNKNOWN_ROUTE, f"there is no route {alias!r}; `quaestor route list` shows them")
    return _changed(_Place(EntityKind.ROUTE, tenant_id, alias), before, None, origin)


def set_limit(
    state: ControlState, limit: Limit, origin: Origin, unsaid: Collection[LimitField] = ()
) -> ControlEvent | Refusal:
    """Set or change a limit; increases and approvals that are not over stay, and thresholds when none are given.

    What is `unsaid` stays as it was too: only the limit that is new has the value given here.
    """
    before = state.limits.get(limit.limit_id)
    if before is not None:
        limit = msgspec.structs.replace(
            limit,
            increases=limit.increases or _lasting(before.increases, origin),
            approvals=limit.approvals or _lasting(before.approvals, origin),
            thresholds=before.thresholds if limit.thresholds is None else limit.thresholds,
            **{name: getattr(before, name) for name in unsaid},
        )
    wrong = (
        check.limit(limit)
        or _unknown_place(state, limit)
        or _crowded(state, limit, before)
        or _moved_zone(limit, before)
        or too_long(state, limit, origin.now_micros)
    )
    return wrong or _changed(_Place(EntityKind.LIMIT, limit.tenant_id, limit.limit_id), before, limit, origin)


def _moved_zone(limit: Limit, before: Limit | None) -> Refusal | None:
    """Windows of another zone have counters of their own: what was spent in the present one would count no more."""
    if before is None or before.time_zone == limit.time_zone or limit.window in ZONELESS_WINDOWS:
        return None
    message = (
        f"limit {limit.limit_id} counts each {limit.window} of {before.time_zone}; in another zone it would begin at "
        "nothing and what is spent could be spent again: leave the time zone out, or set a limit of another --name and "
        "remove this one"
    )
    return Refusal(RefusalCode.INVALID_VALUE, message, "time_zone")


def _unknown_place(state: ControlState, limit: Limit) -> Refusal | None:
    """A key must be there; teams, projects, users, tags and runs are whatever callers say they are."""
    if limit.scope != "key" or limit.scope_id == EACH:
        return None
    key = state.keys.get(limit.scope_id)
    if key is not None and key.tenant_id == limit.tenant_id:
        return None
    message = f"tenant {limit.tenant_id!r} has no key {limit.scope_id!r}; `quaestor key list` shows them"
    return Refusal(RefusalCode.UNKNOWN_KEY, message, "scope_id")


def _crowded(state: ControlState, limit: Limit, before: Limit | None) -> Refusal | None:
    others = state.limits_by_scope.get((limit.tenant_id, limit.scope, limit.scope_id), ())
    if before is not None or len(others) < check.LIMITS_PER_PLACE_MAX:
        return None
    message = f"{limit.scope} {limit.scope_id} has {len(others)} limits already, the most there may be"
    return Refusal(RefusalCode.TOO_MANY, message)


def increase_limit(state: ControlState, limit_id: str, increase: Increase, origin: Origin) -> ControlEvent | Refusal:
    """Allow more than a limit's amount for a while."""
    before = state.limits.get(limit_id)
    if before is None:
        return _unknown_limit(limit_id)
    after = msgspec.structs.replace(before, increases=(*_lasting(before.increases, origin), increase))
    wrong = check.increase(increase) or check.limit(after)
    return wrong or _changed(_Place(EntityKind.LIMIT, before.tenant_id, limit_id), before, after, origin)


def approve_limit(state: ControlState, limit_id: str, approval: Approval, origin: Origin) -> ControlEvent | Refusal:
    """Let calls with a code past a limit's approval threshold for a while."""
    before = state.limits.get(limit_id)
    if before is None:
        return _unknown_limit(limit_id)
    if all(threshold.action != "approval" for threshold in before.guards):
        message = f"limit {limit_id} has no approval threshold: `quaestor budget set … --threshold 95:approval`"
        return Refusal(RefusalCode.INVALID_VALUE, message)
    if approval.valid_until <= origin.now_micros:
        return Refusal(RefusalCode.INVALID_VALUE, "an approval ends in the future", "valid_until")
    after = msgspec.structs.replace(before, approvals=(*_lasting(before.approvals, origin), approval))
    wrong = check.limit(after)
    return wrong or _changed(_Place(EntityKind.LIMIT, before.tenant_id, limit_id), before, after, origin)


Dated = TypeVar("Dated", Increase, Approval)


def _lasting(dated: Iterable[Dated], origin: Origin) -> tuple[Dated, ...]:
    """Those that are not over."""
    return tuple(one for one in dated if one.valid_until > origin.now_micros)


def remove_limit(state: ControlState, limit_id: str, origin: Origin) -> ControlEvent | Refusal:
    """Remove a limit; what was spent under it stays in the ledger and counts again if it is set anew in its zone."""
    before = state.limits.get(limit_id)
    if before is None:
        return _unknown_limit(limit_id)
    return _changed(_Place(EntityKind.LIMIT, before.tenant_id, limit_id), before, None, origin)


def add_channel(
    state: ControlState, channel: Channel, origin: Origin, *, replace: bool = False
) -> ControlEvent | Refusal:
    """Add a channel, or change it with `replace`; created_at is set from the origin where it is new."""
    place = (channel.tenant_id, channel.channel_id)
    before = state.channels.get(place)
    created_at = origin.now_micros if before is None else before.created_at
    channel = msgspec.structs.replace(channel, created_at=created_at)
    wrong = check.channel(channel)
    if wrong:
        return wrong
    if before is not None and before != channel and not replace:
        return Refusal(RefusalCode.TAKEN, f"channel {channel.channel_id!r} exists already; --replace changes it")
    others = sum(tenant_id == channel.tenant_id for tenant_id, _ in state.channels)
    if before is None and others >= check.CHANNELS_PER_TENANT_MAX:
        message = f"tenant {channel.tenant_id} has {others} channels already, the most there may be"
        return Refusal(RefusalCode.TOO_MANY, message)
    return _changed(_Place(EntityKind.CHANNEL, *place), before, channel, origin)


def remove_channel(state: ControlState, tenant_id: str, channel_id: str, origin: Origin) -> ControlEvent | Refusal:
    """Remove a channel; what was not sent by then is not sent."""
    before = state.channels.get((tenant_id, channel_id))
    if before is None:
        message = f"tenant {tenant_id!r} has no channel {channel_id!r}; `quaestor alert channels` shows them"
        return Refusal(RefusalCode.UNKNOWN_CHANNEL, message)
    return _changed(_Place(EntityKind.CHANNEL, tenant_id, channel_id), before, None, origin)


def add_audit_key(state: ControlState, key: AuditKey, origin: Origin) -> ControlEvent | Refusal:
    """A key that from now on signs an audit log."""
    before = state.audit_keys.get((key.origin, key.key_id))
    if before is not None:
        return Refusal(RefusalCode.UNCHANGED, f"the audit key {key.key_id} is recorded already")
    return _changed(_Place(EntityKind.AUDIT_KEY, SYSTEM_TENANT, key.key_id), None, key, origin)


def remove_audit_key(state: ControlState, key: AuditKey, origin: Origin) -> ControlEvent | Refusal:
    """A key that signs an audit log no more; it stays known. `key` stands for one never recorded: a log's first."""
    before = state.audit_keys.get((key.origin, key.key_id), key)
    if before.removed_at is not None:
        return Refusal(RefusalCode.UNCHANGED, f"that the audit key {key.key_id} is retired is recorded already")
    removed = msgspec.structs.replace(before, removed_at=origin.now_micros)
    place = _Place(EntityKind.AUDIT_KEY, SYSTEM_TENANT, key.key_id)
    return _changed(place, before, removed, origin, action=ControlAction.REMOVED)


def set_exchange_rate(
    state: ControlState, rate: ExchangeRate, origin: Origin, *, replace: bool = False
) -> ControlEvent | Refusal:
    """Put a rate in force; holds that stand keep the one they were placed at.

    A rate of a day before that of the one in force, or of a day that has not begun anywhere, needs `replace`.
    """
    before = state.rates.get((rate.base, rate.quote))
    known = before and msgspec.structs.replace(before, rate_id="")
    place = _Place(EntityKind.EXCHANGE_RATE, SYSTEM_TENANT, f"{rate.base}-{rate.quote}")
    wrong = exchange_rate(rate) or (None if replace else _odd_day(rate, before, origin))
    return wrong or _changed(place, known, rate, origin)


def _odd_day(rate: ExchangeRate, before: ExchangeRate | None, origin: Origin) -> Refusal | None:
    """A rate takes effect at once, so one of another time is a slip, or meant."""
    if rate.dated > day_begun_somewhere(origin.now_micros):
        message = f"{rate.dated} has not begun yet, and a rate is in force at once: set it that day, or --replace"
    elif before is not None and rate.dated < before.dated:
        message = f"the rate in force is of {before.dated}, later than {rate.dated}; --replace goes back to it"
    else:
        return None
    return Refusal(RefusalCode.INVALID_VALUE, message, "dated")


def remove_exchange_rate(state: ControlState, base: str, quote: str, origin: Origin) -> ControlEvent | Refusal:
    """Take a rate out of force: calls under a limit that needs it are refused until there is one again."""
    before = state.rates.get((base, quote))
    if before is None:
        message = f"there is no rate from {base} to {quote}; `quaestor rate list` shows them"
        return Refusal(RefusalCode.UNKNOWN_RATE, message)
    return _changed(_Place(EntityKind.EXCHANGE_RATE, SYSTEM_TENANT, f"{base}-{quote}"), before, None, origin)


def erase_subject(state: ControlState, erasure: Erasure, origin: Origin) -> ControlEvent | Refusal:
    """Make the erasure of a data subject known: from then on no gateway uses its key; erased_at is from the origin."""
    if erasure.handle in state.erasures:
        return Refusal(RefusalCode.UNCHANGED, f"subject {erasure.handle} was erased already")
    wrong = check.names(tenant=erasure.tenant_id, handle=erasure.handle) or check.not_held(
        state.holds, erasure.tenant_id, erasure.handle
    )
    place = _Place(EntityKind.SUBJECT, erasure.tenant_id, erasure.handle)
    erased = msgspec.structs.replace(erasure, erased_at=origin.now_micros)
    return wrong or _changed(place, None, erased, origin, action=ControlAction.ERASED)


def _unknown_limit(limit_id: str) -> Refusal:
    return Refusal(RefusalCode.UNKNOWN_LIMIT, f"there is no limit {limit_id!r}; `quaestor budget list` shows them")


def publish_prices(state: ControlState, book: PriceBook, origin: Origin) -> ControlEvent | Refusal:
    """Put a provider's price book in force; the provider may be added later."""
    wrong = check.names(provider=book.provider_id) or check.price_book(book)
    if wrong:
        return wrong
    before = state.books.get(book.provider_id)
    return _changed(_Place(EntityKind.PRICE_BOOK, SYSTEM_TENANT, book.provider_id), before, book, origin)


def _unknown_provider(provider_id: str) -> Refusal:
    message = f"there is no provider {provider_id!r}; `quaestor provider list` shows them"
    return Refusal(RefusalCode.UNKNOWN_PROVIDER, message)


def _changed(
    place: _Place,
    before: msgspec.Struct | None,
    after: msgspec.Struct | None,
    origin: Origin,
    action: ControlAction | None = None,
) -> ControlEvent | Refusal:
    wrong = check.text("reason", origin.reason or "")
    if wrong:
        return wrong
    if before == after:
        return Refusal(RefusalCode.UNCHANGED, f"{place.entity_id} is so already")
    texts = (_json(before), _json(after))
    if sum(len((text or "").encode()) for text in texts) > RECORD_BYTES_MAX - RECORD_OVERHEAD_BYTES:
        return Refusal(RefusalCode.TOO_MANY, f"{place.entity_id} is too large for one record of the log")
    usual = ControlAction.REMOVED if after is None else ControlAction.UPDATED
    return ControlEvent(
        event_id=origin.event_id,
        occurred_at=origin.now_micros,
        tenant_id=place.tenant_id,
        actor=origin.actor,
        entity_kind=place.kind,
        entity_id=place.entity_id,
        action=action or (ControlAction.CREATED if before is None else usual),
        before=texts[0],
        after=texts[1],
        reason=origin.reason,
    )


def _json(entity: msgspec.Struct | None) -> str | None:
    return None if entity is None else msgspec.json.encode(entity, order="deterministic").decode()
