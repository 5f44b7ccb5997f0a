"""`quaestor why` and `quaestor audit search` over real Postgres: stories held against the log, entries found."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Collection, Mapping
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from typer.testing import CliRunner, Result

from api.cli.main import application
from api.why.tell import Story, tell
from processors.audit.entry import Head, Sealed, Source, seal
from processors.audit.marks import MarkState, Seen
from schemas.errors import IntegrityError
from sinks.audit.store import EntryFilter
from sinks.postgres.audit import PostgresAuditStore
from sinks.postgres.migrations import FOLDER, migrate
from sinks.postgres.reads import PostgresReads
from streams.pick import At
from tests.integration.test_postgres_ledger import Desk
from tests.support.databases import postgres_databases
from tests.support.stories import START_MICROS, TOPIC_ID, event_id, request_story
from tests.support.told import Told

pytestmark = pytest.mark.stack
NOWHERE = "127.0.0.1:9"
REQUEST = event_id(1, "request")
WINDOW = 65_536
DELETED = "DELETE FROM quaestor_v1.cost WHERE request_id = $1"


class Desks:
    """One request in Postgres and in an audit log."""

    def __init__(self, dsn: str, folder: Path) -> None:
        """Nothing is written yet."""
        self.dsn = dsn
        self.store = PostgresAuditStore(dsn, "test")
        self.told = Told(folder, self.store)
        self.desk = Desk(dsn)

    async def open(self) -> None:
        """Write and enter all of it."""
        await self.store.open()
        for number in (*range(2, 40), 1):  # as Told enters them, so that offsets agree
            await self.desk.write(request_story(number))
        await self.told.enter()
        await self.told.world.publish()

    async def close(self) -> None:
        """Let go."""
        await self.desk.sink.close()
        await self.desk.reads.close()
        await self.store.close()

    async def story(self) -> Story:
        """What is told of the request, with Kafka at hand."""

        def seen_of(wanted: Collection[At]) -> Mapping[At, Seen]:
            return {at: self.told.seen[at] for at in wanted}

        return await tell(REQUEST, self.desk.reads, self.told.marker, seen_of)

    async def tamper(self, sql: str) -> None:
        """What only a superuser can do to the request's costs."""
        connection = await asyncpg.connect(self.dsn)
        try:
            await connection.execute("ALTER TABLE quaestor_v1.cost DISABLE TRIGGER append_only")
            await connection.execute(sql, REQUEST)
        finally:
            await connection.close()


@pytest.fixture
async def desks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Desks]:
    """Postgres alone runs; the settings point there."""
    dsn = await postgres_databases().emptied("told")
    variables = {
        "DATA": str(tmp_path),
        "POSTGRES_DSN": dsn,
        "KAFKA_BOOTSTRAP": NOWHERE,
        "REGISTRY_URL": f"http://{NOWHERE}",
        "AUDIT_LOG": "test",
        "AUDIT_ORIGIN": "quaestor.local/audit/test",
    }
    for name, value in variables.items():
        monkeypatch.setenv(f"QUAESTOR_{name}", value)
    made = Desks(dsn, tmp_path)
    await made.open()
    yield made
    await made.close()


async def run(*arguments: str) -> Result:
    """What a command says, which has an event loop of its own."""
    return await asyncio.to_thread(CliRunner().invoke, application(list(arguments)), arguments)


async def test_a_story_is_verified_step_by_step(desks: Desks) -> None:
    """Postgres, Kafka and the signed log say the same."""
    story = await desks.story()

    assert story.ok
    assert len(request_story(1)) == len(story.steps)
    assert {MarkState.VERIFIED} == {step.audit.state for step in story.steps}


async def test_an_amount_changed_in_postgres_is_told(desks: Desks) -> None:
    """The row says something else than the record that was entered, and the line says what was entered."""
    await desks.tamper("UPDATE quaestor_v1.cost SET amount_nano = 1 WHERE request_id = $1")

    story = await desks.story()

    (changed,) = [step for step in story.steps if not step.ok]
    assert ("CHARGE", False) == (changed.kind, story.ok)
    assert "0.0000015 USD" in changed.audit.detail


async def test_a_row_deleted_in_postgres_is_told(desks: Desks) -> None:
    """The audit log has an entry of which Postgres knows nothing, though it has read past it."""
    await desks.tamper(DELETED)

    story = await desks.story()

    assert not story.ok
    assert ["quaestor.costs"] == [place.topic for place in story.missing]


async def test_a_month_that_retention_dropped_is_no_contradiction(desks: Desks) -> None:
    """Its rows are gone together, with their table."""
    connection = await asyncpg.connect(desks.dsn)
    await connection.execute("DROP TABLE quaestor_v1.attempt_2026_11")
    await connection.close()

    story = await desks.story()

    assert (True, []) == (story.ok, story.missing)
    assert "ATTEMPT" not in {step.kind for step in story.steps}


async def test_a_story_without_kafka_is_included(desks: Desks) -> None:
    """The command says how far it can prove, and that is no failure."""
    done = await run("why", REQUEST, "--json")

    assert 0 == done.exit_code, done.output
    assert {"included"} == {step["audit"]["state"] for step in json.loads(done.stdout)["steps"]}
    assert f"0 of {len(request_story(1))} steps are verified" in (await run("why", REQUEST)).output


async def test_a_contradiction_ends_the_command_with_1(desks: Desks) -> None:
    """In the table too, with the entry."""
    await desks.tamper(DELETED)

    done = await run("why", REQUEST)

    assert 1 == done.exit_code
    assert "has no row in Postgres" in done.output


async def found(*arguments: str) -> list[dict[str, Any]]:
    """What a search finds."""
    done = await run("audit", "search", *arguments, "--json")
    assert 0 == done.exit_code, done.output
    return list(json.loads(done.stdout)["entries"])


async def test_entries_are_found_by_what_is_asked(desks: Desks) -> None:
    """By request, tenant, actor, type and time; with the actor that only Postgres knows."""
    of_request = await found("--request", REQUEST)
    assert {step.event_id for step in (await desks.story()).steps} == {each["event_id"] for each in of_request}
    assert {"gateway/test"} == {each["actor"] for each in of_request}
    assert [] == await found("--tenant", "nobody")
    assert 30 == len(await found("--actor", "gateway/test", "--limit", "30"))
    assert [] == await found("--actor", "cli/0")
    assert {("quaestor.costs", "CHARGE")} == {
        (each["topic"], each["kind"]) for each in await found("--type", "costs/charge")
    }
    assert {"COMPLETED"} == {each["kind"] for each in await found("--type", "completed")}
    at = START_MICROS + 1_000
    until = "2026-11-01T00:00:00.001001"
    assert {at} == {each["occurred_at"] for each in await found("--from", "2026-11-01T00:00:00.001", "--to", until)}


async def test_a_search_says_when_there_is_more(desks: Desks) -> None:
    """The newest so many, as a table."""
    output = (await run("audit", "search", "--limit", "3")).output

    assert "--limit shows more" in output


def sources(count: int) -> list[Source]:
    """Records one millisecond apart."""
    return [
        Source("acme", "quaestor.costs", TOPIC_ID, 0, number, START_MICROS + number * 1_000, 1, b"\x02" * 32, 1, "USD",
               event_id(number, "entered"), "", "CHARGE")
        for number in range(count)
    ]  # fmt: skip


async def test_a_time_is_found_across_windows() -> None:
    """Entries on both sides of a window's end, and nothing of the rest."""
    store = PostgresAuditStore(await postgres_databases().emptied("windows"), "main")
    await store.open()
    state = await store.claim("one", {})
    sealed = seal(sources(WINDOW + 1_000), 0, {})
    for first in range(0, len(sealed), 7_000):
        await store.append(state.epoch, sealed[first : first + 7_000], {}, [])

    edge = START_MICROS + WINDOW * 1_000
    wanted = EntryFilter(from_micros=edge - 3_000, to_micros=edge + 2_000)
    part = await store.find(wanted, len(sealed), 100)
    await store.close()

    assert [WINDOW + 1, WINDOW, WINDOW - 1, WINDOW - 2, WINDOW - 3] == [seq for seq, _ in part.entries]
    assert 0 == part.before


async def test_a_batch_that_was_rolled_back_is_found_when_it_comes_again() -> None:
    """What the store remembers of a window is only what was committed."""
    store = PostgresAuditStore(await postgres_databases().emptied("windows"), "main")
    await store.open()
    state = await store.claim("one", {})
    sealed = seal(sources(3), 0, {})
    with pytest.raises(IntegrityError):
        await store.append(state.epoch, sealed, {"acme": Head(3, None)}, [])  # type: ignore[arg-type]  # refused
    await store.append(state.epoch, sealed, {}, [])

    part = await store.find(EntryFilter(tenant_id="acme"), 3, 10)
    await store.close()
    assert [2, 1, 0] == [seq for seq, _ in part.entries]


async def test_entries_of_before_the_migration_are_found(tmp_path: Path) -> None:
    """Old rows have windows too: the migration makes them."""
    older = tmp_path / "migrations"
    older.mkdir()
    for path in FOLDER.glob("*.sql"):
        if path.name < "0130":
            (older / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    dsn = postgres_databases().dsn("older")
    await migrate(dsn, older)
    await insert(dsn, seal(sources(10), 0, {}))

    await migrate(dsn)

    store = PostgresAuditStore(dsn, "main")
    await store.open()
    part = await store.find(EntryFilter(tenant_id="acme", kind="CHARGE", from_micros=START_MICROS + 7_000), 10, 100)
    await store.close()
    assert [9, 8, 7] == [seq for seq, _ in part.entries]


async def insert(dsn: str, sealed: list[Sealed]) -> None:
    """Rows as they were written before."""
    connection = await asyncpg.connect(dsn)
    await connection.execute("INSERT INTO quaestor.audit_log (log) VALUES ('main')")
    await connection.execute("SELECT quaestor.ensure_audit_entries(0)")
    await connection.executemany(
        "INSERT INTO quaestor.audit_entry VALUES ('main', $1, 'acme', $2, $3, $4, $5, 'quaestor.costs', 0, $1, null)",
        [(each.seq, each.tseq, each.chain, each.leaf, each.entry) for each in sealed],
    )
    await connection.close()


async def test_actors_are_those_of_the_events(desks: Desks) -> None:
    """An entry whose event has no row has no actor."""
    reads = PostgresReads(desks.dsn)
    known = (await desks.story()).steps[0]
    source = Source("acme", known.topic, "", 0, 0, known.occurred_at, 0, b"", None, "", known.event_id, "", "")

    actors = await reads.actors([source, source._replace(event_id=event_id(99)), source._replace(event_id="")])
    await reads.close()

    assert {known.event_id: "gateway/test"} == actors
