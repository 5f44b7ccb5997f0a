"""Receipts: how long it takes to build one from a log's files, and to verify it with nothing but the file and the key.

    python -m benchmarks.receipts [--entries 1000000] [--receipts 10000]

The log is made of made-up records, 50 tenants, batches of 5,000. Each receipt is of an entry picked at random and built
on its own, as for somebody who asks for one: checkpoint, tiles and bundle are read from the disk each time. CPU is this
process's own: what the machine's other work adds to the wall clock is not in it.
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
    worked: dict[str, list[float]] = {"built": [], "verified": []}
    for _ in range(receipts):
        position = random.randrange(size)
        began, cpu = time.perf_counter(), time.process_time()
        note = await log.checkpoint() or ""
        (receipt,) = await build_receipts(log, note, TRUST.open(note).checkpoint.size, [position])
        built, cpu_built = time.perf_counter(), time.process_time()
        assert verify_proof(parse_proof(receipt.data), TRUST).entry.seq == position
        spent["built"].append(1_000 * (built - began))
        worked["built"].append(1_000 * (cpu_built - cpu))
        spent["verified"].append(1_000 * (time.perf_counter() - built))
        worked["verified"].append(1_000 * (time.process_time() - cpu_built))
    print(f"{receipts:,} receipts over {size:,} entries (seed {SEED})\n")
    print("| receipt | p50 ms | p99 ms | CPU p50 ms | CPU p99 ms | goal | p99 |\n|---|---|---|---|---|---|---|")
    for name, found in spent.items():
        p50, p99 = _percentiles(found)
        cpu_p50, cpu_p99 = _percentiles(worked[name])
        verdict = "met" if p99 <= GOALS_MILLISECONDS[name] else "missed"
        figures = f"{p50:.2f} | {p99:.2f} | {cpu_p50:.2f} | {cpu_p99:.2f}"
        print(f"| {name} | {figures} | {GOALS_MILLISECONDS[name]:g} | {verdict} |")


def _percentiles(found: list[float]) -> tuple[float, float]:
    ordered = sorted(found)
    return percentile(ordered, 0.5), percentile(ordered, 0.99)


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
