"""What is asked and answered about budgets, as JSON. Amounts are decimals in strings, beside their currency."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from api.console.values import PAGE, Amount, Moment, Name, Reason, UserId
from api.control.shown import LimitShown, StandingShown
from processors.control import CURRENCY, PROFILES
from schemas.limits import CONSOLE_PAGE_MAX

LimitId = Annotated[str, msgspec.Meta(pattern="^lim_[0-9a-f]{16}$", description="The limit's id.")]
State = Literal["in_force", "scheduled", "over"]


class LimitsAsked(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Which limits."""

    tenant: Annotated[Name | None, msgspec.Meta(description="Only this tenant's.")] = None
    scope: Annotated[Name | None, msgspec.Meta(description="Only those that stand on this: tenant, team, key, …")] = (
        None
    )
    scope_id: Annotated[Name | None, msgspec.Meta(description="Only those that stand on this one.")] = None
    state: Annotated[State | None, msgspec.Meta(description="Only those in force, not yet, or not any more.")] = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=CONSOLE_PAGE_MAX, description="Limits of a page at most.")] = PAGE
    cursor: Annotated[LimitId | None, msgspec.Meta(description="`next` of the page before.")] = None


class LimitsPage(msgspec.Struct):
    """Limits, by id."""

    limits: list[LimitShown]
    #: The next page's `cursor`; null after the last.
    next: str | None


class LimitAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Which limit."""

    id: LimitId


class LimitNow(msgspec.Struct):
    """A limit, and what is used of it in its present window."""

    limit: LimitShown
    #: One, or those of each apart with the most used first; none while it is not in force.
    standings: list[StandingShown]
    #: Standings that are not shown, being too many.
    left_off: int


class ThresholdWanted(msgspec.Struct, forbid_unknown_fields=True):
    """From where on somebody is told."""

    #: Of what the limit allows.
    percent: int
    #: notify, cheaper, approval or block.
    action: str = "notify"
    #: What `cheaper` still admits; one ending in * stands for all that begin so.
    models: list[str] = []


class LimitWanted(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A limit to set. What it stands on, its window, currency, hardness and name say which: the same changes it."""

    tenant: Name
    #: Most per window, in units of the currency.
    amount: Amount
    #: USD, EUR, tokens or requests.
    currency: str = CURRENCY
    #: minute, hour, day, week, month or total.
    window: str = "month"
    #: What it stands on: tenant, team, project, key, user, tag, model, provider or run.
    scope: str = "tenant"
    #: Which; * each apart; name=value of a tag. End users by their handle. Not given for a tenant.
    scope_id: str | None = None
    #: An end user as callers name them, instead of scope and scope_id.
    user: UserId | None = None
    #: Whether it refuses calls, or only watches.
    hard: bool = True
    #: Where its days begin, an IANA name. Null: as before, and UTC for a new one.
    time_zone: str | None = None
    #: In force from then; null: always. Not given: as before.
    valid_from: Moment | msgspec.UnsetType | None = msgspec.UNSET
    #: In force until then; null: for ever. Not given: as before.
    valid_until: Moment | msgspec.UnsetType | None = msgspec.UNSET
    #: Tells several limits of one place and window apart.
    name: str = ""
    #: Null: as before, and for a new one as is usual for its window.
    thresholds: list[ThresholdWanted] | None = None
    reason: Reason | None = None


class IncreaseWanted(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """More for a while; it ends by itself."""

    #: How much more, in units of the limit's currency.
    amount: Amount
    #: Null: from when it is recorded.
    valid_from: Moment | None = None
    valid_until: Moment
    #: Who allowed it, as your approvals name it.
    approval_code: str
    reason: Reason | None = None


class ApprovalWanted(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A code with which calls go past the limit's approval threshold."""

    valid_until: Moment
    #: Who allowed it, as your approvals name it.
    approval_code: str
    reason: Reason | None = None


class ProfileAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Which profile."""

    name: Annotated[Name, msgspec.Meta(description=f"One of {', '.join(PROFILES)}.")]


class ProfileWanted(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Whose limits are set as the profile has them."""

    tenant: Name
    #: Where days begin; null: as before, or as the profile says.
    time_zone: str | None = None
    reason: Reason | None = None


class Removal(LimitAsked, forbid_unknown_fields=True):
    """Which limit, and why."""

    reason: Reason | None = None


class LimitChanged(msgspec.Struct):
    """A change, acknowledged by Kafka; gateways follow within two seconds."""

    #: The event that says it; null when it was so already.
    event_id: str | None
    #: Microseconds since the epoch.
    occurred_at: int | None
    #: After the change; of a removed limit, before it.
    limit: LimitShown


class ApprovalMade(msgspec.Struct):
    """A code, shown to who asked for it and kept as its hash."""

    event_id: str
    #: Microseconds since the epoch.
    occurred_at: int
    #: The limit's id.
    limit: str
    #: What callers send as x-quaestor-approval.
    code: str
    valid_until: str


class ProfileSet(msgspec.Struct):
    """The limits of a profile."""

    changes: list[LimitChanged]
    #: Currencies between which an exchange rate must be in force, or calls wait; null when none is needed.
    needs_rate: tuple[str, str] | None
