"""How processes share the tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.side_by_side import WITH_SERVERS, part_of, turn_of

TESTS = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        ("tests/integration/test_audit_sink.py::test_a[kafka]", "tests/integration/test_report.py::test_b[x::y]", True),
        ("tests/contract/test_log.py::test_a[kafka]", "tests/integration/test_report.py::test_b", False),
        ("tests/contract/test_log.py::test_a", "tests/e2e/test_dlq.py::test_a", False),
        ("tests/unit/audit/test_heads.py::test_a[x/y::z]", "tests/unit/audit/test_heads.py::test_b", True),
        ("tests/unit/audit/test_heads.py::test_a", "tests/unit/audit/test_receipts.py::test_a", False),
    ],
)
def test_tests_that_share_servers_stay_in_one_process(first: str, second: str, together: bool) -> None:
    """Those of the same servers are one part; of pure tests, those of one file."""
    assert together == (part_of(first) == part_of(second))


def test_the_longest_part_begins_and_pure_tests_come_last() -> None:
    """In the order of the table; pure tests have one turn, so they stay as they were collected."""
    turns = [turn_of(f"tests/{folder}/test_x.py::test_a") for folder in (*WITH_SERVERS, "property", "unit")]
    assert turns == [*range(len(WITH_SERVERS) + 1), len(WITH_SERVERS)]


def test_folders_of_servers_are_there() -> None:
    """A folder that was renamed takes its name along."""
    assert set() == {name for name in WITH_SERVERS if not list((TESTS / name).glob("test_*.py"))}
