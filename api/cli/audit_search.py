"""`quaestor audit search`: entries of the audit log by tenant, actor, type, time and request."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from api.cli.audit_parts import open_trail
from api.cli.terminal import DataOption, JsonOption, fail, note, print_json, table, terminal
from api.cli.times import ago_or_time, now_micros
from api.settings import Settings, load_settings
from api.times import time_text
from schemas.topics import TOPIC_BY_NAME
from sinks.audit.search import AuditSearch, Hit
from sinks.audit.store import EntryFilter
from sinks.postgres.reads import PostgresReads

PREFIX = "quaestor."
LIMIT_MAX = 100_000
PAGE_HITS = 500


def register(audit: typer.Typer) -> None:
    """Add the command."""
    audit.command("search")(search)


def search(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant; `_log` is the log's own.")] = None,
    actor: Annotated[str | None, typer.Option(help="Only what this one caused, for example cli/1000.")] = None,
    kind: Annotated[
        str | None, typer.Option("--type", help="A kind (COMPLETED), a topic (control), or both (control/CREATED).")
    ] = None,
    since: Annotated[str | None, typer.Option("--from", help="From 7d ago, or from 2026-11-21T08:00 on.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="Before then.")] = None,
    request: Annotated[str | None, typer.Option(help="Only this request.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=LIMIT_MAX, help="The newest so many.")] = 50,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find entries of the audit log, newest first: where each stands, what it is of, and who caused it.

    Times are when things happened. The actor stands in the event, not in the entry: it is read from Postgres.
    """
    topic, kind = topic_and_kind(kind)
    now = now_micros()
    wanted = EntryFilter(
        tenant_id=tenant,
        topic=topic,
        kind=kind,
        request_id=request,
        from_micros=None if since is None else ago_or_time(since, now),
        to_micros=None if until is None else ago_or_time(until, now),
    )
    hits = asyncio.run(_found(load_settings(data), wanted, actor, limit))
    if as_json:
        print_json({"entries": [document(hit) for hit in hits]})
        return
    columns = ("index", "time", "tenant", "kind", "event", "actor", "event id")
    terminal().print(table("Audit log, newest first", columns, map(_row, hits), numbers=(0,)))
    if len(hits) == limit:
        note(f"the newest {limit}; --limit shows more")


def topic_and_kind(text: str | None) -> tuple[str | None, str | None]:
    """What --type says; ends the command for a topic that there is not."""
    if text is None:
        return None, None
    topic, divided, kind = text.partition("/")
    if not divided and PREFIX + topic not in TOPIC_BY_NAME:
        return None, text.upper()
    if PREFIX + topic not in TOPIC_BY_NAME:
        fail(f"no topic {topic!r}; there are: {', '.join(one.removeprefix(PREFIX) for one in TOPIC_BY_NAME)}", 2)
    return PREFIX + topic, kind.upper() or None


async def _found(settings: Settings, wanted: EntryFilter, actor: str | None, limit: int) -> list[Hit]:
    reads = PostgresReads(settings.postgres_dsn)
    try:
        async with open_trail(settings) as trail:
            hits: list[Hit] = []
            before: int | None = None
            while len(hits) < limit:
                page = await AuditSearch(trail.store, reads.actors).page(
                    wanted, actor, before, min(limit - len(hits), PAGE_HITS)
                )
                hits += page.hits
                before = page.before
                if before is None:
                    break
            return hits
    finally:
        await reads.close()


def document(hit: Hit) -> dict[str, Any]:
    """A hit for programs."""
    source = hit.source
    return {
        "index": hit.seq,
        "occurred_at": source.time_micros,
        "tenant_id": source.tenant_id,
        "topic": source.topic,
        "partition": source.partition,
        "offset": source.offset,
        "kind": source.kind,
        "actor": hit.actor,
        "event_id": source.event_id or None,
        "request_id": source.request_id or None,
    }


def _row(hit: Hit) -> tuple[Any, ...]:
    source = hit.source
    where = f"{source.topic.removeprefix(PREFIX)}/{source.partition}@{source.offset}" if source.topic else "-"
    kind, event = source.kind or "-", source.event_id or "-"
    return hit.seq, time_text(source.time_micros), source.tenant_id, kind, where, hit.actor or "-", event
