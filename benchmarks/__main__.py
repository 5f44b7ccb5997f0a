"""`python -m benchmarks`: runs benchmarks and prints their tables; wrk must be installed for the gateway's."""

from __future__ import annotations

import argparse
import shutil
import sys

from benchmarks import gateway

SECONDS = 20
LONG_SECONDS = 300


def main() -> int:
    """Run them; exit code 2 when wrk is missing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="length of each run")
    parser.add_argument("--long-seconds", type=int, default=LONG_SECONDS, help="length of the run at a steady rate")
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.stderr.write("benchmarks: wrk is missing; install it (Debian: apt-get install wrk)\n")
        return 2
    gateway.show(gateway.run(arguments.seconds, arguments.long_seconds, _say))
    return 0


def _say(what: str) -> None:
    sys.stderr.write(f"{what}\n")


if __name__ == "__main__":
    sys.exit(main())
