"""The API's view of budgets: limits, what is used of them, and their changes, each an event of quaestor.control."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import cast

import msgspec
from msgspec import UNSET, UnsetType

from api.console.budget_shapes import (
    ApprovalMade,
    ApprovalWanted,
    IncreaseWanted,
    LimitAsked,
    LimitChanged,
    LimitNow,
    LimitsAsked,
    LimitsPage,
    LimitWanted,
    ProfileAsked,
    ProfileSet,
    ProfileWanted,
    Removal,
    State,
    ThresholdWanted,
)
from api.console.operations import Caller, Changing, Nothing, Reading
from api.console.parts import Parts
from api.console.problems import Problem, not_found, refused
from api.console.values import Moment, amount_of
from api.control.session import Decide
from api.control.shown import limit_shown, standing_shown
from api.times import micros_of, time_text
from processors import control
from processors.calendar import ZONE_USUAL
from processors.control import (
    CURRENCY,
    PROFILES,
    Approval,
    ControlState,
    Increase,
    Limit,
    LimitField,
    Origin,
    Refusal,
    RefusalCode,
    Threshold,
    check,
)
from processors.control.entities import Scope, ThresholdAction, Window
from schemas.events import ControlEvent
from schemas.limits import CONSOLE_PAGE_MAX
from schemas.money import currency_of


async def limits(parts: Parts, asked: LimitsAsked) -> LimitsPage:
    """A page of limits."""
    state, now = await parts.control.state(), parts.now_micros()
    wanted = {"tenant_id": asked.tenant, "scope": asked.scope, "scope_id": asked.scope_id}
    found = sorted(
        limit.limit_id
        for limit in state.limits.values()
        if all(value in {None, getattr(limit, name)} for name, value in wanted.items())
        and asked.state in {None, _state(limit, now)}
        and limit.limit_id > (asked.cursor or "")
    )
    page = found[: asked.limit]
    return LimitsPage(
        [limit_shown(state.limits[each], now) for each in page], page[-1] if len(found) > len(page) else None
    )


def _state(limit: Limit, now_micros: int) -> State:
    if limit.in_force(now_micros):
        return "in_force"
    return "scheduled" if (limit.valid_from or 0) > now_micros else "over"


async def limit_now(parts: Parts, asked: LimitAsked) -> LimitNow | Problem:
    """A limit and what is used of it."""
    limit, now = (await parts.control.state()).limits.get(asked.id), parts.now_micros()
    if limit is None:
        return not_found("There is no such limit.")
    found = await parts.standings([limit], now)
    shown = [standing_shown(*one) for one in found[:CONSOLE_PAGE_MAX]]
    return LimitNow(limit_shown(limit, now), shown, len(found) - len(shown))


async def set_limit(parts: Parts, caller: Caller, _asked: Nothing, wanted: LimitWanted) -> LimitChanged | Problem:
    """Set or change a limit."""
    limit = await _limit(parts, wanted)
    if isinstance(limit, Refusal):
        return refused(limit)
    if sealed := check.tag_counts(limit, parts.tags_allowed):
        return refused(sealed)
    said = {"time_zone": wanted.time_zone or UNSET, "valid_from": wanted.valid_from, "valid_until": wanted.valid_until}
    unsaid = [cast("LimitField", field) for field, value in said.items() if value is UNSET]
    (changed,) = await _set(parts, caller, (limit,), wanted.reason, unsaid)
    return changed


async def set_profile(parts: Parts, caller: Caller, asked: ProfileAsked, wanted: ProfileWanted) -> ProfileSet | Problem:
    """Set the limits of a profile."""
    found = control.profile_limits(asked.name, wanted.tenant, wanted.time_zone)
    if isinstance(found, Refusal):
        return not_found(found.message)
    currency = PROFILES[asked.name].currency
    changes = await _set(parts, caller, found, wanted.reason, ["time_zone"] if wanted.time_zone is None else [])
    return ProfileSet(changes, None if currency == CURRENCY else (CURRENCY, currency))


async def increase(parts: Parts, caller: Caller, asked: LimitAsked, wanted: IncreaseWanted) -> LimitChanged:
    """Allow more for a while."""

    def decide(state: ControlState, origin: Origin) -> ControlEvent | Refusal:
        known = state.limits.get(asked.id)
        amount_nano = amount_of(wanted.amount, known.currency if known else CURRENCY)
        if isinstance(amount_nano, Refusal):
            return amount_nano
        added = Increase(
            amount_nano=amount_nano,
            valid_from=origin.now_micros if wanted.valid_from is None else micros_of(wanted.valid_from),
            valid_until=micros_of(wanted.valid_until),
            approval_code=wanted.approval_code,
        )
        return control.increase_limit(state, asked.id, added, origin)

    return _changed(await _made(parts, caller, decide, wanted.reason))


async def approve(parts: Parts, caller: Caller, asked: LimitAsked, wanted: ApprovalWanted) -> ApprovalMade:
    """Make a code; the same again for a repeat, since it is derived from the token and the key and kept nowhere."""
    code = f"qc_{caller.secret('approval')}"
    approval = Approval(
        code_hash=hashlib.sha256(code.encode()).hexdigest(),
        valid_until=micros_of(wanted.valid_until),
        approval_code=wanted.approval_code,
    )
    event = await _made(
        parts, caller, lambda state, origin: control.approve_limit(state, asked.id, approval, origin), wanted.reason
    )
    return ApprovalMade(event.event_id, event.occurred_at, asked.id, code, time_text(approval.valid_until))


async def remove(parts: Parts, caller: Caller, asked: Removal, _wanted: None) -> LimitChanged:
    """Remove a limit."""
    made = await _made(parts, caller, lambda state, origin: control.remove_limit(state, asked.id, origin), asked.reason)
    return _changed(made)


async def _limit(parts: Parts, wanted: LimitWanted) -> Limit | Refusal:
    currency = currency_of(wanted.currency)
    amount_nano = amount_of(wanted.amount, currency)
    if isinstance(amount_nano, Refusal):
        return amount_nano
    place = await _place(parts, wanted)
    if isinstance(place, Refusal):
        return place
    scope, scope_id = place
    thresholds = wanted.thresholds and sorted(wanted.thresholds, key=lambda one: one.percent)
    return control.identified(
        Limit(
            limit_id="",
            tenant_id=wanted.tenant,
            scope=cast("Scope", scope),
            scope_id=scope_id,
            amount_nano=amount_nano,
            currency=currency,
            window=cast("Window", wanted.window),
            hard=wanted.hard,
            time_zone=wanted.time_zone or ZONE_USUAL,
            valid_from=_bound(wanted.valid_from),
            valid_until=_bound(wanted.valid_until),
            name=wanted.name,
            thresholds=None if thresholds is None else tuple(_threshold(one) for one in thresholds),
        )
    )


def _bound(moment: Moment | UnsetType | None) -> int | None:
    return micros_of(moment) if isinstance(moment, datetime) else None


def _threshold(wanted: ThresholdWanted) -> Threshold:
    return Threshold(percent=wanted.percent, action=cast("ThresholdAction", wanted.action), models=tuple(wanted.models))


async def _place(parts: Parts, wanted: LimitWanted) -> tuple[str, str] | Refusal:
    """What the limit stands on: the tenant where nothing else is said. Users go by their handle."""
    if wanted.user is None:
        return wanted.scope, wanted.scope_id or (wanted.tenant if wanted.scope == "tenant" else "")
    if (wanted.scope, wanted.scope_id) not in {("tenant", None), ("user", None)}:
        message = f"a limit stands on one thing, not on user and {wanted.scope}"
        return Refusal(RefusalCode.INVALID_VALUE, message, "user")
    wrong = check.tenant(wanted.tenant)
    if wrong is None and wanted.user == control.EACH:
        return "user", control.EACH
    wrong = wrong or check.whole("user", wanted.user)
    return wrong or ("user", await parts.handle_of(wanted.tenant, wanted.user))


async def _set(
    parts: Parts, caller: Caller, wanted: tuple[Limit, ...], reason: str | None, unsaid: list[LimitField]
) -> list[LimitChanged]:
    decides = [_setting(limit, unsaid) for limit in wanted]
    written = await parts.control.write(caller.write(decides, reason))
    made = {event.entity_id: event for event in written.events}
    known, now = written.before.limits, parts.now_micros()
    return [
        _changed(made[limit.limit_id])
        if limit.limit_id in made
        else LimitChanged(None, None, limit_shown(known.get(limit.limit_id, limit), now))
        for limit in wanted
    ]


def _setting(limit: Limit, unsaid: list[LimitField]) -> Decide:
    return lambda state, origin: control.set_limit(state, limit, origin, unsaid)


async def _made(parts: Parts, caller: Caller, decide: Decide, reason: str | None) -> ControlEvent:
    """The event of a change that always is one."""
    written = await parts.control.write(caller.write([decide], reason))
    (event,) = written.events
    return event


def _changed(event: ControlEvent) -> LimitChanged:
    """What an event says, which is the same whenever it is told."""
    limit = msgspec.json.decode(cast("str", event.after or event.before), type=Limit)
    return LimitChanged(event.event_id, event.occurred_at, limit_shown(limit, event.occurred_at))


OPERATIONS = (
    Reading(
        name="limits",
        path="/api/budgets",
        summary="Limits, by id.",
        asked=LimitsAsked,
        answered=LimitsPage,
        handle=limits,
    ),
    Changing(
        name="limit_set",
        path="/api/budgets",
        summary="Set or change a limit, as `quaestor budget set`.",
        asked=Nothing,
        wanted=LimitWanted,
        answered=LimitChanged,
        handle=set_limit,
    ),
    Reading(
        name="limit",
        path="/api/budgets/{id}",
        summary="A limit, and what is charged, held and left of it now.",
        asked=LimitAsked,
        answered=LimitNow,
        handle=limit_now,
    ),
    Changing(
        name="limit_remove",
        path="/api/budgets/{id}",
        summary="Remove a limit; set anew in its time zone, it counts what was spent in the window before.",
        asked=Removal,
        answered=LimitChanged,
        handle=remove,
    ),
    Changing(
        name="limit_increase",
        path="/api/budgets/{id}/increases",
        summary="Allow more for a while, as `quaestor budget increase`.",
        asked=LimitAsked,
        wanted=IncreaseWanted,
        answered=LimitChanged,
        handle=increase,
    ),
    Changing(
        name="limit_approve",
        path="/api/budgets/{id}/approvals",
        summary="Make a code with which calls go past the approval threshold, as `quaestor budget approve`.",
        asked=LimitAsked,
        wanted=ApprovalWanted,
        answered=ApprovalMade,
        handle=approve,
    ),
    Changing(
        name="profile_set",
        path="/api/budget-profiles/{name}",
        summary="Set a tenant's limits as a profile has them, as `quaestor budget profile`.",
        asked=ProfileAsked,
        wanted=ProfileWanted,
        answered=ProfileSet,
        handle=set_profile,
    ),
)
