"""Erasing a data subject on the running product: nothing of theirs is readable anywhere, and every proof stands."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import signal
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from api.gateway.vault_keys import open_vault, vault_secrets
from infra.embedded.ports import free_ports
from processors.audit.merkle import root_at
from processors.audit.tiles import subtree_hash, tile_of_node
from processors.subjects.sealing import Sealer
from schemas.errors import IntegrityError, UndecodableError
from schemas.events import Event, RequestEvent
from schemas.topics import REQUESTS
from sinks.audit.files import LogFiles
from sinks.audit.layout import AuditLayout
from sinks.audit.process import published
from sinks.postgres.key_encryption import WrappedKey
from sinks.postgres.vault_rows import PostgresRows
from streams.codec import Codec
from streams.registry import RegistrySchemas
from tests.e2e.product import QUAESTOR, Product
from tests.support.canaries import kafka_records, places_with
from tests.support.gateway_stack import wait_for

SECONDS_MAX = 30.0
TENANT = "forgetful"
SUBJECT_ROWS = "SELECT tenant_id, lookup_hash, handle, key_version, wrapped_key FROM quaestor.subject"
PUT_BACK = """
INSERT INTO quaestor.subject (tenant_id, lookup_hash, handle, key_version, wrapped_key) VALUES ($1, $2, $3, $4, $5)
"""


@dataclass
class Caller:
    """An end user of an app, who says things that only they would."""

    key: str
    user: str
    #: What must not be found anywhere.
    canaries: list[str] = field(default_factory=list)
    #: Of the last call, byte for byte.
    body: bytes = b""

    def ask(self, gateway: str) -> str:
        """One call; its request id."""
        mark = f"{self.user}-{len(self.canaries)}"
        prompt, tag = f"canary-prompt-{mark}", f"canary-tag-{mark}"
        body = {
            "model": "default", "max_tokens": 24, "user": self.user, "metadata": {"note": tag},
            "messages": [{"role": "user", "content": prompt}],
        }  # fmt: skip
        headers = {"authorization": f"Bearer {self.key}", "content-type": "application/json"}
        self.body = json.dumps(body).encode()
        request = urllib.request.Request(f"{gateway}/v1/chat/completions", self.body, headers)  # noqa: S310 - ours
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - our own gateway
            text = json.load(answer)["choices"][0]["message"]["content"]
            self.canaries += [prompt, tag, text]
            return str(answer.headers["x-quaestor-request-id"])


@contextmanager
def gateway(product: Product) -> Iterator[str]:
    """One more gateway of the product; its URL."""
    (port,) = free_ports(1)
    environment = product.environment() | {"QUAESTOR_GATEWAY_PORT": str(port)}
    with (product.data / f"gateway-{port}.log").open("ab") as log:
        process = subprocess.Popen([str(QUAESTOR), "gateway"], env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=1) as answer:  # noqa: S310 - our own gateway
                return bool(answer.status == 200)
        except OSError:
            return False

    try:
        wait_for(ready, SECONDS_MAX)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(SECONDS_MAX)


def sealed_events(product: Product) -> list[RequestEvent]:
    """Every event of the tenant in Kafka that seals something; other tests put broken records there too."""
    codec = Codec(RegistrySchemas(product.setting("registry_url")))
    found: list[Event] = []
    for record in kafka_records(product.setting("kafka_bootstrap")):
        with suppress(UndecodableError):
            found += [codec.decode_event(record.topic, record.value)] if record.topic == REQUESTS.name else []
    return [one for one in found if isinstance(one, RequestEvent) and one.tenant_id == TENANT and one.sealed]


def handles(product: Product, *request_ids: str) -> list[str | None]:
    """The handles of requests, as Kafka has them."""
    found = {event.request_id: event.subject_handle for event in sealed_events(product)}
    return [found[request_id] for request_id in request_ids]


async def sealers_left(product: Product) -> list[Sealer]:
    """Every data key that the vault still has, opened with the master key."""
    dsn = product.setting("postgres_dsn")
    vault, rows = open_vault(dsn, "file", product.data, lambda _: False), PostgresRows(dsn)
    try:
        return [Sealer((await vault.open(row)).data_key) for row in await rows.page("", 1_000)]
    finally:
        await vault.close()
        await rows.close()


def opens(event_id: str, sealed: bytes, sealers: list[Sealer]) -> bool:
    """Whether any of the keys opens it."""
    for sealer in sealers:
        try:
            sealer.open(TENANT, event_id, sealed)
        except IntegrityError:
            continue
        return True
    return False


def sql(product: Product, statement: str, *arguments: Any) -> list[asyncpg.Record]:
    """As the database's superuser."""

    async def run() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(product.setting("postgres_dsn"))
        try:
            return list(await connection.fetch(statement, *arguments))
        finally:
            await connection.close()

    return asyncio.run(run())


@dataclass(kw_only=True)
class Story:
    """What was done once, for all claims."""

    product: Product
    gateways: tuple[str, str]
    erased: Caller
    other: Caller
    before: list[str]
    after: list[str]
    #: The other's.
    kept: str
    unsealed: dict[str, Any]
    sealers_before: list[Sealer]
    rows_before: list[asyncpg.Record]
    note_before: str
    certificate: dict[str, Any]

    @property
    def handle(self) -> str:
        """What was erased."""
        return str(self.certificate["handle"])


@pytest.fixture(scope="module")
def story(product: Product) -> Iterator[Story]:
    """Two people call through two gateways, one of them is erased and calls again."""
    key = product.key(TENANT)
    erased, other = Caller(key, "canary-user-bob@example.com"), Caller(key, "eve@example.com")
    with gateway(product) as second:
        gateways = (product.setting("gateway_url"), second)
        before, kept = [erased.ask(one) for one in gateways], other.ask(second)
        product.run("verify", "parity")
        unsealed = product.json("audit", "unseal", before[0])
        note = (product.data / "audit" / "main" / "checkpoint").read_text(encoding="utf-8")
        sealers = asyncio.run(sealers_left(product))
        rows = sql(product, SUBJECT_ROWS)
        name = ("--tenant", TENANT, "--subject", erased.user, "--reason", "DSR-118", "--no-wait")
        certificate = product.json("audit", "erase", *name)
        after = [erased.ask(one) for one in gateways]
        product.run("verify", "parity")
        yield Story(
            product=product, gateways=gateways, erased=erased, other=other, before=before, after=after, kept=kept,
            unsealed=unsealed, sealers_before=sealers, rows_before=rows, note_before=note, certificate=certificate,
        )  # fmt: skip


def test_both_gateways_let_go_of_the_key_at_once(story: Story) -> None:
    """Each kept it a moment before; the same person is somebody new to both."""
    one, two, new, new_too = handles(story.product, *story.before, *story.after)

    assert (story.handle, story.handle) == (one, two)
    assert story.handle != new == new_too


def test_what_was_sealed_opened_before(story: Story) -> None:
    """By the operator's command, and byte for byte with the vault's keys."""
    events = {event.request_id: event for event in sealed_events(story.product)}

    assert story.unsealed["tags"] == {"note": story.erased.canaries[1]}
    for request_id in story.before:
        event = events[request_id]
        assert opens(event.event_id, event.sealed or b"", story.sealers_before)


def test_a_body_is_shown_to_be_the_requests(story: Story, tmp_path: Path) -> None:
    """With the salt that only the keys give; one byte more is another body."""
    body = tmp_path / "body.json"
    body.write_bytes(story.other.body)
    same = story.product.json("audit", "unseal", story.kept, "--body", str(body))
    body.write_bytes(story.other.body + b" ")

    assert same["body_is_the_requests"]
    assert 1 == exit_code(story.product, "audit", "unseal", story.kept, "--body", str(body))


def test_no_copy_opens_with_anything_that_is_left(story: Story) -> None:
    """Neither in Kafka nor in Postgres; what others sealed still does."""
    sealers = asyncio.run(sealers_left(story.product))
    copies = [(event.request_id, event.event_id, event.sealed) for event in sealed_events(story.product)]
    copies += [
        (row["request_id"], str(row["event_id"]), row["sealed"])
        for row in sql(story.product, "SELECT * FROM quaestor_v1.request_event WHERE sealed IS NOT NULL")
    ]

    opened = {request_id for request_id, event_id, sealed in copies if opens(event_id, sealed or b"", sealers)}
    assert len([one for one in copies if one[0] in story.before]) >= 4
    assert not set(story.before) & opened
    assert {story.kept, *story.after} <= opened
    assert 1 == exit_code(story.product, "audit", "unseal", story.before[0])


def exit_code(product: Product, *arguments: str, given: str = "") -> int:
    """Of a command that is given this on standard input."""
    command, environment = [str(QUAESTOR), *arguments], product.environment()
    return subprocess.run(
        command, env=environment, cwd=product.data.parent, input=given.encode(), capture_output=True, check=False
    ).returncode


def test_nothing_of_the_subject_is_readable_anywhere(story: Story) -> None:
    """Not the user's id or its plain hash, no tag, prompt or output: in no topic, table, key of Redis, file or log."""
    user = story.erased.user
    canaries = [user, hashlib.sha256(user.encode()).hexdigest(), *story.erased.canaries]
    product = story.product
    names = ("kafka_bootstrap", "postgres_dsn", "clickhouse_url", "redis_url")
    where = (product.data, *(product.setting(name) for name in names))

    found = asyncio.run(places_with(*where, [canary.encode() for canary in canaries]))
    control = asyncio.run(places_with(*where, [story.handle.encode()]))

    assert set() == found
    # The handle is found where it has to be: the search finds what is there.
    assert {"topic quaestor.requests", "topic quaestor.control"} <= control
    assert any(place.startswith("table quaestor_v1.request_event") for place in control)
    assert any(place.startswith("facts ") for place in control)
    assert f"file certificates/erasure-{story.handle}.json" in control


def test_the_log_and_what_was_signed_before_still_verify(story: Story) -> None:
    """Every entry, chain and tile; and the tree of now still has the root that was signed then."""
    assert story.product.json("audit", "verify")["ok"]

    layout = AuditLayout(story.product.data)
    files = LogFiles(layout.directory)
    origin, size, root = story.note_before.split("\n")[:3]
    keys, now = published(layout)

    def node(level: int, index: int) -> bytes:
        tile, first, height = tile_of_node(level, index, now.size)
        return subtree_hash(files.read(tile), first, height)

    assert (keys.chain.name, root) == (origin, base64.b64encode(root_at(int(size), node)).decode())


def test_the_certificate_names_its_entry(story: Story) -> None:
    """It stands in a file, covers the entry, and says nothing of who it was."""
    path = Path(story.certificate["file"])
    entry = story.certificate["audit_log"]
    (row,) = sql(
        story.product,
        "SELECT event_id::text, leaf FROM quaestor.audit_entry WHERE seq = $1 AND log = 'main'", entry["index"],
    )  # fmt: skip

    assert story.certificate["control_event"]["event_id"] == row["event_id"]
    assert int(entry["checkpoint"].split("\n")[1]) > entry["index"]
    assert 2 == story.certificate["destroyed"]["sealed_events"]
    assert story.erased.user not in path.read_text(encoding="utf-8")


def test_asking_again_says_that_it_is_done(story: Story) -> None:
    """By the handle, with the same certificate; it is listed once."""
    again = story.product.json("audit", "erase", "--tenant", TENANT, "--handle", story.handle)
    listed = story.product.json("audit", "erasures", "--tenant", TENANT)["erasures"]

    assert again["erased_before"]
    assert story.certificate["audit_log"] == again["audit_log"]
    assert 1 == [one["handle"] for one in listed].count(story.handle)


def test_an_unknown_subject_is_an_answer(story: Story) -> None:
    """One line, exit code 1; so is somebody of another tenant, and whoever was erased and did not call again."""
    assert 1 == exit_code(story.product, "audit", "erase", "--tenant", TENANT, "--subject", "nobody@example.com")
    assert 1 == exit_code(story.product, "audit", "erase", "--tenant", "acme", "--handle", story.handle)


def test_an_id_may_come_from_standard_input(story: Story) -> None:
    """So that it does not stay in the history of a shell; the second time nobody knows it."""
    caller = Caller(story.erased.key, "fay@example.com")
    caller.ask(story.gateways[0])
    command = ("audit", "erase", "--tenant", TENANT, "--subject", "-", "--no-wait")

    assert [0, 1] == [exit_code(story.product, *command, given=f"{caller.user}\n") for _ in range(2)]


def test_a_legal_hold_stands_against_it(story: Story) -> None:
    """Nothing is recorded or destroyed: what was sealed opens as before."""
    hold = ("audit", "hold", "add", "--tenant", TENANT, "--request", story.kept, "--reason", "case 7")
    hold_id = story.product.json(*hold)["hold"]["id"]
    refused = exit_code(story.product, "audit", "erase", "--tenant", TENANT, "--subject", story.other.user, "--no-wait")
    story.product.run("audit", "hold", "release", hold_id)

    assert 1 == refused
    assert story.product.json("audit", "unseal", story.kept)["handle"]


def test_a_restored_row_does_not_come_back(story: Story) -> None:
    """An old copy of the vault is put in place: a gateway that starts deletes what was erased, and only that."""
    sql(story.product, "DELETE FROM quaestor.subject")
    for row in story.rows_before:
        sql(story.product, PUT_BACK, *row)
    assert story.handle in {row["handle"] for row in sql(story.product, SUBJECT_ROWS)}

    with gateway(story.product) as third:
        request_id = story.erased.ask(third)

    (handle,) = handles(story.product, request_id)
    left = {row["handle"] for row in sql(story.product, SUBJECT_ROWS)}
    assert handle != story.handle
    assert left == {row["handle"] for row in story.rows_before} - {story.handle} | {handle}


def test_calls_that_run_meanwhile_are_answered(story: Story) -> None:
    """All of them; those before have a handle that opens no more, those after a new one that does."""
    caller, stop, failed, asked = Caller(story.erased.key, "dan@example.com"), threading.Event(), [], []

    def call(url: str) -> None:
        while not stop.is_set():
            try:
                asked.append(caller.ask(url))
            except urllib.error.URLError as error:
                failed.append(str(error))

    threads = [threading.Thread(target=call, args=(url,)) for url in story.gateways * 2]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: len(asked) > 20, SECONDS_MAX)
        name = ("--tenant", TENANT, "--subject", caller.user, "--no-wait")
        handle = story.product.json("audit", "erase", *name)["handle"]
        count = len(asked)
        wait_for(lambda: len(asked) > count + 20, SECONDS_MAX)
    finally:
        stop.set()
        for thread in threads:
            thread.join()

    sealers = asyncio.run(sealers_left(story.product))
    events = [event for event in sealed_events(story.product) if event.request_id in asked]
    old = [event for event in events if event.subject_handle == handle]
    assert [] == failed
    assert len(events) == len(asked)
    assert 0 < len(old) < len(asked)
    assert 2 == len({event.subject_handle for event in events})
    assert {event.subject_handle != handle for event in events} == {True, False}
    for event in events:
        assert (event.subject_handle != handle) == opens(event.event_id, event.sealed or b"", sealers)


def test_older_copies_of_the_vault_end_with_their_key(story: Story) -> None:
    """All rows are wrapped anew and the old key's line is taken out: a backup's rows open no more, today's do."""
    product, path = story.product, story.product.data / "secrets" / "vault.key"
    assert {"2": len(sql(product, SUBJECT_ROWS))} == product.json("audit", "rewrap", "--new-key")["subjects"]
    path.write_text("\n".join(line for line in path.read_text().splitlines() if not line.startswith("1 ")))

    keys = vault_secrets("file", product.data).keys
    for row in story.rows_before:
        with pytest.raises(IntegrityError, match="'1'"):
            asyncio.run(keys.unwrap(TENANT, row["handle"], WrappedKey(row["key_version"], row["wrapped_key"])))
    sealers = asyncio.run(sealers_left(product))
    (kept,) = [event for event in sealed_events(product) if event.request_id == story.kept]
    assert opens(kept.event_id, kept.sealed or b"", sealers)
    assert {"note": story.other.canaries[1]} == product.json("audit", "unseal", story.kept)["tags"]
