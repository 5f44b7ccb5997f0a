"""The console in the running product: the audit log as outsiders read it, the API, and what `why` proves."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from processors.audit.checkpoint import open_checkpoint
from processors.audit.edge import TreeEdge
from processors.audit.note import parse_vkey
from processors.audit.tiles import BUNDLE_LEVEL, decode_bundle, tiles_of
from tests.e2e.product import Product

DEADLINE_SECONDS = 60


def fetched(url: str, token: str = "") -> bytes:
    """What an address answers."""
    request = urllib.request.Request(url, headers={"authorization": f"Bearer {token}"} if token else {})  # noqa: S310 - ours
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - ours
        return bytes(answer.read())


@pytest.fixture(scope="module")
def answered(product: Product, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A request that is in every store and under a published checkpoint."""
    answers = tmp_path_factory.mktemp("audited") / "answers.jsonl"
    product.run("load", "--requests", "1", "--key", product.key("audited"), "--answers", str(answers))
    product.run("verify", "all")
    request_id = str(json.loads(answers.read_text(encoding="utf-8"))["request_id"])
    # What is sequenced is published a moment later.
    deadline = time.monotonic() + DEADLINE_SECONDS
    while "pending" in {step["audit"]["state"] for step in product.json("why", request_id, check=False)["steps"]}:
        assert time.monotonic() < deadline
    return request_id


def test_outsiders_derive_the_signed_root_from_what_is_served(product: Product, answered: str) -> None:
    """Checkpoint and bundles over HTTP, without a token, and nothing else but the public key."""
    prefix = f"{product.setting('console_url')}/audit/main/"
    verifier = parse_vkey(product.json("audit", "info")["vkey"])
    checkpoint = open_checkpoint(fetched(f"{prefix}checkpoint").decode(), verifier)

    edge = TreeEdge()
    for tile in tiles_of(BUNDLE_LEVEL, checkpoint.size):
        edge, _ = edge.grow(decode_bundle(fetched(f"{prefix}{tile.path}")))

    assert (checkpoint.size, checkpoint.root) == (edge.size, edge.root())


def test_the_api_wants_the_token(product: Product, answered: str) -> None:
    """Loopback or not, the API is the admin's."""
    with pytest.raises(urllib.error.HTTPError, match="401"):
        fetched(f"{product.setting('console_url')}/api/audit/entries")


def test_the_console_tells_what_the_commands_tell(product: Product, answered: str) -> None:
    """The story with its marks, and the request's entries: the same by HTTP."""
    url = product.setting("console_url")

    story = json.loads(fetched(f"{url}/api/requests/{answered}/why", product.token))
    entries = json.loads(fetched(f"{url}/api/audit/entries?request={answered}", product.token))["entries"]

    assert product.json("why", answered) == story
    assert product.json("audit", "search", "--request", answered)["entries"] == entries
    assert {step["audit"]["index"] for step in story["steps"]} == {entry["index"] for entry in entries}


def test_a_receipt_by_http_is_proof(product: Product, answered: str, tmp_path: Path) -> None:
    """Checked from the file and the public key alone; with one byte changed it is refused."""
    url, vkey = product.setting("console_url"), product.json("audit", "info")["vkey"]

    told = json.loads(fetched(f"{url}/api/requests/{answered}/receipts", product.token))
    files = [tmp_path / receipt["name"] for receipt in told["receipts"]]
    for file, receipt in zip(files, told["receipts"], strict=True):
        file.write_text(receipt["proof"], encoding="utf-8")

    checked = product.json("audit", "verify", *map(str, files), "--key", vkey)["files"]
    assert answered == told["request_id"]
    assert [(True, answered, receipt["topic"]) for receipt in told["receipts"]] == [
        (one["ok"], one["request_id"], one["topic"]) for one in checked
    ]
    assert {"quaestor.requests", "quaestor.costs", "quaestor.budgets"} <= {one["topic"] for one in checked}

    proof = bytearray(files[0].read_bytes())
    proof[len(proof) // 3] ^= 1
    files[0].write_bytes(proof)
    assert not product.json("audit", "verify", str(files[0]), "--key", vkey, check=False)["ok"]


def test_every_step_of_a_story_is_verified(product: Product, answered: str) -> None:
    """The signed log, Kafka and Postgres say the same of each."""
    story = product.json("why", answered)

    assert story["ok"]
    assert {"verified"} == {step["audit"]["state"] for step in story["steps"]}


def test_who_changed_what_is_found(product: Product, answered: str) -> None:
    """Changes by people stand in the log with who made them."""
    found = product.json("audit", "search", "--tenant", "audited", "--type", "control/created", "--from", "1h")[
        "entries"
    ]

    assert found
    assert all(entry["actor"].startswith("cli/") for entry in found)


def test_the_console_says_how_it_is(product: Product) -> None:
    """Alive, ready, measured, listed."""
    url = product.setting("console_url")

    assert b'{"status":"ok"}' == fetched(f"{url}/healthz")
    assert json.loads(fetched(f"{url}/readyz"))["ready"]
    assert b"quaestor_console_requests_total" in fetched(f"{url}/metrics")
    assert url in {each["url"] for each in product.json("endpoints")["endpoints"]}
    assert "running" == product.processes()["console"]["state"]
