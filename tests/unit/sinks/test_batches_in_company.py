"""When a batch is cut: the longer writes take, the longer it waits for company."""

from __future__ import annotations

import pytest

from sinks.runner.assembler import Assembler
from sinks.runner.screen import Screen
from sinks.runner.seam import BatchPolicy
from streams.company import WORKS_REMEMBERED
from streams.log import Partition
from streams.runs import runs_of
from tests.support.stories import TOPIC_ID, Offsets, codec, request_story

CODEC = codec()
PARTITION = Partition("quaestor.costs", 0)
POLICY = BatchPolicy(age_milliseconds=250, age_writes=3.0, age_milliseconds_max=1_200)


def opened(policy: BatchPolicy) -> Assembler:
    """An assembler whose batch was opened at 100 s."""
    assembler = Assembler(Screen(CODEC, "test@v1"), policy)
    assembler.own(PARTITION, TOPIC_ID, 0)
    records = Offsets().records(CODEC, request_story(0), 1)
    assembler.enqueue(runs_of([record for record in records if record.topic == PARTITION.topic]))
    assembler.place(100.0)
    return assembler


@pytest.mark.parametrize(
    ("policy", "write_seconds", "age_seconds"),
    [(POLICY, 0.01, 0.25), (POLICY, 0.2, 0.6), (POLICY, 30.0, 1.2), (BatchPolicy(), 30.0, 0.25)],
)
def test_a_batch_is_as_old_as_writes_are_slow(policy: BatchPolicy, write_seconds: float, age_seconds: float) -> None:
    """Within the bounds of its policy; one that says nothing of writes is always the same."""
    assembler = opened(policy)
    for _ in range(WORKS_REMEMBERED):
        assembler.company.took(write_seconds)
    assert not assembler.due(100.0 + 0.99 * age_seconds)
    assert assembler.due(100.0 + 1.01 * age_seconds)
