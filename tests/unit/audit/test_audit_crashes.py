"""A fault at every step of sequencing, integration and publication leaves a log that verifies and goes on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from schemas.errors import StoreUnavailableError
from sinks.audit.layout import Probe
from tests.support.audit import AuditWorld, Failing

#: Records of each of two partitions per step: partial tiles, and the border of 256 within one step.
STEPS = (3, 120, 10)


class CrashError(Exception):
    """The process dies here."""


async def story(world: AuditWorld) -> None:
    """Claim, then grow by what is not entered yet."""
    await world.claim()
    ends = [sum(STEPS[: count + 1]) for count in range(len(STEPS))]
    for end in ends:
        world.offset = max((await world.store.cursors()).values())
        await world.grow(max(end - world.offset, 0))


async def points_of_story(folder: Path) -> list[str]:
    """Every point of an undisturbed run."""
    probe = Failing(-1, CrashError)
    await story(AuditWorld(folder, probe))
    return probe.points


async def outcome(folder: Path, probe: Probe | None = None, error: type[Exception] | None = None) -> tuple[int, bytes]:
    """Size and root after the story, disturbed once; asserts that the log verified right after the disturbance."""
    world = AuditWorld(folder) if probe is None else AuditWorld(folder, probe)
    if error is None:
        await story(world)
    else:
        with pytest.raises(error):
            await story(world)
        report = await world.verify()
        assert report.ok, report.first_difference
        if error is CrashError:
            world.begin()
        await story(world)
    report = await world.verify()
    assert report.ok, report.first_difference
    return report.size, report.root


@pytest.fixture(autouse=True)
def fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dying process loses nothing that was written; only a dying machine would need the sync."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


@pytest.mark.parametrize("error", [CrashError, StoreUnavailableError], ids=["crash", "fault"])
async def test_a_fault_at_every_point(tmp_path: Path, error: type[Exception]) -> None:
    """Dying, or failing and trying again, before and after every step ends in the same root, green all the way."""
    points = await points_of_story(tmp_path / "points")
    expected = await outcome(tmp_path / "undisturbed")
    assert len(points) > 40
    assert {"append", "appended", "tiles durable", "mark integrated", "signed", "locked", "published"} <= set(points)
    for at, point in enumerate(points):
        found = await outcome(tmp_path / str(at), Failing(at, error), error)
        assert found == expected, f"after a fault at {point}"
