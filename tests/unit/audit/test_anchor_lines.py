"""The lines of an anchor's file: each stands for all before it."""

from __future__ import annotations

import pytest

from processors.audit.anchor_lines import START, decode_lines, encode_line, line_after
from schemas.errors import IntegrityError


def lines_of(count: int) -> list[str]:
    """A sound file's lines."""
    chain, lines = START, []
    for number in range(count):
        line = line_after(chain, 1_000 + number, f"note {number}\n\n\u2014 name AAAA\n")
        lines.append(encode_line(line))
        chain = line.chain
    return lines


def test_what_is_written_is_read() -> None:
    """Time and note of each line, in order."""
    found = decode_lines([*lines_of(3), ""])

    assert [(1_000, "note 0"), (1_001, "note 1"), (1_002, "note 2")] == [
        (line.at_micros, line.note.split("\n", maxsplit=1)[0]) for line in found
    ]


@pytest.mark.parametrize("changed", range(3))
def test_a_changed_line_is_found(changed: int) -> None:
    """Its own hash no longer fits, wherever the change is."""
    lines = lines_of(3)
    for before, after in (("note", "nota"), ("note ", "nota "), (f"{1_000 + changed}", f"{2_000 + changed}")):
        tampered = [*lines]
        tampered[changed] = lines[changed].strip().replace(before, after, 1)
        with pytest.raises(IntegrityError, match=f"line {changed + 1}"):
            decode_lines(tampered)


def test_a_line_taken_out_or_moved_is_found() -> None:
    """The one that follows says so; only the last can go unseen, which is why the keeper remembers it."""
    first, second, third = lines_of(3)
    for tampered in ([second, third], [first, third], [second, first, third], [first, first, second]):
        with pytest.raises(IntegrityError, match="line"):
            decode_lines(tampered)
    assert 2 == len(decode_lines([first, second]))


def test_a_line_made_anew_breaks_the_ones_after_it() -> None:
    """Whoever recomputes a changed line's own hash must recompute all that follow."""
    lines = lines_of(3)
    forged = encode_line(line_after(decode_lines(lines[:1])[0].chain, 1_001, "forged\n"))

    with pytest.raises(IntegrityError, match="line 3"):
        decode_lines([lines[0], forged, lines[2]])


def test_a_line_that_broke_off_is_passed_over() -> None:
    """Its writer died; the line after it goes on from the last whole one."""
    first, second, third = lines_of(3)

    assert 3 == len(decode_lines([first, second[:40], "", second, third, third[:9]]))
