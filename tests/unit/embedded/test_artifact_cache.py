"""The artifact cache: pinned, verified, placed at once, and never asked for twice."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import json
import multiprocessing
import os
import tarfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from infra.embedded.artifacts import LOCK_FILE, ArtifactCache, PinnedFile, is_whole, load_lock
from infra.embedded.errors import ArtifactMismatchError, ArtifactUnavailableError
from infra.embedded.progress import Progress
from schemas.errors import ConfigurationError

Content = dict[str, bytes]


class Repository:
    """A package repository in memory, which counts what was asked of it."""

    def __init__(self, content: Content) -> None:
        """Hold these files by name."""
        self.content = content
        self.asked: list[str] = []
        self.faults: list[Exception] = []

    def fetch(self, file: PinnedFile, folder: Path, count: Callable[[int], None]) -> Path:
        """Give a file, or the next planned fault."""
        self.asked.append(file.file_name)
        if self.faults:
            raise self.faults.pop(0)
        path = folder / file.group / file.file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.content[file.file_name])
        count(file.size_bytes)
        return path


def pinned(name: str, content: bytes) -> dict[str, Any]:
    """A lock entry of a jar with this content."""
    digest = hashlib.sha256(content).hexdigest()
    return {
        "group": "group",
        "artifact": name,
        "version": "1",
        "classifier": "",
        "packaging": "jar",
        "sha256": digest,
        "size_bytes": len(content),
    }


def write_lock(path: Path, files: Sequence[dict[str, Any]], *, unpack: bool = False) -> Path:
    """A lock file with one bundle."""
    path.write_text(json.dumps({"bundles": {"server": {"version": "1", "unpack": unpack, "files": list(files)}}}))
    return path


@pytest.fixture
def repository() -> Repository:
    """Two jars."""
    return Repository({"a-1.jar": b"first", "b-1.jar": b"second"})


@pytest.fixture
def cache(tmp_path: Path, repository: Repository) -> ArtifactCache:
    """An empty cache in front of the repository."""
    lock = write_lock(tmp_path / "lock.json", [pinned("a", b"first"), pinned("b", b"second")])
    return ArtifactCache(tmp_path / "cache", fetch=repository.fetch, lock_file=lock)


def test_a_bundle_is_a_folder_of_its_files(cache: ArtifactCache) -> None:
    """All files of a bundle stand side by side, whatever folders the repository has."""
    folder = cache.ensure("server")

    assert {"a-1.jar": b"first", "b-1.jar": b"second"} == {
        path.name: path.read_bytes() for path in folder.glob("*.jar")
    }


def test_nothing_is_asked_once_cached(cache: ArtifactCache, repository: Repository) -> None:
    """A second call finds the folder and asks nobody."""
    cache.ensure("server")
    repository.asked.clear()

    cache.ensure("server")

    assert [] == repository.asked


def test_a_wrong_hash_is_refused(cache: ArtifactCache, repository: Repository) -> None:
    """A file that is not what was pinned is deleted, and the bundle does not appear."""
    repository.content["b-1.jar"] = b"altered"

    with pytest.raises(ArtifactMismatchError, match=r"b-1\.jar: sha256 is .* pinned is"):
        cache.ensure("server")

    assert [] == list(cache.root.rglob("b-1.jar"))
    assert [] == [path for path in cache.root.iterdir() if not path.name.startswith(".")]


def test_a_half_downloaded_file_is_fetched_again(cache: ArtifactCache, repository: Repository) -> None:
    """What an interrupted download left is kept when whole, and fetched again when cut."""
    downloads = cache.root / f".{load_folder(cache)}.staging" / "downloads"
    downloads.mkdir(parents=True)
    (downloads / "a-1.jar").write_bytes(b"first")
    (downloads / "b-1.jar").write_bytes(b"sec")

    folder = cache.ensure("server")

    assert ["b-1.jar"] == repository.asked
    assert b"second" == (folder / "b-1.jar").read_bytes()


def test_a_cut_file_in_the_cache_makes_the_bundle_anew(cache: ArtifactCache, repository: Repository) -> None:
    """A folder with a file that lost its end is not whole."""
    folder = cache.ensure("server")
    (folder / "a-1.jar").write_bytes(b"fi")
    repository.asked.clear()

    assert b"first" == (cache.ensure("server") / "a-1.jar").read_bytes()
    assert {"a-1.jar", "b-1.jar"} == set(repository.asked)


def test_a_download_that_fails_is_tried_again(cache: ArtifactCache, repository: Repository) -> None:
    """Two faults of the network cost nothing but time."""
    repository.faults = [ConnectionError("reset"), RuntimeError("not found")]

    assert is_whole(cache.ensure("server"))


def test_a_network_that_stays_away_is_named(cache: ArtifactCache, repository: Repository) -> None:
    """Without a network and without a cache there is one line that says what to do."""
    repository.faults = [ConnectionError("no route") for _ in range(20)]

    with pytest.raises(ArtifactUnavailableError, match="connect to the network once"):
        cache.ensure("server")


def test_a_full_disk_is_named(cache: ArtifactCache, repository: Repository) -> None:
    """No space left is no fault of the network: it is not tried again."""
    repository.faults = [OSError(errno.ENOSPC, "No space left on device") for _ in range(2)]

    with pytest.raises(ConfigurationError, match="is full: free some space"):
        cache.ensure("server")

    assert len(repository.asked) <= 2


def test_progress_counts_every_byte(tmp_path: Path, cache: ArtifactCache) -> None:
    """Progress ends at the size of the bundle."""
    steps: list[Progress] = []

    cache.ensure("server", steps.append)

    last = [step for step in steps if step.state == "downloading"][-1]
    assert (11, 11) == (last.done, last.total)


def test_two_at_once_download_once(cache: ArtifactCache, repository: Repository) -> None:
    """A second downloader waits for the first and finds its work done."""
    threads = [threading.Thread(target=cache.ensure, args=("server",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert ["a-1.jar", "b-1.jar"] == sorted(repository.asked)


def test_an_archive_is_unpacked_inside_its_folder(tmp_path: Path) -> None:
    """A member that points outside is refused with the whole archive."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        member = tarfile.TarInfo("../outside")
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
    content = stream.getvalue()
    file = pinned("archive", content) | {"packaging": "tar.gz", "classifier": "all"}
    lock = write_lock(tmp_path / "lock.json", [file], unpack=True)
    repository = Repository({"archive-1-all.tar.gz": content})
    cache = ArtifactCache(tmp_path / "cache", fetch=repository.fetch, lock_file=lock)

    with pytest.raises(ConfigurationError, match="outside is no file inside its folder"):
        cache.ensure("server")

    assert [] == list(tmp_path.rglob("outside"))


def test_a_lock_of_a_process_that_died_is_free(cache: ArtifactCache) -> None:
    """The lock between downloaders goes with the process that held it."""
    process = multiprocessing.get_context("spawn").Process(
        target=_die_holding, args=(str(cache.root), load_folder(cache))
    )
    process.start()
    process.join(60)

    assert is_whole(cache.ensure("server"))


def test_the_committed_lock_is_complete_and_has_no_addresses() -> None:
    """Every file has coordinates, a sha256 and a size; the text holds no address."""
    bundles = load_lock()

    assert {"kafka", "registry"} == set(bundles)
    for bundle in bundles.values():
        assert all(len(file.sha256) == 64 and file.size_bytes > 0 and file.version for file in bundle.files)
    text = LOCK_FILE.read_text(encoding="utf-8")
    assert "://" not in text


def load_folder(cache: ArtifactCache) -> str:
    """The name of the bundle's folder."""
    return cache._bundles["server"].folder_name


def _die_holding(root: str, folder_name: str) -> None:
    Path(root).mkdir(parents=True, exist_ok=True)
    handle = (Path(root) / f".{folder_name}.lock").open("a")
    fcntl.flock(handle, fcntl.LOCK_EX)
    os._exit(9)
