"""What is sealed for a subject: opens under its key, event and tenant alone, and under one key only."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from processors.subjects.sealing import COMMITMENT_BYTES, Sealer
from schemas.errors import IntegrityError

KEY, OTHER_KEY, NONCE = b"k" * 32, b"o" * 32, b"n" * 12
EVENT, OTHER_EVENT = "018bcfe5-6800-7000-8000-000000000001", "018bcfe5-6800-7000-8000-000000000002"
CONTENT = b'{"salt":"00"}'


def sealed(key: bytes = KEY) -> bytes:
    """Something sealed."""
    return Sealer(key).seal("acme", EVENT, NONCE, CONTENT)


def test_what_is_sealed_opens() -> None:
    """With the key, for the event."""
    assert CONTENT == Sealer(KEY).open("acme", EVENT, sealed())
    assert CONTENT not in sealed()


def test_what_was_sealed_before_still_opens() -> None:
    """Version 1: no commitment in front, bound to the event id alone."""
    old = NONCE + AESGCM(KEY).encrypt(NONCE, CONTENT, EVENT.encode())

    assert CONTENT == Sealer(KEY).open("acme", EVENT, old)


@pytest.mark.parametrize(
    ("key", "tenant", "event"),
    [(OTHER_KEY, "acme", EVENT), (KEY, "globex", EVENT), (KEY, "acme", OTHER_EVENT)],
    ids=["key", "tenant", "event"],
)
def test_it_opens_nowhere_else(key: bytes, tenant: str, event: str) -> None:
    """Neither under another key, nor moved to another event or tenant."""
    with pytest.raises(IntegrityError):
        Sealer(key).open(tenant, event, sealed())


@pytest.mark.parametrize("at", [0, COMMITMENT_BYTES, COMMITMENT_BYTES + 12, -1])
def test_altered_bytes_open_nothing(at: int) -> None:
    """Commitment, nonce, ciphertext, tag."""
    altered = bytearray(sealed())
    altered[at] ^= 1

    with pytest.raises(IntegrityError):
        Sealer(KEY).open("acme", EVENT, bytes(altered))


@pytest.mark.parametrize("length", [0, 11, 12, 31, 32, 44])
def test_cut_bytes_open_nothing(length: int) -> None:
    """However short."""
    with pytest.raises(IntegrityError):
        Sealer(KEY).open("acme", EVENT, sealed()[:length])


def test_the_key_is_committed_to() -> None:
    """A ciphertext that opens under another key too is refused there: the commitment names one key."""
    ours, theirs = sealed(), sealed(OTHER_KEY)
    forged = ours[:COMMITMENT_BYTES] + theirs[COMMITMENT_BYTES:]

    with pytest.raises(IntegrityError):
        Sealer(OTHER_KEY).open("acme", EVENT, forged)


def test_a_commitment_does_not_move_a_content() -> None:
    """One of the same key for another event, in front of this event's content, opens for neither."""
    other = Sealer(KEY).seal("acme", OTHER_EVENT, NONCE, CONTENT)
    moved = other[:COMMITMENT_BYTES] + sealed()[COMMITMENT_BYTES:]

    for event in (EVENT, OTHER_EVENT):
        with pytest.raises(IntegrityError):
            Sealer(KEY).open("acme", event, moved)


def test_commitments_tell_no_two_events_of_one_key() -> None:
    """Nobody without the key can tell that two events were sealed under one."""
    other = Sealer(KEY).seal("acme", OTHER_EVENT, NONCE, CONTENT)

    assert sealed()[:COMMITMENT_BYTES] != other[:COMMITMENT_BYTES]
