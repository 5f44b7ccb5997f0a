"""Files from package repositories that the Python index does not have: pinned, verified, cached for ever.

`artifacts.lock.json` names every file with version and sha256 (`python -m infra.embedded.lock` writes it). A bundle is
a folder of the cache that holds all files of one server; it appears by one rename when everything in it was verified,
so a folder that exists is whole, and nothing asks the network once it exists.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from infra.embedded.errors import ArtifactMismatchError, ArtifactUnavailableError, explained
from infra.embedded.progress import Progress, ProgressCallback, ignore
from schemas.errors import ConfigurationError

LOCK_FILE = Path(__file__).with_name("artifacts.lock.json")
MANIFEST = ".quaestor-manifest.json"
DOWNLOADS_AT_ONCE_MAX = 4
DOWNLOAD_TRIES_MAX = 3
DOWNLOAD_TIMEOUT_SECONDS = 30
CHUNK_BYTES = 1024 * 1024
#: Faults of this machine's file system, where another try at the network is in vain.
LOCAL_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}

#: Downloads one pinned file into a folder and returns its path; raises OSError or RuntimeError when it can't.
Fetch = Callable[["PinnedFile", Path, Callable[[int], None]], Path]


@dataclass(frozen=True, slots=True)
class PinnedFile:
    """One file of a Maven repository by its coordinates, with the hash and size it must have."""

    group: str
    artifact: str
    version: str
    classifier: str
    packaging: str
    sha256: str
    size_bytes: int

    @property
    def file_name(self) -> str:
        """The name of the file in its repository."""
        classifier = f"-{self.classifier}" if self.classifier else ""
        return f"{self.artifact}-{self.version}{classifier}.{self.packaging}"


@dataclass(frozen=True, slots=True)
class Bundle:
    """Everything one server needs: its name, version, files, and whether the one file is an archive to unpack."""

    name: str
    version: str
    unpack: bool
    files: tuple[PinnedFile, ...]

    @property
    def size_bytes(self) -> int:
        """What has to be downloaded."""
        return sum(file.size_bytes for file in self.files)

    @property
    def folder_name(self) -> str:
        """Name, version and the digest of what is pinned: another pin is another folder."""
        digest = hashlib.sha256("".join(sorted(file.sha256 for file in self.files)).encode()).hexdigest()
        return f"{self.name}-{self.version}-{digest[:12]}"


def load_lock(path: Path = LOCK_FILE) -> dict[str, Bundle]:
    """The bundles of the lock file by name."""
    raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return {
        name: Bundle(
            name=name,
            version=bundle["version"],
            unpack=bundle["unpack"],
            files=tuple(PinnedFile(**file) for file in bundle["files"]),
        )
        for name, bundle in raw["bundles"].items()
    }


def default_cache() -> Path:
    """The user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "quaestor"


def fetch_with_jgo(file: PinnedFile, folder: Path, count: Callable[[int], None]) -> Path:
    """Download one file through jgo, counting its bytes as they come."""
    from jgo.maven import MavenContext, PythonResolver  # noqa: PLC0415 - slow to import, and only needed once

    @contextlib.contextmanager
    def counting(_name: str, _size: int) -> Iterator[Callable[[int], None]]:
        yield count

    context = MavenContext(
        resolver=PythonResolver(progress_callback=counting),
        repo_cache=folder,
        timeout=DOWNLOAD_TIMEOUT_SECONDS,
    )
    component = context.project(file.group, file.artifact).at_version(file.version)
    return Path(component.artifact(file.classifier, file.packaging).resolve())


@dataclass(slots=True)
class _Counter:
    """Bytes of one bundle seen so far, told to a callback; used by several download threads."""

    bundle: Bundle
    progress: ProgressCallback
    done: int = 0
    told: int = 0
    lock: Lock = field(default_factory=Lock)

    def add(self, count: int) -> None:
        with self.lock:
            self.done = min(self.done + count, self.bundle.size_bytes)
            if self.done - self.told < CHUNK_BYTES and self.done < self.bundle.size_bytes:
                return
            self.told = self.done
            detail = f"{self.bundle.name} {self.bundle.version}"
            self.progress(
                Progress(self.bundle.name, "downloading", detail, done=self.done, total=self.bundle.size_bytes)
            )


class ArtifactCache:
    """The folder that keeps bundles; safe to use from several processes at once."""

    def __init__(self, root: Path | None = None, *, fetch: Fetch = fetch_with_jgo, lock_file: Path = LOCK_FILE) -> None:
        """Keep bundles under `root` (the user's cache folder when None)."""
        self.root = (root or default_cache()).absolute()
        self._fetch = fetch
        self._bundles = load_lock(lock_file)

    def version(self, name: str) -> str:
        """The pinned version of a bundle."""
        return self._bundles[name].version

    def ensure(self, name: str, progress: ProgressCallback = ignore) -> Path:
        """The folder of a bundle, downloaded when it is not there yet.

        Blocks while another process downloads the same bundle. Raises ArtifactMismatchError when a file is not what was
        pinned, ArtifactUnavailableError when it can't be had, ConfigurationError when the cache can't be written.
        """
        bundle = self._bundles[name]
        folder = self.root / bundle.folder_name
        if is_whole(folder):
            return folder
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with self._locked(bundle, progress):
                if not is_whole(folder):
                    self._make(bundle, folder, progress)
        except OSError as error:
            raise explained(error, self.root) from error
        return folder

    @contextlib.contextmanager
    def _locked(self, bundle: Bundle, progress: ProgressCallback) -> Iterator[None]:
        path = self.root / f".{bundle.folder_name}.lock"
        with path.open("a") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                progress(Progress(bundle.name, "waiting", "another process is downloading it"))
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def _make(self, bundle: Bundle, folder: Path, progress: ProgressCallback) -> None:
        """Download what is missing, verify all of it, unpack, and put it in place with one rename."""
        staging = self.root / f".{bundle.folder_name}.staging"
        downloads, ready = staging / "downloads", staging / "ready"
        downloads.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(ready, ignore_errors=True)
        ready.mkdir()
        counter = _Counter(bundle, progress)
        with ThreadPoolExecutor(DOWNLOADS_AT_ONCE_MAX) as pool:
            paths = list(pool.map(lambda file: self._verified(file, downloads, counter.add), bundle.files))
        progress(Progress(bundle.name, "preparing", "verified; putting it in place"))
        for path in paths:
            if bundle.unpack:
                unpack(path, ready)
            else:
                path.rename(ready / path.name)
        write_manifest(ready)
        if folder.exists():
            shutil.rmtree(folder)
        ready.rename(folder)
        shutil.rmtree(staging, ignore_errors=True)

    def _verified(self, file: PinnedFile, downloads: Path, count: Callable[[int], None]) -> Path:
        """One file with the pinned hash: left from an earlier try, or downloaded now."""
        left = next(downloads.rglob(file.file_name), None)
        if left is not None:
            if sha256_of(left) == file.sha256:
                count(file.size_bytes)
                return left
            left.unlink()
        path = self._downloaded(file, downloads, count)
        actual = sha256_of(path)
        if actual != file.sha256:
            path.unlink()
            raise ArtifactMismatchError(file.file_name, file.sha256, actual)
        return path

    def _downloaded(self, file: PinnedFile, downloads: Path, count: Callable[[int], None]) -> Path:
        fault: Exception | None = None
        for _ in range(DOWNLOAD_TRIES_MAX):
            try:
                return self._fetch(file, downloads, count)
            except OSError as error:
                if error.errno in LOCAL_FAULTS:
                    raise
                fault = error
            except RuntimeError as error:
                fault = error
            for left in downloads.rglob(file.file_name):
                left.unlink()
        reason = str(fault).split("\n", 1)[0][:160]
        raise ArtifactUnavailableError(
            f"{file.file_name} is not in the cache {self.root} and could not be downloaded ({reason}): "
            "connect to the network once and run it again"
        ) from fault


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a verified tar archive of plain files and folders, as the user who asks.

    Raises ConfigurationError, with nothing unpacked, when a member is something else or lies outside the folder. Python
    3.11.4 brought a filter that says the same; 3.11.2 is what Debian 12 has.
    """
    root = folder.resolve()
    with tarfile.open(archive) as tar:
        members = tar.getmembers()
        for member in members:
            if not (member.isfile() or member.isdir()) or not (root / member.name).resolve().is_relative_to(root):
                raise ConfigurationError(f"{archive.name} is not unpacked: {member.name} is no file inside its folder")
            member.uid, member.gid, member.uname, member.gname = os.getuid(), os.getgid(), "", ""
            member.mode &= 0o755
        tar.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
        tar.extractall(folder, members)  # noqa: S202 - each was looked at above


def write_manifest(folder: Path) -> None:
    """Write down every file with its size, last of all."""
    sizes = {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    (folder / MANIFEST).write_text(json.dumps(sizes, sort_keys=True), encoding="utf-8")


def is_whole(folder: Path) -> bool:
    """Whether every file of the folder's manifest is there with its size: a cut file is noticed without hashing."""
    try:
        sizes: dict[str, int] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False
