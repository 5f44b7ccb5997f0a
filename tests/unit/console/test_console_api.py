"""The console's API: who may ask, what is looked for, pages, and how errors are told."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from api.console.app import OPERATIONS
from api.console.parts import ReceiptFile
from api.why.story import Step
from api.why.tell import Story
from processors.audit.marks import Mark, MarkState
from schemas.errors import StoreUnavailableError
from schemas.limits import CONSOLE_PAGE_MAX, CONSOLE_REQUESTS_MAX
from sinks.audit.store import EntryPlace
from tests.support.console import ConsoleWorld

REQUEST = "01930000-0000-7000-8000-000000000000"
ENTRIES = "/api/audit/entries"


@pytest.fixture
async def world(tmp_path: Path) -> ConsoleWorld:
    """A log of some records of three tenants."""
    made = ConsoleWorld(tmp_path)
    await made.audit.claim()
    await made.audit.grow(20)
    return made


@pytest.mark.parametrize(
    ("method", "path"),
    [(operation.method, operation.path) for operation in OPERATIONS] + [("GET", "/api/openapi.json")],
)
@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "token_missing"),
        ({"authorization": "Basic abc"}, "token_missing"),
        ({"authorization": "Bearer "}, "token_missing"),
        ({"authorization": "Bearer qa_wrong"}, "token_wrong"),
        ({"authorization": "Bearer " + "x" * 5_000}, "token_wrong"),
    ],
)
async def test_the_api_is_for_the_admin(
    world: ConsoleWorld, method: str, path: str, headers: dict[str, str], code: str
) -> None:
    """Whatever is asked, without the token there is a problem document and nothing else."""
    answer = await world.ask(path.replace("{id}", REQUEST), method=method, token=None, headers=headers)

    assert (401, code) == (answer.status, answer.json()["code"])
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_an_error_is_a_problem_document(world: ConsoleWorld) -> None:
    """RFC 9457's members, the content type, and the correlation id of the header."""
    answer = await world.ask("/api/nothing")

    assert "application/problem+json" == answer.headers["content-type"]
    assert {"type", "title", "status", "code", "detail", "correlation_id"} == set(answer.json())
    assert (404, "Not Found") == (answer.json()["status"], answer.json()["title"])
    assert answer.headers["x-correlation-id"] == answer.json()["correlation_id"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", [ENTRIES, "/audit/main/checkpoint", "/healthz"])
async def test_other_methods_are_refused(world: ConsoleWorld, method: str, path: str) -> None:
    """These are only read."""
    answer = await world.ask(path, method=method)

    assert (405, "GET, HEAD") == (answer.status, answer.headers["allow"])


@pytest.mark.parametrize("actor", ["cli/ann", "cli/bob"])
async def test_pages_of_an_actor_leave_nothing_out(world: ConsoleWorld, actor: str) -> None:
    """A page ends at the hit that filled it, wherever the search had got to."""
    whole = (await world.ask(ENTRIES, f"actor={actor}&limit=500")).json()["entries"]
    seen: list[dict[str, Any]] = []
    query = f"actor={actor}&limit=3"
    while True:
        page = (await world.ask(ENTRIES, query)).json()
        assert len(page["entries"]) <= 3
        seen += page["entries"]
        if page["next"] is None:
            break
        query = f"actor={actor}&limit=3&cursor={page['next']}"

    assert whole == seen
    assert whole


async def test_entries_come_newest_first_in_pages(world: ConsoleWorld) -> None:
    """Pages by cursor give every entry once; the log's own are not among them unless they are named."""
    seen: list[int] = []
    query = "limit=7"
    while True:
        page = (await world.ask(ENTRIES, query)).json()
        seen += [entry["index"] for entry in page["entries"]]
        if page["next"] is None:
            break
        query = f"limit=7&cursor={page['next']}"

    own = [entry["index"] for entry in (await world.ask(ENTRIES, "kind=HEADS")).json()["entries"]]
    assert sorted(seen, reverse=True) == seen
    assert set(range(world.audit.publisher.signed_size)) == {*seen, *own}
    assert set(seen).isdisjoint(own)


@pytest.mark.parametrize(
    ("query", "field", "value"),
    [
        ("tenant=tenant_1", "tenant_id", "tenant_1"),
        ("actor=cli/ann", "actor", "cli/ann"),
        ("topic=quaestor.budgets", "topic", "quaestor.budgets"),
        ("kind=UNDECODABLE", "kind", "UNDECODABLE"),
        ("tenant=tenant_2&actor=cli/bob", "tenant_id", "tenant_2"),
    ],
)
async def test_only_what_is_looked_for_comes(world: ConsoleWorld, query: str, field: str, value: str) -> None:
    """Each filter by itself and together."""
    found = (await world.ask(ENTRIES, query)).json()["entries"]

    assert {value} == {entry[field] for entry in found}


async def test_times_are_from_and_before(world: ConsoleWorld) -> None:
    """`from` is within, `to` is not; RFC 3339 to the microsecond."""
    query = "from=2023-11-14T22:13:20.000003Z&to=2023-11-14T22:13:20.000005Z&limit=500"

    found = (await world.ask(ENTRIES, query)).json()["entries"]

    assert {1_700_000_000_000_003, 1_700_000_000_000_004} == {entry["occurred_at"] for entry in found}


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        f"limit={CONSOLE_PAGE_MAX + 1}",
        "limit=many",
        "limit=1&limit=2",
        "nothing=1",
        "tenant=",
        "tenant=" + "x" * 200,
        "from=yesterday",
        "from=2023-11-14T22:13:20",
        "cursor=nonsense",
        "cursor=ZTA",
        "cursor=" + "e9" * 60,
    ],
)
async def test_a_question_that_makes_no_sense_is_told(world: ConsoleWorld, query: str) -> None:
    """400, saying what is wrong."""
    answer = await world.ask(ENTRIES, query)

    assert (400, "invalid_request") == (answer.status, answer.json()["code"])
    assert answer.json()["detail"]


async def test_the_log_says_what_an_auditor_needs(world: ConsoleWorld) -> None:
    """Origin, key, size, root, and where the files are."""
    told = (await world.ask("/api/audit/log")).json()

    lines = (world.audit.layout.directory / "checkpoint").read_text(encoding="utf-8").split("\n")
    assert lines[:3] == [told["origin"], str(told["size"]), told["root"]]
    assert world.audit.signer.verifier.vkey == told["vkey"]
    assert 200 == (await world.ask(f"{told['path']}checkpoint", token=None)).status


def step(mark: Mark) -> Step:
    """A step with this mark."""
    return Step("PLACED", "held", 1, 0.0, "quaestor.budgets", 0, 3, "event", mark)


async def test_why_tells_the_story_with_its_marks(world: ConsoleWorld) -> None:
    """What `quaestor why --json` tells."""
    mark = Mark(MarkState.MISMATCH, 7, "differs")
    missing = EntryPlace(9, "quaestor.costs", 1, 2, "event")
    story = Story(REQUEST, [step(mark)], [missing])
    world.stories[REQUEST] = story

    told = (await world.ask(f"/api/requests/{REQUEST}/why")).json()

    assert story.as_json() == told
    assert {"state": "mismatch", "index": 7, "detail": "differs"} == told["steps"][0]["audit"]
    assert not told["ok"]


async def test_receipts_of_a_request(world: ConsoleWorld) -> None:
    """Each with its name, its position and the text of the file."""
    world.receipts[REQUEST] = [ReceiptFile("7-costs-charge.tlog-proof", 7, "quaestor.costs", "CHARGE", "the proof")]

    told = (await world.ask(f"/api/requests/{REQUEST}/receipts")).json()

    assert REQUEST == told["request_id"]
    names = ("name", "index", "topic", "kind", "proof")
    values = ("7-costs-charge.tlog-proof", 7, "quaestor.costs", "CHARGE", "the proof")
    assert [dict(zip(names, values, strict=True))] == told["receipts"]


@pytest.mark.parametrize("what", ["why", "receipts"])
@pytest.mark.parametrize(("request_id", "status"), [(REQUEST, 404), ("nonsense", 400), ("..", 400)])
async def test_a_request_that_is_not_there(world: ConsoleWorld, what: str, request_id: str, status: int) -> None:
    """Unknown, or no id at all."""
    assert status == (await world.ask(f"/api/requests/{request_id}/{what}")).status


async def test_receipts_that_no_checkpoint_covers_yet(world: ConsoleWorld) -> None:
    """Come back later, without what the store said."""
    world.fault = StoreUnavailableError("3 of 4 entries")

    answer = await world.ask(f"/api/requests/{REQUEST}/receipts")
    assert (503, "unavailable") == (answer.status, answer.json()["code"])


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (StoreUnavailableError("Postgres: secret words"), 503, "unavailable"),
        (KeyError("secret words"), 500, "internal"),
    ],
)
async def test_a_fault_is_told_without_its_reason(
    world: ConsoleWorld, fault: Exception, status: int, code: str
) -> None:
    """The reason is for the log; the caller gets the correlation id."""
    world.fault = fault

    answer = await world.ask(f"/api/requests/{REQUEST}/why")

    assert (status, code) == (answer.status, answer.json()["code"])
    assert b"secret" not in answer.body


async def test_too_many_at_once_are_refused(world: ConsoleWorld) -> None:
    """Beyond the limit requests are told to come again, and counted down afterwards."""
    world.go.clear()
    asked = [asyncio.create_task(world.ask(f"/api/requests/{REQUEST}/why")) for _ in range(CONSOLE_REQUESTS_MAX)]
    await asyncio.sleep(0)

    refused = await world.ask("/healthz")
    world.go.set()
    await asyncio.gather(*asked)

    assert (503, "busy") == (refused.status, refused.json()["code"])
    assert 200 == (await world.ask("/healthz")).status


async def test_the_openapi_document_describes_what_is_answered(world: ConsoleWorld) -> None:
    """Every operation is in it, and its answers fit their schemas."""
    document: dict[str, Any] = (await world.ask("/api/openapi.json")).json()
    world.stories[REQUEST] = Story(REQUEST, [step(Mark(MarkState.PENDING))], [])
    world.receipts[REQUEST] = [ReceiptFile("7.tlog-proof", 7, "quaestor.costs", "CHARGE", "the proof")]

    limit = (await world.change("/api/budgets", {"tenant": "acme", "amount": "1"})).json()["limit"]["id"]

    described = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    assert {(operation.path, operation.method) for operation in OPERATIONS} == described
    for path, methods in document["paths"].items():
        if "get" in methods:
            answer = (await world.ask(path.replace("{id}", limit if "budgets" in path else REQUEST))).json()
            schema = methods["get"]["responses"]["200"]["content"]["application/json"]["schema"]
            jsonschema.validate(answer, schema | {"components": document["components"]})


async def test_ready_says_what_is_not(world: ConsoleWorld) -> None:
    """Alive all the same."""
    world.works = False

    answer = await world.ask("/readyz", token=None)

    assert (503, {"ready": False, "parts": {"postgres": {"ok": False}}}) == (answer.status, answer.json())
    assert 200 == (await world.ask("/healthz", token=None)).status


async def test_requests_are_counted(world: ConsoleWorld) -> None:
    """By operation and status; what is nowhere has one name."""
    await world.ask("/healthz")
    await world.ask("/a")
    await world.ask("/b")

    text = (await world.ask("/metrics", token=None)).body.decode()
    assert 'quaestor_console_requests_total{operation="healthz",status="200"} 1.0' in text
    assert 'quaestor_console_requests_total{operation="nowhere",status="404"} 2.0' in text
