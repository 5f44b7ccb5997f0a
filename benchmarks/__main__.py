"""`python -m benchmarks`: runs the benchmarks and prints their tables; wrk must be installed."""

from __future__ import annotations

import argparse
import shutil
import sys

from benchmarks import gateway


def main() -> int:
    """Run them; exit code 2 when wrk is missing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--seconds", type=int, default=gateway.SECONDS, help="length of each run")
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.stderr.write("benchmarks: wrk is missing; install it (Debian: apt-get install wrk)\n")
        return 2
    gateway.show(gateway.run(arguments.seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
