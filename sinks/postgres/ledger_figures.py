"""What the ledger answers: balances and statements of accounts, and whether its invariants hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from schemas.limits import HOLD_TOMBSTONE_SECONDS
from sinks.postgres.invariants import DIFFERENCES_MAX
from sinks.postgres.months import EARLIEST_MICROS, LATEST_MICROS, MICROS_PER_SECOND

#: A transfer stays pending for no longer than its hold is remembered.
PENDING_SECONDS_MAX = HOLD_TOMBSTONE_SECONDS


class Period(NamedTuple):
    """From a time up to but without another, microseconds since the epoch."""

    since: int = EARLIEST_MICROS
    until: int = LATEST_MICROS

    @property
    def bounds(self) -> tuple[int, int, int]:
        """Both, and since when the pending transfers are looked for that are resolved in it."""
        return self.since, self.until, max(EARLIEST_MICROS, self.since - PENDING_SECONDS_MAX * MICROS_PER_SECOND)


@dataclass(frozen=True)
class AccountBalance:
    """The four sums of one account in one currency, nano-units."""

    tenant_id: str
    account: str
    currency: str
    debits_pending_nano: int
    debits_posted_nano: int
    credits_pending_nano: int
    credits_posted_nano: int


@dataclass(frozen=True)
class TrialBalance:
    """Accounts by tenant, currency and name, as many as one answer has room for, and the sums of all."""

    accounts: list[AccountBalance]
    #: One per currency; in a whole ledger its debits equal its credits.
    totals: list[AccountBalance]
    #: How many accounts the totals are of.
    account_count: int


@dataclass(frozen=True)
class StatementLine:
    """What one transfer did to one account: on one side, to pending and to posted; nano-units."""

    event_id: str
    occurred_at: int
    kind: str
    memo: str
    other_account: str
    is_debit: bool
    pending_nano: int
    posted_nano: int
    currency: str
    request_id: str | None
    source_event_id: str


@dataclass(frozen=True)
class Statement:
    """The newest lines of an account, and how many there are."""

    lines: list[StatementLine]
    line_count: int


@dataclass(frozen=True)
class InvariantResult:
    """Whether one invariant of the ledger holds."""

    name: str
    claim: str
    differences: int
    #: What of the differences could be told apart, in words, by what each is about.
    found: Mapping[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether it holds."""
        return self.differences == 0

    @property
    def first_difference(self) -> str:
        """One of the differences; empty when it holds."""
        return next(iter(self.found.values()), "")

    def lasting(self, earlier: InvariantResult) -> InvariantResult:
        """What differed earlier too: events that come in two batches differ in between, each for a moment only."""
        if max(self.differences, earlier.differences) > DIFFERENCES_MAX:
            return self
        found = {about: words for about, words in self.found.items() if about in earlier.found}
        return InvariantResult(self.name, self.claim, len(found), found)
