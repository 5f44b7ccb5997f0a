"""Topics that were created, and brokers that do not know it yet."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from schemas.errors import LogUnavailableError
from streams.kafka.admin import wait_known

KNOWN, ELECTING = SimpleNamespace(error=None), SimpleNamespace(error="no leader yet")


class Told:
    """A client that is told these topics, one answer after the other; the last one again and again."""

    def __init__(self, *answers: dict[str, SimpleNamespace]) -> None:
        """Nothing was asked yet."""
        self.answers = list(answers)

    def list_topics(self, timeout: float) -> SimpleNamespace:
        """As confluent-kafka's."""
        assert timeout >= 0
        return SimpleNamespace(topics=self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])


def test_it_waits_until_the_brokers_know_a_topic_and_its_leader() -> None:
    """Whoever writes or reads next finds it."""
    client = Told({}, {"a": KNOWN}, {"a": KNOWN, "b": ELECTING}, {"a": KNOWN, "b": KNOWN})

    wait_known(client, {"a", "b"}, 10)

    assert [{"a": KNOWN, "b": KNOWN}] == client.answers


def test_it_does_not_wait_for_ever() -> None:
    """And names what is missing."""
    with pytest.raises(LogUnavailableError, match=": b"):
        wait_known(Told({"a": KNOWN}), {"a", "b"}, 0)
