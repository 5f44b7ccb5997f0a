"""Processes that fold apart: begun for the time of a rebuild, told their errands once, heard by a pipe.

A process that is gone, or whose words can't be read, leaves its errands where they began. When the sink is gone, its
end of the pipe is: the process notices with its next word, which is never more than about a second away.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from typing import BinaryIO

import msgspec
import structlog

from schemas import limits
from schemas.errors import IntegrityError
from sinks.redis.apart import Apart, Folder, Gathering, begun
from sinks.redis.errands import Errand, Word, run_errands
from sinks.redis.slices import Slices
from sinks.runner.process import prepare_process
from streams.codec import Codec
from streams.kafka import KafkaReader
from streams.registry import RegistrySchemas

log = structlog.get_logger()

LENGTH_BYTES = 4
_encode = msgspec.msgpack.Encoder().encode
_word_of = msgspec.msgpack.Decoder(Word).decode


class Job(msgspec.Struct, frozen=True, array_like=True):
    """What a process is told."""

    bootstrap: str
    registry_url: str
    projection: str
    #: Holds and counters that it may keep in memory.
    entries_max: int
    errands: tuple[Errand, ...]


class ProcessFolder(Folder):
    """Folds in processes of their own, at most so many at a time."""

    def __init__(
        self, bootstrap: str, registry_url: str, projection: str, processes_max: int, entries_max: int
    ) -> None:
        """Begin none yet; they share `entries_max`."""
        self._bootstrap, self._registry_url, self._projection = bootstrap, registry_url, projection
        self._processes_max, self._entries_max = min(processes_max, limits.REBUILD_PROCESSES_MAX), entries_max
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, errands: Sequence[Errand]) -> list[Apart]:
        """As the seam says."""
        found = []
        for share in shares(errands, self._processes_max):
            aparts = begun(share)
            found += aparts
            entries_max = self._entries_max // self._processes_max
            job = Job(self._bootstrap, self._registry_url, self._projection, entries_max, tuple(share))
            task = asyncio.create_task(_send(job, Gathering(aparts)), name="fold-apart")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return found

    async def close(self) -> None:
        """As the seam says."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def shares(errands: Sequence[Errand], processes_max: int) -> list[list[Errand]]:
    """Errands by process: the longest first, each to who has least."""
    found: list[list[Errand]] = [[] for _ in range(max(1, min(processes_max, len(errands))))]
    for errand in sorted(errands, key=lambda each: each.first - each.end):
        min(found, key=lambda share: sum(each.end - each.first for each in share)).append(errand)
    return [share for share in found if share]


async def _send(job: Job, gathering: Gathering) -> None:
    """One process, from its first word to its last."""
    process = None
    try:
        # The house's names must be the installed ones, whatever lies in the folder we stand in.
        process = await asyncio.create_subprocess_exec(sys.executable, "-P", "-m", __name__, stdin=PIPE, stdout=PIPE)
        await _converse(process, job, gathering)
    except (OSError, asyncio.IncompleteReadError, msgspec.DecodeError, IntegrityError) as error:
        log.warning("fold_apart_failed", detail=f"{type(error).__name__}: {error}")
    finally:
        gathering.end()
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _converse(process: Process, job: Job, gathering: Gathering) -> None:
    if process.stdin is None or process.stdout is None:
        raise IntegrityError("a process without pipes")
    process.stdin.write(_encode(job))
    process.stdin.close()
    while not gathering.is_over:
        size = int.from_bytes(await process.stdout.readexactly(LENGTH_BYTES), "big")
        if size > limits.REBUILD_WORD_BYTES_MAX:
            raise IntegrityError(f"a word of {size} bytes")
        gathering.take(_word_of(await process.stdout.readexactly(size)))


def work(given: BinaryIO, told: BinaryIO) -> None:
    """Do the job that is given and tell its words, each behind its length. Raises as run_errands does."""
    job = msgspec.msgpack.decode(given.read(), type=Job)
    slices = Slices(Codec(RegistrySchemas(job.registry_url)), job.projection)
    reader = KafkaReader(job.bootstrap, "quaestor-sink-redis-apart")
    try:
        for word in run_errands(job.errands, reader, slices, job.entries_max):
            body = _encode(word)
            told.write(len(body).to_bytes(LENGTH_BYTES, "big") + body)
            told.flush()
    finally:
        reader.close()


if __name__ == "__main__":
    prepare_process()
    # Whoever is told to end, or has nobody to tell, just ends.
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        work(sys.stdin.buffer, sys.stdout.buffer)
