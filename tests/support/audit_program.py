"""An audit sink as a process of its own, fed with made-up records until it is killed.

Arguments: data directory, dsn. Prints a line once it has claimed the log.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from sinks.audit.layout import AuditLayout
from sinks.audit.process import make_sink
from sinks.postgres.audit import PostgresAuditStore
from sinks.runner.seam import Batch
from tests.support.audit import ORIGIN, PARTITIONS, TOPIC, TOPIC_ID, spans_of

BATCH_RECORDS = 40


async def feed(data: Path, dsn: str) -> None:
    """Claim the log and enter batch after batch."""
    sink = make_sink(AuditLayout(data, "test", ORIGIN), PostgresAuditStore(dsn, "test"), "program")
    await sink.open()
    cursors = await sink.claim(PARTITIONS, {TOPIC: TOPIC_ID})
    sys.stdout.write("claimed\n")
    sys.stdout.flush()
    offset = min(cursors.values())
    while True:
        await sink.write(Batch(spans_of(offset, BATCH_RECORDS), 1))
        offset += BATCH_RECORDS


if __name__ == "__main__":
    asyncio.run(feed(Path(sys.argv[1]), sys.argv[2]))
