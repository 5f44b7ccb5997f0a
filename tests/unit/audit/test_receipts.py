"""Receipts: built from a log's own files, true for every entry, refused after any change."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from pathlib import Path

import pytest

from api.audit.offline import CheckedReceipt, check_file, opening_path
from processors.audit.checkpoint import Checkpoint
from processors.audit.commitment import Salts
from processors.audit.entry import Entry, decode_entry, encode_entry, heads_source
from processors.audit.merkle import leaf_hash
from processors.audit.note import NoteError, Signer, parse_note
from processors.audit.opening import Opening, OpeningError, parse_opening, write_opening
from processors.audit.policy import parse_policy
from processors.audit.proof_file import ProofError, ProofFile, parse_proof, verify_proof, write_proof
from processors.audit.trust import Trust, Witnessed
from schemas.errors import StoreUnavailableError
from sinks.audit.memory import MemoryAuditStore
from sinks.audit.reader import DirectoryLog
from sinks.audit.receipts import BuiltReceipt, build_receipts, published_past
from sinks.audit.store import EntryPlace
from tests.support.audit import ORIGIN, SALTS, AuditWorld
from tests.support.witnesses import cosigner

SIZE = 342
#: The example of c2sp.org/tlog-proof, with a whole note in place of its cut one.
PUBLISHED = """c2sp.org/tlog-proof@v1
extra YWdlLXYxLjIuMS1kYXJ3aW4tYXJtNjQudGFyLmd6
index 73894
gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=
B95lDa8R83lS8n0eG+o0buTxRKQTYFi//1U8anccXmA=

example.com/fancylog
109482
sFodV/vSp5O8n9a8QpW6PRY97tfOSW5bsc2Xl/EQi08=

\u2014 example.com/fancylog Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=
"""


@pytest.fixture
async def world(tmp_path: Path) -> AuditWorld:
    """A published log."""
    made = AuditWorld(tmp_path)
    await made.claim()
    await made.grow(150, 20)
    return made


def trust_of(world: AuditWorld) -> Trust:
    """The log's key."""
    return Trust((world.signer.verifier,))


async def receipts_of(world: AuditWorld, *positions: int) -> list[BuiltReceipt]:
    """Receipts under the published checkpoint."""
    log = DirectoryLog(world.files)
    note = await log.checkpoint()
    assert note is not None
    return await build_receipts(log, note, trust_of(world).open(note).checkpoint.size, positions)


def test_the_published_form() -> None:
    """A file as the specification shows it is read and written back byte for byte; nothing is made of its extra."""
    proof = parse_proof(PUBLISHED.encode())

    assert (73_894, 2, b"age-v1.2.1-darwin-arm64.tar.gz") == (proof.position, len(proof.path), proof.extra)
    assert proof.checkpoint.startswith("example.com/fancylog\n109482\n")
    assert PUBLISHED.encode() == write_proof(proof)
    without = write_proof(proof._replace(extra=None))
    assert parse_proof(without).extra is None
    assert b"extra" not in without


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("tlog-proof@v1", "tlog-proof@v2"),
        ("extra YW", "extra YW "),
        ("index 73894", "index 073894"),
        ("index 73894", "index -1"),
        ("index 73894", "index \u0663"),
        ("index 73894\n", ""),
        ("index", "Index"),
        ("PlQ=", "PlR="),
        ("PlQ=", "PlQ"),
        ("PlQ=\n", "PlQ=\r\n"),
        ("gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=", "AAAA"),
        ("c2sp", "\ufeffc2sp"),
    ],
)
def test_another_way_to_write_it_is_refused(old: str, new: str) -> None:
    """One content has one form: spaces, signs, zeros, line ends and idle bits of base64 are not passed over."""
    with pytest.raises(ProofError):
        parse_proof(PUBLISHED.replace(old, new, 1).encode())


async def test_every_entry_has_a_receipt(world: AuditWorld) -> None:
    """For every position of the log, heads entries too; it says where it is and what it is."""
    trust = trust_of(world)
    built = await receipts_of(world, *range(SIZE))

    found = [verify_proof(parse_proof(each.data), trust) for each in built]
    assert list(range(SIZE)) == [each.entry.seq for each in found]
    assert [row.entry for row in store_of(world).stored] == [each.data for each in found]
    assert {(SIZE, (ORIGIN,))} == {(each.signed.checkpoint.size, each.signed.signers) for each in found}
    assert built[0].name == "000000000000-budgets-placed.tlog-proof"


def store_of(world: AuditWorld) -> MemoryAuditStore:
    """The rows."""
    assert isinstance(world.store, MemoryAuditStore)
    return world.store


@pytest.mark.parametrize("position", [7, 255, 300, SIZE - 1])
async def test_a_receipt_with_any_byte_changed_is_refused(world: AuditWorld, position: int) -> None:
    """Magic, extra, index, hashes, checkpoint, signature: no byte can be another one."""
    (built,) = await receipts_of(world, position)
    trust = trust_of(world)
    for at, byte in enumerate(built.data):
        changed = built.data[:at] + bytes([byte ^ 1]) + built.data[at + 1 :]
        with pytest.raises(ProofError):
            verify_proof(parse_proof(changed), trust)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda proof: proof._replace(extra=None), "does not carry its entry"),
        (lambda proof: proof._replace(position=8), "entry 8: the path does not lead to the signed root"),
        (lambda proof: proof._replace(position=SIZE), "entry 342 is not in a log of 342 entries"),
        (lambda proof: proof._replace(path=proof.path[:-1]), "entry 7: the path does not lead"),
        (lambda proof: proof._replace(path=(*proof.path, bytes(32))), "entry 7: the path does not lead"),
        (lambda proof: proof._replace(path=proof.path[::-1]), "entry 7: the path does not lead"),
        (lambda proof: proof._replace(extra=another(proof.extra)), "entry 7: the path does not lead"),
        (lambda proof: proof._replace(checkpoint=proof.checkpoint.replace("342", "343")), "signature of .* is wrong"),
    ],
    ids=["no extra", "index", "beyond", "shorter", "longer", "reversed", "entry", "size"],
)
async def test_what_is_wrong_with_a_receipt_is_said(
    world: AuditWorld, change: Callable[[ProofFile], ProofFile], words: str
) -> None:
    """Each kind of change has words of its own."""
    (built,) = await receipts_of(world, 7)
    with pytest.raises(ProofError, match=words):
        verify_proof(change(parse_proof(built.data)), trust_of(world))


def another(data: bytes | None) -> bytes:
    """The entry, of another amount."""
    entry = decode_entry(data or b"")
    return encode_entry(entry._replace(source=entry.source._replace(amount_nano=1)))


async def test_a_receipt_of_another_log_is_refused(world: AuditWorld) -> None:
    """The key decides which log is meant; one of the same name is another key."""
    (built,) = await receipts_of(world, 7)
    with pytest.raises(ProofError, match="no known key signed"):
        verify_proof(parse_proof(built.data), Trust((Signer(ORIGIN, bytes(32)).verifier,)))


async def test_idle_bits_of_a_signature_are_not_passed_over(world: AuditWorld) -> None:
    """Base64 leaves two bits of its last letter unused; set, they would make the same receipt in other bytes."""
    (built,) = await receipts_of(world, 7)
    at = built.data.rindex(b"=") - 1
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = letters[letters.index(chr(built.data[at])) + 1].encode()
    with pytest.raises(ProofError, match="a signature is not written as base64 is"):
        verify_proof(parse_proof(built.data[:at] + other + built.data[at + 1 :]), trust_of(world))


@pytest.mark.parametrize(
    ("entry", "origin", "words"),
    [
        (encode_entry(Entry(5, 1, bytes(32), heads_source(bytes(32), 7))), ORIGIN, "says that it is entry 5"),
        (b"no entry", ORIGIN, "entry 0: the bytes do not begin as an entry"),
        (b"no entry", "example.com/other", "checkpoint: the checkpoint is of 'example.com/other', not of"),
    ],
)
def test_what_the_key_signed_is_not_believed_beyond_its_form(entry: bytes, origin: str, words: str) -> None:
    """An entry out of place, bytes that are none, a checkpoint of another log under the same key."""
    signer = Signer(ORIGIN, bytes(32))
    note = signer.sign(Checkpoint(origin, 1, leaf_hash(entry)).text)
    with pytest.raises(ProofError, match=words):
        verify_proof(ProofFile(0, (), note, entry), Trust((signer.verifier,)))


def test_keys_of_two_logs_are_no_trust() -> None:
    """Keys given together are of one log."""
    keys = tuple(Signer(name, bytes(32)).verifier for name in ("example.com/a", "example.com/b"))
    with pytest.raises(NoteError, match="not of one log"):
        Trust(keys)


ONE, TWO = cosigner("one"), cosigner("two")
POLICY = parse_policy(
    f"witness a {ONE.verifier.vkey}\nwitness b {TWO.verifier.vkey}\ngroup both all a b\nquorum both\n".encode()
)


async def cosigned(world: AuditWorld, *lines: str) -> ProofFile:
    """A receipt under a checkpoint with these signature lines more."""
    (built,) = await receipts_of(world, 7)
    proof = parse_proof(built.data)
    return proof._replace(checkpoint=proof.checkpoint + "".join(lines))


async def test_a_receipt_carries_its_witnesses(world: AuditWorld) -> None:
    """Under a policy it says who cosigned and when; without one their signatures are told not to be checked."""
    text = parse_note(await DirectoryLog(world.files).checkpoint() or "")[0]
    lines = [ONE.cosign(text, 1_700_000_000).text, TWO.cosign(text, 1_700_000_060).text]
    proof = parse_proof(write_proof(await cosigned(world, *lines)))

    signed = verify_proof(proof, Trust((world.signer.verifier,), POLICY)).signed
    assert (Witnessed("a", 1_700_000_000), Witnessed("b", 1_700_000_060)) == signed.witnesses
    assert (ORIGIN,) == signed.signers
    assert not signed.unknown
    unasked = verify_proof(proof, trust_of(world)).signed
    assert ((), (ONE.verifier.name, TWO.verifier.name)) == (unasked.witnesses, unasked.unknown)


async def test_a_receipt_without_a_quorum_is_refused(world: AuditWorld) -> None:
    """Too few witnesses, or one whose signature is of something else."""
    text = parse_note(await DirectoryLog(world.files).checkpoint() or "")[0]
    trust = Trust((world.signer.verifier,), POLICY)
    with pytest.raises(ProofError, match=r"too few witnesses signed, missing both \(1 of 2, without b\)"):
        verify_proof(await cosigned(world, ONE.cosign(text, 5).text), trust)
    with pytest.raises(ProofError, match=r"the signature of .* is wrong"):
        verify_proof(await cosigned(world, ONE.cosign(text, 5).text, TWO.cosign(f"{text}more\n", 5).text), trust)
    with pytest.raises(NoteError, match="a witness's key"):
        Trust((ONE.verifier,))


async def test_old_receipts_stay_true(world: AuditWorld) -> None:
    """What was proven under an older checkpoint needs nothing of the log any more."""
    old = await receipts_of(world, 0, 200, SIZE - 1)
    await world.grow(300)

    for built in [*old, *await receipts_of(world, 0, 200, SIZE - 1, SIZE, 900)]:
        assert verify_proof(parse_proof(built.data), trust_of(world)).data == parse_proof(built.data).extra


async def test_waiting_for_a_checkpoint_that_covers_the_request(world: AuditWorld) -> None:
    """The newest entries are waited for, and the wait says how far it is."""
    await world.feed(3)
    places, told = [EntryPlace(seq, "", 0, 0, "") for seq in (5, SIZE + 1)], []

    def on_wait(done: int, total: int) -> None:
        told.append((done, total))
        if len(told) == 1:
            publishing.append(asyncio.get_running_loop().create_task(world.publish()))

    publishing: list[asyncio.Task[None]] = []
    _, size = await published_past(DirectoryLog(world.files), trust_of(world), places, 30, on_wait)

    assert (SIZE + 7, (1, 2)) == (size, told[0])


async def test_waiting_in_vain_ends(world: AuditWorld) -> None:
    """The wait has a bound, and says what is missing."""
    places = [EntryPlace(seq, "", 0, 0, "") for seq in (5, SIZE)]
    with pytest.raises(StoreUnavailableError, match=r"1 of 2 entries are under the published checkpoint \(342"):
        await published_past(DirectoryLog(world.files), trust_of(world), places, 0, lambda _done, _total: None)


async def test_an_opening_opens_its_entry_alone(world: AuditWorld, tmp_path: Path) -> None:
    """With record and salt the commitment is checked; another record, salt or entry is refused."""
    first, second = await receipts_of(world, 0, 1)
    source = first.entry.source
    salt = SALTS.salt(source.tenant_id, source.topic_id, source.partition, source.offset)
    path = tmp_path / first.name
    path.write_bytes(first.data)
    value = b"\0\0\0\0\5value %d" % source.offset

    def opened_with(opening: Opening) -> CheckedReceipt:
        opening_path(path).write_bytes(write_opening(opening))
        checked = check_file(path, trust_of(world))
        assert isinstance(checked, CheckedReceipt)
        return checked

    assert opened_with(Opening(0, salt, value)).value == value
    for wrong in (Opening(0, salt, b"other"), Opening(0, salt, None), Opening(0, bytes(32), value)):
        with pytest.raises(OpeningError, match="commits to another record"):
            opened_with(wrong)
    with pytest.raises(OpeningError, match="the opening is of entry 1, not of entry 0"):
        opened_with(Opening(second.entry.seq, salt, value))
    opening_path(path).unlink()
    assert not opened_with_nothing(path, trust_of(world)).is_opened


def opened_with_nothing(path: Path, trust: Trust) -> CheckedReceipt:
    """The receipt without an opening beside it."""
    checked = check_file(path, trust)
    assert isinstance(checked, CheckedReceipt)
    return checked


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b"\xff", b'{"format": "quaestor/audit-opening/v1", "index": 1, "salt": "00", "value": null}'],
)
def test_what_is_no_opening_is_refused(data: bytes) -> None:
    """Damage is told as such."""
    with pytest.raises(OpeningError, match="not one of"):
        parse_opening(data)


def test_a_null_record_is_opened_as_such() -> None:
    """No value and an empty value are two things."""
    salts = Salts(bytes(32))
    assert salts.commitment(None, "a", "b", 0, 0) != salts.commitment(b"", "a", "b", 0, 0)
    for value in (None, b""):
        assert value == parse_opening(write_opening(Opening(3, bytes(32), value))).value
    assert base64.b64encode(b"") in write_opening(Opening(3, bytes(32), b""))
