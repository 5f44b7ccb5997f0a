"""Groups under way: what a killed process leaves behind, and what a living one cleans up."""

from __future__ import annotations

from pathlib import Path

from api.gateway.ahead import Ahead
from api.gateway.spool import Spool, claims, waiting_bytes
from schemas.events import Operation, RequestEvent, RequestKind


def completed(number: int) -> RequestEvent:
    """A terminal event."""
    return RequestEvent(
        event_id=f"01930000-0000-7000-8000-{number:012x}",
        occurred_at=number,
        tenant_id="acme",
        actor="gateway/test",
        kind=RequestKind.COMPLETED,
        operation=Operation.CHAT_COMPLETIONS,
    )


def left_behind(directory: Path) -> list[list[RequestEvent]]:
    """The groups that the next process would claim."""
    return [group for claim in claims(directory) for group in claim.groups()]


def test_a_group_under_way_is_claimed_after_its_process(tmp_path: Path) -> None:
    """What was not acknowledged when the process ended is there for the next one."""
    ahead = Ahead(tmp_path, "one")
    ahead.write([completed(1), completed(2)])
    ahead.close()

    assert [[completed(1), completed(2)]] == left_behind(tmp_path)


def test_a_living_process_keeps_its_groups(tmp_path: Path) -> None:
    """Nobody claims the file of a process that lives."""
    ahead = Ahead(tmp_path, "one")
    ahead.write([completed(1)])

    assert [] == left_behind(tmp_path)


def test_nothing_is_left_when_all_is_acknowledged(tmp_path: Path) -> None:
    """An orderly end leaves no file."""
    ahead = Ahead(tmp_path, "one")
    ahead.done(ahead.write([completed(1)]))
    ahead.close()

    assert [] == list(tmp_path.iterdir())


def test_acknowledged_groups_do_not_come_back(tmp_path: Path) -> None:
    """The file is emptied when nothing of it is under way, so a later death repeats only what was."""
    ahead = Ahead(tmp_path, "one")
    ahead.done(ahead.write([completed(1)]))
    ahead.write([completed(2)])
    ahead.close()

    assert [[completed(2)]] == left_behind(tmp_path)


def test_a_grown_file_is_left_for_a_new_one(tmp_path: Path) -> None:
    """While groups are always under way, a file is bounded: it is removed when its last group is acknowledged."""
    ahead = Ahead(tmp_path, "one", bytes_max=1)
    first = ahead.write([completed(1)])
    second = ahead.write([completed(2)])

    ahead.done(first)

    assert [second.path] == list(tmp_path.iterdir())


def test_a_left_file_takes_no_further_group_and_waits_for_its_last(tmp_path: Path) -> None:
    """What is published again is whole: groups that were under way beside the left one are in it or recorded."""
    ahead = Ahead(tmp_path, "one")
    left, other = ahead.write([completed(1)]), ahead.write([completed(2)])
    ahead.leave(left)
    later = ahead.write([completed(3)])
    waiting = ahead.left()
    ahead.done(other)

    assert (True, [], [left.path]) == (ahead.has_left, waiting, ahead.left())
    assert later.path != left.path

    ahead.drained(left.path)

    assert (False, [later.path]) == (ahead.has_left, list(tmp_path.iterdir()))


def test_a_left_file_is_claimed_after_its_process(tmp_path: Path) -> None:
    """As any other: nobody else was told of its groups."""
    ahead = Ahead(tmp_path, "one")
    ahead.leave(ahead.write([completed(1)]))
    ahead.close()

    assert [[completed(1)]] == left_behind(tmp_path)


async def test_what_the_dead_left_waits_beside_what_the_living_spooled(tmp_path: Path) -> None:
    """What a living process keeps while its group is under way does not; nothing of it is claimed by looking."""
    dead, living, spool = Ahead(tmp_path, "dead"), Ahead(tmp_path, "living"), Spool(tmp_path, "living")
    left, _ = dead.write([completed(1)]), living.write([completed(2)])
    await spool.append([completed(3)])
    under_way = waiting_bytes(tmp_path)
    dead.close()

    assert (spool.size_bytes, spool.size_bytes + left.size_bytes) == (under_way, waiting_bytes(tmp_path))
    assert [[completed(1)]] == left_behind(tmp_path)
