"""LoopPublisher: an idempotent producer inside one event loop, for the gateway (docs/decisions/0149).

A call has eight records for six topics. librdkafka sends each partition's in a request of its own, and a broker's work
goes by requests; here everything that waits for one broker goes in one. While its answer is waited for, what comes
gathers for the next: alone a group is sent at once, together they share. One request at a time to each broker also
keeps the order within a partition, whatever fails between.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable, Sequence
from functools import lru_cache, partial

from schemas.errors import ConfigurationError, LogError, LogUnavailableError, RecordRefusedError
from schemas.limits import (
    CONNECT_TIMEOUT_SECONDS,
    DELIVERY_TIMEOUT_SECONDS,
    PRODUCER_QUEUE_BYTES_MAX,
    PRODUCER_QUEUE_RECORDS_MAX,
    RECORD_BYTES_MAX,
)
from streams.kafka import codes, requests
from streams.kafka.batches import Written, written
from streams.kafka.client_log import ClientLog
from streams.kafka.configuration import RECORD_OVERHEAD_BYTES
from streams.kafka.lanes import Group, Lane
from streams.kafka.link import Link
from streams.kafka.requests import Cluster, Identity
from streams.log import Done, OutgoingRecord
from streams.partitioner import positive_hash

#: Between two looks for what is overdue.
SWEEP_SECONDS = 0.25
#: Between two tries at what did not work, at first and at last.
PAUSE_SECONDS_MIN, PAUSE_SECONDS_MAX = 0.05, 0.5
#: Keys whose hash is remembered: those of the requests under way.
KEYS_REMEMBERED_MAX = 4_096
#: A record from its key on.
RECORD_BODY_BYTES_MAX = RECORD_BYTES_MAX + RECORD_OVERHEAD_BYTES
#: Batches of one request together, about.
REQUEST_BYTES_MAX = 8 * 1024 * 1024


class LoopPublisher:
    """A Publisher owned by one event loop: `publish` is called on it and `done` comes on it; `close` is awaited."""

    def __init__(
        self,
        bootstrap: str,
        *,
        client_id: str = "quaestor",
        delivery_seconds: float = DELIVERY_TIMEOUT_SECONDS,
        queue_records_max: int = PRODUCER_QUEUE_RECORDS_MAX,
    ) -> None:
        """Connect in the background, on the running loop; raises ConfigurationError for what is no address."""
        self._loop = asyncio.get_running_loop()
        self._bootstrap = [_address(one) for one in bootstrap.split(",")]
        self._client_id, self._delivery_seconds = client_id, delivery_seconds
        self._queue_records_max = queue_records_max
        self._hash = lru_cache(KEYS_REMEMBERED_MAX)(positive_hash)
        self._log = ClientLog()
        self._identity: Identity | None = None
        self._brokers: dict[int, tuple[str, int]] = {}
        self._links: dict[int, Link] = {}
        self._lanes: dict[str, list[Lane]] = {}
        #: Lanes with something to send, in the order in which they got it.
        self._due: dict[Lane, None] = {}
        #: Records of topics that are not known yet.
        self._unplaced: list[tuple[Written, Group]] = []
        self._open_records = self._open_bytes = 0
        self._flushing = self._closing = False
        self._quiet = asyncio.Event()
        self._wanted = asyncio.Event()
        self._wanted.set()
        self._task = asyncio.create_task(self._keep(), name="kafka-publisher")
        self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def publish(self, records: Sequence[OutgoingRecord], done: Done) -> None:
        """As the seam says, on the loop."""
        self.hand_over([written(record) for record in records], done)

    def hand_over(self, records: Sequence[Written], done: Done) -> None:
        """`publish`, of records that are written down already."""
        size = sum([len(body) for _, _, body in records])
        if (fault := self._refusal(records, size)) is not None or not records:
            done(fault)
            return
        self._open_records += len(records)
        self._open_bytes += size
        until = self._loop.time() + self._delivery_seconds
        group = Group(len(records), until, partial(self._finished, len(records), size, done))
        for record in records:
            self._place(record, group)
        self._flush_soon()

    async def flush(self, timeout_seconds: float) -> int:
        """Wait until everything handed over is done; returns how many records are still under way."""
        self._quiet.clear()
        if self._open_records:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._quiet.wait(), timeout_seconds)
        return self._open_records

    async def close(self) -> None:
        """Flush within the delivery timeout and let go; what is left is done with LogUnavailableError."""
        self._closing = True
        await self.flush(self._delivery_seconds + 1)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._sweeper.cancel()
        self._identity = None
        for link in list(self._links.values()):
            link.abort()
        self._expire(float("inf"))

    # Handing over.

    def _refusal(self, records: Sequence[Written], size: int) -> LogError | None:
        """Why a group is not taken."""
        if size > RECORD_BODY_BYTES_MAX and any(len(body) > RECORD_BODY_BYTES_MAX for _, _, body in records):
            return RecordRefusedError("a record is over the limit")
        if self._open_records + len(records) > self._queue_records_max:
            return LogUnavailableError("the producer's queue is full")
        if self._open_bytes + size > PRODUCER_QUEUE_BYTES_MAX:
            return LogUnavailableError("the producer's queue is full")
        return LogUnavailableError("the producer is closed") if self._closing else None

    def _place(self, record: Written, group: Group) -> None:
        topic, key, body = record
        lanes = self._lanes.get(topic)
        if lanes is None:
            self._unplaced.append((record, group))
            self._wanted.set()
            return
        lane = lanes[self._hash(key) % len(lanes)]
        lane.add(body, group)
        self._due[lane] = None

    def _finished(self, records: int, size: int, done: Done, fault: LogError | None) -> None:
        self._open_records -= records
        self._open_bytes -= size
        if not self._open_records:
            self._quiet.set()
        done(fault)

    # Sending.

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Send to every broker that is not busy what is due for it."""
        self._flushing = False
        now = self._loop.time()
        ready: dict[Link, list[Lane]] = {}
        for lane in self._due:
            link = self._links.get(lane.leader) if lane.leader is not None else None
            if link is None or not link.is_open or self._identity is None:
                self._wanted.set()
            elif not link.is_busy and lane.retry_at <= now:
                ready.setdefault(link, []).append(lane)
        for link, lanes in ready.items():
            self._send(link, lanes)

    def _send(self, link: Link, lanes: list[Lane]) -> None:
        """One request with a batch of each lane; lanes that make it too large wait for the next."""
        if self._identity is None:
            return
        now_millis, size = time.time_ns() // 1_000_000, 0
        batches: dict[str, list[tuple[int, bytes]]] = {}
        sent = []
        for lane in lanes:
            data = lane.take(self._identity, now_millis)
            batches.setdefault(lane.topic, []).append((lane.number, data))
            sent.append((lane, data))
            del self._due[lane]
            size += len(data)
            if size >= REQUEST_BYTES_MAX:
                break
        body = requests.produce_question(batches, int(self._request_seconds * 1_000))
        link.ask(requests.PRODUCE, body, partial(self._answered, sent))

    @property
    def _request_seconds(self) -> float:
        return self._delivery_seconds / 2

    def _answered(self, sent: Sequence[tuple[Lane, bytes]], answer: bytes | None) -> None:
        """What the broker says of each batch; without an answer all of them are sent again, as they are.

        Nothing of one that its lane has done with meanwhile: it went to a new leader too, and that one answered.
        """
        said: dict[tuple[str, int], int] = {}
        try:
            said = requests.read_produced(answer) if answer is not None else {}
        except requests.MALFORMED as error:
            self._log.log(logging.WARNING, "%s: a broker's answer can't be read", type(error).__name__)
        for lane, data in sent:
            if lane.awaits(data):
                self._judge(lane, said.get((lane.topic, lane.number), codes.NO_ANSWER))
            if lane.has_work:
                self._due[lane] = None
        if self._due:
            self._flush_soon()

    def _judge(self, lane: Lane, code: int) -> None:
        if code in codes.STANDS:
            lane.accepted()
        elif code in codes.REFUSALS:
            lane.refused(RecordRefusedError(f"{lane.topic}: {codes.text(code)}"))
        else:
            self._log.log(logging.WARNING, "%s: %s/%s", codes.text(code), lane.topic, lane.number)
            if code in codes.STRANGERS:
                self._identity = None
            lane.retry_at = self._loop.time() + PAUSE_SECONDS_MIN
            self._loop.call_later(PAUSE_SECONDS_MIN, self._flush_soon)
            self._wanted.set()

    # What is overdue.

    def _sweep(self) -> None:
        self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep)
        for link in list(self._links.values()):
            if link.waited_seconds() > self._request_seconds:
                link.abort()
        self._expire(self._loop.time())

    def _expire(self, now: float) -> None:
        fault = LogUnavailableError("Kafka did not acknowledge in time")
        for lane in list(self._due):
            if lane.expire(now, fault):
                self._identity = None
                self._wanted.set()
            if not lane.has_work:
                self._due.pop(lane, None)
        over = [group for _, group in self._unplaced if group.until <= now]
        self._unplaced = [pair for pair in self._unplaced if pair[1].until > now]
        for group in over:
            group.ended(fault)

    # Knowing the cluster.

    async def _keep(self) -> None:
        """Learn what is missing whenever something is, for as long as it takes."""
        pause_seconds = PAUSE_SECONDS_MIN
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
                    await self._learn()
                pause_seconds = PAUSE_SECONDS_MIN
            except (OSError, LogError, TimeoutError, *requests.MALFORMED) as error:
                self._log.log(logging.WARNING, "%s: %s", type(error).__name__, str(error))
                self._wanted.set()
            if self._unplaced:
                self._wanted.set()
            if not self._wanted.is_set():
                continue
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, PAUSE_SECONDS_MAX)

    async def _learn(self) -> None:
        link = await self._any_link()
        topics = self._lanes.keys() | {record[0] for record, _ in self._unplaced}
        self._adopt(requests.read_cluster(await link.answer(requests.METADATA, requests.metadata_question(topics))))
        if self._identity is None:
            said = requests.read_identity(await link.answer(requests.PRODUCER_ID, requests.producer_id_question()))
            if not isinstance(said, Identity):
                raise LogUnavailableError(f"no producer id: {codes.text(said)}")
            self._identity = said
        for number in {lane.leader for lanes in self._lanes.values() for lane in lanes}:
            if number is not None and number not in self._links and number in self._brokers:
                self._links[number] = await self._connect(*self._brokers[number])
        self._flush_soon()

    def _adopt(self, cluster: Cluster) -> None:
        """Take over who leads what, and place what waited for it."""
        self._brokers = dict(cluster.brokers)
        for topic, leaders in cluster.leaders.items():
            lanes = self._lanes.setdefault(topic, [])
            lanes += [Lane(topic, number) for number in range(len(lanes), len(leaders))]
            for lane, leader in zip(lanes, leaders, strict=False):
                lane.leader = leader
        unplaced, self._unplaced = self._unplaced, []
        for record, group in unplaced:
            topic = record[0]
            if (code := cluster.errors.get(topic, 0)) in codes.REFUSALS:
                group.ended(RecordRefusedError(f"{topic}: {codes.text(code)}"))
            elif topic in self._lanes:
                self._place(record, group)
            else:
                self._unplaced.append((record, group))

    async def _any_link(self) -> Link:
        """A link to whichever broker answers; raises the last OSError when none does."""
        self._links = {number: link for number, link in self._links.items() if link.is_open}
        for link in self._links.values():
            return link
        fault: OSError = OSError("no broker is known")
        for number, address in self._places():
            try:
                self._links[number] = await self._connect(*address)
            except OSError as error:
                fault = error
            else:
                return self._links[number]
        raise fault

    def _places(self) -> Iterable[tuple[int, tuple[str, int]]]:
        """Brokers that are known, then those we were told of, under numbers that no broker has."""
        yield from self._brokers.items()
        yield from ((-1 - place, address) for place, address in enumerate(self._bootstrap))

    async def _connect(self, host: str, port: int) -> Link:
        _, link = await self._loop.create_connection(lambda: Link(self._loop, self._client_id), host, port)
        return link


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.strip().rpartition(":")
    if not colon or not port.isdecimal():
        raise ConfigurationError(f"{text!r} is no Kafka address: it must read host:port")
    return host.strip("[]"), int(port)
