"""`quaestor dlq list | show | redrive | park | discard | resume`: records that a sink set aside."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import typer
from rich.text import Text

from api.cli.control_session import require_kafka
from api.cli.terminal import DataOption, JsonOption, fail, note, print_json, table, terminal
from api.cli.times import MICROS_PER_SECOND, ago_or_time, now_micros
from api.settings import Settings, load_settings
from processors.control import check
from schemas.events import QuarantinedRecord
from schemas.ids import is_uuid
from sinks.dead_letters import STATES, UNRESOLVED, DeadLetter, DeadLetters, PausedPartition, Selection, State
from sinks.postgres.dead_letters import PostgresDeadLetters
from streams.log import Partition

T = TypeVar("T")
ASK_SECONDS_MAX = 10.0
POLL_SECONDS = 0.25
WAIT_SECONDS = 30.0
ROWS_MAX = 10_000
DETAIL_CHARACTERS_MAX = 90
HEX_BYTES_MAX = 4_096

Ids = Annotated[list[str] | None, typer.Argument(help="Event ids, as `quaestor dlq list` shows them.", metavar="ID")]
SinkOption = Annotated[str | None, typer.Option("--sink", help="One projection, for example postgres@v1.")]
TopicOption = Annotated[str | None, typer.Option("--topic", help="One topic, for example quaestor.costs.")]
TenantOption = Annotated[str | None, typer.Option("--tenant", help="One tenant.")]
FingerprintOption = Annotated[str | None, typer.Option("--fingerprint", help="What failed alike.")]
SinceOption = Annotated[str | None, typer.Option("--since", help="Written from then on: 2h, 30m, 7d, or a time (UTC).")]
UntilOption = Annotated[str | None, typer.Option("--until", help="Written before: likewise.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why, in your words; it stands in the log.")]
EverythingOption = Annotated[bool, typer.Option("--all", help="Everything that is unresolved.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    dlq = typer.Typer(name="dlq", help="Records that a sink could not apply.", no_args_is_help=True)
    dlq.command("list")(list_letters)
    for command in (show, redrive, park, discard, resume):
        dlq.command()(command)
    app.add_typer(dlq)


def list_letters(
    fingerprint: FingerprintOption = None,
    topic: TopicOption = None,
    tenant: TenantOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    sink: SinkOption = None,
    state: Annotated[
        str | None, typer.Option("--state", help="quarantined, parked, redriven, discarded, or all; unresolved ones.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=ROWS_MAX, help="Most lines.")] = 100,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """What is set aside and why, and which partitions stand still; unresolved records unless --state says otherwise."""
    chosen = selection(None, _states(state), sink, topic, tenant, fingerprint, since, until)

    async def read(letters: DeadLetters) -> tuple[list[DeadLetter], list[PausedPartition]]:
        return await letters.find(chosen, limit), await letters.pauses()

    found, paused = _ask(load_settings(data), read)
    if as_json:
        print_json({"records": [as_dict(each) for each in found], "paused": [_paused_dict(each) for each in paused]})
        return
    _print_letters(found)
    if len(found) == limit:
        note(f"the first {limit}; more with --limit")
    for each in paused:
        words = f"{each.projection} stands still at {each.partition}, offset {each.offset}: {each.reason}"
        note(Text.assemble(("paused", "bold red"), f" {words}"))


def show(
    event_id: Annotated[str, typer.Argument(help="Event id.", metavar="ID")],
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """One record with everything known of it, its bytes as hexadecimal."""

    async def read(letters: DeadLetters) -> tuple[DeadLetter, QuarantinedRecord] | None:
        return await letters.show(event_id)

    _check_ids([event_id])
    found = _ask(load_settings(data), read)
    if found is None:
        fail(f"nothing with the id {event_id} was set aside")
    letter, first = found
    fields = as_dict(letter) | {
        "topic_id": first.source_topic_id,
        "schema_id": first.schema_id,
        "key": _hex(first.key_bytes),
        "value": _hex(first.value_bytes),
        "headers": {name: _hex(value) for name, value in first.headers.items()},
    }
    if as_json:
        print_json(fields)
        return
    terminal().print(table(f"Record {event_id}", ("field", "value"), ((name, _cell(fields[name])) for name in fields)))


def redrive(
    event_ids: Ids = None,
    everything: EverythingOption = False,
    fingerprint: FingerprintOption = None,
    topic: TopicOption = None,
    tenant: TenantOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    sink: SinkOption = None,
    again: Annotated[
        bool, typer.Option("--again", help="Redriven ones too: for a store that lost what it had.")
    ] = False,
    wait: Annotated[
        float, typer.Option("--wait", min=0, help="How long to wait for the sinks, seconds.")
    ] = WAIT_SECONDS,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let the sinks apply records after all, each once, in order; what waits behind them follows.

    Exit code 0 only when all of them are applied.
    """
    states: tuple[State, ...] = (*UNRESOLVED, "REDRIVEN") if again else UNRESOLVED
    chosen = _demanded(event_ids, everything, states, sink, topic, tenant, fingerprint, since, until)

    async def run(letters: DeadLetters) -> list[DeadLetter]:
        ids = await _ids(letters, chosen)
        await letters.request(ids, _actor(), again=again)
        return await _settled(letters, tuple(ids), wait) if ids else []

    found = _ask(load_settings(data), run)
    done = [each for each in found if each.state == "REDRIVEN" and not each.requested]
    waiting = [each for each in found if each.requested]
    if as_json:
        print_json({"records": [as_dict(each) for each in found], "redriven": len(done)})
    elif found:
        _print_letters(found)
    if not found:
        note("nothing to redrive")
    elif waiting:
        names = ", ".join(sorted({each.sink for each in waiting}))
        fail(f"{len(waiting)} of {len(found)} still wait for {names}: is its sink running? It does them when it runs.")
    elif len(done) < len(found):
        fail(f"{len(found) - len(done)} of {len(found)} are not applied: see why above")


def park(
    reason: ReasonOption,
    event_ids: Ids = None,
    everything: EverythingOption = False,
    fingerprint: FingerprintOption = None,
    topic: TopicOption = None,
    tenant: TenantOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    sink: SinkOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Leave records where they are, as known; what waits behind them waits on."""
    chosen = _demanded(event_ids, everything, ("QUARANTINED",), sink, topic, tenant, fingerprint, since, until)
    _require_text(reason)

    async def run(letters: DeadLetters) -> int:
        return await letters.park(await _ids(letters, chosen), _actor(), reason)

    _print_count("parked", _ask(load_settings(data), run), as_json=as_json)


def discard(
    reason: ReasonOption,
    event_ids: Ids = None,
    everything: EverythingOption = False,
    fingerprint: FingerprintOption = None,
    topic: TopicOption = None,
    tenant: TenantOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    sink: SinkOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Never apply records: an event in the log says who decided and why. What waits behind them is redriven."""
    chosen = _demanded(event_ids, everything, UNRESOLVED, sink, topic, tenant, fingerprint, since, until)
    if not reason.strip():
        fail("--reason is empty: say why these records are given up")
    _require_text(reason)

    async def run(letters: DeadLetters) -> int:
        return await letters.discard(await _ids(letters, chosen), _actor(), reason)

    _print_count("discarded", _ask(load_settings(data), run), as_json=as_json)


def resume(
    sink: SinkOption = None,
    topic: TopicOption = None,
    partition: Annotated[int | None, typer.Option("--partition", min=0, help="One partition.")] = None,
    past: Annotated[
        str | None,
        typer.Option("--past", help="Let everything below go by, whatever it is: an offset, or 'end' for all of now."),
    ] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let partitions go on that stand still because too much of them was poison; limits count from nothing."""
    settings = load_settings(data)
    if past is not None and past != "end" and not past.isdecimal():
        fail(f"--past {past!r} is neither an offset nor 'end'")

    async def run(letters: DeadLetters) -> list[PausedPartition]:
        chosen = [
            each
            for each in await letters.pauses()
            if sink in {None, each.projection}
            and topic in {None, each.partition.topic}
            and partition in {None, each.partition.number}
        ]
        ends = await asyncio.to_thread(_ends, settings, [each.partition for each in chosen]) if past == "end" else {}
        lifted = int(past) if past is not None and past.isdecimal() else 0
        for each in chosen:
            await letters.resume(each.projection, each.partition, _actor(), ends.get(each.partition, lifted))
        return chosen

    resumed = _ask(settings, run)
    if as_json:
        print_json({"resumed": [_paused_dict(each) for each in resumed]})
        return
    for each in resumed:
        terminal().print(f"{each.projection} goes on at {each.partition}, offset {each.offset}")
    if not resumed:
        note("nothing stands still")


def selection(
    event_ids: list[str] | None,
    states: tuple[State, ...],
    sink: str | None,
    topic: str | None,
    tenant: str | None,
    fingerprint: str | None,
    since: str | None,
    until: str | None,
) -> Selection:
    """What the options choose; ends the command with one line when one of them can't be read."""
    _check_ids(event_ids or [])
    now = now_micros()
    return Selection(
        tuple(event_ids or ()),
        states,
        sink,
        topic,
        tenant,
        fingerprint,
        None if since is None else ago_or_time(since, now),
        None if until is None else ago_or_time(until, now),
    )


def as_dict(letter: DeadLetter) -> dict[str, Any]:
    """A record for --json."""
    fields = letter._asdict()
    where = fields.pop("partition")
    return {**fields, "topic": where.topic, "partition": where.number}


def _demanded(
    event_ids: list[str] | None, everything: bool, states: tuple[State, ...], *filters: str | None
) -> Selection:
    """A selection that is not everything by mistake."""
    if not (event_ids or everything or any(filters)):
        fail("name records by id or by a filter, or say --all")
    return selection(event_ids, states, *filters)


def _check_ids(event_ids: list[str]) -> None:
    wrong = next((each for each in event_ids if not is_uuid(each)), None)
    if wrong is not None:
        fail(f"{wrong!r} is not an event id; `quaestor dlq list --json` shows them whole")


async def _ids(letters: DeadLetters, chosen: Selection) -> list[str]:
    return [each.event_id for each in await letters.find(chosen, ROWS_MAX)]


def _states(text: str | None) -> tuple[State, ...]:
    if text is None:
        return UNRESOLVED
    chosen = tuple(state for state in STATES if text in {"all", state.lower()})
    if not chosen:
        fail(f"there is no state {text!r}; choose {', '.join(state.lower() for state in STATES)}, or all")
    return chosen


async def _settled(letters: DeadLetters, ids: tuple[str, ...], wait_seconds: float) -> list[DeadLetter]:
    """The records once no sink has them to do any more, or time is up."""
    until = time.monotonic() + wait_seconds
    while True:
        found = await letters.find(Selection(ids), ROWS_MAX)
        if not any(each.requested for each in found) or time.monotonic() >= until:
            return found
        await asyncio.sleep(POLL_SECONDS)


def _ask(settings: Settings, question: Callable[[DeadLetters], Awaitable[T]]) -> T:
    async def run() -> T:
        letters = PostgresDeadLetters(settings.postgres_dsn)
        try:
            return await question(letters)
        finally:
            await letters.close()

    return asyncio.run(run())


def _ends(settings: Settings, partitions: list[Partition]) -> dict[Partition, int]:
    from streams.kafka import KafkaReader  # noqa: PLC0415 - keeps the other commands fast

    require_kafka(settings.kafka_bootstrap)
    reader = KafkaReader(settings.kafka_bootstrap, "quaestor-dlq")
    try:
        return reader.end_offsets(partitions, ASK_SECONDS_MAX) if partitions else {}
    finally:
        reader.close()


def _actor() -> str:
    return f"cli/{os.getuid()}"


def _require_text(reason: str) -> None:
    """End the command unless the log may keep it."""
    wrong = check.text("reason", reason)
    if wrong:
        fail(wrong.message)


def _print_count(what: str, count: int, *, as_json: bool) -> None:
    if as_json:
        print_json({what: count})
    else:
        terminal().print(f"{count} {what}")


def _print_letters(letters: list[DeadLetter]) -> None:
    columns = ("record", "state", "tries", "tenant, written (UTC), fingerprint, detail")
    made = table("Set aside", columns, map(_line, letters), numbers=(2,))
    made.columns[0].no_wrap = True  # commands ask for whole ids
    terminal().print(made)


def _line(letter: DeadLetter) -> tuple[str, ...]:
    """A few lines in few columns, so that it fits a narrow terminal."""
    detail = letter.note or (f"behind {letter.behind_event_id}" if letter.behind_event_id else letter.detail)
    written = datetime.fromtimestamp(letter.record_at / MICROS_PER_SECOND, UTC).strftime("%Y-%m-%d %H:%M:%S")
    state = letter.state.lower() + (", asked for" if letter.requested else "")
    return (
        f"{letter.event_id}\n{letter.partition}@{letter.offset}\n{letter.sink}",
        state if letter.reason == "UNKNOWN" else f"{state}\n{letter.reason}",
        str(letter.attempts),
        f"{letter.tenant_id}\n{written} {letter.fingerprint}\n{detail[:DETAIL_CHARACTERS_MAX]}",
    )


def _paused_dict(paused: PausedPartition) -> dict[str, Any]:
    return {**paused._asdict(), "topic": paused.partition.topic, "partition": paused.partition.number}


def _hex(value: bytes | None) -> str | None:
    if value is None:
        return None
    shown = value[:HEX_BYTES_MAX].hex()
    return shown if len(value) <= HEX_BYTES_MAX else f"{shown}… ({len(value)} bytes)"


def _cell(value: Any) -> str:
    return "" if value is None else str(value)
