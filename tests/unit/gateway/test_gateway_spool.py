"""The spool: groups on disk, claimed from the dead, torn tails, damage, bounds."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from api.gateway.ahead import Ahead
from api.gateway.spool import (
    FRAME,
    REFUSED,
    Claim,
    Spool,
    SpoolFullError,
    claims,
    decode_payload,
    encode_group,
    keep_aside,
    read_groups,
    waiting_bytes,
)
from schemas.errors import CodecError
from schemas.events import BudgetEvent, BudgetKind, HoldLeg
from tests.support.events import budget, leg

GROUPS = [[budget(BudgetKind.PLACED, f"h{at}", f"e{at}", leg("l", at))] for at in range(3)]


async def spooled(directory: Path, groups: list[list[BudgetEvent]] | None = None) -> Path:
    """A file of a process that is gone."""
    spool = Spool(directory, "gateway-dead")
    for group in groups or GROUPS:
        await spool.append(group)
    path = (await spool.rotate())[0]
    spool.close()
    return path


def test_a_frame_gives_back_its_group() -> None:
    """Every field, enums and nested records included."""
    frame = encode_group(GROUPS[1])

    assert GROUPS[1] == decode_payload(frame[FRAME.size :])


@pytest.mark.parametrize("held", [leg("l", 2**64), leg("\ud800", 5)], ids=["number", "text"])
def test_a_value_that_can_not_be_written_is_a_fault_of_the_event(held: HoldLeg) -> None:
    """Of the tree that callers know."""
    with pytest.raises(CodecError):
        encode_group([budget(BudgetKind.PLACED, "h", "e", held)])


async def test_groups_come_back_in_order(tmp_path: Path) -> None:
    """As they were appended."""
    path = await spooled(tmp_path)

    assert GROUPS == list(read_groups(path))


async def test_nothing_is_on_disk_before_the_first_append(tmp_path: Path) -> None:
    """A gateway whose Kafka never goes away leaves no file."""
    Spool(tmp_path / "spool", "gateway-1").close()

    assert not (tmp_path / "spool").exists()


async def test_appends_at_once_share_a_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred groups cost a sync or two, not a hundred."""
    synced: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(file) or fsync(file))
    spool = Spool(tmp_path, "gateway-1")
    await asyncio.gather(*(spool.append(GROUPS[0]) for _ in range(100)))
    path = (await spool.rotate())[0]
    spool.close()

    assert 100 == len(list(read_groups(path)))
    assert len(synced) < 5


async def test_a_torn_tail_ends_the_reading(tmp_path: Path) -> None:
    """The process died in mid-write, so nobody was answered."""
    path = await spooled(tmp_path)
    path.write_bytes(path.read_bytes()[:-3])

    assert GROUPS[:2] == list(read_groups(path))


async def test_damage_is_kept_aside(tmp_path: Path) -> None:
    """What comes after a damaged frame can't be found again, but is not thrown away."""
    path = await spooled(tmp_path)
    content = bytearray(path.read_bytes())
    frame = len(encode_group(GROUPS[0]))
    content[frame + FRAME.size + 5] ^= 0xFF
    path.write_bytes(content)

    assert GROUPS[:1] == list(read_groups(path))
    assert bytes(content[frame:]) == path.with_suffix(".damaged").read_bytes()


async def test_zeros_at_the_tail_are_no_group(tmp_path: Path) -> None:
    """A file system may leave them after a power cut."""
    path = await spooled(tmp_path)
    with path.open("ab") as file:
        file.write(bytes(64))

    assert GROUPS == list(read_groups(path))


async def test_files_of_the_living_are_not_claimed(tmp_path: Path) -> None:
    """The lock says who lives."""
    spool = Spool(tmp_path, "gateway-1")
    await spool.append(GROUPS[0])
    while_alive = claims(tmp_path)
    spool.close()
    found = claims(tmp_path)

    assert ([], 1) == (while_alive, len(found))
    found[0].discard()
    assert 0 == waiting_bytes(tmp_path)


async def test_only_one_process_claims_a_file(tmp_path: Path) -> None:
    """The second finds it locked; after a release it is free again."""
    await spooled(tmp_path)
    first, second = claims(tmp_path), claims(tmp_path)
    first[0].release()
    third = claims(tmp_path)

    assert (1, 0, 1) == (len(first), len(second), len(third))
    third[0].release()


@pytest.mark.parametrize("end", [Claim.release, Claim.discard], ids=["held", "drained and gone"])
@pytest.mark.parametrize(("kind", "keep"), [(Spool, Spool.append_now), (Ahead, Ahead.write)], ids=["spool", "ahead"])
def test_a_file_claimed_as_it_is_made_is_left_for_another(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[Spool | Ahead],
    keep: Callable[..., object],
    end: Callable[[Claim], None],
) -> None:
    """Whoever looks for files without an owner may come between: the group is kept where it will be found."""
    flock = fcntl.flock
    claimed: list[Claim] = []

    def claimed_before(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        claimed.extend(claims(tmp_path))
        if end is Claim.discard:
            claimed[0].discard()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", claimed_before)
    made = kind(tmp_path, "gateway-1")
    keep(made, GROUPS[0])
    made.close()
    if end is Claim.release:
        claimed[0].release()

    assert [GROUPS[0]] == [group for claim in claims(tmp_path) for group in claim.groups()]


async def test_a_full_spool_refuses(tmp_path: Path) -> None:
    """Rather than grow without bound."""
    spool = Spool(tmp_path, "gateway-1", bytes_max=len(encode_group(GROUPS[0])) + 1)
    await spool.append(GROUPS[0])

    with pytest.raises(SpoolFullError, match="holds its"):
        await spool.append(GROUPS[1])
    spool.close()


async def test_a_directory_that_can_not_be_made_refuses(tmp_path: Path) -> None:
    """As a full disk does."""
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(SpoolFullError, match="can't be written"):
        await Spool(tmp_path / "file" / "spool", "gateway-1").append(GROUPS[0])


async def test_what_comes_while_draining_goes_to_another_file(tmp_path: Path) -> None:
    """So that a drained file can be removed whole."""
    spool = Spool(tmp_path, "gateway-1")
    await spool.append(GROUPS[0])
    first = await spool.rotate()
    await spool.append(GROUPS[1])
    spool.drained(first[0])
    left = await spool.rotate()

    assert [GROUPS[1]] == list(read_groups(left[0]))
    assert not first[0].exists()
    spool.close()


async def test_append_now_needs_no_loop(tmp_path: Path) -> None:
    """For a process that is being stopped."""
    spool = Spool(tmp_path, "gateway-1")
    spool.append_now(GROUPS[2])
    path = (await spool.rotate())[0]
    spool.close()

    assert [GROUPS[2]] == list(read_groups(path))


def test_what_kafka_refuses_is_kept_under_another_name(tmp_path: Path) -> None:
    """Where it blocks nothing, for a person to look at."""
    keep_aside(tmp_path, "gateway-1", GROUPS[0], REFUSED)

    assert [] == claims(tmp_path)
    assert [GROUPS[0]] == list(read_groups(tmp_path / "gateway-1.refused"))
