"""The ledger stream as a process that a test can kill: `python -m tests.support.ledger_program BOOTSTRAP COMMITS`.

It dies by SIGKILL in place of its commit number COMMITS: what followed from that batch is acknowledged, the position is
not committed.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Mapping

from processors.ledger import LedgerPoster
from streams.codec import Codec, LocalSchemas
from streams.kafka import KafkaGroupReader, KafkaPublisher
from streams.log import LogRecord, Membership, Partition
from streams.monitor import Monitor
from streams.runtime import StreamRuntime

RECORDS_PER_BATCH = 50
#: Whoever has this name takes the place of the one who died, and another waits so long for it.
MEMBERSHIP = Membership(3.0, "dying")


class DyingReader(KafkaGroupReader):
    """Takes small batches, and dies when it should commit once more."""

    commits_left = 0

    def consume(self, records_max: int, timeout_seconds: float) -> list[LogRecord]:
        """A small batch, so that there are many commits."""
        return super().consume(min(records_max, RECORDS_PER_BATCH), timeout_seconds)

    def commit_hint(self, cursors: Mapping[Partition, int]) -> None:
        """Commit, or die instead."""
        if self.commits_left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.commits_left -= 1
        super().commit_hint(cursors)


def main(bootstrap: str, commits: int) -> None:
    """Run until killed."""
    reader = DyingReader(bootstrap, "stream-ledger", "dying", MEMBERSHIP)
    reader.commits_left = commits
    publisher = KafkaPublisher(bootstrap)
    runtime = StreamRuntime(LedgerPoster(), reader, publisher, Codec(LocalSchemas()), Monitor("stream-ledger"))
    runtime.run(threading.Event())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
