"""What the stores answer about one tenant's day, and what is made of it: the report as programs read it.

Amounts are integers of nano-units of the currency beside them (`TOK` and `REQ` count whole tokens and requests), times
are integers of microseconds since the epoch. The JSON of a report is these types, field by field.
"""

from __future__ import annotations

import msgspec

FORMAT = 1


class Row(msgspec.Struct, frozen=True):
    """A row of the report."""


class RequestCount(Row, frozen=True):
    """Requests of one outcome."""

    #: RECEIVED, COMPLETED, FAILED or REFUSED.
    kind: str
    #: The code callers got; empty for none.
    error_code: str
    requests: int


class DecisionCount(Row, frozen=True):
    """Routing decisions for one candidate; empty names where no candidate was eligible."""

    policy: str
    provider_id: str
    model: str
    decisions: int


class AttemptCount(Row, frozen=True):
    """Calls to one provider's model that ended alike."""

    provider_id: str
    model: str
    outcome: str
    #: PROVIDER, ESTIMATE or NONE.
    usage_source: str
    attempts: int
    input_tokens: int
    output_tokens: int


class Charge(Row, frozen=True):
    """Cost lines of one provider's model and meter, corrections netted."""

    provider_id: str
    model: str
    meter: str
    #: Whether the quantity is our estimate.
    estimated: bool
    currency: str
    lines: int
    quantity: int
    amount_nano: int


class OwnerCharge(Row, frozen=True):
    """What one key of a team and project was charged; empty names where there is none."""

    team_id: str
    project_id: str
    key_id: str
    currency: str
    amount_nano: int


class HourCharge(Row, frozen=True):
    """What was charged in one hour of the day."""

    #: Whole hours since the day began.
    hour: int
    currency: str
    amount_nano: int


class HoldMovement(Row, frozen=True):
    """Movements of holds of one kind."""

    #: PLACED, EXTENDED, COMMITTED, RELEASED, EXPIRED, OVERAGE or REFUSED.
    kind: str
    #: Why it was released, expired or refused; empty otherwise.
    reason: str
    #: The limit that refused; empty on other kinds.
    limit_id: str
    currency: str
    movements: int
    amount_nano: int


class LateCommit(Row, frozen=True):
    """Commits that came after their hold had expired: what the expiry charged, and what it really was."""

    currency: str
    holds: int
    estimated_nano: int
    charged_nano: int


class LedgerMovement(Row, frozen=True):
    """What moved on the accounts of one class: budget/held, expense or payable."""

    accounts: str
    currency: str
    debits_pending_nano: int
    credits_pending_nano: int
    debits_posted_nano: int
    credits_posted_nano: int


class SetAside(Row, frozen=True):
    """Records that a sink set aside."""

    sink: str
    topic: str
    #: QUARANTINED, PARKED or DISCARDED.
    state: str
    reason: str
    records: int


class WindowSpend(Row, frozen=True):
    """What one counter was charged in one window."""

    #: The limit's id; `.` and a digest behind it for one of many of a kind.
    counter: str
    currency: str
    window_start: int
    #: By the end of the day.
    spent_nano: int
    #: By calls that began before the end of the day and were settled after it.
    settled_nano: int
    #: How many counters of its limit were charged; only the fullest are read.
    counters: int = 1


class Mismatch(Row, frozen=True):
    """One row that does not match."""

    #: Of the request, attempt (or hold, they share it), event or record, as the rule says.
    id: str
    request_id: str | None
    at: int
    difference: str


class Findings(Row, frozen=True):
    """What one rule found."""

    rule: str
    total: int
    #: The first of them.
    shown: tuple[Mismatch, ...]


class TenantFigures(msgspec.Struct):
    """What the stores answer about a tenant's day; the lists are filled while reading."""

    requests: list[RequestCount] = []
    decisions: list[DecisionCount] = []
    attempts: list[AttemptCount] = []
    charges: list[Charge] = []
    owners: list[OwnerCharge] = []
    hours: list[HourCharge] = []
    holds: list[HoldMovement] = []
    late_commits: list[LateCommit] = []
    ledger: list[LedgerMovement] = []
    set_aside: list[SetAside] = []
    windows: list[WindowSpend] = []
    findings: list[Findings] = []
    #: Limits as control events have them at the end of the day: JSON.
    limits: list[str] = []


class Estimate(Row, frozen=True):
    """How much of what was charged stands on our own estimates."""

    currency: str
    reported_nano: int
    estimated_nano: int
    #: Estimated of both, whole per cent, rounded down.
    percent: int


class ControlTotal(Row, frozen=True):
    """Two sums that must be the same."""

    name: str
    currency: str
    expected_nano: int
    actual_nano: int


class BudgetUse(Row, frozen=True):
    """How far a limit was used up: in the fullest of its windows that touch the day."""

    limit_id: str
    counter: str
    scope: str
    scope_id: str
    window: str
    currency: str
    hard: bool
    window_start: int
    #: 0 for a limit without a window.
    window_end: int
    #: Increases in force at its end, or at the end of the day where that is earlier, included.
    allowed_nano: int
    spent_nano: int
    percent: int
    #: How many counters its limit has on the day, of which the fullest are listed: one, unless it is on each of a kind.
    counters: int


class TenantReport(msgspec.Struct, frozen=True):
    """A tenant's day."""

    tenant_id: str
    #: Whether everything matches.
    ok: bool
    requests: tuple[RequestCount, ...]
    decisions: tuple[DecisionCount, ...]
    attempts: tuple[AttemptCount, ...]
    charges: tuple[Charge, ...]
    owners: tuple[OwnerCharge, ...]
    hours: tuple[HourCharge, ...]
    estimates: tuple[Estimate, ...]
    holds: tuple[HoldMovement, ...]
    late_commits: tuple[LateCommit, ...]
    ledger: tuple[LedgerMovement, ...]
    control_totals: tuple[ControlTotal, ...]
    budgets: tuple[BudgetUse, ...]
    set_aside: tuple[SetAside, ...]
    mismatches: tuple[Findings, ...]


class Rule(Row, frozen=True):
    """A rule that was asked, and how many rows of all tenants break it."""

    name: str
    claim: str
    mismatches: int


class Standing(msgspec.Struct, frozen=True):
    """Where Postgres stood when it was read."""

    #: Next offset per topic and partition: everything below it is in the report.
    offsets: dict[str, dict[str, int]]
    #: What had not caught up with the log, in words; empty when everything had.
    lacking: tuple[str, ...]


class Report(msgspec.Struct, frozen=True):
    """The whole report."""

    format: int
    #: Whether the report is final and everything in it matches.
    ok: bool
    #: Whether all that began on the day has ended and is in the report.
    final: bool
    #: YYYY-MM-DD on the clocks of the time zone.
    day: str
    time_zone: str
    starts_at: int
    ends_at: int
    taken_at: int
    #: What began before this is judged; what began later was under way.
    judged_until: int
    #: The one tenant asked about; null for all.
    tenant: str | None
    standing: Standing
    rules: tuple[Rule, ...]
    tenants: tuple[TenantReport, ...]
