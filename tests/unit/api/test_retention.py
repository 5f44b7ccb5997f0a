"""Retention applied: recorded in the log, carried out, and finished after a failure of any step; holds always win."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path

import pytest

import api.retention.audit
from api.control.session import ControlRefusedError, ControlSession
from api.retention.audit import AuditRetention
from api.retention.events import EventsRetention
from api.retention.plans import Plan, RetainedClass, RetentionStoppedError
from api.retention.run import apply
from processors import control
from processors.audit.checkpoint import Checkpoint, open_checkpoint
from processors.control import ControlState, LegalHold, Origin, Refusal
from processors.control.months import MICROS_PER_DAY
from schemas.errors import StoreUnavailableError
from schemas.events import ControlEvent
from schemas.topics import CONTROL
from sinks.audit.layout import Probe, no_probe
from sinks.audit.memory import MemoryAuditStore
from sinks.audit.store import LogState
from sinks.retention import MemoryMonthStore, StoredMonth
from streams.codec import Codec, LocalSchemas
from streams.log import Partition
from streams.memory import MemoryLog
from tests.support.audit import CONTROL_PARTITION, AuditWorld
from tests.unit.audit.test_audit_crashes import CrashError, Failing

#: Of the audit world's entries, and a time when all of them are older than the policy.
ENTRY_MICROS = 1_700_000_000_000_000
KEEP_DAYS = 400
NOW_MICROS = ENTRY_MICROS + 500 * MICROS_PER_DAY
BLOCK = 256


@pytest.fixture(autouse=True)
def fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dying process loses nothing that was written; only a dying machine would need the sync."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


class Rows:
    """The rows of a world's log, to be dropped."""

    def __init__(self, store: MemoryAuditStore) -> None:
        """Partitions are as small as blocks."""
        self._store = store
        store.partition_entries = BLOCK

    async def drop_entries(self, below: int) -> int:
        """As the seam says."""
        return await self._store.drop_entries(below)

    async def close(self) -> None:
        """Nothing to let go."""


class Desk:
    """A sitting that can be failed around a change."""

    def __init__(self, log: MemoryLog, probe: Probe) -> None:
        """A session of its own."""
        self._session = ControlSession(log.publisher(), log.reader(), Codec(LocalSchemas()), "cli/0")
        self._probe = probe

    @property
    def next_offset(self) -> int:
        """As the seam says."""
        return self._session.next_offset

    def refresh(self) -> ControlState:
        """As the seam says."""
        return self._session.refresh()

    def change(
        self, decide: Callable[[ControlState, Origin], ControlEvent | Refusal], reason: str | None = None
    ) -> ControlEvent:
        """As the seam says."""
        self._probe("record cut")
        event = self._session.change(decide, reason)
        self._probe("recorded cut")
        return event


class Scene:
    """An audit log of a control topic, months beside it, and commands that come and go."""

    def __init__(self, folder: Path) -> None:
        """Nothing is entered."""
        self.world = AuditWorld(folder)
        self.log = MemoryLog()
        self.months = MemoryMonthStore("memory", [month(1), month(2), month(11)])
        self.probe: Probe = no_probe
        self.is_sink_running = True
        self.on_plan: Callable[[], None] = lambda: None

    async def grow(self) -> None:
        """2 partitions of 300 records, with heads 601 entries: two blocks that may go."""
        await self.world.claim()
        await self.world.grow(300)

    def begin(self, probe: Probe) -> None:
        """A new command, that may be failed."""
        self.probe = probe
        store = self.world.store
        assert isinstance(store, MemoryAuditStore)
        store.probe = probe
        self.world.files._probe = probe
        self.months._probe = probe

    def change(self, decide: Callable[[ControlState, Origin], ControlEvent | Refusal]) -> None:
        """Somebody's command."""
        Desk(self.log, no_probe).change(decide)

    def set_policy(self, name: str, days: int | None = KEEP_DAYS) -> None:
        """How long a class stays."""
        self.change(lambda state, origin: control.set_retention(state, name, days, origin))

    def hold(self, **covers: object) -> None:
        """Place a hold."""
        hold = LegalHold(hold_id="hold_1", tenant_id="tenant_1", reason="case 7", **covers)  # type: ignore[arg-type]
        self.change(lambda state, origin: control.add_hold(state, hold, origin))

    async def cursors(self) -> Mapping[Partition, int]:
        """Where the log stands, once its sink has entered what the control topic has."""
        while self.is_sink_running and (await self._entered()) < self.log.end(CONTROL_PARTITION):
            probes, self.probe = self.probe, no_probe
            self.begin(no_probe)
            await self.world.tell_of_cut()
            self.begin(probes)
        return await self.world.store.cursors()

    async def _entered(self) -> int:
        return (await self.world.store.cursors()).get(CONTROL_PARTITION, 0)

    async def state(self) -> LogState:
        """Where the log stands."""
        return await self.world.store.state()

    def checkpoint(self) -> Checkpoint:
        """The published one."""
        return open_checkpoint(self.world.files.checkpoint() or "", self.world.signer.verifier)

    def audit(self) -> AuditRetention:
        """The class of entries."""
        assert isinstance(self.world.store, MemoryAuditStore)
        rows = Rows(self.world.store)
        return AuditRetention(self.world.files, self, rows, lambda: self.checkpoint().size, self.world.verify, BLOCK)

    def retained(self, name: str) -> RetainedClass:
        """A class over the scene's stores."""
        return self.audit() if name == "audit" else EventsRetention([self.months])

    async def apply(self, name: str, *, yes: bool = True) -> tuple[Plan, list[str]]:
        """`quaestor audit retention apply NAME`."""

        def confirmed(_plan: Plan) -> bool:
            self.on_plan()
            return yes

        desk = Desk(self.log, self.probe)
        return await apply(desk, self.retained(name), NOW_MICROS, self.checkpoint, confirmed)

    def known(self, name: str) -> control.Retention:
        """What the control topic says of a class."""
        return Desk(self.log, no_probe).refresh().retention[name]


def month(number: int) -> StoredMonth:
    """A month of 2024; those before February 2024 are older than the policy."""
    return StoredMonth("memory", "request_event", date(2023 + (number < 11), number, 1), 10, 8_192)


@pytest.fixture
async def scene(tmp_path: Path) -> Scene:
    """A log with two blocks that may go."""
    made = Scene(tmp_path)
    await made.grow()
    return made


async def test_entries_go_as_they_were_planned(scene: Scene) -> None:
    """The cut is in the control topic with policy and root, the log is green and says where it begins."""
    scene.set_policy("audit")
    before = scene.checkpoint()

    plan, gone = await scene.apply("audit")

    assert (0, 512, "the newest block stays") == (plan.begin, plan.end, plan.why)
    assert [(512, True)] == [(drop.rows, drop.bytes > 0) for drop in plan.drops]
    assert ["entries below 512: 2 bundles and 2 table partitions; their hashes stay"] == gone
    cut = scene.known("audit").cut
    assert cut is not None
    assert (0, 512, KEEP_DAYS, before.size) == (cut.begin, cut.end, cut.keep_days, cut.size)
    report = await scene.world.verify()
    assert (True, 512) == (report.ok, report.minimum_index), report.first_difference
    again, gone = await scene.apply("audit")
    assert (False, False) == (again.is_due, again.unfinished)


@pytest.mark.parametrize("name", ["audit", "events"])
async def test_nothing_goes_without_a_policy(scene: Scene, name: str) -> None:
    """What nobody set stays for ever."""
    plan, gone = await scene.apply(name)

    assert (False, [], "there is no policy: it stays for ever") == (plan.is_due, gone, plan.why)


async def test_nothing_goes_unconfirmed(scene: Scene) -> None:
    """A plan that is declined is not recorded."""
    scene.set_policy("audit")
    plan, gone = await scene.apply("audit", yes=False)

    assert (True, [], None) == (plan.is_due, gone, scene.known("audit").cut)


async def test_young_entries_stay(scene: Scene) -> None:
    """The plan names the first entry that is too young."""
    scene.set_policy("audit", 500)
    plan, _ = await scene.apply("audit")

    assert (False, "entry 0 is younger than 500 days") == (plan.is_due, plan.why)


async def test_a_hold_keeps_entries(scene: Scene) -> None:
    """What it covers and everything behind stays, and the plan says so."""
    scene.set_policy("audit")
    scene.hold(since=ENTRY_MICROS + 270)

    plan, _ = await scene.apply("audit")
    assert (256, "hold_1") == (plan.end, plan.hold_id)
    assert plan.why.startswith("hold hold_1 (case 7) covers entry ")
    scene.change(lambda state, origin: control.release_hold(state, "hold_1", origin))
    assert 512 == (await scene.apply("audit"))[0].end


async def test_a_hold_placed_while_somebody_plans(scene: Scene) -> None:
    """The cut that was planned without it is refused, and nothing is recorded."""
    scene.set_policy("audit")
    scene.on_plan = scene.hold

    with pytest.raises(ControlRefusedError, match="plan again"):
        await scene.apply("audit")
    assert scene.known("audit").cut is None


async def test_a_hold_placed_before_a_recorded_cut_is_carried_out(scene: Scene) -> None:
    """What it covers is still there, and stays until it is released."""
    scene.set_policy("audit")
    scene.begin(Failing(1, CrashError))
    with pytest.raises(CrashError):
        await scene.apply("audit")
    scene.begin(no_probe)
    scene.hold()

    with pytest.raises(RetentionStoppedError, match="hold hold_1 was placed after the cut to entry 512"):
        await scene.apply("audit")
    assert 0 == scene.world.files.kept().minimum_index
    scene.change(lambda state, origin: control.release_hold(state, "hold_1", origin))
    await scene.apply("audit")
    assert 512 == scene.world.files.kept().minimum_index


async def test_nothing_goes_before_the_cut_is_published(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the sequencer away the cut stays recorded; when it is back, applying again carries it out."""
    monkeypatch.setattr(api.retention.audit, "RETENTION_ENTRY_SECONDS", 0)
    scene.set_policy("audit")
    scene.is_sink_running = False

    with pytest.raises(RetentionStoppedError, match="not published in the audit log"):
        await scene.apply("audit")
    assert (0, 512) == (scene.world.files.kept().minimum_index, scene.known("audit").kept_from)
    assert (await scene.audit().plan(Desk(scene.log, no_probe).refresh(), NOW_MICROS)).unfinished
    scene.is_sink_running = True
    await scene.apply("audit")
    assert 512 == scene.world.files.kept().minimum_index


async def test_a_log_that_is_not_sound_is_not_cut(scene: Scene) -> None:
    """Before anything is recorded, the log is verified: afterwards nobody could tell."""
    scene.set_policy("audit")
    path = scene.world.layout.directory / "tile/0/000"
    path.write_bytes(bytes(32) + path.read_bytes()[32:])

    with pytest.raises(RetentionStoppedError, match="the audit log is not sound"):
        await scene.apply("audit")
    assert scene.known("audit").cut is None


async def test_months_go_as_they_were_planned(scene: Scene) -> None:
    """Whole months older than the policy, the late ones of before the cut with them next time."""
    scene.set_policy("events")

    plan, gone = await scene.apply("events")
    assert ("2024-02", ["2 months of tables before 2024-02"]) == (plan.kept_from, gone)
    assert [month(2)] == await scene.months.months(date.max)
    scene.months.kept.append(month(11))
    plan, gone = await scene.apply("events")
    assert (False, ["1 month of tables before 2024-02"]) == (plan.is_due, gone)


async def test_a_hold_keeps_months(scene: Scene) -> None:
    """None that it reaches goes, not even of what a cut before it gave up."""
    scene.set_policy("events")
    scene.hold(since=1_704_067_200_000_000)

    plan, _ = await scene.apply("events")
    assert ("2024-01", "hold_1", "hold hold_1 (case 7) goes back to 2024-01") == (
        plan.kept_from,
        plan.hold_id,
        plan.why,
    )
    scene.change(lambda state, origin: control.release_hold(state, "hold_1", origin))
    scene.hold()
    scene.months.kept.append(month(11))
    await scene.apply("events")
    assert [month(11), month(1), month(2)] == await scene.months.months(date.max)


@pytest.mark.parametrize("error", [CrashError, StoreUnavailableError], ids=["crash", "fault"])
@pytest.mark.parametrize("name", ["audit", "events"])
async def test_a_failure_of_any_step_is_finished_by_applying_again(
    tmp_path: Path, name: str, error: type[Exception]
) -> None:
    """Before and after every step: the log verifies right then, and applying again leaves what undisturbed does."""
    points = Failing(-1, error)
    undisturbed = await applied(tmp_path / "undisturbed", name, points)
    steps = {"audit": {"minimum index published", "drop bundle", "drop rows"}, "events": {"drop month"}}[name]
    assert steps | {"record cut", "recorded cut"} <= set(points.points)

    for at, point in enumerate(points.points):
        found = await applied(tmp_path / str(at), name, Failing(at, error), error)
        assert undisturbed == found, f"after a failure at {point}"


async def applied(folder: Path, name: str, probe: Probe, error: type[Exception] | None = None) -> object:
    """What is left after retention that failed once, and was applied again."""
    scene = Scene(folder)
    await scene.grow()
    scene.set_policy(name)
    scene.begin(probe)
    if error is not None:
        with pytest.raises(error):
            await scene.apply(name)
        scene.begin(no_probe)
        report = await scene.world.verify()
        assert report.ok, report.first_difference
    await scene.apply(name)
    scene.begin(no_probe)
    report = await scene.world.verify()
    assert report.ok, report.first_difference
    assert 2 == scene.log.end(Partition(CONTROL.name, 0))
    store = scene.world.store
    assert isinstance(store, MemoryAuditStore)
    left = sorted(path.name for path in (scene.world.layout.directory / "tile/entries").iterdir())
    return scene.known(name).kept_from, report.minimum_index, left, store.first_row, await scene.months.months(date.max)
