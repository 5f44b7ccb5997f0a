"""A sitting at the control plane, on the log in memory and on a real Kafka."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import msgspec
import pytest

from api.cli.control_keys import new_key
from api.cli.control_seed import seed
from api.control.session import ControlRefusedError, ControlSession, Write, WriteReusedError
from processors import control
from processors.control import ControlState, Limit, Origin, Refusal
from schemas.errors import LogUnavailableError
from schemas.events import ControlEvent
from schemas.ids import derived_id
from schemas.topics import CONTROL
from streams.codec import Codec, LocalSchemas
from streams.kafka import KafkaPublisher, KafkaReader
from streams.log import Done, OutgoingRecord, Publisher
from streams.memory import MemoryLog
from tests.budget_world import limit_on
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
    """Provider, price books, a rate and aliases are recorded once."""
    url = "http://127.0.0.1:18090/v1"

    assert (10, []) == (len(seed(sit(), url)), seed(sit(), url))


def test_a_log_that_is_away_is_said(tmp_path: object) -> None:
    """Nothing is decided on an old state."""
    log = MemoryLog()
    log.away = True
    session = ControlSession(log.publisher(), log.reader(), Codec(LocalSchemas()), "cli/0")

    with pytest.raises(LogUnavailableError):
        session.refresh()


def writing(amount_nano: int, number: str) -> Write:
    """A write that sets the limit of a team a month to this amount, and a day's to twice as much."""
    month, day = (
        limit_on("team", number, amount, window=window)
        for window, amount in (("month", amount_nano), ("day", 2 * amount_nano))
    )
    decides = [partial(_set, limit) for limit in (month, day)]
    return Write(derived_id("tests", number, "write", ""), "console/0", decides)


def _set(limit: Limit, state: ControlState, origin: Origin) -> ControlEvent | Refusal:
    return control.set_limit(state, limit, origin)


def test_a_write_is_made_once(sit: Sit) -> None:
    """Asked for again in this sitting or another, it is answered with the same events, and nothing is recorded."""
    session = sit()
    made = session.write(writing(5, "once"))
    end = sit_end(session)

    assert [made, made] == [session.write(writing(5, "once")), sit().write(writing(5, "once"))]
    assert end == sit_end(session)


def test_a_write_of_something_else_is_refused(sit: Sit) -> None:
    """With what differs, whoever asks."""
    sit().write(writing(6, "other"))

    with pytest.raises(WriteReusedError) as refused:
        sit().write(writing(7, "other"))

    assert "amount" == refused.value.field


def test_a_write_that_was_cut_off_is_completed(sit: Sit) -> None:
    """Of two events only one was recorded: the other is made when the write is tried again."""
    session, write = sit(), writing(8, "cut")
    session._publisher = FirstOnly(session._publisher)
    with pytest.raises(LogUnavailableError):
        session.write(write)

    events = sit().write(write)

    assert ["month", "day"] == [msgspec.json.decode(event.after or "")["window"] for event in events]
    assert events == sit().write(write)


def test_a_write_that_two_make_at_once_is_one(sit: Sit) -> None:
    """Of two processes that do not know of each other, the first's events are the answer from then on."""
    write, first, second = writing(11, "twice"), sit(), sit()
    made: list[list[ControlEvent]] = []
    second._publisher = Overtaken(second._publisher, lambda: made.append(first.write(write)))
    second.write(write)

    assert made == [sit().write(write)]


def test_old_writes_are_forgotten(sit: Sit, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest are remembered, however many there were: the key of an older one is free again."""
    monkeypatch.setattr("api.control.session.CONTROL_WRITES_REMEMBERED", 2)
    session = sit()
    for number in ("f1", "f2", "f3"):
        session.write(writing(9, number))

    assert 2 == len(session.write(writing(10, "f1")))
    with pytest.raises(WriteReusedError):
        session.write(writing(10, "f3"))


def sit_end(session: ControlSession) -> int:
    """Where the control topic ends."""
    session.refresh()
    return session.next_offset


class Overtaken:
    """A publisher before which somebody else is quicker."""

    def __init__(self, real: Publisher, other: Callable[[], None]) -> None:
        """`other` is called before a group is handed over."""
        self._real, self._other = real, other

    def publish(self, records: Sequence[OutgoingRecord], done: Done) -> None:
        """As the seam says, a moment later."""
        self._other()
        self._real.publish(records, done)

    def flush(self, timeout_seconds: float) -> int:
        """As the seam says."""
        return self._real.flush(timeout_seconds)

    def close(self) -> None:
        """As the seam says."""
        self._real.close()


class FirstOnly:
    """A publisher that dies within a group: the first record gets there."""

    def __init__(self, real: Publisher) -> None:
        """It is still alive."""
        self._real = real

    def publish(self, records: Sequence[OutgoingRecord], done: Done) -> None:
        """As the seam says, up to the death."""
        self._real.publish(records[:1], lambda _: done(LogUnavailableError()))

    def flush(self, timeout_seconds: float) -> int:
        """As the seam says."""
        return self._real.flush(timeout_seconds)

    def close(self) -> None:
        """As the seam says."""
        self._real.close()
