"""What every insert into ClickHouse asks for, and what its tables are not."""

from __future__ import annotations

from sinks.clickhouse.client import INSERT_SETTINGS
from sinks.clickhouse.migrations import migrations


def test_inserts_are_never_asynchronous() -> None:
    """Whatever a user's profile says, ours are not, and ask for deduplication in views by themselves."""
    assert (0, 1, 1) == (
        INSERT_SETTINGS["async_insert"],
        INSERT_SETTINGS["insert_deduplicate"],
        INSERT_SETTINGS["deduplicate_blocks_in_dependent_materialized_views"],
    )


def test_no_table_replaces_rows() -> None:
    """A ReplacingMergeTree hides a double row from FINAL, never from a view: facts and rollups have other engines."""
    text = "\n".join(migration.template for migration in migrations())

    assert "ReplacingMergeTree" not in text
    assert "CollapsingMergeTree" not in text
