"""Folds the log into totals that any store can be compared with, and into the facts that one request must agree on.

Ids are a tenant's own: two tenants may use one. `id_digest` is order-free: the sum over distinct events of the first 15
hexadecimal digits of MD5(tenant_id/event_id) as an integer. MD5 because every store computes it; it guards against loss
and doubling, not against an adversary (the audit log does).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import md5
from typing import Any

from schemas import topics

#: 16 hexadecimal digits, and what the last of them holds.
WORD_BYTES, HEX_DIGIT_BITS = 8, 4
#: A tenant, and an id of a request or an attempt of its own.
Owned = tuple[str, str]


def digest_of(tenant_id: str, event_id: str) -> int:
    """What one event adds to an id digest."""
    digest = md5(f"{tenant_id}/{event_id}".encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[:WORD_BYTES], "big") >> HEX_DIGIT_BITS


@dataclass
class TopicTotals:
    """One topic's totals over distinct events."""

    records: int = 0
    id_digest: int = 0
    amount_nano: int = 0
    #: Records whose event had been seen before: produced twice.
    repeated: int = 0
    #: Records that could not be decoded, or don't say which event they are and whose.
    undecodable: int = 0


@dataclass(slots=True)
class RequestFacts:
    """What the log says of one request."""

    #: When its earliest event happened, microseconds.
    began_at: int
    received: bool = False
    #: Whether a hold was placed for it.
    held: bool = False
    #: Whether more was done for it than to hold: an attempt, a cost, a hold charged.
    worked_on: bool = False
    ended: bool = False
    #: What COMPLETED says it cost; None unless it was answered.
    completed_nano: int | None = None
    #: Charge lines of its attempts; what the reaper estimates for a lost gateway is none of them.
    charged_nano: int = 0

    @property
    def must_end(self) -> bool:
        """Whether somebody has to end it. A gateway killed before it recorded a hold leaves a RECEIVED to nobody."""
        return self.worked_on or (self.received and self.held)


@dataclass(slots=True)
class AttemptFacts:
    """What the log says of one attempt."""

    request: Owned
    succeeded: bool = False
    #: When it succeeded, microseconds.
    succeeded_at: int = 0
    committed_nano: int | None = None
    charged_nano: int = 0
    charges: int = 0


@dataclass
class LogFold:
    """The whole log, folded; memory grows with the number of distinct events."""

    totals: dict[str, TopicTotals] = field(default_factory=dict)
    requests: dict[Owned, RequestFacts] = field(default_factory=dict)
    attempts: dict[Owned, AttemptFacts] = field(default_factory=dict)
    #: By topic and tenant.
    _seen: dict[tuple[str, str], set[bytes]] = field(default_factory=dict)

    def add(self, topic: str, fields: Mapping[str, Any]) -> bool:
        """Take one decoded record in; False for an event met before, which only counts as repeated."""
        totals = self.totals.setdefault(topic, TopicTotals())
        tenant_id, event_id = fields["tenant_id"], fields["event_id"]
        packed = bytes.fromhex(event_id.replace("-", ""))
        seen = self._seen.setdefault((topic, tenant_id), set())
        if packed in seen:
            totals.repeated += 1
            return False
        seen.add(packed)
        totals.records += 1
        totals.id_digest += digest_of(tenant_id, event_id)
        totals.amount_nano += int(fields.get("amount_nano") or 0)
        self._learn(topic, fields)
        return True

    def add_undecodable(self, topic: str) -> None:
        """Count a record that no schema reads."""
        self.totals.setdefault(topic, TopicTotals()).undecodable += 1

    def _learn(self, topic: str, fields: Mapping[str, Any]) -> None:
        if topic == topics.REQUESTS.name:
            self._learn_request(fields, self._request(fields))
        elif topic == topics.ATTEMPTS.name:
            self._learn_attempt(fields, self._request(fields))
        elif topic == topics.COSTS.name:
            self._learn_cost(fields, self._request(fields))
        elif topic == topics.BUDGETS.name:
            self._learn_budget(fields, self._request(fields))

    def _request(self, fields: Mapping[str, Any]) -> RequestFacts:
        at, request_id = fields["occurred_at"], fields["request_id"]
        if request_id is None:  # a hold of no request: there is nothing to end
            return RequestFacts(at)
        owned = fields["tenant_id"], request_id
        request = self.requests.get(owned)
        if request is None:
            request = self.requests[owned] = RequestFacts(at)
        elif at < request.began_at:
            request.began_at = at
        return request

    def _learn_request(self, fields: Mapping[str, Any], request: RequestFacts) -> None:
        if fields["kind"] == "RECEIVED":
            request.received = True
            return
        request.ended = True
        # The reaper's FAILED may stand beside it, before or after: the answer was given all the same.
        if fields["kind"] == "COMPLETED":
            request.completed_nano = int(fields.get("amount_nano") or 0)

    def _learn_attempt(self, fields: Mapping[str, Any], request: RequestFacts) -> None:
        request.worked_on = True
        attempt = self._attempt(fields["attempt_id"], fields)
        # The reaper's ABANDONED may stand beside it, as its FAILED beside COMPLETED.
        if fields["outcome"] == "SUCCEEDED":
            attempt.succeeded, attempt.succeeded_at = True, fields["occurred_at"]

    def _learn_cost(self, fields: Mapping[str, Any], request: RequestFacts) -> None:
        request.worked_on = True
        attempt = self._attempt(fields["attempt_id"], fields)
        attempt.charged_nano += fields["amount_nano"]
        attempt.charges += 1
        if fields["kind"] == "CHARGE" and fields["meter"] != "UNSETTLED_HOLD":
            request.charged_nano += fields["amount_nano"]

    def _learn_budget(self, fields: Mapping[str, Any], request: RequestFacts) -> None:
        kind = fields["kind"]
        request.held = request.held or kind == "PLACED"
        if kind not in {"COMMITTED", "EXPIRED"}:
            return
        request.worked_on = True
        attempt = self._attempt(fields["hold_id"], fields)
        # A late COMMITTED replaces what the expiry charged; the correction takes the estimate back.
        if kind == "COMMITTED" or attempt.committed_nano is None:
            attempt.committed_nano = fields["amount_nano"]

    def _attempt(self, attempt_id: str, fields: Mapping[str, Any]) -> AttemptFacts:
        owned = fields["tenant_id"], attempt_id
        attempt = self.attempts.get(owned)
        if attempt is None:
            attempt = self.attempts[owned] = AttemptFacts((fields["tenant_id"], fields["request_id"]))
        return attempt

    def received(self) -> set[Owned]:
        """The requests that were to be tried."""
        return {owned for owned, request in self.requests.items() if request.received}

    def completed(self) -> set[Owned]:
        """The requests that were answered."""
        return {owned for owned, request in self.requests.items() if request.completed_nano is not None}
