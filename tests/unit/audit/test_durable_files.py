"""Files that are put in place whole."""

from __future__ import annotations

from pathlib import Path

from sinks.audit.files import write_durable


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    """A process that was replaced without knowing it can neither tear its successor's file nor stumble over it."""
    path = tmp_path / "002"

    def successor(point: str) -> None:
        if point.startswith("rename "):
            write_durable(path, b"successor")
            assert path.read_bytes() == b"successor"

    write_durable(path, b"zombie", successor)

    assert path.read_bytes() == b"zombie"
    assert list(tmp_path.iterdir()) == [path]
