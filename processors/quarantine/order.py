"""What must wait behind a record that is set aside, topic by topic (docs/decisions/0090).

    topic                                order_key          waits behind an open record
    requests, decisions, attempts, costs the record's key   what has the same key: one request or run
    control                              the record's key   what has the same key: one entity
    budgets                              hold_id            what has the same hold
    ledger                               attempt_id         what has the same attempt (its hold)
    health, alerts, quarantine           none               nothing: each record stands for itself

Of budgets and ledger the key is the tenant, and stopping all of a tenant's money for one record would be worse than
the record. Where such a record can't be read, its hold is not known; it is a hold made before the record was written,
and hold ids carry their time: movements of younger holds go on, those of older ones wait.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from schemas import limits, topics
from schemas.ids import uuid7_millis

MILLIS_PER_SECOND = 1_000
#: Later than any uuid7 can say.
MILLIS_MAX = 1 << 48
#: Topics whose records wait for their whole key.
BY_KEY = frozenset(
    topic.name for topic in (topics.REQUESTS, topics.DECISIONS, topics.ATTEMPTS, topics.COSTS, topics.CONTROL)
)


def _hold(fields: Mapping[str, Any]) -> str:
    return str(fields["hold_id"])


def _attempt(fields: Mapping[str, Any]) -> str:
    return str(fields["attempt_id"] or fields["pending_id"] or fields["event_id"])


#: Topics whose records wait for a hold.
BY_HOLD: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    topics.BUDGETS.name: _hold,
    topics.LEDGER.name: _attempt,
}


class Waiting(NamedTuple):
    """A record that is set aside, as far as order goes."""

    event_id: str
    offset: int
    #: Null when nothing waits for it, or when its hold could not be read.
    order_key: str | None
    key: bytes | None
    #: When the record was written, milliseconds; 0 when unknown.
    record_millis: int
    #: Whether it only waits behind others: it may be applied when none of them stands before it any more.
    follows: bool = False


def key_text(key: bytes) -> str:
    """A record's key as its order_key: text that every store can keep, whatever the key is."""
    return _storable(key.decode("utf-8", "backslashreplace"))


def _storable(text: str) -> str:
    """Without what Postgres has no text for."""
    return text.replace("\0", "\\x00")


def order_key_of(topic: str, key: bytes | None, fields: Mapping[str, Any] | None) -> str | None:
    """What later records wait for, or None; `fields` is None when the record could not be read."""
    if topic in BY_KEY:
        return key_text(key) if key else None
    hold_of = BY_HOLD.get(topic)
    return _storable(hold_of(fields)) if hold_of is not None and fields is not None else None


@dataclass(slots=True)
class Aside:
    """The open records of one partition, and what waits behind them. Records are asked for in the order of offsets."""

    topic: str
    #: order_key -> the first open record of it.
    _chains: dict[str, Waiting] = field(default_factory=dict)
    #: Records of holds that are not known, by key, and the time up to which a hold of the key may be one of theirs.
    _unread: dict[bytes, list[Waiting]] = field(default_factory=dict)
    _until_millis: dict[bytes, int] = field(default_factory=dict)
    _highest_offset: int = -1

    def __bool__(self) -> bool:
        """Whether anything is open that others might wait for."""
        return bool(self._chains or self._unread)

    def add(self, waiting: Waiting) -> None:
        """Let later records wait for this one."""
        self._highest_offset = max(self._highest_offset, waiting.offset)
        if waiting.order_key is not None:
            known = self._chains.get(waiting.order_key)
            if known is None or waiting.offset < known.offset:
                self._chains[waiting.order_key] = waiting
        elif self.topic in BY_HOLD and waiting.key is not None:
            self._unread.setdefault(waiting.key, []).append(waiting)
            self._until_millis[waiting.key] = max(self._until_millis.get(waiting.key, 0), _latest_hold(waiting))

    def up_to(self, offset: int) -> Aside:
        """All of it but the records at and behind an offset, which are read again."""
        if self._highest_offset < offset:
            return self
        earlier = Aside(self.topic)
        for each in (*self._chains.values(), *(each for of_key in self._unread.values() for each in of_key)):
            if each.offset < offset:
                earlier.add(each)
        return earlier

    def before(self, order_key: str | None, key: bytes | None, offset: int) -> str | None:
        """event_id of the open record that one at this offset must wait for, or None."""
        if order_key is None:
            return None
        open_one = self._chains.get(order_key)
        if open_one is not None and open_one.offset < offset:
            return open_one.event_id
        if key is None or key not in self._unread:
            return None
        made_millis = _made_millis(order_key)
        if made_millis > self._until_millis[key]:
            return None
        unread = (each for each in self._unread[key] if each.offset < offset and made_millis <= _latest_hold(each))
        return next((each.event_id for each in unread), None)


def _latest_hold(unread: Waiting) -> int:
    """The latest time at which the hold of a record can have been made, with the error that clocks are allowed."""
    if unread.record_millis <= 0:
        return MILLIS_MAX
    return unread.record_millis + limits.CLOCK_SKEW_SECONDS * MILLIS_PER_SECOND


def _made_millis(hold_id: str) -> int:
    """When a hold was made; 0 for an id that does not say."""
    try:
        return uuid7_millis(hold_id)
    except ValueError:
        return 0


def may_go(topic: str, unresolved: Iterable[Waiting], asked: Collection[str], cursor: int) -> list[Waiting]:
    """What a redrive applies, in the order of offsets: what was asked for, and parked records nothing stands before.

    `unresolved` are all open records of one partition. A record that was asked for but waits behind one that was not
    stays, and so does one that the cursor has not passed: it will be read again.
    """
    staying, going = Aside(topic), []
    for each in sorted(unresolved, key=lambda waiting: waiting.offset):
        wanted = each.offset < cursor and (each.event_id in asked or each.follows)
        if wanted and staying.before(each.order_key, each.key, each.offset) is None:
            going.append(each)
        else:
            staying.add(each)
    return going
