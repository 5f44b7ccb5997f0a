"""Faults of the file system under the embedded stack, each one line with what to do."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from infra.embedded.errors import explained

DATA = Path("/srv/quaestor")
UNWRITABLE = "can't be written: choose another folder with --data or QUAESTOR_DATA"
NO_FOLDER = "is no folder: choose another one with --data or QUAESTOR_DATA"


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.EROFS, UNWRITABLE),
        (errno.EACCES, UNWRITABLE),
        (errno.EPERM, UNWRITABLE),
        (errno.EEXIST, NO_FOLDER),
        (errno.ENOTDIR, NO_FOLDER),
    ],
    ids=errno.errorcode.get,
)
def test_a_folder_that_can_not_be_used_is_named_with_what_to_do(number: int, says: str) -> None:
    """The file at fault, where the system names one; else the folder that was asked for."""
    words = os.strerror(number)
    named, unnamed = (explained(OSError(number, words, *file), DATA) for file in (("/srv/quaestor/logs",), ()))

    assert (f"/srv/quaestor/logs {says}", f"{DATA} {says}") == (str(named), str(unnamed))


def test_a_full_disk_is_named_with_how_much_is_enough() -> None:
    """Another folder would not help, room would."""
    fault = explained(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), DATA)

    assert "the disk under /srv/quaestor is full: free some space (1 GiB is plenty) and run it again" == str(fault)


def test_any_other_fault_keeps_the_words_of_the_system() -> None:
    """With the place, in one line."""
    assert "/srv/quaestor: Input/output error" == str(explained(OSError(errno.EIO, os.strerror(errno.EIO)), DATA))
