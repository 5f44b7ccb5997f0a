"""The API's view of the audit log: what it is, and its entries by whom, what and when."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

import msgspec

from api.console.operations import Nothing, Reading
from api.console.parts import Parts
from api.console.problems import Problem, invalid
from api.console.values import PAGE, Moment, Name
from api.times import micros_of
from schemas.limits import CONSOLE_PAGE_MAX
from sinks.audit.search import Hit
from sinks.audit.store import EntryFilter

SEQ_DIGITS_MAX = 18


class EntriesAsked(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What is looked for."""

    tenant: Annotated[Name | None, msgspec.Meta(description="Only this tenant; `_log` is the log's own.")] = None
    actor: Annotated[Name | None, msgspec.Meta(description="Only what this one caused.")] = None
    topic: Annotated[Name | None, msgspec.Meta(description="Only this topic, for example quaestor.control.")] = None
    kind: Annotated[Name | None, msgspec.Meta(description="Only this kind, for example COMPLETED.")] = None
    request: Annotated[Name | None, msgspec.Meta(description="Only this request.")] = None
    since: Annotated[Moment | None, msgspec.Meta(description="What happened from then on.")] = msgspec.field(
        name="from", default=None
    )
    until: Annotated[Moment | None, msgspec.Meta(description="What happened before then.")] = msgspec.field(
        name="to", default=None
    )
    limit: Annotated[int, msgspec.Meta(ge=1, le=CONSOLE_PAGE_MAX, description="Entries of a page at most.")] = PAGE
    cursor: Annotated[Name | None, msgspec.Meta(description="`next` of the page before.")] = None


class EntryShown(msgspec.Struct, kw_only=True):
    """An entry of the log."""

    #: Its position in the log.
    index: int
    #: Microseconds since the epoch.
    occurred_at: int
    tenant_id: str
    topic: str
    partition: int
    offset: int
    kind: str
    #: Null when Postgres has no row of its event.
    actor: str | None
    event_id: str | None
    request_id: str | None


class EntriesPage(msgspec.Struct):
    """Entries, newest first. A page may have fewer than asked for and still not be the last: `next` says so."""

    entries: list[EntryShown]
    #: The next page's `cursor`; null after the last.
    next: str | None


class LogShown(msgspec.Struct):
    """What an auditor needs to read the log."""

    log: str
    origin: str
    vkey: str
    #: Entries under the published checkpoint.
    size: int
    #: Base64.
    root: str
    #: Where the checkpoint and the tiles are, from this server's root.
    path: str


def shown(hit: Hit) -> EntryShown:
    """A hit as it is told."""
    source = hit.source
    return EntryShown(
        index=hit.seq,
        occurred_at=source.time_micros,
        tenant_id=source.tenant_id,
        topic=source.topic,
        partition=source.partition,
        offset=source.offset,
        kind=source.kind,
        actor=hit.actor,
        event_id=source.event_id or None,
        request_id=source.request_id or None,
    )


async def entries(parts: Parts, asked: EntriesAsked) -> EntriesPage | Problem:
    """A page of entries."""
    before = None if asked.cursor is None else position_of(asked.cursor)
    if asked.cursor is not None and before is None:
        return invalid("This cursor is none of ours: take `next` of the page before as it is.")
    wanted = EntryFilter(
        tenant_id=asked.tenant,
        topic=asked.topic,
        kind=asked.kind,
        request_id=asked.request,
        from_micros=None if asked.since is None else micros_of(asked.since),
        to_micros=None if asked.until is None else micros_of(asked.until),
    )
    page = await parts.search.page(wanted, asked.actor, before, asked.limit)
    return EntriesPage([shown(hit) for hit in page.hits], None if page.before is None else cursor_of(page.before))


async def log(parts: Parts, _asked: Nothing) -> LogShown:
    """The log's name, key and published size."""
    verifier, checkpoint = await parts.published()
    name = parts.log.name
    root = base64.b64encode(checkpoint.root).decode("ascii")
    return LogShown(name, checkpoint.origin, verifier.vkey, checkpoint.size, root, f"/audit/{name}/")


def cursor_of(before: int) -> str:
    """A position as the text that callers hand back."""
    return base64.urlsafe_b64encode(f"e{before}".encode()).decode("ascii").rstrip("=")


def position_of(cursor: str) -> int | None:
    """The position of a cursor, None when it is none of ours."""
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
    except (binascii.Error, ValueError):
        return None
    digits = text.removeprefix("e")
    known = text.startswith("e") and digits.isdecimal() and len(digits) <= SEQ_DIGITS_MAX
    return int(digits) if known and int(digits) > 0 else None


OPERATIONS = (
    Reading(
        name="audit_entries",
        path="/api/audit/entries",
        summary="Entries of the audit log.",
        asked=EntriesAsked,
        answered=EntriesPage,
        handle=entries,
    ),
    Reading(
        name="audit_log",
        path="/api/audit/log",
        summary="The audit log's key and published size.",
        asked=Nothing,
        answered=LogShown,
        handle=log,
    ),
)
