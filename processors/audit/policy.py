"""The witness policy file (c2sp.org/tlog-policy): which logs and witnesses are known, and how many must have signed."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import NamedTuple

from processors.audit.note import NoteError, Verifier, parse_vkey
from schemas.errors import ConfigurationError
from schemas.limits import AUDIT_POLICY_BYTES_MAX, AUDIT_POLICY_LEVELS_MAX, AUDIT_WITNESSES_MAX

NONE = "none"
_SPACE = re.compile(r"[ \t]+")
_FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_THRESHOLD = re.compile(r"[1-9][0-9]{0,3}")


class PolicyError(ConfigurationError):
    """A witness policy can't be used; the message begins with the line."""


class KnownLog(NamedTuple):
    """A log that the policy accepts."""

    verifier: Verifier
    url: str | None = None


class KnownWitness(NamedTuple):
    """A witness, under a name that has a meaning in the policy alone."""

    name: str
    verifier: Verifier
    #: Where it takes checkpoints: its submission prefix.
    url: str | None = None


class Group(NamedTuple):
    """Witnesses and groups of which so many must have signed."""

    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True)
class Policy:
    """What makes a checkpoint witnessed."""

    logs: tuple[KnownLog, ...]
    witnesses: tuple[KnownWitness, ...]
    groups: dict[str, Group]
    #: A witness, a group, or "none".
    quorum: str

    @property
    def verifiers(self) -> list[Verifier]:
        """Every witness's key."""
        return [witness.verifier for witness in self.witnesses]

    def missing(self, signed: Collection[Verifier]) -> str | None:
        """None when the witnesses of these keys are a quorum; else what is missing, in words."""
        names = {witness.name for witness in self.witnesses if witness.verifier in signed}
        return None if self.quorum == NONE else self._missing(self.quorum, names)

    def _missing(self, name: str, names: Collection[str]) -> str | None:
        group = self.groups.get(name)
        if group is None:
            return None if name in names else name
        lacking = [words for words in (self._missing(member, names) for member in group.members) if words]
        found = len(group.members) - len(lacking)
        if found >= group.threshold:
            return None
        return f"{name} ({found} of {group.threshold}, without {', '.join(lacking)})"


@dataclass
class _Reading:
    """What the lines up to now have said."""

    logs: list[KnownLog] = field(default_factory=list)
    witnesses: list[KnownWitness] = field(default_factory=list)
    groups: dict[str, Group] = field(default_factory=dict)
    members: set[str] = field(default_factory=set)
    #: Groups within each group, itself included.
    levels: dict[str, int] = field(default_factory=dict)
    quorum: str | None = None

    def log(self, words: list[str]) -> None:
        """`log <vkey> [<url>]`."""
        _expect(1 <= len(words) <= 2, "a log is `log <vkey> [<url>]`")  # noqa: PLR2004 - as it says
        verifier = _key(words[0])
        _expect(not verifier.is_witness, "this is a witness's key, not a log's")
        _expect(not _is_in(verifier, [log.verifier for log in self.logs]), "a log with this key is known already")
        self.logs.append(KnownLog(verifier, *words[1:]))

    def witness(self, words: list[str]) -> None:
        """`witness <name> <vkey> [<url>]`."""
        _expect(2 <= len(words) <= 3, "a witness is `witness <name> <vkey> [<url>]`")  # noqa: PLR2004 - as it says
        self._check_new(words[0])
        verifier = _key(words[1])
        _expect(verifier.is_witness, "this is a log's key, not a witness's (algorithm 0x04)")
        known = [witness.verifier for witness in self.witnesses]
        _expect(not _is_in(verifier, known), "a witness with this key is known already")
        _expect(len(known) < AUDIT_WITNESSES_MAX, f"there are more than {AUDIT_WITNESSES_MAX} witnesses")
        self.witnesses.append(KnownWitness(words[0], verifier, *words[2:]))

    def group(self, words: list[str]) -> None:
        """`group <name> all|any|<k> <name>...`."""
        _expect(len(words) > 2, "a group is `group <name> all|any|<k> <name>...`")  # noqa: PLR2004 - as it says
        name, threshold, *members = words
        self._check_new(name)
        for member in members:
            _expect(self._is_known(member), f"{member!r} is not defined on a line before")
            _expect(member not in self.members, f"{member!r} is a member already")
            self.members.add(member)
        level = 1 + max(self.levels.get(member, 0) for member in members)
        _expect(level <= AUDIT_POLICY_LEVELS_MAX, f"groups lie more than {AUDIT_POLICY_LEVELS_MAX} deep")
        self.groups[name], self.levels[name] = Group(_threshold(threshold, len(members)), tuple(members)), level

    def end(self, words: list[str]) -> None:
        """`quorum <name>|none`."""
        _expect(len(words) == 1, "a quorum is `quorum <name>` or `quorum none`")
        _expect(self.quorum is None, "there is a quorum already")
        _expect(words[0] == NONE or self._is_known(words[0]), f"{words[0]!r} is not defined on a line before")
        self.quorum = words[0]

    def _check_new(self, name: str) -> None:
        _expect(name != NONE, "no witness and no group is named none")
        _expect(not self._is_known(name), f"{name!r} is defined already")

    def _is_known(self, name: str) -> bool:
        return name in self.groups or any(witness.name == name for witness in self.witnesses)


def parse_policy(data: bytes) -> Policy:
    """The policy in a file's bytes; raises PolicyError naming the line."""
    if len(data) > AUDIT_POLICY_BYTES_MAX:
        raise PolicyError(f"the policy has more than {AUDIT_POLICY_BYTES_MAX} bytes")
    reading = _Reading()
    keywords: dict[str, Callable[[list[str]], None]] = {
        "log": reading.log,
        "witness": reading.witness,
        "group": reading.group,
        "quorum": reading.end,
    }
    # Bytes that are no UTF-8 are kept apart as they are: names mean nothing beyond being the same bytes.
    for number, line in enumerate(data.decode("utf-8", "surrogateescape").split("\n"), 1):
        try:
            _expect(_FORBIDDEN.search(line) is None, "there is a control character")
            keyword, *words = _SPACE.split(line.strip(" \t"))
            if not keyword or keyword.startswith("#"):
                continue
            _expect(keyword in keywords, f"{keyword!r} is none of: {', '.join(keywords)}")
            keywords[keyword](words)
        except PolicyError as error:
            raise PolicyError(f"line {number}: {error}") from None
    if reading.quorum is None:
        raise PolicyError("there is no quorum line; `quorum none` asks for no witness")
    return Policy(tuple(reading.logs), tuple(reading.witnesses), reading.groups, reading.quorum)


def _expect(is_so: bool, words: str) -> None:
    if not is_so:
        raise PolicyError(words.encode("utf-8", "replace").decode("utf-8"))


def _key(vkey: str) -> Verifier:
    try:
        return parse_vkey(vkey)
    except (NoteError, ValueError) as error:
        raise PolicyError(str(error)) from None


def _threshold(word: str, members: int) -> int:
    if word in {"all", "any"}:
        return members if word == "all" else 1
    _expect(
        _THRESHOLD.fullmatch(word) is not None and int(word) <= members, f"{word!r} is not all, any or 1 to {members}"
    )
    return int(word)


def _is_in(verifier: Verifier, known: list[Verifier]) -> bool:
    return any(verifier.public_key == other.public_key for other in known)
