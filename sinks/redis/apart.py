"""Folding apart: others fold a long part of a closed partition's log, while the sink takes what comes behind it.

What they say is a fold as the sink would have made it, up to a cursor. Where that is less than was asked for, for
whatever reason, the sink goes on from there by itself. Nothing of it is in Redis before the sink writes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import structlog

from processors.budgets.live import LiveFold
from schemas import limits
from schemas.errors import QuaestorError, StoreUnavailableError
from schemas.topics import BUDGETS
from sinks.redis.errands import Errand, OfMinute, OfTenant, Over, ReadUpTo, Word, run_errands
from sinks.redis.slices import Slices
from sinks.redis.slot_event import SlotEvent
from sinks.runner.seam import QuarantineStore
from streams.codec import Codec
from streams.log import LogReader, Partition

log = structlog.get_logger()

#: Answers end offsets. Raises StoreUnavailableError while the log is away.
EndsOf = Callable[[Sequence[Partition]], Awaitable[Mapping[Partition, int]]]


class Folded(NamedTuple):
    """What came of an errand: every record below the cursor is in the fold."""

    fold: LiveFold
    cursor: int


@dataclass(slots=True)
class Apart:
    """An errand under way, and what came behind it meanwhile."""

    errand: Errand
    #: Never fails: who gets nowhere is where it began. Cancel it when nobody waits for it any more.
    result: asyncio.Future[Folded]
    #: Next offset that they read.
    read: int
    #: Movements from the errand's end on: tenant, events, and the offset that no more of its events are below.
    behind: list[tuple[str, Sequence[SlotEvent], int]] = field(default_factory=list)

    async def put(self, by_tenant: Mapping[str, Sequence[SlotEvent]], following: int) -> None:
        """Keep what comes behind; when that is too much, wait for what is in front of it."""
        if sum(len(events) for _, events, _ in self.behind) > limits.REBUILD_BEHIND_MAX:
            await asyncio.wait([self.result])
        self.behind += [(tenant_id, events, following) for tenant_id, events in by_tenant.items()]

    def whole(self) -> LiveFold | None:
        """The fold with all that came behind it; None when it ends before that."""
        fold, cursor = self.result.result()
        if cursor < self.errand.end:
            return None
        for tenant_id, events, following in self.behind:
            fold.apply(tenant_id, events, following)
        return fold


class Folder(Protocol):
    """Who folds. tests/contract/test_folder.py."""

    def begin(self, errands: Sequence[Errand]) -> list[Apart]:
        """Begin with all of them; on the loop, returns at once. When every result is cancelled, so is the work."""

    async def close(self) -> None:
        """End what is under way."""


class ThreadFolder(Folder):
    """Folds on a thread of this process: for tests, and for logs that no other process can read."""

    def __init__(self, make_reader: Callable[[], LogReader], codec: Codec, projection: str, entries_max: int) -> None:
        """`make_reader` makes a reader of its own; `projection` is the sink's."""
        self._make_reader, self._codec, self._projection = make_reader, codec, projection
        self._entries_max = entries_max
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fold-apart")

    def begin(self, errands: Sequence[Errand]) -> list[Apart]:
        """As the seam says."""
        aparts = begun(errands)
        self._thread.submit(self._run, aparts, asyncio.get_running_loop())
        return aparts

    async def close(self) -> None:
        """As the seam says."""
        await asyncio.to_thread(self._thread.shutdown)

    def _run(self, aparts: Sequence[Apart], loop: asyncio.AbstractEventLoop) -> None:
        gathering, reader = Gathering(aparts), self._make_reader()
        slices = Slices(self._codec, self._projection)
        try:
            for word in run_errands([each.errand for each in aparts], reader, slices, self._entries_max):
                loop.call_soon_threadsafe(gathering.take, word)
                if gathering.is_over:
                    break
        except QuaestorError as error:
            log.warning("fold_apart_failed", detail=str(error))
        finally:
            reader.close()
            loop.call_soon_threadsafe(gathering.end)


class Gathering:
    """Puts together what the words about some errands say. Used on the loop."""

    def __init__(self, aparts: Sequence[Apart]) -> None:
        """Nothing is told."""
        self._aparts = {each.errand.partition: each for each in aparts}
        self._folds = {each.errand.partition: LiveFold(each.errand.remembered_seconds) for each in aparts}

    @property
    def is_over(self) -> bool:
        """Whether nobody waits for another word."""
        return all(each.result.done() for each in self._aparts.values())

    def take(self, word: Word) -> None:
        """The next word."""
        match word:
            case ReadUpTo():
                self._aparts[word.partition].read = word.offset
            case OfTenant():
                self._folds[word.partition].adopt(word.tenant_id, word.live)
            case OfMinute():
                self._folds[word.partition].load(word.minute, word.ended)
            case Over():
                self._over(word.partition, word.cursor)

    def end(self) -> None:
        """There is none: what was not told to the end counts for nothing."""
        for number, apart in self._aparts.items():
            if not apart.result.done():
                self._folds[number] = LiveFold(apart.errand.remembered_seconds)
                self._over(number, apart.errand.first)

    def _over(self, number: int, cursor: int) -> None:
        result = self._aparts[number].result
        if not result.done():
            result.set_result(Folded(self._folds.pop(number), cursor))


def begun(errands: Sequence[Errand]) -> list[Apart]:
    """Errands of which nothing is told."""
    loop = asyncio.get_running_loop()
    return [Apart(each, loop.create_future(), each.first) for each in errands]


class Aparts:
    """Decides what is folded apart: up to the log's end as it is now, or up to what waits for a person."""

    def __init__(
        self,
        folder: Folder,
        ends_of: EndsOf,
        quarantine: QuarantineStore | None,
        projection: str,
        records_min: int = limits.REBUILD_APART_RECORDS_MIN,
    ) -> None:
        """`ends_of` answers end offsets; fewer than `records_min` records in all are not worth it."""
        self._folder, self._ends_of = folder, ends_of
        self._quarantine, self._projection = quarantine, projection
        self._records_min = records_min

    async def begin(self, firsts: Mapping[int, int], topic_id: str, remembered_seconds: int) -> list[Apart]:
        """Have these partitions folded from these offsets, as far as that is worth it; none when it can't be told."""
        try:
            errands = await self._errands(firsts, topic_id, remembered_seconds)
        except StoreUnavailableError as error:
            log.info("not_folded_apart", detail=str(error))
            return []
        if sum(each.end - each.first for each in errands) < self._records_min:
            return []
        return self._folder.begin(errands)

    async def _errands(self, firsts: Mapping[int, int], topic_id: str, remembered_seconds: int) -> list[Errand]:
        """Below the first record that waits, no other can wait for it: there the log alone says what is applied."""
        places = {Partition(BUDGETS.name, number): first for number, first in firsts.items()}
        ends = await self._ends_of(list(places))
        standings = {}
        if self._quarantine is not None:
            standings = await self._quarantine.standings(self._projection, places)
        found = []
        for place, first in places.items():
            standing = standings.get(place)
            waiting = [each.offset for each in standing.unresolved] if standing else []
            end = min([ends[place], *waiting])
            aside = tuple(sorted(standing.known)) if standing else ()
            if end > first and not (standing and standing.paused):
                is_strict = self._quarantine is not None
                found.append(Errand(place.number, topic_id, first, end, aside, is_strict, remembered_seconds))
        return found
