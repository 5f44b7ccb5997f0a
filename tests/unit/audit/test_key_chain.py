"""A log's keys handing over to one another, as somebody sees it who has nothing but a key and the hand-overs."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, permutations

import pytest

from processors.audit.checkpoint import Checkpoint
from processors.audit.key_chain import (
    HAND_OVERS_MAX,
    HandOver,
    KeyChain,
    key_chain,
    key_states,
    open_hand_over,
    sign_hand_over,
    signing_ids,
    trusted_keys,
    with_signature,
    without_signature,
)
from processors.audit.note import ALGORITHM_COSIGNATURE, NoteError, Signer, Verifier, open_note, parse_vkey

ORIGIN = "quaestor.local/audit/test"
SIGNERS = [Signer(ORIGIN, bytes([number]) * 32) for number in range(5)]
VKEYS = [signer.verifier.vkey for signer in SIGNERS]
STRANGER = Signer(ORIGIN, bytes([99]) * 32)
FOREIGN = Signer("other.example/log", bytes([98]) * 32)
WITNESS = Verifier("witness.example", SIGNERS[0].verifier.public_key, ALGORITHM_COSIGNATURE).vkey
ROOT = bytes(range(32))


def hand_over(old: Signer, new: Signer, size: int = 10) -> str:
    """A signed hand-over at a size."""
    made = HandOver(ORIGIN, old.verifier, new.verifier, size, ROOT, 1_000 + size, 2_000 + size)
    return sign_hand_over(made, old, new)


#: 0 -> 1 at 10, 1 -> 2 at 20, 2 -> 3 at 30.
NOTES = [hand_over(old, new, size) for (old, new), size in zip(pairwise(SIGNERS[:4]), (10, 20, 30), strict=True)]


def checkpoint(size: int, *signers: Signer) -> str:
    """A checkpoint of a size, signed by these."""
    note = signers[0].sign(Checkpoint(ORIGIN, size, ROOT).text)
    for signer in signers[1:]:
        note = with_signature(note, signer)
    return note


def test_a_hand_over_is_eight_lines_and_two_signatures() -> None:
    """Header, origin, both keys, size, root and two times; opened again it is the same."""
    lines = NOTES[0].split("\n")

    assert lines[:5] == ["quaestor/audit/hand-over/v1", ORIGIN, VKEYS[0], VKEYS[1], "10"]
    assert lines[6:9] == ["1010", "2010", ""]
    assert [SIGNERS[0].verifier, SIGNERS[1].verifier] == open_note(NOTES[0], [parse_vkey(key) for key in VKEYS])[1]
    assert open_hand_over(NOTES[0]).text == NOTES[0][: NOTES[0].index("\n\n") + 1]


@pytest.mark.parametrize("trusted", range(4))
def test_any_key_leads_to_all_of_them(trusted: int) -> None:
    """From the first key to today's and back, whatever the order in which the hand-overs are given, and how often."""
    for notes in permutations(NOTES):
        found = trusted_keys([VKEYS[trusted]], [*notes, notes[0]])

        assert VKEYS[:4] == [verifier.vkey for verifier in found]


def test_a_key_alone_is_a_chain_of_one() -> None:
    """Without hand-overs only what was trusted is trusted."""
    assert [VKEYS[2]] == [verifier.vkey for verifier in trusted_keys([VKEYS[2]], [])]


@pytest.mark.parametrize(
    ("vkeys", "notes", "words"),
    [
        ([], [], "of 0 logs"),
        ([VKEYS[0], FOREIGN.verifier.vkey], [], "of 2 logs"),
        (["junk"], [], "base64|Ed25519|not name"),
        ([WITNESS], [], "is a witness's"),
        (VKEYS[:1], NOTES[1:], "20 entries is not connected"),
        (VKEYS[:1], [NOTES[0], NOTES[2]], "30 entries is not connected"),
        (VKEYS[4:], NOTES, "10 entries is not connected"),
        (VKEYS[:1], [NOTES[0], hand_over(SIGNERS[0], STRANGER)], "two different hand-overs from the key .*, and "),
        (VKEYS[:1], [NOTES[0], hand_over(SIGNERS[0], SIGNERS[1], 11)], "two different hand-overs from the key"),
        (VKEYS[:1], [NOTES[0], hand_over(STRANGER, SIGNERS[1])], "two different hand-overs to the key"),
        (VKEYS[:1], [NOTES[0], hand_over(SIGNERS[1], SIGNERS[0])], "circle"),
        (VKEYS[:1], [*NOTES, hand_over(SIGNERS[3], SIGNERS[4], 29)], "29 entries is before the one that led"),
        (VKEYS[:1], NOTES[:1] * (HAND_OVERS_MAX + 1), "at most"),
    ],
)
def test_what_does_not_hang_together_is_refused(vkeys: list[str], notes: list[str], words: str) -> None:
    """A gap, a fork, two ways to one key, a circle, a step back, keys of two logs: each with its own words."""
    for given in (notes, notes[::-1]):
        with pytest.raises(NoteError, match=words):
            key_chain(vkeys, given)


def test_a_fork_names_both_hand_overs() -> None:
    """Who stole a retired key and hands it over again is found out by whoever sees both."""
    with pytest.raises(NoteError) as refused:
        key_chain(VKEYS[:1], [*NOTES, hand_over(SIGNERS[1], STRANGER, 40)])

    for part in (SIGNERS[2].verifier.key_id.hex(), STRANGER.verifier.key_id.hex(), "20 entries", "40 entries"):
        assert part in str(refused.value)


def test_each_key_must_sign_a_hand_over() -> None:
    """The old key alone could name anybody, the new one alone could take a log over."""
    for number in (0, 1):
        other = SIGNERS[1 - number].verifier.key_id.hex()
        with pytest.raises(NoteError, match=f"not signed by {other}"):
            open_hand_over(without_signature(NOTES[0], SIGNERS[1 - number].verifier))


def test_a_changed_hand_over_is_refused() -> None:
    """Every byte of the text is under both signatures."""
    text = NOTES[0][: NOTES[0].index("\n\n")]
    for position in range(len(text)):
        changed = chr(ord(text[position]) ^ 1)
        with pytest.raises(NoteError):
            open_hand_over(NOTES[0][:position] + changed + NOTES[0][position + 1 :])


@pytest.mark.parametrize(
    "made",
    [
        HandOver(ORIGIN, SIGNERS[0].verifier, SIGNERS[0].verifier, 1, ROOT, 1, 1),
        HandOver(ORIGIN, SIGNERS[0].verifier, FOREIGN.verifier, 1, ROOT, 1, 1),
        HandOver(ORIGIN, SIGNERS[0].verifier, SIGNERS[1].verifier, -1, ROOT, 1, 1),
        HandOver(ORIGIN, SIGNERS[0].verifier, SIGNERS[1].verifier, 1, ROOT[1:], 1, 1),
    ],
    ids=["to itself", "to another log's", "size", "root"],
)
def test_a_senseless_hand_over_is_refused(made: HandOver) -> None:
    """Well signed does not make it right."""
    keys = {signer.verifier: signer for signer in (*SIGNERS, FOREIGN)}
    with pytest.raises(NoteError):
        open_hand_over(sign_hand_over(made, keys[made.old], keys[made.new]))


def test_a_checkpoint_is_no_hand_over() -> None:
    """Nor can a hand-over be read as a checkpoint."""
    with pytest.raises(NoteError, match="no hand-over"):
        open_hand_over(checkpoint(10, SIGNERS[0]))
    with pytest.raises(NoteError, match="origin, size and root"):
        key_chain(VKEYS[:1]).open_checkpoint(NOTES[0])


@pytest.mark.parametrize(
    ("size", "signers", "words"),
    [
        (5, (0,), None),
        (10, (0,), None),
        (10, (0, 1), None),
        (11, (0, 1), None),
        (11, (1,), None),
        (25, (1, 2), None),
        (99, (3,), None),
        (11, (0,), "handed over before"),
        (99, (0, 1, 2), "handed over before"),
        (5, (4,), "no known key"),
    ],
)
def test_a_key_signs_alone_only_up_to_its_hand_over(size: int, signers: tuple[int, ...], words: str | None) -> None:
    """Old checkpoints stay valid under their key; what a retired key signs beyond its hand-over does not pass."""
    chain = key_chain(VKEYS[:1], NOTES)
    note = checkpoint(size, *(SIGNERS[number] for number in signers))

    if words is None:
        assert Checkpoint(ORIGIN, size, ROOT) == chain.open_checkpoint(note)
    else:
        with pytest.raises(NoteError, match=words):
            chain.open_checkpoint(note)


def test_a_checkpoint_of_another_log_is_refused() -> None:
    """A key signs for the log of its name alone."""
    foreign = SIGNERS[0].sign(Checkpoint("another.example/log", 1, ROOT).text)

    with pytest.raises(NoteError, match=r"another\.example"):
        key_chain(VKEYS[:1]).open_checkpoint(foreign)


def test_signatures_are_added_and_taken_away() -> None:
    """One line each, no line twice, others' lines untouched, and never the last of the log's own."""
    one, both = checkpoint(1, SIGNERS[0]), checkpoint(1, SIGNERS[0], SIGNERS[1])
    cosigned = both + FOREIGN.sign("x\n").removeprefix("x\n\n")

    assert both == with_signature(one, SIGNERS[1]) == with_signature(both, SIGNERS[1])
    assert one == without_signature(both, SIGNERS[1].verifier)
    assert one + cosigned.removeprefix(both) == without_signature(cosigned, SIGNERS[1].verifier)
    assert [signer.verifier.key_id for signer in SIGNERS[:2]] == signing_ids(cosigned, ORIGIN)
    with pytest.raises(NoteError, match="no other key"):
        without_signature(one, SIGNERS[0].verifier)


def test_states_say_who_signs_and_who_should_not_any_more() -> None:
    """An old key is in overlap, then due, then without its seed retired; a new one unfinished until it signs."""
    chain = key_chain([*VKEYS[:4], VKEYS[4]], NOTES)
    ids = [signer.verifier.key_id for signer in SIGNERS]

    def states(now: int) -> list[str]:
        return [each.state for each in key_states(chain, ids[1:], ids[2:4], now)]

    assert ["retired", "retiring", "overlap", "signs", "unfinished"] == states(2_029)
    assert ["retired", "retiring", "due", "signs", "unfinished"] == states(2_030)
    found = key_states(chain, ids, ids, 0)
    assert [(None, 0, 2_010), (1_010, 10, 2_020)] == [
        (each.since_micros, each.from_size, each.until_micros) for each in found[:2]
    ]


def test_the_chain_is_the_same_from_either_end() -> None:
    """Which key was trusted first changes nothing about what is trusted."""
    chains: list[KeyChain] = [key_chain([vkey], NOTES) for vkey in VKEYS[:4]]

    assert all(chain == chains[0] for chain in chains)
    assert replace(chains[0], keys=()) != chains[0]
