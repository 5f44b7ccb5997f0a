"""The witness policy file: what is read, what is refused and on which line, and when a quorum is met."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from processors.audit.policy import PolicyError, parse_policy
from schemas.errors import ConfigurationError
from schemas.limits import AUDIT_POLICY_LEVELS_MAX, AUDIT_WITNESSES_MAX
from sinks.audit.witnesses import load_policy, policy_for
from tests.support.witnesses import AskingLog, cosigner

LOG = AskingLog().signer.verifier
NAMES = ("X1", "X2", "X3", "Y1", "Y2", "Y3")
VKEYS = {name: cosigner(name).verifier.vkey for name in NAMES}
WITNESSES = "".join(f"witness {name} {vkey} https://{name}.example/\n" for name, vkey in VKEYS.items())
#: The example of c2sp.org/tlog-policy.
EXAMPLE = f"""
log {LOG.vkey}

witness X1 {VKEYS["X1"]}
witness X2 {VKEYS["X2"]}
witness X3 {VKEYS["X3"]}
group X-witnesses 2 X1 X2 X3

witness Y1 {VKEYS["Y1"]}
witness Y2 {VKEYS["Y2"]}
witness Y3 {VKEYS["Y3"]}
group Y-witnesses any Y1 Y2 Y3

group X-and-Y all X-witnesses Y-witnesses
quorum X-and-Y
"""


def missing(policy: str, *names: str) -> str | None:
    """What a policy says when these have signed."""
    return parse_policy(policy.encode()).missing({cosigner(name).verifier for name in names})


def test_the_published_example_is_met_by_two_of_x_and_one_of_y() -> None:
    """Over all 64 sets of witnesses."""
    for count in range(len(NAMES) + 1):
        for names in combinations(NAMES, count):
            kinds = [name[0] for name in names]
            assert (kinds.count("X") >= 2 and kinds.count("Y") >= 1) is (missing(EXAMPLE, *names) is None), names


def test_what_is_missing_is_said() -> None:
    """Group by group, with how many there are and who is away."""
    assert "X-and-Y (1 of 2, without X-witnesses (1 of 2, without X1, X3))" == missing(EXAMPLE, "X2", "Y1")


@pytest.mark.parametrize(
    ("end", "names", "met"),
    [
        ("quorum none", (), True),
        ("quorum X1", ("X2",), False),
        ("quorum X1", ("X1",), True),
        ("group g all X1 X2\nquorum g", ("X1",), False),
        ("group g all X1 X2\nquorum g", ("X1", "X2"), True),
        ("group g any X1 X2\nquorum g", ("X2",), True),
        ("group g 2 X1 X2 X3\ngroup h any g Y1\nquorum h", ("X1", "X3"), True),
        ("group g 2 X1 X2 X3\ngroup h any g Y1\nquorum h", ("X1",), False),
    ],
)
def test_a_quorum(end: str, names: tuple[str, ...], met: bool) -> None:
    """None, one, all, any, so many, and groups within groups."""
    assert met is (missing(f"{WITNESSES}{end}\n", *names) is None)


def test_a_stranger_does_not_count() -> None:
    """Nor the same key under another name, which would be another key id."""
    assert "X1" == missing(f"{WITNESSES}quorum X1", "stranger")


def test_white_space_comments_and_bytes_that_are_no_text() -> None:
    """Spaces and tabs in any number; names are bytes."""
    odd = f"  # comment\n\twitness\t\xff  {VKEYS['X1']} \t\n\n \t\nquorum \t\xff".encode("latin-1")

    policy = parse_policy(odd)
    assert policy.missing({cosigner("X1").verifier}) is None
    assert policy.missing(()) is not None


def test_urls_are_kept() -> None:
    """Of logs and witnesses, where there are any."""
    policy = parse_policy(f"log {LOG.vkey} https://log.example\n{WITNESSES}quorum none".encode())

    assert ["https://log.example"] == [log.url for log in policy.logs]
    assert "https://X1.example/" == policy.witnesses[0].url


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("", "no quorum line"),
        ("\nwhat X1", "line 2: 'what' is none of: log, witness, group, quorum"),
        ("witness X1", "line 1: a witness is"),
        (f"witness X1 {VKEYS['X1']} url more", "line 1: a witness is"),
        (f"witness none {VKEYS['X1']}", "line 1: no witness and no group is named none"),
        (f"witness X1 {LOG.vkey}", "line 1: this is a log's key"),
        ("witness X1 what", "line 1: the key"),
        (f"witness X1 {VKEYS['X1']}\nwitness X1 {VKEYS['X2']}", "line 2: 'X1' is defined already"),
        (f"witness X1 {VKEYS['X1']}\nwitness X2 {VKEYS['X1']}", "line 2: a witness with this key is known already"),
        (f"log {VKEYS['X1']}", "line 1: this is a witness's key"),
        ("log", "line 1: a log is"),
        (f"log {LOG.vkey}\nlog {LOG.vkey} url", "line 2: a log with this key is known already"),
        ("group g all", "line 1: a group is"),
        ("group g all X9", "line 1: 'X9' is not defined on a line before"),
        (f"{WITNESSES}group none any X1", "line 7: no witness and no group is named none"),
        (f"{WITNESSES}group X2 any X1", "line 7: 'X2' is defined already"),
        (f"{WITNESSES}group g 0 X1", "line 7: '0' is not all, any or 1 to 1"),
        (f"{WITNESSES}group g 3 X1 X2", "line 7: '3' is not all, any or 1 to 2"),
        (f"{WITNESSES}group g -1 X1", "line 7: '-1' is not"),
        (f"{WITNESSES}group g 01 X1", "line 7: '01' is not"),
        (f"{WITNESSES}group g \u0661 X1", "line 7: '\u0661' is not"),
        (f"{WITNESSES}group g any X1 X1", "line 7: 'X1' is a member already"),
        (f"{WITNESSES}group g any X1\ngroup h all X1 X2", "line 8: 'X1' is a member already"),
        (f"{WITNESSES}group g any g", "line 7: 'g' is not defined"),
        ("quorum", "line 1: a quorum is"),
        ("quorum none none", "line 1: a quorum is"),
        ("quorum none\nquorum none", "line 2: there is a quorum already"),
        ("quorum X1", "line 1: 'X1' is not defined on a line before"),
        ("quorum none\r", "line 1: there is a control character"),
        ("quorum none\n#\x7f", "line 2: there is a control character"),
        ("quorum none # comment", "line 1: a quorum is"),
        ("#" * 70_000, "more than 65536 bytes"),
    ],
)
def test_a_policy_that_is_none_names_the_line(lines: str, words: str) -> None:
    """Every rule of the specification."""
    with pytest.raises(PolicyError) as refused:
        parse_policy(lines.encode())

    assert words in str(refused.value)


def test_witnesses_are_bounded() -> None:
    """More than a note can be opened with are refused."""
    lines = "".join(f"witness w{number} {cosigner(str(number)).verifier.vkey}\n" for number in range(65))

    with pytest.raises(PolicyError, match=rf"line {AUDIT_WITNESSES_MAX + 1}: there are more than"):
        parse_policy(lines.encode())


def test_groups_lie_within_each_other_only_so_deep() -> None:
    """Thousands of levels are refused by their line, before anybody counts who signed."""
    groups = (f"group g{level} any {f'g{level - 1}' if level else 'X1'}\n" for level in range(2_000))

    with pytest.raises(PolicyError, match=f"more than {AUDIT_POLICY_LEVELS_MAX} deep"):
        parse_policy(f"{WITNESSES}{''.join(groups)}quorum g1999".encode())


def file_of(folder: Path, text: str) -> Path:
    """A policy file."""
    path = folder / "policy"
    path.write_text(text)
    return path


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    """With the line, or why it can't be read."""
    with pytest.raises(ConfigurationError, match=r"policy, line 1: 'what' is none of"):
        load_policy(file_of(tmp_path, "what"))
    with pytest.raises(ConfigurationError, match="can't be read: No such file"):
        load_policy(tmp_path / "none")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"log {AskingLog('another.example/log').signer.verifier.vkey}\nquorum none", "names logs, but not this one"),
        (f"witness X1 {VKEYS['X1']}\nquorum X1", "can't be met by witnesses with a URL, missing X1"),
    ],
)
def test_a_policy_that_no_checkpoint_of_this_log_could_meet_is_refused(tmp_path: Path, text: str, words: str) -> None:
    """At the start, not after days without a checkpoint."""
    with pytest.raises(ConfigurationError, match=words):
        policy_for(file_of(tmp_path, text), LOG)


def test_a_policy_for_this_log_is_taken(tmp_path: Path) -> None:
    """Which may name the log or none."""
    assert policy_for(file_of(tmp_path, f"log {LOG.vkey}\nquorum none"), LOG).quorum == "none"
    assert policy_for(file_of(tmp_path, f"{WITNESSES}quorum X1"), LOG).quorum == "X1"
