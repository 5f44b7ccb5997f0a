"""LiveFold: the rule of fold.py on what the live store keeps of a partition's tenants, for rebuilds and snapshots.

Its words are those of the live store: nothing is made of an event that is not kept, so an event costs 4 µs where
BudgetFold takes tens. tests/property/test_live_fold.py proves it equal to BudgetFold and to the Lua.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from processors.budgets.horizon import is_over, reached
from schemas import limits

#: So many digits of a uuid7 tell its time to 65.5 seconds; resolved holds are kept apart by them.
MINUTE_DIGITS = 8
MINUTE_MILLIS = 2**16
MILLIS_PER_HOUR = 3_600_000
MICROS_PER_MILLI = 1_000
DIGEST_DIGITS = 8
#: counter, amount, counter, amount, ... as texts.
Words = Sequence[str]
#: Offset, kind, hold id, and what its legs say.
Movement = tuple[int, str, str, Words]
#: How holds ended, by tenant and hold: c, r or x, a digest of what was held, and for x what was charged.
Ended = dict[str, dict[str, str]]


@dataclass(slots=True)
class LiveTenant:
    """What is applied of one tenant, without how its holds ended."""

    #: Every event of the tenant below it is folded in.
    cursor: int = 0
    #: By counter, nano-units of its currency.
    posted: dict[str, int] = field(default_factory=dict)
    #: As posted; never zero.
    held: dict[str, int] = field(default_factory=dict)
    #: Open holds and what they hold.
    holds: dict[str, Words] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Open holds and counters."""
        return len(self.holds) + len(self.posted)


class LiveFold:
    """Many tenants' applied state. A resolved hold is remembered as BudgetFold does, by the time in its id."""

    def __init__(self, remembered_seconds: int = limits.HOLD_TOMBSTONE_SECONDS) -> None:
        """Start from nothing."""
        self.tenants: dict[str, LiveTenant] = {}
        #: By the minute of the hold's id.
        self.ended: dict[str, Ended] = {}
        #: Minutes in which something ended since somebody cleared this.
        self.changed: set[str] = set()
        self._remembered_seconds = remembered_seconds
        self._standing = 0
        #: Holds that ended, in memory.
        self.remembered = 0
        self._forgotten_hour = 0
        #: The newest minute of any hold's id that came.
        self._newest = ""

    @property
    def size(self) -> int:
        """Holds and counters in memory."""
        return self.remembered + self._standing

    def apply(self, tenant_id: str, movements: Iterable[Movement], next_cursor: int) -> None:
        """Fold a tenant's next events in; there is none between them and `next_cursor`."""
        live = self.tenants.get(tenant_id)
        if live is None:
            live = self.tenants[tenant_id] = LiveTenant()
        minute, ended = "", dict[str, str]()
        holds, held = live.holds, live.held
        self._standing -= live.size
        for _, kind, hold_id, words in movements:
            if hold_id[:MINUTE_DIGITS] != minute:
                minute = hold_id[:MINUTE_DIGITS]
                self._newest = max(self._newest, minute)
                ended = self.ended.setdefault(minute, {}).setdefault(tenant_id, {})
            body = holds.get(hold_id)
            if kind == "PLACED":
                if body is None and hold_id not in ended:
                    holds[hold_id] = words
                    _add(held, words)
            elif body is not None:
                if kind == "EXTENDED":
                    holds[hold_id] = _extended(held, body, words)
                else:
                    ended[hold_id] = _resolve(live, kind, hold_id, body, words)
                    self.changed.add(minute)
                    self.remembered += 1
            elif kind == "COMMITTED" and ended.get(hold_id, "")[:1] == "x":
                ended[hold_id] = _commit_late(live, ended[hold_id], words)
                self.changed.add(minute)
        live.cursor = max(live.cursor, next_cursor)
        self._standing += live.size

    def forget(self, now_millis: int) -> None:
        """Drop what nobody may ask for any more: holds that ended long ago, sums of windows long over; once an hour."""
        hour = now_millis // MILLIS_PER_HOUR
        if hour <= self._forgotten_hour:
            return
        self._forgotten_hour = hour
        self.unload(minute for minute in list(self.ended) if self.is_over(minute, now_millis))
        over = (now_millis - 2 * self._remembered_seconds * 1_000 - MILLIS_PER_HOUR) * MICROS_PER_MILLI
        for live in self.tenants.values():
            gone = [each for each in live.posted if each not in live.held and 0 < window_end_of(each) < over]
            self._standing -= len(gone)
            for counter in gone:
                del live.posted[counter]

    def is_over(self, minute: str, now_millis: int) -> bool:
        """Whether holds of this minute need not be remembered any more."""
        newest_millis = _end_of(self._newest) if self._newest else 0
        return is_over(_end_of(minute), reached(newest_millis, now_millis), self._remembered_seconds)

    def adopt(self, tenant_id: str, live: LiveTenant) -> None:
        """Go on from a tenant's state as another fold had it."""
        known = self.tenants.get(tenant_id)
        self._standing += live.size - (known.size if known is not None else 0)
        self.tenants[tenant_id] = live

    def load(self, minute: str, ended: Ended) -> None:
        """Remember how holds of a minute ended that is not in memory."""
        self.unload([minute])
        self._newest = max(self._newest, minute)
        self.ended[minute] = ended
        self.remembered += sum(map(len, ended.values()))

    def unload(self, minutes: Iterable[str]) -> None:
        """Let go of these minutes."""
        for minute in minutes:
            self.remembered -= sum(map(len, self.ended.pop(minute, {}).values()))


def _end_of(minute: str) -> int:
    """When a minute of ids ends, milliseconds."""
    return (int(minute, 16) + 1) * MINUTE_MILLIS


def window_end_of(counter: str) -> int:
    """When a counter's window ends, microseconds; 0 for one that never does."""
    return int(counter.rpartition("|")[2])


def digest_of(body: Words) -> str:
    """What tells two bodies of a hold apart."""
    return hashlib.sha1(" ".join(body).encode(), usedforsecurity=False).hexdigest()[:DIGEST_DIGITS]


def pairs_of(words: Words) -> Iterator[tuple[str, str]]:
    """Counters and amounts."""
    each = iter(words)
    return zip(each, each, strict=True)


def _add(sums: dict[str, int], words: Words, sign: int = 1) -> None:
    each = iter(words)
    for counter in each:
        amount = int(next(each))
        if amount:
            sums[counter] = sums.get(counter, 0) + sign * amount


def _free(held: dict[str, int], words: Words) -> None:
    each = iter(words)
    for counter in each:
        left = held.get(counter, 0) - int(next(each))
        if left:
            held[counter] = left
        else:
            held.pop(counter, None)


def _extended(held: dict[str, int], body: Words, words: Words) -> Words:
    asked: Mapping[str, str] = dict(pairs_of(words))
    after: list[str] = []
    for counter, amount in pairs_of(body):
        more = max(int(asked.get(counter, amount)), int(amount))
        _add(held, (counter, str(more - int(amount))))
        after += (counter, str(more))
    return after


def _resolve(live: LiveTenant, kind: str, hold_id: str, body: Words, words: Words) -> str:
    """Free what is held and post what is charged; answers how the hold ended."""
    del live.holds[hold_id]
    _free(live.held, body)
    if kind == "RELEASED":
        return "r" + digest_of(body)
    _add(live.posted, words)
    if kind == "COMMITTED":
        return "c" + digest_of(body)
    return f"x{digest_of(body)} {' '.join(words)}"


def _commit_late(live: LiveTenant, ended: str, words: Words) -> str:
    """Take back what EXPIRED charged, and post the charge."""
    _add(live.posted, ended[DIGEST_DIGITS + 2 :].split(), -1)
    _add(live.posted, words)
    return "c" + ended[1 : DIGEST_DIGITS + 1]
