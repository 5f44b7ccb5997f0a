"""`quaestor tail TOPIC`: the records of a topic, decoded, filtered, live."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.text import Text

from api.cli.control_session import require_kafka
from api.cli.terminal import DataOption, fail, terminal
from api.settings import load_settings
from schemas.errors import CodecError
from schemas.money import format_amount
from schemas.topics import TOPIC_BY_NAME
from streams.codec import Codec
from streams.kafka import KafkaReader
from streams.log import LogReader, LogRecord, Partition
from streams.registry import RegistrySchemas

PREFIX = "quaestor."
ASK_SECONDS = 10.0
CONSUME_SECONDS = 0.5
CONSUME_RECORDS = 500
#: The fields that say what a record is about, whichever its topic has.
KIND_FIELDS = ("kind", "outcome", "entity_kind", "state", "reason")
#: Shown in columns of their own, or of no interest to a reader of lines.
COMMON_FIELDS = frozenset(
    {
        *KIND_FIELDS,
        *("event_id", "occurred_at", "tenant_id", "request_id", "causation_id", "actor", "schema_version"),
    }
)
COLOURS = {
    "FAILED": "red",
    "REFUSED": "yellow",
    "EXPIRED": "yellow",
    "DOWN": "red",
    "DEGRADED": "yellow",
    "COMPLETED": "green",
    "SUCCEEDED": "green",
    "COMMITTED": "green",
    "HEALTHY": "green",
}
VALUE_CHARACTERS_MAX = 120
Filter = Callable[[Mapping[str, Any]], bool]
TopicArgument = Annotated[str, typer.Argument(help="A topic, with or without 'quaestor.'.")]
FromOption = Annotated[str, typer.Option("--from", help="beginning, end, or an offset (of every partition).")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("tail")(tail)


def tail(
    topic: TopicArgument,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only this kind (or outcome, entity, state).")] = None,
    request: Annotated[str | None, typer.Option(help="Only this request.")] = None,
    start: FromOption = "end",
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many records.")] = None,
    follow: Annotated[bool, typer.Option(help="Wait for more at the end, until interrupted.")] = True,
    data: DataOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document per line.")] = False,
) -> None:
    """Show the records of a topic, decoded, filtered, live."""
    name = topic if topic in TOPIC_BY_NAME else PREFIX + topic
    if name not in TOPIC_BY_NAME:
        fail(f"no topic {topic!r}; there are: {', '.join(one.removeprefix(PREFIX) for one in TOPIC_BY_NAME)}", 2)
    settings = load_settings(data)
    require_kafka(settings.kafka_bootstrap)
    wanted = chosen(tenant=tenant, kind=kind, request=request)
    reader = KafkaReader(settings.kafka_bootstrap, "quaestor-tail")
    show = _show_json if as_json else _line_printer()
    try:
        cursors, ends = positions(reader, name, start)
        codec = Codec(RegistrySchemas(settings.registry_url))
        shown = 0
        for record in read(reader, cursors, None if follow else ends):
            fields = decoded(codec, record)
            if wanted(fields):
                show(record, fields)
                shown += 1
            if limit is not None and shown >= limit:
                break
    except KeyboardInterrupt:
        return
    except BrokenPipeError:
        # Whoever read us has seen enough; what is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    finally:
        reader.close()


def chosen(*, tenant: str | None, kind: str | None, request: str | None) -> Filter:
    """Whether a record is asked for."""

    def wanted(fields: Mapping[str, Any]) -> bool:
        return (
            (tenant is None or fields.get("tenant_id") == tenant)
            and (request is None or fields.get("request_id") == request)
            and (kind is None or kind.upper() in {fields.get(name) for name in KIND_FIELDS})
        )

    return wanted


def positions(reader: LogReader, topic: str, start: str) -> tuple[dict[Partition, int], dict[Partition, int]]:
    """Where to begin and where the log ends now; ends the command when `start` says nothing."""
    partitions = reader.partitions([topic], ASK_SECONDS)
    begins = reader.begin_offsets(partitions, ASK_SECONDS)
    ends = reader.end_offsets(partitions, ASK_SECONDS)
    if start == "beginning":
        return begins, ends
    if start == "end":
        return ends, ends
    if not start.isdecimal():
        fail(f"--from {start}: say beginning, end, or an offset", 2)
    return {at: min(max(int(start), begins[at]), ends[at]) for at in partitions}, ends


def read(
    reader: LogReader, cursors: Mapping[Partition, int], ends: Mapping[Partition, int] | None
) -> Iterator[LogRecord]:
    """Records as they come, oldest first within what comes together; up to `ends`, or for ever when there are none."""
    reader.assign(cursors)
    standing = dict(cursors)
    while ends is None or any(standing[at] < end for at, end in ends.items()):
        records = reader.consume(CONSUME_RECORDS, CONSUME_SECONDS)
        for record in records:
            standing[Partition(record.topic, record.partition)] = record.offset + 1
        asked = [one for one in records if ends is None or one.offset < ends[Partition(one.topic, one.partition)]]
        yield from sorted(asked, key=lambda record: record.timestamp_millis)


def decoded(codec: Codec, record: LogRecord) -> dict[str, Any]:
    """The fields of a record, or what is wrong with it."""
    try:
        return codec.decode(record.topic, record.value or b"")
    except CodecError as error:
        return {"undecodable": str(error)}


def document(record: LogRecord, fields: Mapping[str, Any]) -> dict[str, Any]:
    """A record for programs; bytes are hexadecimal."""
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp_millis": record.timestamp_millis,
        "key": None if record.key is None else record.key.decode(errors="replace"),
        "event": fields,
    }


def line(record: LogRecord, fields: Mapping[str, Any]) -> Text:
    """A record for people: when, where, what, whose, and every field that says something."""
    micros = int(fields.get("occurred_at") or record.timestamp_millis * 1_000)
    when = datetime.fromtimestamp(micros / 1_000_000, UTC)
    kind = str(next((fields[name] for name in KIND_FIELDS if fields.get(name)), "?"))
    request = fields.get("request_id")
    text = Text(f"{when:%H:%M:%S.%f}"[:-3], style="dim", end="\n")
    text.append(f" {record.partition}/{record.offset} ", style="dim")
    text.append(f"{kind:<10}", style=COLOURS.get(kind, "cyan"))
    text.append(f" {fields.get('tenant_id', '')}", style="bold")
    if request:
        text.append(f" {request}", style="magenta")
    for name, value in fields.items():
        if name not in COMMON_FIELDS and value not in (None, "", 0, False, [], {}):
            text.append(f" {name.removesuffix('_nano')}=", style="dim")
            text.append(_value(name, value, fields.get("currency", "")))
    return text


def _value(name: str, value: Any, currency: str) -> str:
    if name.endswith("_nano"):
        return format_amount(value, currency)
    plain = value if isinstance(value, str | int | float) else json.dumps(value, default=_hexadecimal)
    text = str(plain)
    return text if len(text) <= VALUE_CHARACTERS_MAX else text[: VALUE_CHARACTERS_MAX - 1] + "…"


def _hexadecimal(value: Any) -> str:
    return bytes(value).hex()


def _show_json(record: LogRecord, fields: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(document(record, fields), ensure_ascii=False, default=_hexadecimal) + "\n")
    sys.stdout.flush()


def _line_printer() -> Callable[[LogRecord, Mapping[str, Any]], None]:
    console = terminal()
    return lambda record, fields: console.print(line(record, fields), soft_wrap=True)
