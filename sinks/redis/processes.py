"""ProcessFolder: processes that fold apart, begun for the time of a rebuild, told their errands once, heard by a pipe.

A process that is gone or silent, or whose words can't be read, leaves its errands where they began.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence

import msgspec
import structlog

from schemas import limits
from schemas.errors import IntegrityError
from sinks.redis import worker
from sinks.redis.apart import Apart, Folder, Gathering, begun
from sinks.redis.errands import Errand
from sinks.redis.worker import LENGTH_BYTES, Job, encode, word_of

log = structlog.get_logger()


class ProcessFolder(Folder):
    """Folds in processes of their own, at most so many at a time."""

    def __init__(
        self, bootstrap: str, registry_url: str, projection: str, processes_max: int, entries_max: int
    ) -> None:
        """Begin none yet; they share `entries_max`."""
        self._bootstrap, self._registry_url, self._projection = bootstrap, registry_url, projection
        self._processes_max, self._entries_max = min(processes_max, limits.REBUILD_PROCESSES_MAX), entries_max
        self._tasks: set[asyncio.Task[None]] = set()
        self._processes: set[Process] = set()

    def begin(self, errands: Sequence[Errand]) -> list[Apart]:
        """As the seam says."""
        found = []
        for share in shares(errands, self._processes_max):
            aparts = begun(share)
            found += aparts
            entries_max = self._entries_max // self._processes_max
            job = Job(self._bootstrap, self._registry_url, self._projection, entries_max, tuple(share))
            task = asyncio.create_task(self._send(job, Gathering(aparts)), name="fold-apart")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return found

    async def close(self) -> None:
        """As the seam says."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # A task may have been cancelled while it waited for the end of what it had killed.
        await asyncio.gather(*(process.wait() for process in self._processes))

    async def _send(self, job: Job, gathering: Gathering) -> None:
        """One process, from its first word to its last."""
        process = None
        try:
            # The house's names must be the installed ones, whatever lies in the folder we stand in.
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", worker.__name__, stdin=PIPE, stdout=PIPE
            )
            self._processes.add(process)
            await _converse(process, job, gathering)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, msgspec.DecodeError, IntegrityError) as error:
            log.warning("fold_apart_failed", detail=f"{type(error).__name__}: {error}")
        finally:
            gathering.end()
            if process is not None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
                self._processes.discard(process)


def shares(errands: Sequence[Errand], processes_max: int) -> list[list[Errand]]:
    """Errands by process: the longest first, each to who has least."""
    found: list[list[Errand]] = [[] for _ in range(max(1, min(processes_max, len(errands))))]
    for errand in sorted(errands, key=lambda each: each.first - each.end):
        min(found, key=lambda share: sum(each.end - each.first for each in share)).append(errand)
    return [share for share in found if share]


async def _converse(process: Process, job: Job, gathering: Gathering) -> None:
    if process.stdin is None or process.stdout is None:
        raise IntegrityError("a process without pipes")
    process.stdin.write(encode(job))
    process.stdin.close()
    while not gathering.is_over:
        async with asyncio.timeout(limits.REBUILD_SILENCE_SECONDS):
            size = int.from_bytes(await process.stdout.readexactly(LENGTH_BYTES), "big")
            if size > limits.REBUILD_WORD_BYTES_MAX:
                raise IntegrityError(f"a word of {size} bytes")
            gathering.take(word_of(await process.stdout.readexactly(size)))
