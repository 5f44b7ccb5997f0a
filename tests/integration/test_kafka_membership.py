"""Processes with a name of their own in a group: a restarted one takes its place back, the one before it must end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

import pytest

from schemas.errors import ReplacedError
from streams.kafka import KafkaGroupReader
from streams.log import Membership, Partition
from tests.support.kafka_server import fresh_topic, kafka_bootstrap

pytestmark = pytest.mark.stack

PARTITIONS = 4
SECONDS = 60.0
#: Longer than any test runs: what happens earlier did not wait for a session to end.
SESSION_SECONDS = 120.0


class Member:
    """One process's reader, polled by the test."""

    def __init__(self, topic: str, instance: str) -> None:
        """Join the topic's group."""
        self.owned: set[Partition] = set()
        self.reader = KafkaGroupReader(
            kafka_bootstrap(), f"{topic}.group", "test", Membership(SESSION_SECONDS, instance)
        )
        self.reader.subscribe([topic], self._take, self._give)

    def _take(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        self.owned.update(partitions)
        return dict.fromkeys(partitions, 0)

    def _give(self, partitions: Sequence[Partition]) -> None:
        self.owned.difference_update(partitions)

    def owns_everything(self) -> bool:
        """After one more poll."""
        self.reader.consume(10, 0.1)
        return len(self.owned) == PARTITIONS


@pytest.fixture
def members() -> Iterator[list[Member]]:
    """Closed at the end."""
    made: list[Member] = []
    yield made
    for member in made:
        member.reader.close()


def until(condition: Callable[[], bool]) -> None:
    """Poll it, with a deadline."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline


def test_a_restarted_process_does_not_wait_for_its_old_session(members: list[Member]) -> None:
    """The one before it neither left the group nor ran into its session's end."""
    topic = fresh_topic(PARTITIONS)
    members.append(Member(topic, "one"))
    until(members[0].owns_everything)

    members.append(Member(topic, "one"))

    until(members[1].owns_everything)


def test_the_process_that_was_replaced_learns_it(members: list[Member]) -> None:
    """It is not confirmed any more, and raises ReplacedError, so that it ends instead of waiting for ever."""
    topic = fresh_topic(PARTITIONS)
    members += [Member(topic, "one")]
    until(members[0].owns_everything)
    members.append(Member(topic, "one"))
    until(members[1].owns_everything)
    stands = dict.fromkeys(members[1].owned, 0)
    assert members[1].reader.confirm(stands)
    assert not members[0].reader.confirm(stands)

    def told() -> bool:
        with suppress(ReplacedError):
            members[0].reader.consume(10, 0.1)
            return False
        return True

    until(told)
