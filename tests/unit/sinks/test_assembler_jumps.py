"""Jumps in the offsets that a reader gives out: believed when a second read shows the same one, and only then."""

from __future__ import annotations

from sinks.runner.assembler import Assembler
from sinks.runner.screen import Screen
from sinks.runner.seam import BatchPolicy
from streams.log import LogRecord, Partition
from streams.runs import runs_of
from tests.support.stories import TOPIC_ID, Offsets, codec, request_story

CODEC = codec()
PARTITION = Partition("quaestor.costs", 0)


def records(*offsets: int) -> list[LogRecord]:
    """Records of one partition at these offsets."""
    made = [
        record for number in range(max(offsets) + 1) for record in Offsets().records(CODEC, request_story(number), 1)
    ]
    costs = [record for record in made if record.topic == PARTITION.topic]
    return [costs[offset]._replace(offset=offset) for offset in offsets]


def feed(assembler: Assembler, *offsets: int) -> dict[Partition, int]:
    """Place records as consumed; answers where the reader is sent."""
    assembler.enqueue(runs_of(records(*offsets)))
    assembler.place(0.0)
    asked = dict(assembler.rereads)
    assembler.rereads.clear()
    return asked


def owning() -> Assembler:
    """An assembler that expects offset 0."""
    assembler = Assembler(Screen(CODEC, "test@v1"), BatchPolicy())
    assembler.own(PARTITION, TOPIC_ID, 0)
    return assembler


def test_a_jump_is_read_again() -> None:
    """A later record than the next one is not taken; the reader is sent back."""
    assembler = owning()
    assert {PARTITION: 0} == feed(assembler, 3)
    assert 0 == assembler.owned[PARTITION]


def test_a_jump_that_is_seen_twice_is_a_hole() -> None:
    """Offsets without records, as transactions leave them, are passed over."""
    assembler = owning()
    feed(assembler, 3)
    assert {} == feed(assembler, 3)
    assert 4 == assembler.owned[PARTITION]


def test_a_jump_is_believed_for_its_own_place_only() -> None:
    """The reader erred once and gave the right record after; the same record too early again is another mistake."""
    assembler = owning()
    feed(assembler, 3)
    assert {} == feed(assembler, 0)

    assert {PARTITION: 1} == feed(assembler, 3)
    assert 1 == assembler.owned[PARTITION]
