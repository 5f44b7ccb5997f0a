"""Signed notes and checkpoints against the published examples, and everything a malformed one may be."""

from __future__ import annotations

import base64

import pytest

from processors.audit.checkpoint import Checkpoint, open_checkpoint, parse_checkpoint, sign_checkpoint
from processors.audit.merkle import EMPTY_ROOT
from processors.audit.note import NoteError, Signer, Verifier, key_id, open_note, parse_note, parse_vkey

#: The example of c2sp.org/signed-note.
VKEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
TEXT = "This is an example message.\n"
SIGNATURE = "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM="
LINE = f"\u2014 example.com/foo {SIGNATURE}\n"
NOTE = f"{TEXT}\n{LINE}"
SIGNER = Signer("quaestor.local/audit/test", bytes(range(32)))
OTHER = Signer("quaestor.local/audit/test", bytes(32))


def test_the_published_note_verifies() -> None:
    """The example's text comes out under its key."""
    text, signed = open_note(NOTE, [parse_vkey(VKEY)])

    assert (text, [VKEY]) == (TEXT, [verifier.vkey for verifier in signed])


@pytest.mark.parametrize(
    "vkey",
    [VKEY, "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"],
    ids=["c2sp", "golang"],
)
def test_published_key_ids(vkey: str) -> None:
    """A key's id is the hash that its text carries."""
    verifier = parse_vkey(vkey)

    assert vkey.split("+")[1] == verifier.key_id.hex() == key_id(verifier.name, 1, verifier.public_key).hex()


@pytest.mark.parametrize(
    "vkey", ["", "name", VKEY.replace("530d", "530e"), VKEY.replace("+A", "+B"), VKEY[:-4], "a b+00000000+AAAA"]
)
def test_a_malformed_key_is_refused(vkey: str) -> None:
    """Name, hash, algorithm and length must fit."""
    with pytest.raises(NoteError):
        parse_vkey(vkey)


def test_what_is_signed_verifies_and_is_deterministic() -> None:
    """Ed25519 signs the same text with the same bytes."""
    note = SIGNER.sign(TEXT)

    assert note == SIGNER.sign(TEXT)
    assert open_note(note, [parse_vkey(SIGNER.verifier.vkey)])[0] == TEXT
    assert "seed" not in repr(SIGNER)


def test_text_with_blank_lines_is_split_at_the_last_one() -> None:
    """The blank line before the signatures is the last."""
    text = "one\n\ntwo\n"

    assert text == open_note(SIGNER.sign(text), [SIGNER.verifier])[0]


def test_an_unknown_key_is_ignored_and_none_is_refused() -> None:
    """A line of a key we don't know is no proof and no fault; without any known one the note is refused."""
    both = SIGNER.sign(TEXT) + LINE

    assert [SIGNER.verifier] == open_note(both, [SIGNER.verifier])[1]
    with pytest.raises(NoteError, match="no known key"):
        open_note(NOTE, [SIGNER.verifier])


def test_a_known_key_with_a_wrong_signature_refuses_the_whole_note() -> None:
    """A good signature beside it does not save it."""
    forged = base64.b64encode(OTHER.verifier.key_id + bytes(64)).decode()
    note = SIGNER.sign(TEXT) + f"\u2014 {OTHER.name} {forged}\n"

    with pytest.raises(NoteError, match="wrong"):
        open_note(note, [SIGNER.verifier, OTHER.verifier])


def test_a_signature_twice_counts_once() -> None:
    """One key signs a note once."""
    note = SIGNER.sign(TEXT)
    line = note.rsplit("\n\n", 1)[1]

    assert [SIGNER.verifier] == open_note(note + line, [SIGNER.verifier])[1]


@pytest.mark.parametrize(
    "note",
    [
        "",
        TEXT,
        NOTE[:-1],
        NOTE.replace("\n\n", "\n"),
        NOTE.replace("\u2014 ", "- "),
        f"{TEXT}\n\u2014 example.com/foo AAAAAA==\n",
        f"{TEXT}\n\u2014 example.com/foo not-base64\n",
        f"{TEXT}\n\u2014 name+plus {SIGNATURE}\n",
        NOTE.replace("example message", "example\tmessage"),
        f"{TEXT}\n{LINE * 101}",
    ],
)
def test_a_malformed_note_is_refused(note: str) -> None:
    """Nothing half read."""
    with pytest.raises(NoteError):
        parse_note(note)


def test_many_signatures_are_accepted() -> None:
    """At least sixteen lines are read."""
    assert len(parse_note(f"{TEXT}\n{LINE * 100}")[1]) == 100


def test_a_name_that_is_no_key_name_does_not_sign() -> None:
    """No white space, no plus sign; and the text ends a line."""
    for signer, text in ((Signer("a b", bytes(32)), TEXT), (Signer("a+b", bytes(32)), TEXT), (SIGNER, "no newline")):
        with pytest.raises(ValueError, match="newline"):
            signer.sign(text)


def test_a_checkpoint_is_three_lines() -> None:
    """Origin, decimal size, base64 root, then the signature."""
    note = sign_checkpoint(Checkpoint(SIGNER.name, 0, EMPTY_ROOT), SIGNER)

    assert note.startswith(f"{SIGNER.name}\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n\u2014 {SIGNER.name} ")
    assert Checkpoint(SIGNER.name, 0, EMPTY_ROOT) == open_checkpoint(note, SIGNER.verifier)


def test_extension_lines_are_kept() -> None:
    """A checkpoint of another log may have more lines; they are part of what is signed."""
    checkpoint = Checkpoint(SIGNER.name, 7, EMPTY_ROOT, ("extension",))

    assert checkpoint == open_checkpoint(SIGNER.sign(checkpoint.text), SIGNER.verifier)


ROOT = base64.b64encode(EMPTY_ROOT).decode()


@pytest.mark.parametrize(
    "text",
    [
        "o\n1\n",
        f"o\n01\n{ROOT}\n",
        f"o\n-1\n{ROOT}\n",
        f"\n1\n{ROOT}\n",
        "o\n1\nAAAA\n",
        "o\n1\n!\n",
        f"o\n1\n{ROOT}\n\nx\n",
    ],
)
def test_a_malformed_checkpoint_is_refused(text: str) -> None:
    """Lines missing, a size with leading zeros, a root of another length, an empty line."""
    with pytest.raises(NoteError):
        parse_checkpoint(text)


def test_a_checkpoint_of_another_log_is_refused() -> None:
    """A key signs for the log of its name alone."""
    foreign = SIGNER.sign(Checkpoint("another.example/log", 1, EMPTY_ROOT).text)

    with pytest.raises(NoteError, match=r"another\.example"):
        open_checkpoint(foreign, SIGNER.verifier)
    with pytest.raises(ValueError, match="named"):
        sign_checkpoint(Checkpoint("another.example/log", 1, EMPTY_ROOT), SIGNER)


def test_a_flipped_signature_bit_is_refused() -> None:
    """The signature is checked, not only read."""
    public = Verifier(SIGNER.name, SIGNER.verifier.public_key)
    assert public.verify(b"x", bytes(64)) is False


@pytest.mark.parametrize("sign", [0, 0x80])
@pytest.mark.parametrize(
    "key",
    [
        bytes(32),
        b"\1" + bytes(31),
        bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
        bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
        b"\xec" + b"\xff" * 30 + b"\x7f",
    ],
    ids=["order 4", "order 1", "order 8", "order 8 too", "order 2"],
)
def test_a_key_under_which_anybody_can_sign_is_refused(key: bytes, sign: int) -> None:
    """A point of small order has signatures that nobody with a secret made: they would prove nothing."""
    verifier = Verifier("log.example", key[:-1] + bytes([key[-1] | sign]))
    nobodys = b"\1" + bytes(63)

    if not (sign and key[0] in {0x01, 0xEC}):  # no point is written so, and none is read
        assert any(verifier.verify(b"%d\n" % number, nobodys) for number in range(200))
    with pytest.raises(NoteError, match="anybody can sign"):
        parse_vkey(verifier.vkey)
