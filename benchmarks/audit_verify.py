"""Verification of a whole audit log from its public files: entries a second, and memory as the log grows.

    python -m benchmarks.audit_verify [--entries 1000000,3000000] [--batch 5000] [--tenants 50] [--processes 2]

The logs are made of made-up records. Small batches are dearer: each ends with an entry whose commitment to all tenants'
chains is derived again. Memory is that of all processes, shared pages counted once.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks.made_log import TRUST, make_log
from benchmarks.measure import cpu_seconds, machine, resident_mebibytes
from sinks.audit.files import LogFiles
from sinks.audit.reader import DirectoryLog
from sinks.audit.verify_public import verify_public

RATE_GOAL = 100_000
LOOKS = 20


async def verify(folder: Path, processes: int) -> str:
    """Verify; the columns of its row behind the size."""
    peak, looked = 0.0, 0

    def look(done: int, total: int) -> None:
        nonlocal peak, looked
        if done * LOOKS // total > looked:
            looked += 1
            peak = max(peak, resident_mebibytes(os.getpid()))

    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as workers:
        began, cpu = time.perf_counter(), cpu_seconds(os.getpid())
        report, _ = await verify_public(DirectoryLog(LogFiles(folder)), TRUST, (), workers, look)
        seconds, cpu = time.perf_counter() - began, cpu_seconds(os.getpid()) - cpu
    if not report.ok:
        raise SystemExit(f"the log does not verify: {report.first_difference}")
    rate = report.size / seconds
    verdict = "met" if rate >= RATE_GOAL else "missed"
    return f"{rate:,.0f} | {cpu / report.size * 1e6:.1f} | {peak:.0f} | {verdict}"


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.audit_verify")
    parser.add_argument("--entries", default="1000000,3000000")
    parser.add_argument("--batch", type=int, default=5_000)
    parser.add_argument("--tenants", type=int, default=50)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    print(f"Machine: {machine()}\n")
    head = ("entries", "batch", "tenants", "processes", "entries/s", "CPU us each", "peak MiB", f"goal {RATE_GOAL:,}/s")
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|", flush=True)
    for entries in map(int, given.entries.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            size = make_log(Path(folder), entries, given.batch, given.tenants)
            row = asyncio.run(verify(Path(folder), given.processes))
            print(f"| {size:,} | {given.batch:,} | {given.tenants} | {given.processes} | {row} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
