"""The pages on what the ledger must be name the queries that are asked, and no others."""

from __future__ import annotations

import re
from pathlib import Path

from sinks.postgres.reconciliation import RULES, VERIFIED

DOCS = Path(__file__).parents[3] / "docs"
#: Number, name, claim, and whether the report asks it.
LINE = re.compile(r"^\| (I\d+)? ?\| `(\w+)` \| .+? \| (yes)? ?\|$", re.MULTILINE)


def test_every_query_stands_on_the_page() -> None:
    """And which of them the nightly report asks too."""
    page = (DOCS / "reference" / "ledger-invariants.md").read_text()

    documented = {name: bool(asked) for _, name, asked in LINE.findall(page)}

    asked = {rule.name for rule in RULES}
    assert {rule.name: rule.name in asked for rule in VERIFIED} == documented


def test_every_number_has_a_query_or_a_reason() -> None:
    """All ten of them, in their order; the ninth has nothing to ask."""
    page = (DOCS / "reference" / "ledger-invariants.md").read_text()

    numbers = [number for number, *_ in LINE.findall(page) if number]

    assert numbers == [f"I{number}" for number in range(1, 11) if number != 9]
    assert "\n**I9**" in page


def test_every_rule_of_the_report_stands_in_its_guide() -> None:
    """Whoever reads a line of it finds there what its id is."""
    guide = (DOCS / "guides" / "report.md").read_text()

    assert [] == [rule.name for rule in RULES if f"`{rule.name}`" not in guide]
