"""What a process's partitions have set aside: parks what must wait, and stops a partition that has too much of it.

Works on whole batches just before they are written, on the writer's loop alone: there everything a record must wait for
is known, in the order of offsets, whether the screen or the store found it. A partition without open records costs one
look-up per batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from processors.quarantine.order import BY_HOLD, BY_KEY, Aside, Waiting, order_key_of
from schemas.events import QuarantinedRecord, QuarantineKind
from sinks.runner.screen import Screen
from sinks.runner.seam import Batch, Decoded, Poison, Span, Standing
from sinks.runner.watch import Pause, Watch
from streams.log import Partition

MICROS_PER_MILLI = 1_000
NOTHING = Standing()
SEEN_BEFORE = "was set aside before and is read again"


@dataclass(slots=True)
class _State:
    """One partition."""

    aside: Aside
    known: Mapping[int, Waiting | None]
    watch: Watch

    def new(self, span: Span) -> list[Poison]:
        """What was not set aside before."""
        return [poison for poison in span.poison if poison.offset not in self.known]

    def block(self, aside: Aside, poison: Poison) -> None:
        """Let later records wait for this one, unless it was discarded."""
        waiting = self.known[poison.offset] if poison.offset in self.known else waiting_of(poison.event)
        if waiting is not None:
            aside.add(waiting)


class Shelf:
    """Keeps the order behind records that are set aside. Used by the writer alone."""

    def __init__(self, screen: Screen) -> None:
        """Nothing is known."""
        self._screen = screen
        self._states: dict[Partition, _State] = {}

    def stand(self, standings: Mapping[Partition, Standing]) -> None:
        """Begin with what the quarantine store says of these partitions."""
        for partition, standing in standings.items():
            aside = Aside(partition.topic)
            for waiting in standing.unresolved:
                aside.add(waiting)
            self._states[partition] = _State(aside, standing.known, Watch(standing))

    def forget(self, partitions: Iterable[Partition]) -> None:
        """These are not ours any more."""
        for partition in partitions:
            self._states.pop(partition, None)

    def arrange(self, batch: Batch) -> tuple[Batch, dict[Partition, Pause]]:
        """The batch with what must wait parked, cut where a partition has too much; changes nothing here."""
        pauses: dict[Partition, Pause] = {}
        spans = []
        for span in batch.spans:
            state = self._state(span.partition)
            arranged = self._parked(span, state, batch.now_micros)
            pause = state.watch.first_too_many(state.new(arranged)) if arranged.poison else None
            if pause is not None:
                pauses[span.partition] = pause
                arranged = arranged.before(pause.offset)
            if arranged.next_offset > arranged.first_offset:
                spans.append(arranged)
        return Batch(spans, batch.now_micros), pauses

    def applied(self, batch: Batch) -> None:
        """An arranged batch is in the store, and what it set aside is kept."""
        for span in batch.spans:
            if span.poison:
                state = self._state(span.partition)
                state.watch.count(state.new(span))
                state.aside = state.aside.up_to(span.first_offset)
                for poison in span.poison:
                    state.block(state.aside, poison)

    def _state(self, partition: Partition) -> _State:
        state = self._states.get(partition)
        if state is None:
            state = self._states[partition] = _State(Aside(partition.topic), {}, Watch(NOTHING))
        return state

    def _parked(self, span: Span, state: _State, now_micros: int) -> Span:
        topic = span.partition.topic
        orders = bool(span.poison or state.aside) and (topic in BY_KEY or topic in BY_HOLD)
        if not orders and not state.known:
            return span
        aside = state.aside.up_to(span.first_offset)
        records: list[Decoded] = []
        poison: list[Poison] = []
        items: list[Decoded | Poison] = [*span.records, *span.poison]
        for item in sorted(items, key=lambda each: each.offset):
            found = item if isinstance(item, Poison) else self._found(item, span, state, aside, now_micros)
            if isinstance(found, Poison):
                poison.append(found)
                state.block(aside, found)
            else:
                records.append(found)
        return Span(span.partition, span.topic_id, span.first_offset, span.next_offset, records, poison)

    def _found(self, item: Decoded, span: Span, state: _State, aside: Aside, now_micros: int) -> Decoded | Poison:
        """A record that passed the screen, or its poison where it must wait."""
        if item.offset in state.known:
            return self._screen.parked(item, span.topic_id, None, SEEN_BEFORE, now_micros)
        if not aside:
            return item
        order_key = order_key_of(span.partition.topic, item.record.key, item.fields)
        behind = aside.before(order_key, item.record.key, item.offset)
        if behind is None:
            return item
        return self._screen.parked(item, span.topic_id, behind, "waits behind an earlier record", now_micros)


def waiting_of(event: QuarantinedRecord) -> Waiting:
    """A quarantined record, as far as order goes."""
    return Waiting(
        event.event_id,
        event.source_offset,
        event.order_key,
        event.key_bytes,
        event.occurred_at // MICROS_PER_MILLI,
        follows=event.kind is QuarantineKind.PARKED,
    )
