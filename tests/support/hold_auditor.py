"""An auditor of the hold protocol that shares no code with the product: it knows docs/concepts/budgets.md alone.

It is told what was asked, what was answered, what stands in the log and how far the live store has applied it. Of every
hold it keeps the set of places where the hold may stand now: an answer that was lost leaves several. An answer that
none of them allows is a broken promise, and so is a counter that is not what the log says, and a call that nobody had
room for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from tests.support.hold_book import Book, Fact, Legs, due, limit_name, nonzero


class AuditError(AssertionError):
    """A promise was broken."""


class Answer(NamedTuple):
    """What the store answered, in one word; of `refused` the limit and what it had left."""

    word: str
    limit: str = ""
    left: int = 0


class Place(NamedTuple):
    """Where a hold may stand outside of the log: nowhere (""), open, pinned, dropped or refused."""

    status: str = ""
    legs: Legs = ()
    #: What it is to be raised by, counter by counter, that the log has not said yet.
    waits: tuple[int, ...] = ()
    #: Of a refusal: the limit, and between which bounds what it had left lies.
    refusal: tuple[str, int, int] = ("", 0, 0)

    @property
    def counted(self) -> Counter[str]:
        """What it takes of each counter."""
        found = Counter(dict(self.legs)) if self.status in {"open", "pinned"} else Counter[str]()
        found.update({counter: amount for (counter, _), amount in zip(self.legs, self.waits, strict=False)})
        return found


class Outcome(NamedTuple):
    """An answer that is allowed, and where the hold stands after it."""

    word: str
    after: Place
    #: As of a Place.
    refusal: tuple[str, int, int] = ("", 0, 0)

    def admits(self, answer: Answer) -> bool:
        """Whether it is this answer."""
        limit, least, most = self.refusal
        return self.word == answer.word and answer.limit == limit and least <= answer.left <= most

    def known(self, answer: Answer) -> Place:
        """Where the hold stands now that the answer is known."""
        if self.after.status != "refused":
            return self.after
        return self.after._replace(refusal=(answer.limit, answer.left, answer.left))


Outcomes = Callable[[Place], Iterable[Outcome]]
Bound = Callable[[Iterable[int]], int]


class View(NamedTuple):
    """What the live store says of itself."""

    #: None: there is no slot.
    generation: str | None
    is_open: bool
    #: Events of the log that are applied.
    cursor: int
    posted: Mapping[str, int]
    held: Mapping[str, int]
    #: Holds of which something counts that the log has not said.
    unconfirmed: frozenset[str]


class Auditor:
    """Of one tenant."""

    def __init__(self, limits: Mapping[str, int]) -> None:
        """`limits`: what each limit allows, in every window of it."""
        self._limits = limits
        self.log: list[Fact] = []
        self.whole, self._applied, self._cursor = Book(), Book(), 0
        self._generation: str | None = None
        #: All there have been: an older server may come back with one of them.
        self._generations: set[str | None] = {None}
        self._admits = self._is_lost = False
        #: Admission may open from this offset on; None while it is open.
        self._barrier: int | None = 0
        self._places: dict[str, set[Place]] = {}
        #: What callers were let use, and what they used once it is known.
        self._granted: dict[str, Legs] = {}

    @property
    def is_open(self) -> bool:
        """Whether holds are admitted."""
        return self._admits and not self._is_lost

    # What is told.

    def recorded(self, fact: Fact) -> None:
        """The log has one more event."""
        self.log.append(fact)
        self.whole.read(fact)

    def lost(self) -> None:
        """The server forgot everything, or an older one took over: nothing is admitted until another generation."""
        self._is_lost = True
        self._close()

    def time_passed(self) -> None:
        """The time of every unpinned hold is over: each may fall away from now on."""
        for places in self._places.values():
            places |= {place._replace(status="dropped") for place in places if place.status == "open"}

    def granted(self, hold: str, legs: Legs) -> None:
        """The caller may use so much from now on."""
        self._granted[hold] = legs
        self._demand_no_overspend()

    # What is asked, and answered; `heard` False: the answer was lost, or the question.

    def place(self, hold: str, legs: Legs, answer: Answer, *, heard: bool = True, stale: bool = False) -> None:
        """A hold was asked for."""
        self._judge("place", hold, answer, heard, stale, lambda place: self._placings(hold, legs, place))

    def extend(self, hold: str, legs: Legs, answer: Answer, *, heard: bool = True, stale: bool = False) -> None:
        """So much in all was asked for."""
        self._judge("extend", hold, answer, heard, stale, lambda place: self._extensions(hold, legs, place))

    def confirm(self, hold: str, generation: str, answer: Answer, *, heard: bool = True, stale: bool = False) -> None:
        """A hold was to be confirmed under a generation."""
        if not self.is_open or generation != self._generation:
            if answer.word not in ({"generation", "unreachable"} if stale else {"generation"}):
                raise AuditError(f"confirm of {hold} under another generation: {answer}")
            return
        self._judge("confirm", hold, answer, heard, stale, lambda place: self._confirmations(hold, place))

    def is_known(self, hold: str) -> bool:
        """Whether the store has this hold for certain, so that another body must conflict."""
        if not self.is_open or hold in self._applied.placed:
            return self.is_open
        return all(place.status in {"open", "pinned", "dropped"} for place in self._standing(hold))

    def seen(self, view: View) -> None:
        """Look at the live store, after every step."""
        if self._is_lost and view.generation in self._generations:
            return
        self._meet_generation(view)
        if view.generation is None:
            return
        self._advance(view.cursor)
        if view.is_open and not self._admits:
            if self._barrier is not None and view.cursor < self._barrier:
                raise AuditError(f"open at {view.cursor}, before the barrier at {self._barrier}")
            self._admits, self._barrier = True, None
        elif not view.is_open:
            self._close()
        self._compare(view)

    def ended(self, view: View) -> None:
        """Everything came to rest: nothing is held, and each call is charged, once."""
        self.seen(view)
        if view.cursor != len(self.log) or not view.is_open:
            raise AuditError(f"does not come to rest: {view}, {len(self.log)} events")
        if self.whole.open or view.unconfirmed or any(view.held.values()):
            raise AuditError(f"leak: {sorted(self.whole.open)} in the log, {view}")
        for hold, legs in self._granted.items():
            charged = self.whole.charged.get(hold)
            is_estimate = hold in self.whole.expired
            if charged is None or (is_estimate and any(dict(charged)[name] < amount for name, amount in legs)):
                raise AuditError(f"uncharged call: {hold} was let use {legs}, and charged {charged}")
        if nonzero(view.posted) != nonzero(due(self.log)):
            raise AuditError(f"charged {nonzero(view.posted)}, due {nonzero(due(self.log))}")

    def released(self, hold: str) -> None:
        """A call that was let go used nothing."""
        self._granted.pop(hold, None)

    # Judging.

    def _judge(self, what: str, hold: str, answer: Answer, heard: bool, stale: bool, outcomes: Outcomes) -> None:
        if answer.word in {"closed", "unreachable"} or not self.is_open:
            if answer.word not in {"closed", "unreachable"} or not (not self.is_open or stale):
                raise AuditError(f"{what} {hold}: {answer} while {'open' if self.is_open else 'closed'}")
            return
        before = self._standing(hold)
        allowed = [outcome for place in before for outcome in outcomes(place)]
        met = {outcome.known(answer) for outcome in allowed if outcome.admits(answer)}
        if not met:
            raise AuditError(f"{what} {hold}: {answer}, allowed are {allowed}")
        self._places[hold] = met if heard else before | {outcome.after for outcome in allowed}

    def _placings(self, hold: str, legs: Legs, place: Place) -> Iterator[Outcome]:
        if place.status in {"open", "pinned", "dropped"}:
            yield Outcome("placed" if legs == place.legs else "conflict", place)
        elif hold in self._applied.placed:
            now, first = self._bodies(hold)
            if legs in {now, first}:
                yield Outcome("placed", place)
            # A hold that grew is known by what it holds now: asked for as it began, it may be taken for another.
            if legs != now:
                yield Outcome("conflict", place)
        elif place.status == "refused":
            yield Outcome("refused", place, place.refusal) if legs == place.legs else Outcome("conflict", place)
        else:
            yield from self._decisions(hold, dict(legs), Place(), Place("open", legs), Place("refused", legs))

    def _extensions(self, hold: str, legs: Legs, place: Place) -> Iterator[Outcome]:
        body = self._applied.open.get(hold) or (place.legs if place.status == "pinned" else ())
        if not body or place.status == "dropped":
            yield Outcome("gone", place)
            return
        waits = dict(zip((name for name, _ in body), place.waits or (0,) * len(body), strict=True))
        lacks = {name: max(0, amount - dict(body)[name] - waits[name]) for name, amount in legs}
        grown = tuple(waits[name] + lacks[name] for name, _ in body)
        after = place._replace(legs=body, waits=grown if any(grown) else ())
        more = {name: amount for name, amount in lacks.items() if amount}
        yield from self._decisions(hold, more, place, after, place)

    def _confirmations(self, hold: str, place: Place) -> Iterator[Outcome]:
        if place.status in {"open", "pinned"}:
            yield Outcome("confirmed", place._replace(status="pinned"))
        elif place.status == "dropped":
            yield Outcome("dropped", place)
        elif hold in self._applied.open:
            yield Outcome("confirmed", place)
        else:
            yield Outcome("resolved" if hold in self._applied.ended else "unknown", place)

    def _decisions(
        self, hold: str, more: Mapping[str, int], now: Place, fits: Place, refused: Place
    ) -> Iterator[Outcome]:
        """What may be decided about so much more: it fits, or the first limit on which it may not says no."""
        own, (least, most) = now.counted, (self._others(hold, bound) for bound in (min, max))
        for name, amount in more.items():
            limit = self._limit(name)
            low, high = least[name] + own[name], most[name] + own[name]
            if high + amount > limit:
                refusal = limit_name(name), max(0, limit - high), max(0, limit - low)
                after = refused._replace(refusal=refusal) if refused.status == "refused" else refused
                yield Outcome("refused", after, refusal)
            if low + amount > limit:
                return
        yield Outcome("placed", fits)

    def _others(self, hold: str, bound: Bound) -> Counter[str]:
        """What all but a hold's own overlay take at least or at most."""
        found = self._applied.posted() + self._applied.held()
        for other, places in self._places.items():
            if other != hold:
                counted = [place.counted for place in places]
                found.update({name: bound(each[name] for each in counted) for name in {n for c in counted for n in c}})
        return found

    def _standing(self, hold: str) -> set[Place]:
        return self._places.get(hold) or {Place()}

    def _bodies(self, hold: str) -> tuple[Legs, Legs]:
        """What a hold that is applied holds, or held in the end, and what it began with."""
        first = self._applied.placed[hold]
        return self._applied.open.get(hold, self._applied.ended.get(hold, first)), first

    def _limit(self, counter: str) -> int:
        return self._limits[limit_name(counter)]

    # Following the live store.

    def _close(self) -> None:
        if self._barrier is None:
            self._barrier = len(self.log)
        self._admits = False

    def _meet_generation(self, view: View) -> None:
        if view.generation == self._generation:
            return
        # What was placed under another generation counts no more. Refusals may be remembered, or lost with the rest.
        refused = {hold: {p for p in places if p.status == "refused"} for hold, places in self._places.items()}
        self._places = {hold: {Place(), *places} for hold, places in refused.items() if places}
        self._generation, self._is_lost = view.generation, False
        self._generations.add(view.generation)
        self._close()
        self._applied, self._cursor = Book(), 0

    def _advance(self, cursor: int) -> None:
        if cursor < self._cursor:
            raise AuditError(f"the cursor went back from {self._cursor} to {cursor} under one generation")
        for fact in self.log[self._cursor : cursor]:
            before = self._applied.open.get(fact.hold, ())
            self._applied.read(fact)
            self._places[fact.hold] = {self._moved(fact, place, before) for place in self._standing(fact.hold)}
        self._cursor = cursor

    def _moved(self, fact: Fact, place: Place, before: Legs) -> Place:
        """Where a hold stands outside of the log when the log has said this."""
        if fact.kind == "PLACED":
            return place._replace(status="") if place.status in {"open", "pinned"} else place
        if fact.hold not in self._applied.open:
            return place._replace(waits=())
        now = dict(self._applied.open[fact.hold])
        raised = [now[name] - amount for name, amount in before]
        rest = tuple(wait - min(wait, more) for wait, more in zip(place.waits, raised, strict=False))
        return place._replace(waits=rest if any(rest) else ())

    def _compare(self, view: View) -> None:
        for name, said, says in (
            ("posted", view.posted, self._applied.posted()),
            ("held", view.held, self._applied.held()),
        ):
            if nonzero(said) != nonzero(says):
                raise AuditError(f"{name} is {nonzero(said)} at {view.cursor}, the log says {nonzero(says)}")
        for hold in {*view.unconfirmed, *self._places}:
            is_counted = {any(place.counted.values()) for place in self._standing(hold)}
            if (hold in view.unconfirmed) not in is_counted:
                raise AuditError(f"{hold} counts: {hold in view.unconfirmed}, but stands in {self._standing(hold)}")
        self._demand_no_overspend()

    def _demand_no_overspend(self) -> None:
        exposed = Counter[str]()
        for hold, legs in self._granted.items():
            charged = dict(self._committed(hold) or legs)
            # What a call used beyond its hold is overage: posted in full, and nobody's overspend.
            exposed.update({name: min(amount, charged.get(name, 0)) for name, amount in legs})
        for counter, amount in exposed.items():
            if amount > self._limit(counter):
                raise AuditError(f"overspend: {amount} of {self._limit(counter)} on {counter}")

    def _committed(self, hold: str) -> Legs | None:
        is_charged = hold in self.whole.charged and hold not in self.whole.expired
        return self.whole.charged[hold] if is_charged else None
