"""The fault suite's broken records are broken: the screen refuses each for the rule it is meant to break."""

from __future__ import annotations

from random import Random

import pytest

from processors.quarantine.rules import RULES
from schemas.events import QuarantineReason
from sinks.runner.screen import Screen
from sinks.runner.seam import Poison
from streams.log import LogRecord, OutgoingRecord
from tests.faults.poison import RULED, Poisoner, Way
from tests.support.stories import TOPIC_ID, codec, outgoing, request_story

ENCODER = codec()
SCREEN = Screen(ENCODER, "test@v1")
#: Enough that each rule of a topic is met.
RECORDS = 400


def verdict(record: OutgoingRecord) -> Poison:
    """What the screen says of it."""
    placed = LogRecord(record.topic, 0, 0, 0, record.key, record.value, record.headers)
    screened = SCREEN.screen(placed, TOPIC_ID, 1)
    assert isinstance(screened, Poison)
    return screened


@pytest.mark.parametrize("topic", RULED)
def test_semantic_poison_breaks_every_rule_of_its_topic(topic: str) -> None:
    """Every one is refused as SEMANTIC, and together they meet the key, the common rules and those of the topic."""
    poisoner = Poisoner(ENCODER, Random(1))
    like = next(record for record in outgoing(ENCODER, request_story(1)) if record.topic == topic)

    found = [verdict(poisoner.broken(Way.SEMANTIC, like)).event for _ in range(RECORDS)]

    assert {QuarantineReason.SEMANTIC} == {event.reason for event in found}
    rules = RULES[topic]
    assert {event.detail for event in found} == {
        "the record's key is not the one its fields say",
        "occurred_at is outside of the years 2020 to 2099",
        "tenant_id is not a name",
        *(f"{name} is not a UUID" for name in rules.uuids),
        *(f"{name} is outside of the years 1970 to 2199" for name in rules.times),
        *(f"{name} is negative" for name in rules.counts),
    }
