"""Where a test run keeps its temporary files: a folder of its own, in memory where there is plenty.

Servers that are made for a test write thousands of small files and sync every commit; on a disk that is most of what a
run waits for. What a killed process wrote is kept either way, since the kernel has it; no test cuts the power.

The folder goes with the run; who wants to look at what a test left sets TMPDIR.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import psutil

MEMORY = Path("/dev/shm")  # noqa: S108 - only ever the parent of a folder of our own
PREFIX = "quaestor-tests-"
#: A whole run leaves about two; more than that is there for programs.
FILES_BYTES_MIN = 6 * 1024**3
MEMORY_BYTES_MIN = 10 * 1024**3


def use_own_folder() -> None:
    """Point this process and its children there, for as long as it lives; TMPDIR, where it is set, stays."""
    if "TMPDIR" in os.environ:
        return
    parent = MEMORY if _has_plenty() else Path(tempfile.gettempdir())
    _sweep(parent)
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=parent))
    # Postgres may run as another user, who has to pass through.
    folder.chmod(0o711)
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
    # Registered first, so it runs last: after servers that tests share have ended.
    atexit.register(shutil.rmtree, folder, ignore_errors=True)


def _sweep(parent: Path) -> None:
    """Delete what runs that were killed left behind."""
    for left in parent.glob(f"{PREFIX}*-*"):
        owner = left.name.removeprefix(PREFIX).partition("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(left, ignore_errors=True)


def _has_plenty() -> bool:
    if not (
        os.access(MEMORY, os.W_OK) and any(part.mountpoint == str(MEMORY) for part in psutil.disk_partitions(all=True))
    ):
        return False
    return (
        psutil.disk_usage(str(MEMORY)).free > FILES_BYTES_MIN and psutil.virtual_memory().available > MEMORY_BYTES_MIN
    )
