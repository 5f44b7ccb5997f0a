"""Lines about itself: a process says them where it can, and works on where it can't."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PROGRAM = """
import os, structlog
from streams.diagnostics import configure_diagnostics
configure_diagnostics()
for number in range(3):
    structlog.get_logger().warning("met", number=number, text="\\udcff")
os.write(2, b"worked on")
"""


def said(output: Any) -> subprocess.CompletedProcess[bytes]:
    """What the program says with this standard output."""
    return subprocess.run([sys.executable, "-c", PROGRAM], stdout=output, stderr=subprocess.PIPE, check=True)


def test_each_line_is_an_object() -> None:
    """Level, time and what was met; a text that is no Unicode is spelled."""
    lines = [json.loads(line) for line in said(subprocess.PIPE).stdout.splitlines()]

    assert [0, 1, 2] == [line["number"] for line in lines]
    assert {("warning", "met")} == {(line["level"], line["event"]) for line in lines}


def test_a_full_disk_under_the_log_ends_no_process() -> None:
    """Every write to this device fails as on a full disk; the exit code is 0 all the same."""
    with Path("/dev/full").open("wb") as full:
        assert b"worked on" == said(full).stderr
