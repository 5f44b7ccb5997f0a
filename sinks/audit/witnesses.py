"""A log's witnesses: asks each of the policy for its cosignature, and says when a quorum has signed.

The seam to them is `WitnessCaller`: `HttpWitnesses` (api.audit.witness_client) and `MemoryWitnesses` fill it;
tests/contract/test_witness_caller.py is their suite.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import structlog

from processors.audit.note import NoteError, Verifier, parse_note, signatures_of
from processors.audit.policy import KnownWitness, Policy, PolicyError, parse_policy
from processors.audit.witness import CONFLICT, OK, SIZE_TYPE, AddCheckpoint, Answer, Cosigner, FollowedLogs
from schemas.errors import ConfigurationError
from schemas.limits import (
    AUDIT_UNWITNESSED_SECONDS,
    AUDIT_WITNESS_GRACE_SECONDS,
    AUDIT_WITNESS_HOLD_SECONDS,
    AUDIT_WITNESS_SECONDS,
)
from sinks.audit.witness_store import MemoryWitnessStore, answer
from streams.monitor import Monitor, State

log = structlog.get_logger(__name__)
_SIZE = re.compile(r"(0|[1-9][0-9]{0,18})\n?")

#: The proof from a size to the checkpoint's; blocks on the disk.
Prove = Callable[[int], Sequence[bytes]]


class WitnessCaller(Protocol):
    """Carries one request to one witness. Safe for many at once on one loop; who calls bounds the time."""

    async def add_checkpoint(self, url: str, body: bytes) -> Answer | str:
        """What the witness at this submission prefix answered, whatever it is; in words, why there is no answer.

        Never raises for what a witness or the network does. A cancelled call lets go of its connection.
        """

    async def close(self) -> None:
        """Let go of connections."""


class MemoryWitnesses:
    """A WitnessCaller that holds the witnesses themselves: every seam ships its fake."""

    def __init__(self) -> None:
        """Nobody is there."""
        #: By URL: the key, the logs it follows and its memory.
        self.there: dict[str, tuple[Cosigner, FollowedLogs, MemoryWitnessStore]] = {}
        #: Answers to give instead, by URL; each is given once. None: never an answer.
        self.instead: dict[str, list[Answer | str | None]] = {}
        #: What to wait for before answering, by URL.
        self.late: dict[str, asyncio.Event] = {}
        #: (url, body) of every call, and what to call then.
        self.calls: list[tuple[str, bytes]] = []
        self.asked: Callable[[], None] = lambda: None
        self.now_seconds = 1_700_000_000

    def add(self, url: str, cosigner: Cosigner, logs: FollowedLogs) -> None:
        """Put a witness there that has seen nothing."""
        self.there[url] = (cosigner, logs, MemoryWitnessStore())

    async def add_checkpoint(self, url: str, body: bytes) -> Answer | str:
        """As the seam says."""
        self.calls.append((url, body))
        self.asked()
        if self.instead.get(url):
            found = self.instead[url].pop(0)
            if found is None:
                await asyncio.Event().wait()
            return found or ""
        if url in self.late:
            await self.late[url].wait()
        if url not in self.there:
            return "nobody is there"
        cosigner, logs, store = self.there[url]
        return answer(store, body, logs, cosigner, self.now_seconds)

    async def close(self) -> None:
        """As the seam says."""


class Cosigners(Protocol):
    """What a publisher asks between the lock store and publication."""

    async def cosign(self, note: str, size: int, prove: Prove) -> str | None:
        """The note to publish, or None while too few have signed it; ends soon, whatever witnesses do.

        Called again with the same note until it is published. `prove` may be called after the end of this call. Raises
        what that raises.
        """

    async def close(self) -> None:
        """Let go of connections."""


class NoCosigners:
    """A log without a policy: what is signed is published."""

    async def cosign(self, note: str, size: int, prove: Prove) -> str | None:  # noqa: ARG002 - the seam's
        """As the seam says."""
        return note

    async def close(self) -> None:
        """As the seam says."""


@dataclass(frozen=True)
class WitnessTimes:
    """How long things may take, seconds."""

    #: One round of all witnesses.
    ask_seconds: float = AUDIT_WITNESS_SECONDS
    #: As much of that as the publisher waits for; then it integrates, and comes back.
    hold_seconds: float = AUDIT_WITNESS_HOLD_SECONDS
    #: Those that are not needed any more, after the quorum has signed.
    grace_seconds: float = AUDIT_WITNESS_GRACE_SECONDS
    #: A checkpoint without a quorum, until that is an alarm.
    unwitnessed_seconds: float = AUDIT_UNWITNESSED_SECONDS


class Witnessing(NamedTuple):
    """What a process needs to have its log witnessed."""

    policy_file: Path
    caller: WitnessCaller
    times: WitnessTimes = WitnessTimes()


class PolicyCosigners:
    """The Cosigners of a policy. One call at a time."""

    def __init__(self, policy: Policy, caller: WitnessCaller, monitor: Monitor, times: WitnessTimes) -> None:
        """Nobody is asked yet."""
        self._policy = policy
        self._caller = caller
        self._alarm = Alarm(monitor, times.unwitnessed_seconds)
        self._times = times
        #: The note that is being cosigned, since when, and the lines that came for it.
        self._note = ""
        self._since = 0.0
        self._lines: dict[Verifier, str] = {}
        #: The round under way; it outlives a call that does not wait for its end.
        self._round: asyncio.Task[dict[str, str]] | None = None
        #: The size that each witness cosigned last, as far as it is known.
        self._sizes: dict[Verifier, int] = {}

    async def cosign(self, note: str, size: int, prove: Prove) -> str | None:
        """As the seam says; lines that came for this note before are kept, so that witnesses need not sign at once."""
        if note != self._note:
            await self._end_round()
            self._note, self._since, self._lines = note, time.monotonic(), {}
        if self._round is None:
            self._round = asyncio.create_task(self._ask(size, prove), name="audit-witnesses")
        done, _ = await asyncio.wait({self._round}, timeout=self._times.hold_seconds)
        missing = self._policy.missing(self._lines)
        if done:
            ended, self._round = self._round, None
            self._alarm.tell(size, missing, time.monotonic() - self._since, ended.result())
        elif missing is None:
            self._alarm.tell(size, None, 0.0, {})
        return None if missing else note + "".join(self._lines.values())

    async def close(self) -> None:
        """As the seam says."""
        await self._end_round()
        await self._caller.close()

    async def _end_round(self) -> None:
        ended, self._round = self._round, None
        if ended is not None:
            ended.cancel()
            await asyncio.gather(ended, return_exceptions=True)

    async def _ask(self, size: int, prove: Prove) -> dict[str, str]:
        """Ask side by side who has not signed, until the time is up; why the others have not, by name."""
        reasons: dict[str, str] = {}
        asked = [each for each in self._policy.witnesses if each.url and each.verifier not in self._lines]
        tasks = {asyncio.create_task(self._ask_one(each, size, prove)): each for each in asked}
        deadline = time.monotonic() + self._times.ask_seconds
        waiting, met = set(tasks), False
        try:
            while waiting:
                if not met and self._policy.missing(self._lines) is None:
                    met, deadline = True, min(deadline, time.monotonic() + self._times.grace_seconds)
                left = max(deadline - time.monotonic(), 0)
                done, waiting = await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                reasons |= {tasks[task].name: words for task in done if (words := task.result()) is not None}
                if not done:
                    break
            return reasons | {tasks[task].name: "no answer in time" for task in waiting}
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _ask_one(self, witness: KnownWitness, size: int, prove: Prove) -> str | None:
        """Ask one, twice when it stands at another size than we thought; keeps its line, or says why there is none."""
        for _ in range(2):
            old_size = self._sizes.get(witness.verifier, 0)
            proof = await asyncio.to_thread(prove, old_size)
            body = AddCheckpoint(old_size, tuple(proof), self._note).encode()
            said = await self._caller.add_checkpoint(witness.url or "", body)
            if isinstance(said, str):
                return said
            if said.status == OK:
                return self._take(witness, said.body, size)
            known = _known_size(said)
            if known is None:
                return f"HTTP {said.status}: {' '.join(said.body.split())[:200]}"
            if known > size:
                return f"it has cosigned {known} entries, and this log signed {size}: who else signs this log?"
            self._sizes[witness.verifier] = known
        return f"it stands at {known} entries, and then at others"

    def _take(self, witness: KnownWitness, body: str, size: int) -> str | None:
        """Keep a witness's line when it is what it must be; else say what is wrong."""
        try:
            text, _ = parse_note(self._note)
            signed_text, signed = signatures_of(f"{text}\n{body}", [witness.verifier])
        except NoteError as error:
            return f"its answer is no cosignature: {error}"
        line = signed.get(witness.verifier)
        # An answer with a blank line in it would have another text signed.
        if line is None or signed_text != text or line.time_seconds == 0:
            return "its answer has no cosignature under its key"
        self._lines[witness.verifier] = line.text
        self._sizes[witness.verifier] = size
        return None


class Alarm:
    """Says when a checkpoint waits for witnesses for too long: status, metric, and one line of the log each way."""

    def __init__(self, monitor: Monitor, after_seconds: float) -> None:
        """Nothing waits."""
        self._monitor = monitor
        self._after_seconds = after_seconds
        #: What was told last; empty when all is well.
        self._words = ""

    def tell(self, size: int, missing: str | None, waited_seconds: float, reasons: dict[str, str]) -> None:
        """What the last round of witnesses has given: nothing is missing, or what is, since when, and why."""
        waited = 0.0 if missing is None else waited_seconds
        self._monitor.metrics.gauge("quaestor_audit_unwitnessed_seconds").set(waited)
        if missing is not None and waited >= self._after_seconds:
            self._raise(size, missing, waited, reasons)
        elif self._words and missing is None:
            self._show("running", "")
            log.info("audit_witnessed_again", size=size)

    def _raise(self, size: int, missing: str, waited: float, reasons: dict[str, str]) -> None:
        if not self._words:
            log.error("audit_unwitnessed", size=size, seconds=round(waited), missing=missing, reasons=reasons)
        words = f"unwitnessed for {waited:.0f} s: {size} entries are signed and not published, missing {missing}"
        self._show("degraded", words)

    def _show(self, state: State, words: str) -> None:
        """Change the status where it is "running" or our own: the runner's troubles are told by the runner."""
        now = self._monitor.status()
        is_ours = bool(self._words) and now.get("detail") == self._words
        if now["state"] == "running" or is_ours:
            self._monitor.set(state=state, detail=words)
        self._monitor.set(unwitnessed=words)
        self._words = words


def load_policy(path: Path) -> Policy:
    """The policy in a file; raises ConfigurationError naming file and line."""
    try:
        return parse_policy(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"the witness policy {path} can't be read: {error.strerror}") from error
    except PolicyError as error:
        raise ConfigurationError(f"{path}, {error}") from None


def policy_for(path: Path, *verifiers: Verifier) -> Policy:
    """The policy to publish a log with these keys under, today's first.

    Raises ConfigurationError when no checkpoint of the log could ever meet it.
    """
    policy = load_policy(path)
    if policy.logs and not {known.verifier for known in policy.logs} & set(verifiers):
        raise ConfigurationError(f"{path} names logs, but not this one: add the line `log {verifiers[0].vkey}`")
    missing = policy.missing([witness.verifier for witness in policy.witnesses if witness.url])
    if missing is not None:
        raise ConfigurationError(f"{path}: the quorum can't be met by witnesses with a URL, missing {missing}")
    return policy


def _known_size(said: Answer) -> int | None:
    """The size in a 409, None when it is something else."""
    match = _SIZE.fullmatch(said.body)
    is_size = said.status == CONFLICT and said.content_type.partition(";")[0].strip() == SIZE_TYPE
    return int(match[1]) if is_size and match else None
