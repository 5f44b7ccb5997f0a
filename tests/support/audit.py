"""A naive Merkle tree, straight from RFC 6962, and audit logs to try things on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path

from processors.audit.commitment import Salts
from processors.audit.merkle import NodeReader
from schemas.events import QuarantineReason
from schemas.ids import derived_id
from sinks.audit.files import LogFiles
from sinks.audit.key_ring import KeyRing
from sinks.audit.layout import AuditLayout, Probe, no_probe
from sinks.audit.lock import FileLockStore
from sinks.audit.memory import MemoryAuditStore
from sinks.audit.publisher import Publisher
from sinks.audit.sequencer import Sequencer
from sinks.audit.store import AuditStore
from sinks.audit.verify import AuditReport, verify_audit
from sinks.runner.screen import Screen
from sinks.runner.seam import Decoded, Span
from streams.codec import Codec, LocalSchemas
from streams.log import LogRecord, Partition

CODEC = Codec(LocalSchemas())
SALTS = Salts(bytes(range(32)))
NOW_SECONDS = 1_700_000_000.0


def entries_of(count: int) -> list[bytes]:
    """Distinct entries of uneven lengths."""
    return [b"entry %d" % number + b"." * (number % 7) for number in range(count)]


def naive_root(entries: Sequence[bytes]) -> bytes:
    """MTH(D[n]) as the RFC writes it."""
    if not entries:
        return sha256(b"").digest()
    if len(entries) == 1:
        return sha256(b"\0" + entries[0]).digest()
    k = 1
    while k * 2 < len(entries):
        k *= 2
    return sha256(b"\1" + naive_root(entries[:k]) + naive_root(entries[k:])).digest()


def naive_path(index: int, entries: Sequence[bytes]) -> list[bytes]:
    """PATH(m, D[n]) as the RFC writes it."""
    if len(entries) == 1:
        return []
    k = 1
    while k * 2 < len(entries):
        k *= 2
    if index < k:
        return [*naive_path(index, entries[:k]), naive_root(entries[k:])]
    return [*naive_path(index - k, entries[k:]), naive_root(entries[:k])]


def naive_consistency(old_size: int, entries: Sequence[bytes], *, whole: bool = True) -> list[bytes]:
    """SUBPROOF(m, D[n], b) as the RFC writes it."""
    if old_size == len(entries):
        return [] if whole else [naive_root(entries)]
    k = 1
    while k * 2 < len(entries):
        k *= 2
    if old_size <= k:
        return [*naive_consistency(old_size, entries[:k], whole=whole), naive_root(entries[k:])]
    return [*naive_consistency(old_size - k, entries[k:], whole=False), naive_root(entries[:k])]


def nodes_of(entries: Sequence[bytes]) -> NodeReader:
    """Reads complete subtrees of these entries."""

    @cache
    def node(level: int, index: int) -> bytes:
        return naive_root(entries[index << level : (index + 1) << level])

    return node


TOPIC = "quaestor.budgets"
TOPIC_ID = "topic-uuid-of-budgets"
PARTITIONS = [Partition(TOPIC, number) for number in range(2)]
CONTROL_PARTITION = Partition("quaestor.control", 0)
CONTROL_ID = "topic-uuid-of-control"
ORIGIN = "quaestor.local/audit/test"


def spans_of(start: int, count: int, tenants: int = 3) -> list[Span]:
    """`count` made-up records from offset `start` on in each partition; every seventh can't be decoded."""
    return [_span(partition, start, count, tenants) for partition in PARTITIONS]


def _span(partition: Partition, start: int, count: int, tenants: int) -> Span:
    span = Span(partition, TOPIC_ID, start, start + count)
    for offset in range(start, start + count):
        record = LogRecord(*partition, offset, 1_700_000_000_000, b"key", b"\0\0\0\0\5value %d" % offset, ())
        if offset % 7 == 6:
            poison = Screen(CODEC, "audit@v1").poison(record, TOPIC_ID, QuarantineReason.UNDECODABLE, "test", 1)
            span.poison.append(poison)
            continue
        event_id = derived_id("test", str(partition), str(offset), "")
        fields = {
            "tenant_id": f"tenant_{offset % tenants}", "event_id": event_id, "request_id": None, "kind": "PLACED",
            "occurred_at": 1_700_000_000_000_000 + offset, "amount_nano": offset, "currency": "USD",
        }  # fmt: skip
        span.records.append(Decoded(offset, fields, record))
    return span


class AuditWorld:
    """A log in a folder over a memory store, driven step by step; processes of it come and go."""

    def __init__(self, folder: Path, probe: Probe = no_probe) -> None:
        """A first process owns the log."""
        self.layout = AuditLayout(folder, "test", ORIGIN)
        self.store: AuditStore = MemoryAuditStore()
        self.offset = 0
        #: How many tenants the next records are of.
        self.tenants = 3
        self.begin(probe)

    def begin(self, probe: Probe = no_probe) -> None:
        """A new process; what stands in memory of the one before is forgotten."""
        if isinstance(self.store, MemoryAuditStore):
            self.store.probe = probe
        self.files = LogFiles(self.layout.directory, probe)
        self.lock = FileLockStore(self.layout.lock_file, probe)
        self.ring = KeyRing(self.layout, probe)
        self.signer = self.ring.open().today
        self.publisher = Publisher(self.store, self.files, self.lock, self.ring, probe)
        self.sequencer = Sequencer(self.store, SALTS, "test", self.publisher.offer, lambda: NOW_SECONDS)

    async def claim(self) -> None:
        """Take the log, as a starting process does."""
        state = await self.sequencer.claim(dict.fromkeys(PARTITIONS, TOPIC_ID))
        await self.publisher.open(state)
        await self.sequencer.end_with_heads()

    async def feed(self, count: int) -> None:
        """Sequence the next `count` records of each partition."""
        await self.sequencer.append(spans_of(self.offset, count, self.tenants))
        self.offset += count

    async def tell_of_cut(self) -> None:
        """Enter and publish that the log is cut, as the control topic tells it."""
        if isinstance(self.store, MemoryAuditStore):
            self.store.positions.setdefault(CONTROL_PARTITION, (CONTROL_ID, 0))
        offset = (await self.store.cursors()).get(CONTROL_PARTITION, 0)
        fields = {
            "tenant_id": "_system", "event_id": derived_id("test", "control", str(offset), ""), "request_id": None,
            "action": "PRUNED", "occurred_at": 1_700_000_000_000_000,
        }  # fmt: skip
        record = LogRecord(*CONTROL_PARTITION, offset, 1_700_000_000_000, b"key", b"\0\0\0\0\6cut", ())
        span = Span(CONTROL_PARTITION, CONTROL_ID, offset, offset + 1)
        span.records = [Decoded(offset, fields, record)]
        await self.sequencer.append([span])
        await self.publish()

    async def publish(self) -> None:
        """Integrate and publish everything sequenced."""
        while await self.publisher.integrate():
            pass
        await self.publisher.publish()

    async def grow(self, *counts: int) -> None:
        """Feed and publish in steps."""
        for count in counts:
            await self.feed(count)
            await self.publish()

    async def verify(self) -> AuditReport:
        """What verification says now."""
        keys = KeyRing(self.layout).load().chain
        files, lock = LogFiles(self.layout.directory), FileLockStore(self.layout.lock_file)
        return await verify_audit(self.store, files, lock, keys)


class Failing:
    """A probe that raises at one of the points it passes, once."""

    def __init__(self, at: int, error: Callable[[str], Exception]) -> None:
        """Let `at` points pass first."""
        self.points: list[str] = []
        self._at = at
        self._error = error

    def __call__(self, point: str) -> None:
        """Pass a point or raise."""
        self.points.append(point)
        if len(self.points) == self._at + 1:
            raise self._error(point)
