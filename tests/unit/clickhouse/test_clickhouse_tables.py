"""Tables, columns and migrations agree with the schemas."""

from __future__ import annotations

import re

import pytest

from processors.quarantine.rules import RULES
from processors.quarantine.rules import TIME_MICROS_MAX as RULED_MICROS_MAX
from schemas.errors import ConfigurationError
from schemas.topics import TOPIC_BY_NAME
from sinks.clickhouse.migrations import Target, migrations
from sinks.clickhouse.tables import OMITTED, TABLES, TIME_MICROS_MAX, FactTable
from sinks.runner.seam import Decoded
from streams.codec import Codec
from streams.log import LogRecord
from tests.support.stories import Offsets, codec, request_story

CREATE = re.compile(r"CREATE TABLE IF NOT EXISTS \{database\}\.(\w+).*?\n\) ENGINE", re.DOTALL)
ADDED = re.compile(
    r"ALTER TABLE \{database\}\.(\w+).*?ADD COLUMN IF NOT EXISTS `([\w.]+)` (\S+) AFTER `([\w.]+)`", re.DOTALL
)
COLUMN = re.compile(r"^ {4}`?([\w.]+)`? ([A-Z].*?),?$", re.MULTILINE)


def declared() -> dict[str, dict[str, str]]:
    """Columns of every table in the migrations, without computed ones."""
    text = "\n".join(migration.template for migration in migrations())
    tables = {
        match.group(1): {
            name: kind for name, kind in COLUMN.findall(match.group()) if "ALIAS" not in kind and name != "INDEX"
        }
        for match in CREATE.finditer(text)
    }
    for table, name, kind, after in ADDED.findall(text):
        columns = list(tables[table].items())
        columns.insert(list(tables[table]).index(after) + 1, (name, kind))
        tables[table] = dict(columns)
    return tables


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_a_table_has_a_column_for_every_field(table: FactTable) -> None:
    """What is inserted is what the migration declares, in the same order."""
    assert list(table.column_names) == list(declared()[table.name])


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_no_money_and_no_amount_is_a_float(table: FactTable) -> None:
    """Floats are scores and probabilities only."""
    floats = {name for name, kind in declared()[table.name].items() if "Float" in kind}

    assert floats <= {"candidates.score", "probability"}


def test_every_field_is_kept_but_the_sealed_ones() -> None:
    """Nothing is left out by accident."""
    for topic, table in TABLES.items():
        fields = set(TOPIC_BY_NAME[topic].event_type.__struct_fields__) - OMITTED
        assert fields == {name.split(".")[0] for name in table.column_names if not name.startswith("_")}


def test_records_become_columns() -> None:
    """One value per record and column; nulls of texts are empty; times and amounts stay integers."""
    encoder: Codec = codec()
    for record in Offsets().records(encoder, request_story(1)):
        table = TABLES[record.topic]
        fields = encoder.decode(record.topic, record.value or b"")
        columns = dict(zip(table.column_names, table.columns_of([(3, "tid", [_decoded(record, fields)])]), strict=True))
        assert {1} == {len(column) for column in columns.values()}
        assert [record.topic, "tid", 3, record.offset] == [columns[name][0] for name in table.column_names[:4]]
        assert columns["occurred_at"] == [fields["occurred_at"]]
        assert None not in [columns[name][0] for name in ("tenant_id", "request_id", "actor")]


def _decoded(record: LogRecord, fields: dict[str, object]) -> Decoded:
    return Decoded(record.offset, fields, record)


def test_every_insert_target_has_a_window() -> None:
    """Deduplication is set on facts and rollups alike, nowhere left to a default."""
    text = "\n".join(migration.template for migration in migrations())

    assert text.count("CREATE TABLE") == text.count("SETTINGS {dedup_window}")


def test_a_cluster_gets_replicated_engines_and_a_window_in_time() -> None:
    """The same files make a cluster's tables."""
    one, cluster = Target("db"), Target("db", "main")
    statements = [statement for migration in migrations() for statement in migration.statements(cluster)]

    assert all("{" not in statement for statement in statements)
    assert all("ON CLUSTER main" in statement for statement in statements)
    assert "replicated_deduplication_window_seconds = 604800" in statements[0]
    assert "ReplicatedMergeTree" in statements[0]
    assert "non_replicated_deduplication_window" in one.fill("{dedup_window}")


@pytest.mark.parametrize("name", ["a b", "a;b", "a.b", ""])
def test_names_that_need_quotes_are_refused(name: str) -> None:
    """A database or cluster can't bring SQL along."""
    with pytest.raises(ConfigurationError):
        Target(name).fill("{database}")


def test_rules_of_records_keep_out_what_the_tables_refuse() -> None:
    """Records with columns are not looked at again: the rules they passed name every UUID and time of a table."""
    for topic, table in TABLES.items():
        rules = RULES[topic]
        assert set(table.uuid_fields) <= set(rules.uuids), topic
        assert set(table.time_fields) <= {"occurred_at", *rules.times}, topic
    assert TIME_MICROS_MAX >= RULED_MICROS_MAX
