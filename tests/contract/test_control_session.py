"""A sitting at the control plane, on the log in memory and on a real Kafka."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from api.cli.control_keys import new_key
from api.cli.control_seed import seed
from api.control.session import ControlRefusedError, ControlSession
from processors import control
from schemas.errors import LogUnavailableError
from schemas.topics import CONTROL
from streams.codec import Codec, LocalSchemas
from streams.kafka import KafkaPublisher, KafkaReader
from streams.log import OutgoingRecord
from streams.memory import MemoryLog
from tests.support.kafka_server import fresh_product_topics

Sit = Callable[[], ControlSession]


@pytest.fixture(scope="module")
def bootstrap() -> str:
    """A broker whose control topic, which is one for all, is these tests' own."""
    return fresh_product_topics([CONTROL])


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.stack)])
def sit(request: pytest.FixtureRequest) -> Iterator[Sit]:
    """Open sessions on one log."""
    if request.param == "memory":
        log = MemoryLog()
        yield lambda: ControlSession(log.publisher(), log.reader(), Codec(LocalSchemas()), "cli/0")
        return
    address: str = request.getfixturevalue("bootstrap")
    opened: list[KafkaPublisher | KafkaReader] = []

    def open_session() -> ControlSession:
        publisher, reader = KafkaPublisher(address, linger_milliseconds=0), KafkaReader(address)
        opened.extend((reader, publisher))
        return ControlSession(publisher, reader, Codec(LocalSchemas()), "cli/0")

    yield open_session
    for client in opened:
        client.close()


def test_a_change_is_known_to_the_next_sitting(sit: Sit) -> None:
    """What one session recorded, a session that starts later reads."""
    created, _ = new_key(sit(), "acme", "search", "web")

    assert created.key_id in sit().refresh().keys


def test_a_session_sees_what_another_changed(sit: Sit) -> None:
    """Before it decides, a session reads on: the second revocation is refused."""
    first, second = sit(), sit()
    second.refresh()
    created, _ = new_key(first, "acme", "search", "web")
    first.change(lambda state, origin: control.revoke_key(state, created.key_id, origin))

    with pytest.raises(ControlRefusedError, match="revoked already"):
        second.change(lambda state, origin: control.revoke_key(state, created.key_id, origin))


def test_an_unreadable_record_stops_nobody(sit: Sit) -> None:
    """Bytes that are no event are passed over."""
    session = sit()
    session._publisher.publish([OutgoingRecord(CONTROL.name, b"x", b"garbage", ())], lambda _: None)
    session._publisher.flush(10)
    created, _ = new_key(session, "acme", "search", "web")

    assert created.key_id in sit().refresh().keys


def test_seeding_a_new_installation(sit: Sit) -> None:
    """Provider, price books and aliases are recorded once."""
    url = "http://127.0.0.1:18090/v1"

    assert (9, []) == (len(seed(sit(), url)), seed(sit(), url))


def test_a_log_that_is_away_is_said(tmp_path: object) -> None:
    """Nothing is decided on an old state."""
    log = MemoryLog()
    log.away = True
    session = ControlSession(log.publisher(), log.reader(), Codec(LocalSchemas()), "cli/0")

    with pytest.raises(LogUnavailableError):
        session.refresh()
