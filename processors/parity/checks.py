"""Pure comparisons over a folded log; each answers with one Check that names the first difference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from processors.parity.totals import LogFold, Owned, TopicTotals


@dataclass(frozen=True)
class Check:
    """One thing that was compared."""

    name: str
    ok: bool
    expected: Any
    actual: Any
    #: The first thing that differs, in words a person can look up; None when nothing does.
    first_difference: str | None = None

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self)


def equal(name: str, expected: Any, actual: Any, first_difference: str | None = None) -> Check:
    """A check that two values are the same."""
    ok = expected == actual
    return Check(name, ok, expected, actual, None if ok else first_difference or f"expected {expected}, found {actual}")


def empty(name: str, differing: Collection[str], total: int, what: str) -> Check:
    """A check over `total` things that none differs; names the smallest that does."""
    first = f"{what} {min(differing)}" if differing else None
    return Check(name, not differing, total, total - len(differing), first)


def _ids(of: Iterable[Owned]) -> list[str]:
    """Without their tenants: what a person looks up, and clients know."""
    return [each for _, each in of]


@dataclass(frozen=True)
class Due:
    """What must stand in the log by now; what is younger may be under way. Microseconds since the epoch."""

    #: Requests that began before this have ended: answered, failed, refused, or closed by the reaper.
    ended_before: int
    #: Requests of attempts that succeeded before this are COMPLETED: a spool had its time to be drained.
    completed_before: int


def answers_are_completed(fold: LogFold, answers: Collection[str]) -> Check:
    """Every answer the client counted is a COMPLETED request."""
    missing = set(answers).difference(_ids(fold.completed()))
    return empty("answers are COMPLETED", missing, len(set(answers)), "answered but not COMPLETED: request")


def completed_were_received(fold: LogFold) -> Check:
    """Every COMPLETED request had been received."""
    unknown = fold.completed() - fold.received()
    return empty("COMPLETED requests were RECEIVED", _ids(unknown), len(fold.completed()), "never RECEIVED: request")


def answers_are_distinct(answers: Collection[str]) -> Check:
    """The client counted no answer twice."""
    repeated = [request_id for request_id, times in Counter(answers).items() if times > 1]
    return empty("answers are distinct", repeated, len(set(answers)), "counted more than once: request")


def requests_have_ended(fold: LogFold, due: Due) -> Check:
    """Every request that was worked on, and had its time, has an end."""
    old = {key: each for key, each in fold.requests.items() if each.must_end and each.began_at < due.ended_before}
    open_still = [owned for owned, request in old.items() if not request.ended]
    return empty("requests have ended", _ids(open_still), len(old), "neither COMPLETED, FAILED nor REFUSED: request")


def successes_are_completed(fold: LogFold, due: Due) -> Check:
    """Every attempt that succeeded belongs to a COMPLETED request: both are recorded together."""
    old = [each for each in fold.attempts.values() if each.succeeded and each.succeeded_at < due.completed_before]
    completed = fold.completed()
    wrong = [attempt.request for attempt in old if attempt.request not in completed]
    words = "an attempt SUCCEEDED and nothing says COMPLETED (or a spool has it still): request"
    return empty("succeeded attempts = COMPLETED", _ids(wrong), len(old), words)


def completed_amounts_equal_costs(fold: LogFold) -> Check:
    """What COMPLETED says a request cost equals its charge lines, to the nano-unit."""
    completed = {key: each for key, each in fold.requests.items() if each.completed_nano is not None}
    wrong = [owned for owned, each in completed.items() if each.completed_nano != each.charged_nano]
    return empty("COMPLETED = sum of charges", _ids(wrong), len(completed), "differs: request")


def completed_have_one_attempt(fold: LogFold) -> Check:
    """Each COMPLETED request has exactly one succeeded attempt."""
    succeeded = Counter(attempt.request for attempt in fold.attempts.values() if attempt.succeeded)
    wrong = _ids(request for request in fold.completed() if succeeded[request] != 1)
    return empty("COMPLETED = succeeded attempts", wrong, len(fold.completed()), "not one succeeded attempt: request")


def attempts_are_charged(fold: LogFold) -> Check:
    """Each succeeded attempt has at least one charge."""
    succeeded = {key for key, attempt in fold.attempts.items() if attempt.succeeded}
    wrong = _ids(key for key in succeeded if not fold.attempts[key].charges)
    return empty("succeeded attempts = charged attempts", wrong, len(succeeded), "no charge: attempt")


def commits_equal_costs(fold: LogFold) -> Check:
    """What a hold was charged equals the sum of its attempt's costs, to the nano-unit."""
    settled = {key: attempt for key, attempt in fold.attempts.items() if attempt.committed_nano is not None}
    wrong = _ids(key for key, attempt in settled.items() if attempt.committed_nano != attempt.charged_nano)
    return empty("COMMITTED = sum of costs", wrong, len(settled), "differs: attempt")


def store_holds_topic(store: str, topic: str, log: TopicTotals, stored: TopicTotals, since: str = "") -> Check:
    """A store's rows of one topic are the log's distinct events: count, ids, money.

    Without those set aside and those that retention gave up; `since` says from where on, for people.
    """
    name = f"{store} = log: {topic}{since}"
    if log.records != stored.records:
        missing = log.records - stored.records
        words = f"{missing} distinct events are missing" if missing > 0 else f"{-missing} events are too many"
        return Check(name, ok=False, expected=log.records, actual=stored.records, first_difference=words)
    if log.id_digest != stored.id_digest:
        return Check(
            name,
            ok=False,
            expected=log.id_digest,
            actual=stored.id_digest,
            first_difference="as many events, but not the same ones",
        )
    if log.amount_nano != stored.amount_nano:
        return Check(
            name,
            ok=False,
            expected=log.amount_nano,
            actual=stored.amount_nano,
            first_difference=f"amounts differ by {stored.amount_nano - log.amount_nano} nano-units",
        )
    return Check(name, ok=True, expected=log.records, actual=stored.records)


def log_checks(fold: LogFold, answers: Collection[str] | None, due: Due) -> list[Check]:
    """All checks that need nothing but the log (and the client's answers, when there are any)."""
    received = len(fold.received())
    checks = [
        Check("requests in the log", ok=True, expected=received, actual=received),
        completed_were_received(fold),
        completed_have_one_attempt(fold),
        successes_are_completed(fold, due),
        requests_have_ended(fold, due),
        attempts_are_charged(fold),
        commits_equal_costs(fold),
        completed_amounts_equal_costs(fold),
    ]
    return checks if answers is None else [answers_are_completed(fold, answers), answers_are_distinct(answers), *checks]
