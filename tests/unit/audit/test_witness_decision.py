"""What a witness answers: every status of c2sp.org/tlog-witness, and that it never cosigns two histories."""

from __future__ import annotations

import base64
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.audit.checkpoint import Checkpoint, parse_checkpoint, sign_checkpoint
from processors.audit.merkle import EMPTY_ROOT
from processors.audit.note import NoteError, Signer, Verifier, open_note, parse_note, signatures_of
from processors.audit.witness import (
    SIZE_TYPE,
    AddCheckpoint,
    Answer,
    decide,
    followed,
    origin_hash,
    origin_of,
    parse_add_checkpoint,
)
from tests.support.audit import entries_of, naive_root
from tests.support.witnesses import AskingLog, cosigner, seed

WITNESS = cosigner("one")
LOG = AskingLog()
FORK = AskingLog(entries=[*entries_of(10), b"another", *entries_of(40)[11:]])
NOW_SECONDS = 1_700_000_000


def ask(latest: str | None, body: bytes, now_seconds: int = NOW_SECONDS) -> tuple[Answer, str | None]:
    """The decision of a witness that follows the log."""
    return decide(latest, body, LOG.logs, WITNESS, now_seconds)


def remembered(*sizes: int) -> str:
    """What it remembers after these sizes."""
    latest, old_size = None, 0
    for size in sizes:
        said, latest = ask(latest, LOG.ask(old_size, size))
        assert (200, True) == (said.status, latest is not None), said
        old_size = size
    assert latest is not None
    return latest


@pytest.mark.parametrize("sizes", [(1,), (0, 0, 5), (3, 3), (1, 2, 3, 7, 8, 9, 31, 32, 33, 40)], ids=str)
def test_a_log_that_grows_is_cosigned(sizes: tuple[int, ...]) -> None:
    """From nothing, from the empty log, again at the same size, and over every kind of step."""
    note = remembered(*sizes)

    text, signed = open_note(note, [LOG.signer.verifier, WITNESS.verifier])
    assert [LOG.signer.verifier, WITNESS.verifier] == signed
    assert sizes[-1] == parse_checkpoint(text).size


def test_the_answer_is_the_cosignature_alone() -> None:
    """One line, which completes the note that was sent."""
    said, note = ask(None, LOG.ask(0, 7))

    assert note == LOG.checkpoint(7) + said.body
    assert NOW_SECONDS == signatures_of(note, [WITNESS.verifier])[1][WITNESS.verifier].time_seconds


@pytest.mark.parametrize(
    ("latest", "body", "status", "words"),
    [
        ((), b"", 400, "not an old size"),
        ((), b"old 0\n\n", 400, "no signatures"),
        ((), LOG.ask(0, 5).replace(b"old 0", b"old 00"), 400, "not an old size"),
        ((), LOG.ask(0, 5).replace(b"old 0", b"new 0"), 400, "not an old size"),
        ((), LOG.ask(0, 5).replace(b"old 0", "old \u0660".encode()), 400, "not an old size"),
        ((), LOG.ask(0, 5) + b"\xff", 400, "not text"),
        ((3,), LOG.ask(3, 5).replace(b"=\n\n", b"\n\n"), 400, "not a hash"),
        ((3,), LOG.ask(3, 5).replace(b"\n\n", "\n\u00e9\n\n".encode(), 1), 400, "not a hash"),
        ((3,), LOG.ask(3, 5).replace(b"\n\n", b"\n" + b"AAAA\n" * 64 + b"\n", 1), 400, "more than 63 lines"),
        ((), AddCheckpoint(0, (), LOG.signer.sign(f"{LOG.signer.name}\n1\n")).encode(), 400, "origin, size and root"),
        ((), AddCheckpoint(6, (), LOG.checkpoint(5)).encode(), 400, "above"),
        ((), AskingLog("another.example/log").ask(0, 5), 404, "does not follow"),
        ((), LOG.ask(0, 5).replace(b"\n5\n", b"\n6\n"), 403, "wrong"),
        ((5,), AddCheckpoint(3, (), LOG.checkpoint(7)).encode(), 409, "5\n"),
        ((5,), AddCheckpoint(0, (), LOG.checkpoint(7)).encode(), 409, "5\n"),
        ((), AddCheckpoint(3, tuple(LOG.proof(3, 5)), LOG.checkpoint(5)).encode(), 409, "0\n"),
        ((), AddCheckpoint(0, tuple(LOG.proof(3, 5)), LOG.checkpoint(5)).encode(), 422, "from size 0"),
        ((3,), AddCheckpoint(3, (), LOG.checkpoint(5)).encode(), 422, "does not show"),
        ((3,), AddCheckpoint(3, tuple(LOG.proof(3, 5)[::-1]), LOG.checkpoint(5)).encode(), 422, "does not show"),
        ((3,), AddCheckpoint(3, (bytes(32),), LOG.checkpoint(3)).encode(), 422, "does not show"),
    ],
)
def test_what_is_refused(latest: tuple[int, ...], body: bytes, status: int, words: str) -> None:
    """With its status, a word on why, and nothing remembered."""
    said, note = ask(remembered(*latest) if latest else None, body)

    assert (status, None) == (said.status, note)
    assert words in said.body


def test_a_conflict_has_the_type_of_sizes() -> None:
    """So that a client can tell it from another 409."""
    assert Answer(409, "5\n", SIZE_TYPE) == ask(remembered(5), LOG.ask(3, 7))[0]


def test_nobody_the_witness_trusts_has_signed() -> None:
    """Another key under the log's name is a stranger; so is a second, wrong line under the right key."""
    stranger = Signer(LOG.signer.name, seed("stranger"))
    checkpoint = Checkpoint(LOG.signer.name, 5, naive_root(LOG.entries[:5]))
    body = AddCheckpoint(0, (), sign_checkpoint(checkpoint, stranger)).encode()

    assert 403 == ask(None, body)[0].status


def test_strangers_signatures_are_left_out_of_what_is_shown() -> None:
    """The witness vouches for the lines that it has checked."""
    stranger = Signer("stranger.example", seed("stranger")).sign(parse_note(LOG.checkpoint(5))[0]).split("\n\n")[1]
    said, note = ask(None, AddCheckpoint(0, (), LOG.checkpoint(5) + stranger).encode())

    assert (200, LOG.checkpoint(5) + said.body) == (said.status, note)


def test_the_root_of_an_empty_log_is_given() -> None:
    """Size 0 has one root."""
    empty = sign_checkpoint(Checkpoint(LOG.signer.name, 0, bytes(32)), LOG.signer)
    said, note = ask(None, AddCheckpoint(0, (), empty).encode())

    assert (422, None) == (said.status, note)
    assert EMPTY_ROOT == parse_checkpoint(parse_note(LOG.checkpoint(0))[0]).root


@pytest.mark.parametrize(("old_size", "size"), [(20, 20), (20, 30), (11, 11), (11, 40)])
def test_a_second_history_is_refused(old_size: int, size: int) -> None:
    """Signed by the log's own key, with a proof that is right for it: the same size is named as what it is."""
    said, note = ask(remembered(old_size), FORK.ask(old_size, size))

    assert (422, None) == (said.status, note)
    assert ("two histories" if old_size == size else "does not show that") in said.body


def test_histories_that_have_not_parted_yet_are_one() -> None:
    """Up to the tenth entry nobody can tell them apart."""
    assert 200 == ask(remembered(7), FORK.ask(7, 10))[0].status


def test_a_statement_is_never_older_than_the_one_before() -> None:
    """A clock that goes back does not make the witness say that the log was larger before."""
    _, later = ask(remembered(5), LOG.ask(5, 7), NOW_SECONDS - 3_600)
    _, never = ask(None, LOG.ask(0, 7), 0)

    assert later is not None
    assert never is not None
    assert NOW_SECONDS == signatures_of(later, [WITNESS.verifier])[1][WITNESS.verifier].time_seconds
    assert 1 == signatures_of(never, [WITNESS.verifier])[1][WITNESS.verifier].time_seconds


def test_a_log_under_two_keys_is_followed_under_both() -> None:
    """As while its key is changed: either signature is enough, and both are shown when both are right."""
    newer = Signer(LOG.signer.name, seed("newer"))
    logs = followed([LOG.signer.verifier, newer.verifier])
    text = parse_note(LOG.checkpoint(5))[0]
    both = LOG.checkpoint(5) + newer.sign(text).split("\n\n")[1]

    for note in (LOG.checkpoint(5), newer.sign(text), both):
        said, kept = decide(None, AddCheckpoint(0, (), note).encode(), logs, WITNESS, NOW_SECONDS)
        assert (200, note + said.body) == (said.status, kept)


def test_a_witness_is_not_followed() -> None:
    """Its key signs no checkpoints."""
    with pytest.raises(NoteError, match="witness's"):
        followed([WITNESS.verifier])


@given(st.binary(max_size=400) | st.text(max_size=200).map(str.encode))
def test_whatever_comes_is_answered(body: bytes) -> None:
    """A request is never a fault of the witness, and rubbish is never remembered."""
    assert (400, None) == (ask(None, body)[0].status, ask(None, body)[1])
    assert origin_of(body) is None


@given(st.integers(0, 10**19 - 1), st.lists(st.binary(min_size=32, max_size=32), max_size=63))
def test_a_request_is_read_as_it_was_written(old_size: int, proof: list[bytes]) -> None:
    """There and back."""
    request = AddCheckpoint(old_size, tuple(proof), LOG.checkpoint(3))

    assert request == parse_add_checkpoint(request.encode())


#: What litewitness (github.com/FiloSottile/torchwood) is tested with: a Sigsum log, its requests and the statuses.
SIGSUM = "sigsum.org/v1/tree/4d6d8825a6bb689d459628312889dfbb0bcd41b5211d9e1ce768b0ff0309e562"
SIGSUM_KEY = bytes.fromhex("ffdc2d4d98e4124d3feaf788c0c2f9abfd796083d1f0495437f302ec79cf100f")
SIGNED = {
    1: "UgIom7fPZTqpxWWhyjWduBvTvGVqsokMbqTArsQilegKoFBJQjUFAmQ0+YeSPM3wfUQMFSzVnnNuWRTYrajXpNUbIQY=",
    3: "UgIom2VbtIcdFbwFAy1n7s6IkAxIY6J/GQOTuZF2ORV39d75cbAj2aQYwyJre36kezNobZs4SUUdrcawfAB8WVrx6go=",
    5: "UgIomw/EOJmWi0i1FQsOj+etB7F8IccFam/jgd6wzRns4QPVmyEZtdvl1U2KEmLOZ/ASRcWJi0tW90dJWAShei7sDww=",
}
ROOTS = {
    1: "KgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    3: "RcCI1Nk56ZcSmIEfIn0SleqtV7uvrlXNccFx595Iwl0=",
    5: "QrtXrQZCCvpIgsSmOsah7HdICzMLLyDfxToMql9WTjY=",
}


def leaf(number: int, last: int = 0) -> str:
    """One of their made-up leaf hashes."""
    return base64.b64encode(bytes([42, number, *bytes(29), last])).decode()


INNER = "+fUDV+k970B4I3uKrqJM4aP1lloPZP8mvr2Z4wRw2LI="
LEFT = "wgiIFdZfYNv6WU1OllBKsWnLYIS/DBMqt8Uh/S4OukE="


def sigsum(old_size: int, size: int, *proof: str, origin: str = SIGSUM, signature: str = "") -> bytes:
    """One of their requests."""
    head = "".join(f"{line}\n" for line in (f"old {old_size}", *proof))
    line = f"\u2014 {origin} {signature or SIGNED[size]}"
    return f"{head}\n{origin}\n{size}\n{ROOTS[size]}\n\n{line}\n".encode()


def test_the_published_requests_are_answered_as_published() -> None:
    """Request by request, with what is remembered in between; an unknown log is 404 since version 1 of the protocol."""
    logs = followed([Verifier(SIGSUM, SIGSUM_KEY)])
    story = [
        (sigsum(0, 1), 200),
        (sigsum(1, 3, leaf(1), leaf(2), signature=SIGNED[3].replace("6go=", "6gx=")), 403),
        (sigsum(1, 3, leaf(1), leaf(2), origin=SIGSUM.replace("e562", "e563")), 404),
        (sigsum(1, 3), 422),
        (sigsum(1, 3, leaf(1), leaf(2, 16)), 422),
        (sigsum(1, 3, leaf(1), leaf(2)), 200),
        (sigsum(1, 5, leaf(1), INNER, leaf(4)), 409),
        (sigsum(3, 5, leaf(2), leaf(3), LEFT, leaf(4)), 200),
        (sigsum(0, 5), 409),
    ]
    latest: str | None = None
    for number, (body, status) in enumerate(story):
        said, note = decide(latest, body, logs, WITNESS, NOW_SECONDS)
        assert status == said.status, (number, said)
        latest = note or latest
    assert "5\n" == said.body


def test_a_log_is_named_by_the_hash_of_its_origin() -> None:
    """Lower-case hex of SHA-256, as monitors ask for it."""
    assert sha256(SIGSUM.encode()).hexdigest() == origin_hash(SIGSUM)
