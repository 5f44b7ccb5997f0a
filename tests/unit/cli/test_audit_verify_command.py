"""`quaestor audit verify` as an outsider runs it: files, or a log's directory, and the public key."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from api.audit.receipts import RequestReceipts
from api.cli.audit_proofs import write_receipts
from api.cli.main import application
from processors.audit.entry import Entry, decode_entry, encode_entry, heads_source
from processors.audit.export import write_entry, write_start
from processors.audit.note import Signer
from processors.audit.proof_file import parse_proof
from processors.audit.trust import Trust
from sinks.audit.export import export_tenant
from sinks.audit.key_ring import KeyRing
from sinks.audit.lock import FileLockStore
from sinks.audit.reader import DirectoryLog
from sinks.audit.receipts import BuiltReceipt, build_receipts
from sinks.audit.rotation import Rotation
from tests.support.audit import ORIGIN, SALTS, AuditWorld
from tests.support.witnesses import cosigner

SIZE = 342


@pytest.fixture
def world(tmp_path: Path) -> AuditWorld:
    """A published log."""

    async def grown() -> AuditWorld:
        made = AuditWorld(tmp_path)
        await made.claim()
        await made.grow(150, 20)
        return made

    return asyncio.run(grown())


@pytest.fixture
def receipt(world: AuditWorld, tmp_path: Path) -> Path:
    """A receipt of one of its entries."""
    log = DirectoryLog(world.files)

    async def build() -> BuiltReceipt:
        (built,) = await build_receipts(log, await log.checkpoint() or "", SIZE, [7])
        return built

    built = asyncio.run(build())
    path = tmp_path / built.name
    path.write_bytes(built.data)
    return path


def run(world: AuditWorld, *arguments: str | Path, code: int = 0) -> str:
    """What the command prints with the log's key."""
    words = ["audit", "verify", *map(str, arguments), "--key", world.signer.verifier.vkey]
    done = CliRunner().invoke(application(words), words)
    assert code == done.exit_code, done.output
    return done.output


def as_json(world: AuditWorld, *arguments: str | Path, code: int = 0) -> dict[str, Any]:
    """The same, for programs."""
    found: dict[str, Any] = json.loads(run(world, *arguments, "--json", code=code))
    return found


def test_a_receipt_says_what_it_proves(world: AuditWorld, receipt: Path) -> None:
    """Tenant, topic, kind, time and amount of the entry, and who signed which log."""
    found = as_json(world, receipt)

    (facts,) = found["files"]
    assert found["ok"]
    assert ("quaestor.budgets", "PLACED", "0.000000007 USD") == (facts["topic"], facts["kind"], facts["amount"])
    assert (7, SIZE, ORIGIN, ORIGIN) == (facts["index"], facts["log_size"], facts["log"], facts["signed_by"])
    assert "PLACED" in run(world, receipt)


def test_one_bad_file_among_good_ones(world: AuditWorld, receipt: Path, tmp_path: Path) -> None:
    """Each is told on its own; the exit code is that of the worst."""
    bad = tmp_path / "bad.tlog-proof"
    bad.write_bytes(receipt.read_bytes().replace(b"index 7", b"index 8"))

    good, refused = as_json(world, receipt, bad, code=1)["files"]
    assert (True, False) == (good["ok"], refused["ok"])
    assert "entry 8: the path does not lead to the signed root" == refused["error"]
    assert "refused" in run(world, bad, code=1)


def test_a_bundle_is_told_from_a_receipt(world: AuditWorld, tmp_path: Path) -> None:
    """By how it begins."""
    path, trust = tmp_path / "bundle", Trust((world.signer.verifier,))
    log = DirectoryLog(world.files)
    asyncio.run(export_tenant(log, trust, "tenant_1", path, SALTS, lambda _done, _total: None))

    (facts,) = as_json(world, path)["files"]
    assert ("tenant_1", 98, "of every entry") == (facts["tenant"], facts["entries"], facts["salts"])


def test_another_key_refuses(world: AuditWorld, receipt: Path) -> None:
    """The key decides; without one the product's own log is meant."""
    world.signer = Signer(ORIGIN, bytes(32))

    assert "no known key signed" in as_json(world, receipt, code=1)["files"][0]["error"]


def test_a_policy_that_is_not_met_refuses(world: AuditWorld, receipt: Path, tmp_path: Path) -> None:
    """Files and logs alike; one that asks for nobody changes nothing."""
    path, directory = tmp_path / "policy", world.layout.directory
    path.write_text(f"witness a {cosigner('one').verifier.vkey}\nquorum a\n", "utf-8")
    assert "missing a" in as_json(world, receipt, "--policy", path, code=1)["files"][0]["error"]
    assert "missing a" in run(world, "--log", directory, "--policy", path, "--json", code=1)
    path.write_text("quorum none\n", "utf-8")

    assert as_json(world, receipt, "--policy", path)["ok"]


def test_the_products_own_key_is_the_default(world: AuditWorld, receipt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the machine of the log nothing needs to be given."""
    monkeypatch.setenv("QUAESTOR_AUDIT_LOG", "test")
    monkeypatch.setenv("QUAESTOR_AUDIT_ORIGIN", ORIGIN)
    words = ["audit", "verify", str(receipt), "--data", str(world.layout.data)]

    assert 0 == CliRunner().invoke(application(words), words).exit_code


def test_a_log_is_checked_and_remembered(world: AuditWorld, tmp_path: Path) -> None:
    """What passed is kept; a log that went back is refused, and what was kept stays."""
    memory, directory = tmp_path / "seen", world.layout.directory
    checkpoint = directory / "checkpoint"
    old = checkpoint.read_bytes()
    assert as_json(world, "--log", directory, "--remember", memory)["ok"]
    asyncio.run(world.grow(30))
    newer = checkpoint.read_bytes()
    assert as_json(world, "--log", directory, "--remember", memory)["ok"]
    assert newer == memory.read_bytes()
    checkpoint.write_bytes(old)

    found = as_json(world, "--log", directory, "--remember", memory, code=1)
    words = next(each["first_difference"] for each in found["checks"] if each["name"] == "history")
    assert f"the log went back: {memory} was signed over 403 entries, this one over 342" == words
    assert newer == memory.read_bytes()
    memory.write_bytes(old)
    assert as_json(world, "--log", directory, "--against", memory)["ok"]


@pytest.mark.parametrize(
    "arguments", [["file", "--log", "dir"], ["--against", "note"], ["file", "--remember", "note"]], ids=str
)
def test_what_does_not_go_together_is_refused(world: AuditWorld, arguments: list[str]) -> None:
    """One thing is checked at a time."""
    run(world, *arguments, code=1)


def test_the_first_key_leads_to_todays_by_the_hand_overs(world: AuditWorld, tmp_path: Path) -> None:
    """Who was given the first key verifies what another signs by now: by the log's own hand-overs, or by given ones."""
    hand_over, chosen = tmp_path / "1", ("--log", world.layout.directory)
    rotation = Rotation(KeyRing(world.layout), FileLockStore(world.layout.lock_file))
    made = rotation.rotate(1, 0).hand_over
    rotation.retire(made.old.key_id)
    asyncio.run(world.grow(5))

    run(world, *chosen)
    (world.layout.directory / "keys" / "1").rename(hand_over)
    assert "no known key" in run(world, *chosen, code=1)
    run(world, *chosen, "--hand-over", hand_over)


def test_what_others_wrote_is_no_command_to_the_terminal(world: AuditWorld, tmp_path: Path) -> None:
    """A forged bundle can't draw "proven" over its refusal: control characters and markup are shown as text."""
    path, foreign = tmp_path / "forged.audit-export", "\x1b[2K\x9b1G[green]proven"
    entry = encode_entry(Entry(0, 1, bytes(32), heads_source(bytes(32), 0)._replace(tenant_id=foreign)))
    note = world.files.checkpoint() or ""
    path.write_bytes(write_start(note, "tenant", has_salts=False) + write_entry(0, 0, entry, b"", lambda *_: b""))

    words = ["audit", "verify", str(path), "--key", world.signer.verifier.vkey]
    said = CliRunner().invoke(application(words), words)

    assert 1 == said.exit_code
    assert "\x1b" not in said.output
    assert "\x9b" not in said.output
    assert "\\x1b[2K\\x9b1G[green]proven" in "".join(said.output.split("\n"))


def test_what_opens_a_commitment_is_for_its_owner_alone(receipt: Path, tmp_path: Path) -> None:
    """The record and its salt: whoever else may read the folder may read the receipt, not those."""
    built = BuiltReceipt(decode_entry(parse_proof(receipt.read_bytes()).extra or b""), receipt.read_bytes())

    write_receipts(RequestReceipts([built], SIZE, {built.entry.seq: b"{}"}), tmp_path / "out")

    (opening,) = (tmp_path / "out").glob("*.opening.json")
    assert 0o600 == opening.stat().st_mode & 0o777
