"""Faults of the embedded stack; each message is one line and says what to do.

QuaestorError
  x ConfigurationError
    + PortTakenError        something else listens on a port: set another one
    + JavaUnusableError     the packaged Java is missing, broken or too old
  x IntegrityError
    + ArtifactMismatchError a downloaded file is not the one that was pinned: refuse it
  x ServerFailedError       a server ended, or did not answer in time, while starting
    + GivenUpError          its start was cut short because another part failed
  x ArtifactUnavailableError an artifact is not cached and could not be downloaded
"""

from __future__ import annotations

import errno
from pathlib import Path

from schemas.errors import ConfigurationError, IntegrityError, QuaestorError


class PortTakenError(ConfigurationError):
    """Something else listens on a port that a part of the stack wants."""

    def __init__(self, part: str, port: int, setting: str) -> None:
        """Carry the part, its port and the setting that changes it."""
        super().__init__(
            f"port {port} for {part} is taken by another program: set {setting} to a free one, or QUAESTOR_PORTS=auto"
        )
        self.part = part
        self.port = port
        self.setting = setting


class JavaUnusableError(ConfigurationError):
    """The packaged Java runtime is missing, broken or too old."""


class ArtifactMismatchError(IntegrityError):
    """A downloaded file is not the one that was pinned."""

    def __init__(self, file_name: str, expected: str, actual: str) -> None:
        """Carry the file and both hashes."""
        super().__init__(
            f"{file_name}: sha256 is {actual}, pinned is {expected}; refused and deleted. "
            "A proxy or mirror may have altered it: try again from another network"
        )
        self.file_name = file_name
        self.expected = expected
        self.actual = actual


class ArtifactUnavailableError(QuaestorError):
    """An artifact is not cached and could not be downloaded."""


class ServerFailedError(QuaestorError):
    """A server ended, or did not answer in time, while starting."""

    def __init__(self, part: str, why: str, log: Path) -> None:
        """Carry the part, what was seen and where its log is."""
        super().__init__(f"{part} {why}; see {log}")
        self.part = part
        self.why = why
        self.log = log


class GivenUpError(ServerFailedError):
    """A start was cut short because another part failed, or the whole was interrupted."""


def explained(error: OSError, path: Path) -> ConfigurationError:
    """The one-line reason for a fault of the file system, with what to do about it."""
    where = error.filename or path
    if error.errno == errno.ENOSPC:
        return ConfigurationError(f"the disk under {where} is full: free some space (1 GiB is plenty) and run it again")
    if error.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
        return ConfigurationError(f"{where} can't be written: choose another folder with --data or QUAESTOR_DATA")
    if error.errno in {errno.EEXIST, errno.ENOTDIR}:
        return ConfigurationError(f"{where} is no folder: choose another one with --data or QUAESTOR_DATA")
    return ConfigurationError(f"{where}: {error.strerror or error}")
