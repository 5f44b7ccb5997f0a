"""Cosignatures of witnesses in signed notes, against the published examples."""

from __future__ import annotations

import base64

import pytest

from processors.audit.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from processors.audit.merkle import EMPTY_ROOT
from processors.audit.note import (
    ALGORITHM_COSIGNATURE,
    NoteError,
    SignatureLine,
    Signer,
    Verifier,
    cosigned_bytes,
    open_note,
    parse_note,
    parse_vkey,
    signatures_of,
)
from processors.audit.witness import Cosigner
from tests.support.witnesses import AskingLog, cosigner, seed

#: A witness's key in a policy of github.com/transparency-dev/formats.
WITNESS_VKEY = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2"
#: The example of c2sp.org/tlog-cosignature.
TEXT = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
EXAMPLE = (
    TEXT
    + "\n\u2014 example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9"
    "nTo+zyWE+xeMcTOAYQ8=\n\u2014 witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrD"
    "JsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
)
#: A checkpoint of tests.support.witnesses.AskingLog, cosigned by the witness of github.com/transparency-dev/witness.
FOREIGN_VKEY = "go.example/witness+918a4688+BGgO/rntYK7E0rsY7cShWfvJnm56qCkckrH0Q1CPgogR"
FOREIGN_LINE = (
    "\u2014 go.example/witness kYpGiAAAAABrAgL4jWdEitJ+aOzIoaQgTDzcYQi+M6Hzt0n9n1oybNoQvmxIK5BlcRSuspk73OByEfpNEWZQvD8i"
    "BypIeQBGcidAAA==\n"
)
LOG = Signer("log.example/one", bytes(range(32)))
WITNESS = cosigner("one")
NOTE = sign_checkpoint(Checkpoint(LOG.name, 0, EMPTY_ROOT), LOG)
COSIGNED = NOTE + WITNESS.cosign(parse_note(NOTE)[0], 1_679_315_147).text


def test_a_published_witness_key_is_read() -> None:
    """Algorithm 0x04; its id is the hash that its text carries."""
    verifier = parse_vkey(WITNESS_VKEY)

    assert (WITNESS_VKEY, True) == (verifier.vkey, verifier.is_witness)


def test_the_published_cosignature_has_its_time() -> None:
    """The example was made at the time that its page names; lines are written as they were read."""
    lines = parse_note(EXAMPLE)[1]

    assert 1_679_315_147 == lines[1].time_seconds
    assert EXAMPLE == TEXT + "\n" + "".join(line.text for line in lines)


def test_a_cosignature_of_anothers_witness_verifies() -> None:
    """Made by the reference code over a checkpoint of ours."""
    asking, verifier = AskingLog(), parse_vkey(FOREIGN_VKEY)

    signed = signatures_of(asking.checkpoint(5) + FOREIGN_LINE, [asking.signer.verifier, verifier])[1]
    assert 1_795_293_944 == signed[verifier].time_seconds


def test_what_is_signed_is_as_published() -> None:
    """Header, time, and the whole text of the checkpoint."""
    assert f"cosignature/v1\ntime 1679315147\n{TEXT}".encode() == cosigned_bytes(TEXT.encode(), 1_679_315_147)


def test_a_cosignature_has_the_published_shape() -> None:
    """Key id, eight bytes of time, 64 of signature; under another id than the same key has as a log's."""
    line = WITNESS.cosign(TEXT, 1_679_315_147)
    payload = base64.b64decode(line.text.split(" ")[2])

    assert (WITNESS.verifier.key_id, 4 + 8 + 64) == (payload[:4], len(payload))
    assert (1_679_315_147).to_bytes(8, "big") == payload[4:12]
    assert WITNESS.signer.verifier.key_id != WITNESS.verifier.key_id


def test_both_kinds_of_keys_open_one_note() -> None:
    """A log's signature and a witness's stand side by side, each under its own key."""
    keys = [LOG.verifier, parse_vkey(WITNESS.verifier.vkey)]

    assert keys == open_note(COSIGNED, keys)[1]
    assert 1_679_315_147 == signatures_of(COSIGNED, keys)[1][WITNESS.verifier].time_seconds
    assert Checkpoint(LOG.name, 0, EMPTY_ROOT) == open_checkpoint(COSIGNED, LOG.verifier)


def test_extension_lines_are_cosigned() -> None:
    """They are part of the text."""
    text = parse_note(NOTE)[0]
    note = LOG.sign(text + "extension\n") + WITNESS.cosign(text + "extension\n", 7).text

    assert [WITNESS.verifier] == open_note(note, [WITNESS.verifier])[1]


def altered(line: SignatureLine, **change: bytes) -> str:
    """The note under a changed line."""
    return NOTE + line._replace(**change).text


@pytest.mark.parametrize(
    "signature",
    [
        bytes(72),
        (1_679_315_148).to_bytes(8, "big") + parse_note(COSIGNED)[1][1].signature[8:],
        parse_note(COSIGNED)[1][1].signature[8:],
        parse_note(COSIGNED)[1][1].signature[:9],
        parse_note(COSIGNED)[1][1].signature + b"\0",
        Cosigner(Signer(WITNESS.signer.name, seed("two"))).cosign(parse_note(NOTE)[0], 7).signature,
        WITNESS.cosign("another\n1\nAAAA\n", 7).signature,
        b"\xff" * 8 + parse_note(COSIGNED)[1][1].signature[8:],
    ],
    ids=["zeros", "time", "no time", "short", "long", "key", "text", "huge time"],
)
def test_a_wrong_cosignature_refuses_the_note(signature: bytes) -> None:
    """Under a known key's id, a signature that is not its own is a fault."""
    note = altered(parse_note(COSIGNED)[1][1], signature=signature)

    with pytest.raises(NoteError, match="wrong"):
        open_note(note, [LOG.verifier, WITNESS.verifier])


def test_a_time_beyond_what_is_allowed_is_wrong() -> None:
    """Also when it is signed."""
    line = WITNESS.cosign(parse_note(NOTE)[0], 2**63)

    with pytest.raises(NoteError, match="wrong"):
        open_note(NOTE + line.text, [WITNESS.verifier])


def test_a_witness_is_no_log() -> None:
    """A checkpoint that only a witness signed is none, even where the witness is named like the log."""
    named = Cosigner(Signer(LOG.name, seed("one")))
    note = NOTE + named.cosign(parse_note(NOTE)[0], 7).text

    with pytest.raises(NoteError, match="witness's"):
        open_checkpoint(note, named.verifier)


def test_a_name_that_is_no_key_name_does_not_cosign() -> None:
    """As for logs."""
    with pytest.raises(ValueError, match="spaces"):
        Cosigner(Signer("a b", bytes(32))).cosign(TEXT, 1)


@pytest.mark.parametrize("text", ["name+00000000+\u00e9", WITNESS_VKEY.replace("+BO", "+CO")])
def test_a_key_of_another_kind_is_refused(text: str) -> None:
    """Neither algorithms that we do not know, nor what is not even ASCII."""
    with pytest.raises(NoteError):
        parse_vkey(text)


def test_signatures_that_are_not_ascii_are_malformed() -> None:
    """Whatever a stranger sends is a malformed note, no fault of ours."""
    with pytest.raises(NoteError, match="malformed"):
        parse_note("text\n\n\u2014 name \u00e9\u00e9\u00e9\u00e9\n")


def test_keys_of_one_name_differ_by_their_algorithm() -> None:
    """The same bytes are another key as a witness's."""
    public_key = LOG.verifier.public_key

    assert Verifier("a", public_key) != Verifier("a", public_key, ALGORITHM_COSIGNATURE)
