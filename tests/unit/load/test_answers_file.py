"""The file that `quaestor load --answers` writes, on disks that take it and on those that do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.load.answers import AnswersFile
from schemas.errors import ConfigurationError

FULL = Path("/dev/full")


def test_an_answer_is_in_the_file_at_once(tmp_path: Path) -> None:
    """Whatever happens to the run afterwards."""
    with AnswersFile(tmp_path / "answers.jsonl") as answers:
        answers.write({"index": 7})

        assert '{"index": 7}\n' == (tmp_path / "answers.jsonl").read_text(encoding="utf-8")


def test_a_full_disk_is_told_with_the_file_and_what_to_do() -> None:
    """In one line, and nothing else follows when the file is let go."""
    told = r"^cannot write the answers file /dev/full: .*; free some space or"
    with pytest.raises(ConfigurationError, match=told), AnswersFile(FULL) as answers:
        answers.write({"index": 0})


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    """Before any call is made."""
    with pytest.raises(ConfigurationError, match=r"none/answers: .*; name another with --answers"):
        AnswersFile(tmp_path / "none" / "answers")
