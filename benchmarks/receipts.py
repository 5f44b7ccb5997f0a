"""Receipts: how long it takes to build one from a log's files, and to verify it with nothing but the file and the key.

    python -m benchmarks.receipts [--entries 1000000] [--receipts 10000]

The log is made of made-up records, 50 tenants, batches of 5,000. Each receipt is of an entry picked at random and built
on its own, as for somebody who asks for one: checkpoint, tiles and bundle are read from the disk each time.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path
from random import Random

from benchmarks.made_log import TRUST, make_log
from benchmarks.measure import machine, percentile
from processors.audit.proof_file import parse_proof, verify_proof
from sinks.audit.files import LogFiles
from sinks.audit.reader import DirectoryLog
from sinks.audit.receipts import build_receipts

SEED = 7
BATCH, TENANTS = 5_000, 50
GOALS_MILLISECONDS = {"built": 5.0, "verified": 1.0}


async def run(folder: Path, entries: int, receipts: int) -> None:
    """Make the log, build and verify; print one row each."""
    size = make_log(folder, entries, BATCH, TENANTS)
    log, random = DirectoryLog(LogFiles(folder)), Random(SEED)
    spent: dict[str, list[float]] = {"built": [], "verified": []}
    for _ in range(receipts):
        position = random.randrange(size)
        began = time.perf_counter()
        note = await log.checkpoint() or ""
        (receipt,) = await build_receipts(log, note, TRUST.open(note).checkpoint.size, [position])
        built = time.perf_counter()
        assert verify_proof(parse_proof(receipt.data), TRUST).entry.seq == position
        spent["built"].append(1_000 * (built - began))
        spent["verified"].append(1_000 * (time.perf_counter() - built))
    print(f"{receipts:,} receipts over {size:,} entries (seed {SEED})\n\n| receipt | p50 ms | p99 ms | goal |  |")
    print("|---|---|---|---|---|")
    for name, found in spent.items():
        p50, p99 = (percentile(sorted(found), share) for share in (0.5, 0.99))
        verdict = "met" if p99 <= GOALS_MILLISECONDS[name] else "missed"
        print(f"| {name} | {p50:.2f} | {p99:.2f} | {GOALS_MILLISECONDS[name]:g} | {verdict} |")


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.receipts")
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--receipts", type=int, default=10_000)
    given = parser.parse_args()
    print(f"Machine: {machine()}\n")
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder), given.entries, given.receipts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
