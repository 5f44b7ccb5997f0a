"""Between the lock store and publication: quorum, what happens without one, and what witnesses may get wrong."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from processors.audit.checkpoint import open_checkpoint, parse_checkpoint
from processors.audit.key_chain import signing_ids
from processors.audit.note import NoteError, SignatureLine, Signer, parse_note, signatures_of
from processors.audit.policy import parse_policy
from processors.audit.witness import SIZE_TYPE, Answer, Cosigner, followed, parse_add_checkpoint
from schemas.errors import FencedError, IntegrityError, StoreUnavailableError
from sinks.audit.key_ring import KeyRing
from sinks.audit.layout import Probe, no_probe
from sinks.audit.lock import FileLockStore
from sinks.audit.publisher import Publisher
from sinks.audit.rotation import Rotation
from sinks.audit.sequencer import Sequencer
from sinks.audit.witnesses import MemoryWitnesses, PolicyCosigners, WitnessTimes
from streams.monitor import Monitor
from tests.support.audit import NOW_SECONDS, ORIGIN, PARTITIONS, SALTS, TOPIC_ID, AuditWorld, Failing, spans_of
from tests.support.witnesses import cosigner, seed

NAMES = ("one", "two", "three")
KEYS = {name: cosigner(name) for name in NAMES}
LINES = "".join(f"witness {name} {key.verifier.vkey} {name}\n" for name, key in KEYS.items())
TWO_OF_THREE = "group most 2 one two three\nquorum most\n"
#: Nobody is in a hurry, so that nothing here depends on how busy a machine is; what waits is an alarm at once.
TIMES = WitnessTimes(ask_seconds=30.0, hold_seconds=30.0, grace_seconds=30.0, unwitnessed_seconds=0.0)
#: Instead of an answer: nobody is there, and nobody ever answers.
AWAY, SILENCE = "nobody is there", None


class WitnessedWorld(AuditWorld):
    """A log whose checkpoints wait for witnesses in this process."""

    def __init__(
        self, folder: Path, end: str = TWO_OF_THREE, times: WitnessTimes = TIMES, probe: Probe = no_probe
    ) -> None:
        """Three witnesses that have seen nothing."""
        self.end, self.times = end, times
        self.witnesses = MemoryWitnesses()
        super().__init__(folder, probe)
        for name, key in KEYS.items():
            self.witnesses.add(name, key, followed([self.signer.verifier]))

    def begin(self, probe: Probe = no_probe) -> None:
        """A new process; the witnesses go on."""
        super().begin(probe)
        self.monitor = Monitor("sink-audit")
        self.monitor.set(state="running")
        policy = parse_policy((LINES + self.end).encode())
        self.cosigners = PolicyCosigners(policy, self.witnesses, self.monitor, self.times)
        self.publisher = Publisher(self.store, self.files, self.lock, self.ring, probe, self.cosigners)
        self.sequencer = Sequencer(self.store, SALTS, "test", self.publisher.offer, lambda: NOW_SECONDS)

    def away(self, *names: str, rounds: int = 9) -> None:
        """These do not answer."""
        for name in names:
            self.witnesses.instead[name] = [AWAY] * rounds

    @property
    def published(self) -> tuple[int, list[str]]:
        """Size of the published checkpoint, and which witnesses have signed it."""
        note = self.files.checkpoint()
        if note is None:
            return 0, []
        size = open_checkpoint(note, self.signer.verifier).size
        signed = signatures_of(note, [key.verifier for key in KEYS.values()])[1]
        return size, [name for name, key in KEYS.items() if key.verifier in signed]

    @property
    def signed(self) -> int:
        """Size of the checkpoint in the lock store."""
        note = self.lock.latest()
        return 0 if note is None else parse_checkpoint(parse_note(note)[0]).size

    def gauge(self) -> float | None:
        """How long a checkpoint has waited."""
        return self.monitor.metrics.registry.get_sample_value("quaestor_audit_unwitnessed_seconds")


@pytest.fixture
async def world(tmp_path: Path) -> WitnessedWorld:
    """Claimed, and empty."""
    made = WitnessedWorld(tmp_path)
    await made.claim()
    return made


async def test_a_checkpoint_is_published_with_its_witnesses(tmp_path: Path) -> None:
    """All that answered, over steps of every kind; the log verifies, and the database keeps what was published."""
    world = WitnessedWorld(tmp_path)
    await world.claim()
    await world.grow(1, 2, 120, 10, 200)

    assert (671, list(NAMES)) == world.published
    assert (await world.verify()).ok
    assert [3, 8, 249, 270, 671] == sorted(await world.store.checkpoints())
    assert world.files.checkpoint() == (await world.store.checkpoints())[671]


async def test_each_checkpoint_is_asked_for_once(tmp_path: Path) -> None:
    """From the size that each witness cosigned last."""
    world = WitnessedWorld(tmp_path)
    await world.claim()
    await world.grow(1, 2, 3)

    asked = [parse_add_checkpoint(body).old_size for url, body in world.witnesses.calls if url == "one"]
    assert [0, 3, 8] == asked


async def test_the_log_says_nothing_until_a_quorum_has_signed(world: WitnessedWorld) -> None:
    """Signed and locked, not published; entries go into tiles meanwhile; then what waited comes out, then the rest."""
    await world.grow(5)
    world.away("one", "two")
    await world.grow(5, 5)
    assert (11, 22, 33) == (world.published[0], world.signed, world.publisher.size)
    world.witnesses.instead.clear()

    assert await world.publisher.publish()
    assert 22 == world.published[0]
    await world.publish()
    assert (33, True) == (world.published[0], (await world.verify()).ok)


async def test_one_of_three_that_is_away_holds_nothing_back(world: WitnessedWorld) -> None:
    """A quorum is enough."""
    world.away("two")
    await world.grow(5)

    assert (11, ["one", "three"]) == world.published


async def test_witnesses_need_not_sign_at_once(world: WitnessedWorld) -> None:
    """What came for a checkpoint is kept until the rest comes."""
    world.away("two", "three", rounds=1)
    await world.grow(5)
    assert 0 == world.published[0]
    world.away("one")
    await world.publish()

    assert (11, list(NAMES)) == world.published


def conflict(size: int) -> Answer:
    """A witness that stands at another size."""
    return Answer(409, f"{size}\n", SIZE_TYPE)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (["no answer: ClientConnectorError"], "no answer: ClientConnectorError"),
        ([Answer(403, "no key of that log signed\n")], "HTTP 403: no key of that log signed"),
        ([Answer(404, "unknown\n")], "HTTP 404: unknown"),
        ([Answer(422, "two  histories\n")], "HTTP 422: two histories"),
        ([Answer(500, "")], "HTTP 500: "),
        ([Answer(302, "")], "HTTP 302: "),
        ([Answer(409, "7\n")], "HTTP 409: 7"),
        ([Answer(409, "x\n", SIZE_TYPE)], "HTTP 409: x"),
        ([Answer(409, "01\n", SIZE_TYPE)], "HTTP 409: 01"),
        ([conflict(12)], "it has cosigned 12 entries, and this log signed 11"),
        ([conflict(3), conflict(4)], "it stands at 4 entries, and then at others"),
        ([Answer(200, "")], "no cosignature"),
        ([Answer(200, "garbage")], "no cosignature"),
        ([Answer(200, "\u2014 garbage \u00e9\n")], "no cosignature"),
        ([Answer(200, "\u2014 one.example/witness AAAAAAAA\n")], "no cosignature under its key"),
    ],
    ids=lambda value: None if isinstance(value, str) else "",
)
async def test_what_a_witness_may_get_wrong(world: WitnessedWorld, said: Sequence[Any], words: str) -> None:
    """It does not count, and why is written down; the others are enough, and this one is asked again."""
    world.end = "group all all one two three\nquorum all\n"
    world.begin()
    await world.claim()
    world.witnesses.instead["one"] = list(said)
    with capture_logs() as told:
        await world.grow(5)

    assert (0, 11) == (world.published[0], world.signed)
    reasons = next(line["reasons"] for line in told if line["event"] == "audit_unwitnessed")
    assert ["one"] == list(reasons)
    assert words in reasons["one"]
    await world.publish()
    assert (11, list(NAMES)) == world.published


def wrong_lines(note: str) -> dict[str, str]:
    """Lines of the first witness that are not its cosignature of this note."""
    text = parse_note(note)[0]
    key, stranger = KEYS["one"], Cosigner(Signer("one.example/witness", seed("stranger")))
    line = key.cosign(text, 7)
    forged = SignatureLine(line.name, line.key_id, stranger.cosign(text, 7).signature)
    return {
        "of another key": stranger.cosign(text, 7).text,
        "forged": forged.text,
        "of another text": key.cosign(text.replace("\n11\n", "\n12\n"), 7).text,
        "without a time": key.cosign(text, 0).text,
        "under more text": "more\n\n" + key.cosign(f"{text}\nmore\n", 7).text,
    }


@pytest.mark.parametrize("kind", ["of another key", "forged", "of another text", "without a time", "under more text"])
async def test_a_wrong_cosignature_is_never_published(world: WitnessedWorld, kind: str) -> None:
    """One bad line would make every reader refuse the whole checkpoint."""
    world.away(*NAMES)
    await world.grow(5)
    note = world.lock.latest()
    assert note is not None
    world.witnesses.instead = {"one": [Answer(200, wrong_lines(note)[kind])]}
    await world.publish()

    assert (11, ["two", "three"]) == world.published


async def test_lines_of_strangers_beside_the_right_one_are_left_out(world: WitnessedWorld) -> None:
    """A witness may have several keys; what is published are those of the policy."""
    world.away(*NAMES)
    await world.grow(5)
    note = world.lock.latest()
    assert note is not None
    text = parse_note(note)[0]
    both = Cosigner(Signer("more.example", seed("more"))).cosign(text, 7).text + KEYS["one"].cosign(text, 7).text
    world.witnesses.instead = {"one": [Answer(200, both)]}
    await world.publish()

    assert (11, list(NAMES)) == world.published
    assert "more.example" not in (world.files.checkpoint() or "")


async def test_a_witness_that_knows_more_is_followed_once(world: WitnessedWorld) -> None:
    """After a restart nobody remembers what it had cosigned: its conflict says so, and the proof comes from there."""
    await world.grow(5, 60)
    world.begin()
    await world.claim()
    world.witnesses.calls.clear()
    await world.grow(5)

    asked = [parse_add_checkpoint(body).old_size for url, body in world.witnesses.calls if url == "one"]
    assert ([0, 132], (143, list(NAMES))) == (asked, world.published)


async def test_a_lost_answer_is_asked_for_again(world: WitnessedWorld) -> None:
    """The witness has it, and we did not hear: the same checkpoint again, from its own size, without a proof."""
    world.end = "quorum one\n"
    world.begin()
    await world.claim()
    world.away(*NAMES, rounds=1)
    await world.grow(5)
    for _, body in world.witnesses.calls[:1]:
        await world.witnesses.add_checkpoint("one", body)
    await world.publish()

    last = parse_add_checkpoint([body for url, body in world.witnesses.calls if url == "one"][-1])
    assert (11, ()) == (last.old_size, last.proof)
    assert (11, True) == (world.published[0], "one" in world.published[1])


async def test_another_history_is_not_published(world: WitnessedWorld, tmp_path: Path) -> None:
    """A log made anew under the same key shows nothing: its witnesses remember the first one."""
    await world.grow(60)
    second = WitnessedWorld(tmp_path / "second")
    second.layout.key_file.write_bytes(world.layout.key_file.read_bytes())
    second.begin()
    second.witnesses.there = world.witnesses.there
    second.offset = 1_000
    second.store.positions = dict.fromkeys(PARTITIONS, (TOPIC_ID, 1_000))  # type: ignore[attr-defined]
    await second.claim()
    with capture_logs() as told:
        await second.grow(60)

    assert (0, 121) == (second.published[0], second.signed)
    assert (
        "HTTP 422: two histories"
        in next(line for line in told if line["event"] == "audit_unwitnessed")["reasons"]["one"]
    )


async def test_an_alarm_is_raised_and_taken_back(world: WitnessedWorld) -> None:
    """Status, metric and one line of the log; once, however long it lasts, until a quorum signs again."""
    world.away(*NAMES, rounds=3)
    with capture_logs() as told:
        await world.grow(5)
        await world.publish()
        await world.publish()
        status, waited = world.monitor.status(), world.gauge()
        await world.publish()

    assert ("degraded", True) == (status["state"], status["detail"].startswith("unwitnessed for "))
    assert "11 entries are signed and not published, missing most (0 of 2, without one, two, three)" in status["detail"]
    assert (waited or 0) > 0
    after = world.monitor.status()
    assert ("running", "", "", 0.0) == (after["state"], after["detail"], after["unwitnessed"], world.gauge())
    events = [line["event"] for line in told if "witness" in line["event"]]
    assert ["audit_unwitnessed", "audit_witnessed_again"] == events


async def test_before_the_bound_nothing_is_said(tmp_path: Path) -> None:
    """A round that fails is no alarm yet; the metric counts."""
    world = WitnessedWorld(tmp_path, times=WitnessTimes(30.0, 30.0, unwitnessed_seconds=3_600))
    await world.claim()
    world.away(*NAMES)
    with capture_logs() as told:
        await world.grow(5, 5)

    assert "running" == world.monitor.status()["state"]
    assert (world.gauge() or 0) > 0
    assert [] == [line for line in told if line["event"] == "audit_unwitnessed"]


@pytest.mark.parametrize(("state", "detail"), [("waiting", "Postgres is away"), ("degraded", "")])
async def test_the_runners_troubles_are_not_covered(world: WitnessedWorld, state: Any, detail: str) -> None:
    """A process that waits for its database, or has broken partitions, says so, with the alarm beside it."""
    world.monitor.set(state=state, detail=detail)
    world.away(*NAMES, rounds=1)
    await world.grow(5)
    assert world.monitor.status()["unwitnessed"].startswith("unwitnessed for ")
    await world.publish()

    status = world.monitor.status()
    assert (state, detail, "") == (status["state"], status["detail"], status["unwitnessed"])


async def test_quorum_none_publishes_without(tmp_path: Path) -> None:
    """With whoever answers, and also with nobody; that is no alarm."""
    world = WitnessedWorld(tmp_path, "quorum none\n")
    await world.claim()
    await world.grow(5)
    found = [world.published]
    world.away(*NAMES)
    await world.grow(5)

    assert [(11, list(NAMES)), (22, [])] == [*found, world.published]
    assert "running" == world.monitor.status()["state"]


async def test_a_silent_witness_costs_its_time_and_no_more(tmp_path: Path) -> None:
    """When a quorum has signed, who is not needed is waited for no longer than the grace."""
    world = WitnessedWorld(tmp_path, times=WitnessTimes(3_600, 3_600, grace_seconds=0.01))
    await world.claim()
    world.witnesses.instead["three"] = [SILENCE]

    await asyncio.wait_for(world.grow(5), 30)
    assert (11, ["one", "two"]) == world.published


async def test_a_witness_that_never_answers_ends_its_round(tmp_path: Path) -> None:
    """When the time is up it is said, and in the next round it is asked again."""
    world = WitnessedWorld(tmp_path, "quorum one\n", WitnessTimes(0.05, 30.0, unwitnessed_seconds=0.0))
    await world.claim()
    world.witnesses.instead["one"] = [SILENCE]
    with capture_logs() as told:
        await world.grow(5)
    assert 0 == world.published[0]
    reasons = next(line["reasons"] for line in told if line["event"] == "audit_unwitnessed")
    assert "no answer in time" == reasons["one"]
    while world.published[0] < 11:
        await world.publisher.publish()

    assert 2 <= len([url for url, _ in world.witnesses.calls if url == "one"])


async def test_entries_are_entered_while_a_witness_is_waited_for(tmp_path: Path) -> None:
    """The event loop is free, and the database is not held."""
    world, asked = WitnessedWorld(tmp_path, times=WitnessTimes(3_600, 3_600)), asyncio.Event()
    await world.claim()
    await world.feed(5)
    await world.publisher.integrate()
    world.witnesses.instead = {"two": [SILENCE], "three": [SILENCE]}
    world.witnesses.asked = asked.set
    publishing = asyncio.create_task(world.publisher.publish())
    await asked.wait()
    await world.feed(5)

    assert (22, False) == (world.sequencer.next_seq, publishing.done())
    publishing.cancel()
    await world.cosigners.close()


async def test_a_slow_round_does_not_hold_integration(tmp_path: Path) -> None:
    """The publisher comes back for its end: tiles are written meanwhile, and no witness is asked twice."""
    world = WitnessedWorld(tmp_path, times=WitnessTimes(3_600, hold_seconds=0.01))
    await world.claim()
    answers = asyncio.Event()
    for name in ("two", "three"):
        world.witnesses.late[name] = answers
    await world.grow(5, 5, 200)
    assert (0, 11, 423) == (world.published[0], world.signed, world.publisher.size)
    answers.set()
    while world.published[0] < 423:
        await world.publisher.publish()

    assert (423, True) == (world.published[0], (await world.verify()).ok)
    sizes = [parse_checkpoint(parse_note(parse_add_checkpoint(body).note)[0]).size for _, body in world.witnesses.calls]
    assert {11, 423} == set(sizes)
    assert 3 == sizes.count(11)
    await world.cosigners.close()


@pytest.mark.parametrize("published_before", [False, True])
async def test_what_waited_at_a_restart_is_published_after_it(world: WitnessedWorld, published_before: bool) -> None:
    """A checkpoint in the lock store that nobody has seen is cosigned and published by the next process."""
    if published_before:
        await world.grow(5)
    world.away(*NAMES, rounds=1)
    await world.grow(5)
    waiting = world.signed
    assert world.published[0] < waiting
    world.begin()
    await world.claim()

    assert (waiting, list(NAMES)) == world.published
    assert (await world.verify()).ok


async def test_a_restart_without_witnesses_begins_all_the_same(world: WitnessedWorld) -> None:
    """Records are entered; publication waits on."""
    world.away(*NAMES)
    await world.grow(5)
    world.begin()
    await world.claim()
    await world.grow(5)

    assert (0, 11, 22) == (world.published[0], world.signed, world.publisher.size)


async def test_what_is_published_stays_published_at_a_restart(world: WitnessedWorld) -> None:
    """A cosigned checkpoint is recognised, and nobody is asked again."""
    await world.grow(5)
    before, world.witnesses.calls = world.files.checkpoint(), []
    world.begin()
    await world.claim()
    assert not await world.publisher.publish()

    assert (before, []) == (world.files.checkpoint(), world.witnesses.calls)
    assert 11 == world.publisher.published_size


async def test_a_newer_owners_checkpoint_is_never_taken_back(world: WitnessedWorld, tmp_path: Path) -> None:
    """Frozen while its witnesses were asked, the one before finds that others sign by now, and publishes nothing."""
    await world.feed(5)
    await world.publisher.integrate()
    second = WitnessedWorld(tmp_path)
    second.store, second.witnesses, second.offset = world.store, world.witnesses, world.offset
    second.begin()
    cosign = world.cosigners.cosign

    async def frozen(note: str, size: int, prove: Callable[[int], Sequence[bytes]]) -> str | None:
        found = await cosign(note, size, prove)
        await second.claim()
        await second.grow(5)
        return found

    world.cosigners.cosign = frozen  # type: ignore[method-assign]
    with pytest.raises(FencedError):
        await world.publisher.publish()
    assert (22, True) == (second.published[0], (await second.verify()).ok)


async def test_a_strangers_checkpoint_stops_the_log(world: WitnessedWorld) -> None:
    """No newer owner, and yet another checkpoint in the lock store: someone else signs this log."""
    await world.feed(5)
    await world.publisher.integrate()
    cosign = world.cosigners.cosign

    async def meddled(note: str, size: int, prove: Callable[[int], Sequence[bytes]]) -> str | None:
        assert world.lock.swap(note, note.replace("\n\n", "\n\n", 1) + KEYS["one"].cosign(parse_note(note)[0], 7).text)
        return await cosign(note, size, prove)

    world.cosigners.cosign = meddled  # type: ignore[method-assign]
    with pytest.raises(IntegrityError, match="another one signs this log"):
        await world.publisher.publish()
    assert 0 == world.published[0]


class CrashError(Exception):
    """The process dies here."""


#: Records per step, of each of two partitions: partial tiles, and the border of 256 within one step.
STEPS = (3, 130)


async def story(world: WitnessedWorld) -> None:
    """Claim, then grow by what is not entered yet; a first round of witnesses fails in between."""
    await world.claim()
    for end in (sum(STEPS[: count + 1]) for count in range(len(STEPS))):
        world.offset = max((await world.store.cursors()).values())
        await world.feed(max(end - world.offset, 0))
        await world.publish()
        await world.publish()


async def outcome(folder: Path, probe: Probe, error: type[Exception] | None) -> tuple[int, bytes]:
    """Size and root after the story, disturbed once."""
    world = WitnessedWorld(folder, probe=probe)
    if error is None:
        await story(world)
    else:
        with pytest.raises(error):
            await story(world)
        before = world.published[0]
        report = await world.verify()
        assert report.ok, report.first_difference
        if error is CrashError:
            world.begin()
        await story(world)
        assert before <= world.published[0]
    report = await world.verify()
    assert report.ok, report.first_difference
    assert len(world.published[1]) >= 2
    return report.size, report.root


@pytest.mark.parametrize("error", [CrashError, StoreUnavailableError], ids=["crash", "fault"])
async def test_a_fault_at_every_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    """Also around its witnesses, a log that dies or fails ends in the same root, witnessed, and never goes back."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
    probe = Failing(-1, CrashError)
    expected = await outcome(tmp_path / "undisturbed", probe, None)
    assert {"signed", "locked", "cosigned", "published"} <= set(probe.points)
    for at, point in enumerate(probe.points):
        assert expected == await outcome(tmp_path / str(at), Failing(at, error), error), f"after a fault at {point}"


def test_a_cosigned_checkpoint_is_a_checkpoint_for_who_knows_no_witness(tmp_path: Path) -> None:
    """Unknown lines are ignored; a witness's key alone opens no checkpoint."""
    world = WitnessedWorld(tmp_path)
    asyncio.run(cosigned_once(world))
    note = world.files.checkpoint()
    assert note is not None

    assert 11 == open_checkpoint(note, world.signer.verifier).size
    with pytest.raises(NoteError):
        open_checkpoint(note, KEYS["one"].verifier)


async def cosigned_once(world: WitnessedWorld) -> None:
    """One published checkpoint."""
    await world.claim()
    await world.sequencer.append(spans_of(0, 5))
    await world.publish()


async def test_keys_come_and_go_while_witnesses_are_asked(tmp_path: Path) -> None:
    """The checkpoint that waits gets the new key's signature, is shown to the witnesses again, and published so."""
    world = WitnessedWorld(tmp_path)
    await world.claim()
    await world.grow(5)
    rotation = Rotation(KeyRing(world.layout), FileLockStore(world.layout.lock_file))
    made = []

    def rotate(point: str) -> None:
        if point == "cosigned" and not made:
            made.append(rotation.rotate(1, 0).hand_over)

    world.begin(rotate)
    await world.claim()
    await world.feed(5)
    await world.publisher.integrate()
    assert not await world.publisher.publish()
    assert await world.publisher.publish()
    note = world.files.checkpoint() or ""

    assert (22, list(NAMES)) == world.published
    assert [made[0].old.key_id, made[0].new.key_id] == signing_ids(note, ORIGIN)
    rotation.retire(made[0].old.key_id)
    for name, key in KEYS.items():
        world.witnesses.add(name, key, followed([made[0].new]))
    await world.grow(5)
    assert [made[0].new.key_id] == signing_ids(world.files.checkpoint() or "", ORIGIN)
    assert (await world.verify()).ok
