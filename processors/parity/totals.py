"""Folds the log into totals that any store can be compared with, and into the facts that one request must agree on.

`id_digest` is order-free: the sum over distinct event ids of the first 15 hexadecimal digits of MD5(event_id) as an
integer. MD5 because every store computes it; it guards against loss and doubling, not against an adversary (the audit
log does).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import md5
from typing import Any

from schemas import topics

DIGEST_HEX_DIGITS = 15


def digest_of(event_id: str) -> int:
    """What one event id adds to an id digest."""
    return int(md5(event_id.encode(), usedforsecurity=False).hexdigest()[:DIGEST_HEX_DIGITS], 16)


@dataclass
class TopicTotals:
    """One topic's totals over distinct events."""

    records: int = 0
    id_digest: int = 0
    amount_nano: int = 0
    #: Records whose id had been seen before: produced twice.
    repeated: int = 0
    #: Records that could not be decoded, or whose key is not the one their fields say.
    undecodable: int = 0


@dataclass
class AttemptFacts:
    """What the log says of one attempt."""

    request_id: str
    succeeded: bool = False
    committed_nano: int | None = None
    charged_nano: int = 0
    charges: int = 0


@dataclass
class LogFold:
    """The whole log, folded; memory grows with the number of distinct events."""

    totals: dict[str, TopicTotals] = field(default_factory=dict)
    received: set[str] = field(default_factory=set)
    ended: dict[str, str] = field(default_factory=dict)
    attempts: dict[str, AttemptFacts] = field(default_factory=dict)
    _seen: dict[str, set[bytes]] = field(default_factory=dict)

    def add(self, topic: str, fields: Mapping[str, Any]) -> bool:
        """Take one decoded record in; False for a repeated event id, which only counts as repeated."""
        totals = self.totals.setdefault(topic, TopicTotals())
        event_id = str(fields["event_id"])
        packed = bytes.fromhex(event_id.replace("-", ""))
        seen = self._seen.setdefault(topic, set())
        if packed in seen:
            totals.repeated += 1
            return False
        seen.add(packed)
        totals.records += 1
        totals.id_digest += digest_of(event_id)
        totals.amount_nano += int(fields.get("amount_nano") or 0)
        self._learn(topic, fields)
        return True

    def add_undecodable(self, topic: str) -> None:
        """Count a record that no schema reads."""
        self.totals.setdefault(topic, TopicTotals()).undecodable += 1

    def _learn(self, topic: str, fields: Mapping[str, Any]) -> None:
        if topic == topics.REQUESTS.name:
            if fields["kind"] == "RECEIVED":
                self.received.add(fields["request_id"])
            else:
                self.ended[fields["request_id"]] = fields["kind"]
        elif topic == topics.ATTEMPTS.name:
            self._attempt(fields["attempt_id"], fields).succeeded = fields["outcome"] == "SUCCEEDED"
        elif topic == topics.COSTS.name:
            attempt = self._attempt(fields["attempt_id"], fields)
            attempt.charged_nano += fields["amount_nano"]
            attempt.charges += 1
        elif topic == topics.BUDGETS.name and fields["kind"] in {"COMMITTED", "EXPIRED"}:
            attempt = self._attempt(fields["hold_id"], fields)
            # A late COMMITTED replaces what the expiry charged; the correction takes the estimate back.
            if fields["kind"] == "COMMITTED" or attempt.committed_nano is None:
                attempt.committed_nano = fields["amount_nano"]

    def _attempt(self, attempt_id: str, fields: Mapping[str, Any]) -> AttemptFacts:
        return self.attempts.setdefault(attempt_id, AttemptFacts(request_id=fields["request_id"]))

    def completed(self) -> set[str]:
        """Ids of the requests that were answered."""
        return {request_id for request_id, kind in self.ended.items() if kind == "COMPLETED"}
