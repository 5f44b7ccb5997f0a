"""Searching a log: its entries, newest first, each with who caused its event, which only the event's row says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import NamedTuple

from processors.audit.entry import Source, decode_entry
from sinks.audit.store import AuditStore, EntryFilter

#: Actors by event id of those entries whose events have a row in Postgres.
ActorsOf = Callable[[Iterable[Source]], Awaitable[Mapping[str, str]]]
#: Entries whose actors are looked up together where one actor's are wanted.
CANDIDATES = 1_000
#: Looks at the log per page.
LOOKS_MAX = 8


class Hit(NamedTuple):
    """An entry that was looked for."""

    seq: int
    source: Source
    #: None when Postgres has no row of its event (not yet, set aside, or it can't be decoded).
    actor: str | None


class Page(NamedTuple):
    """Some hits, newest first."""

    hits: list[Hit]
    #: Where the next page goes on; None when nothing is left. A page may be empty and not the last.
    before: int | None


class AuditSearch:
    """Searches one log."""

    def __init__(self, store: AuditStore, actors_of: ActorsOf) -> None:
        """Over an open store."""
        self._store = store
        self._actors_of = actors_of

    async def page(self, wanted: EntryFilter, actor: str | None, before: int | None, limit: int) -> Page:
        """Up to `limit` hits below a position (None: from the newest on), after a bounded amount of work.

        Raises StoreUnavailableError.
        """
        if before is None:
            before = (await self._store.state()).next_seq
        hits: list[Hit] = []
        for _ in range(LOOKS_MAX):
            found = await self._store.find(wanted, before, CANDIDATES if actor else limit - len(hits))
            looked_at = await self._with_actors(found.entries)
            hits += [hit for hit in looked_at if actor is None or hit.actor == actor]
            before = found.before
            if len(hits) >= limit or not before:
                break
        if len(hits) > limit or (len(hits) == limit and actor):
            hits = hits[:limit]
            before = hits[-1].seq
        return Page(hits, before or None)

    async def _with_actors(self, entries: list[tuple[int, bytes]]) -> list[Hit]:
        sources = [(seq, decode_entry(entry).source) for seq, entry in entries]
        actors = await self._actors_of([source for _, source in sources])
        return [Hit(seq, source, actors.get(source.event_id)) for seq, source in sources]
