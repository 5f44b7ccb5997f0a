"""Writes the reference pages of events, topics and metrics: `python -m streams.document`; `--check` compares."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from schemas import history
from schemas.describe import rows_of
from schemas.topics import TOPICS, Topic
from streams.metrics import COUNTERS, GAUGES, HISTOGRAMS, Metric

REFERENCE = Path(__file__).parent.parent / "docs" / "reference"
MADE = (
    "<!-- Made by `python -m streams.document`; edit schemas/avro, schemas/topics.py or streams/metrics.py instead. -->"
)
COMMON_FIELDS = 7
#: What is to be said of a record beside its fields.
NOTES = {
    "quaestor.budgets": """\
`late` is what the gateway knew when it made the event: the lease of the hold had ended. Whether EXPIRED stands before
it, it can't see. A commit that was made before the lease ended and reached the log after EXPIRED (out of a spool) is
not marked. Which of the two came first is told by their offsets alone: `quaestor why` and the nightly report go by
them.""",
}
ABOUT_EVENTS = """\
One flat Avro record per topic, in the Confluent wire format (a zero byte, the schema id, the body). Times are
microseconds since the Unix epoch, UTC; amounts are integers of nano-units (1e-9) of the currency beside them. A null
means what the field's line says; enums fall back to UNKNOWN for readers that do not know a symbol yet."""
ABOUT_TOPICS = """\
Created by `quaestor migrate` with `retention.ms=-1` and `cleanup.policy=delete`: the log is the truth and is kept.
Partition counts are fixed at creation. Keys are hashed with murmur2, as the JVM clients and Faust do
(`partitioner=murmur2_random` in librdkafka); a record whose key is not that of its own fields is quarantined."""
ABOUT_HEADERS = """\
CloudEvents in binary mode, so that tools which know neither Avro nor us can route, and W3C trace context."""
ABOUT_METRICS = """\
Every process serves them at `/metrics` (Prometheus) on its monitor port, beside `/status` (JSON: name, state,
lag_events, freshness_seconds). `quaestor status` asks them all. Of a sink, `freshness_seconds` is the age of the oldest
event it has not applied yet, 0 when it has applied all; lag and age are told every second, also while the store is away
and during a backlog. Ages are counted from the time Kafka's record carries."""
WRITERS = {
    "quaestor.requests": "gateway, reaper",
    "quaestor.decisions": "gateway",
    "quaestor.attempts": "gateway, reaper",
    "quaestor.costs": "gateway, reaper",
    "quaestor.budgets": "gateway, reaper",
    "quaestor.ledger": "ledger stream",
    "quaestor.control": "command line, console, supervisor",
    "quaestor.health": "health stream",
    "quaestor.alerts": "watchers",
    "quaestor.quarantine": "sinks, streams",
}


def events_page() -> str:
    """Every record, field by field."""
    first = history.current(TOPICS[0].name)
    common = list(rows_of(first))[:COMMON_FIELDS]
    sections = [
        "# Events",
        MADE,
        ABOUT_EVENTS,
        "## What every event has",
        _fields(common),
        *(_record(topic) for topic in TOPICS),
    ]
    return "\n\n".join(sections) + "\n"


def _record(topic: Topic) -> str:
    schema = history.current(topic.name)
    rows = list(rows_of(schema))[COMMON_FIELDS:]
    about = f"`{topic.name}`, version {schema['version']}. {_escaped(schema['doc'])}"
    parts = [f"## {schema['name']}", about, _fields(rows)]
    if note := NOTES.get(topic.name):
        parts.append(note)
    return "\n\n".join(parts)


def _fields(rows: Iterable[tuple[str, str, str, str]]) -> str:
    return _table(("field", "type", "default", "meaning"), ((f"`{name}`", *rest) for name, *rest in rows))


def topics_page() -> str:
    """The topic table."""
    rows = [
        (f"`{topic.name}`", topic.event_type.__name__, topic.partitions, _key(topic), WRITERS[topic.name])
        for topic in TOPICS
    ]
    sections = [
        "# Topics",
        MADE,
        ABOUT_TOPICS,
        _table(("topic", "record", "partitions", "key", "written by"), rows),
        "## Headers",
        ABOUT_HEADERS,
        _table(
            ("header", "value"),
            [
                ("`ce_specversion`", "`1.0`"),
                ("`ce_id`", "the event's id"),
                ("`ce_type`", "the topic, and `.` with the kind where the record has one: `quaestor.budgets.PLACED`"),
                ("`ce_source`", "`/` and the actor: `/gateway/host-1`"),
                ("`ce_time`", "when it happened, RFC 3339, UTC, microseconds"),
                ("`content-type`", "`application/avro`"),
                (
                    "`traceparent`",
                    "of the request, and of what a record was derived from; left out where there is none",
                ),
                (
                    "`quaestor_write`",
                    "of a change by HTTP: a uuid derived from its Idempotency-Key, and how many events it has",
                ),
            ],
        ),
    ]
    return "\n\n".join(sections) + "\n"


def _key(topic: Topic) -> str:
    """The last words of a record's documentation say its key."""
    doc = str(history.current(topic.name)["doc"])
    return doc.rsplit(" key ", 1)[1].split(":", 1)[0].rstrip(".")


def metrics_page() -> str:
    """Every metric."""
    sections = [
        "# Metrics",
        MADE,
        ABOUT_METRICS,
        *(
            _metrics(kind, table)
            for kind, table in (("Counters", COUNTERS), ("Gauges", GAUGES), ("Histograms", HISTOGRAMS))
        ),
    ]
    return "\n\n".join(sections) + "\n"


def _metrics(kind: str, table: Mapping[Any, Metric]) -> str:
    rows = ((f"`{name}`", ", ".join(metric.labels) or "-", metric.meaning) for name, metric in table.items())
    return f"## {kind}\n\n" + _table(("name", "labels", "meaning"), rows)


def _table(columns: tuple[str, ...], rows: Iterable[Iterable[Any]]) -> str:
    lines = [columns, ("---",) * len(columns), *rows]
    return "\n".join("| " + " | ".join(_escaped(cell) for cell in line) + " |" for line in lines)


def _escaped(text: Any) -> str:
    """Safe in a table of Markdown, and no HTML."""
    return str(text).replace("|", "\\|").replace("<", "\\<")


PAGES = {"events.md": events_page, "topics.md": topics_page, "metrics.md": metrics_page}


def main(arguments: list[str]) -> int:
    """Write the pages, or with --check say whether they are current; returns the exit code."""
    made = {REFERENCE / name: page() for name, page in PAGES.items()}
    if "--check" in arguments:
        return int(any(not path.is_file() or path.read_text(encoding="utf-8") != text for path, text in made.items()))
    for path, text in made.items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
