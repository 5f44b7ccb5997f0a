"""A spool's folder that can't be written beside a healthy Kafka: what runs is recorded, nothing new begins."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from api.gateway.readiness import Readiness
from api.gateway.spool import SpoolUnwritableError, try_folder
from api.providers.memory import MemoryAnswer
from api.providers.upstream import Call
from schemas.events import RequestEvent, RequestKind
from tests.support.gateway_answers import chat_answer, whole_stream
from tests.support.gateway_world import Response, World, chat, until

REASON = "Not a directory"


def block(directory: Path) -> None:
    """Put a file in the folder's place, as no mode of a folder stops the superuser."""
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()
    directory.write_bytes(b"")


def free(directory: Path) -> None:
    """Take it away again."""
    directory.unlink()


async def opens(world: World) -> None:
    """Wait until new requests are admitted."""
    async with asyncio.timeout(5):
        await until(lambda: world.journal.closed() is None)


async def run(tmp_path: Path, **fields: object) -> tuple[World, Response, Response, Response]:
    """A call in which the folder goes, a call after it, and /readyz meanwhile."""

    def answer(call: Call) -> MemoryAnswer:
        block(world.options.spool_directory)
        return whole_stream() if call.stream else chat_answer()

    async with World(tmp_path, answer) as world:
        first = await world.call(body=chat(**fields))
        return world, first, await world.call(), await world.call("/readyz", method="GET")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_running_call_is_recorded_in_kafka_and_answered(tmp_path: Path, stream: bool) -> None:
    """Its real cost stands in the log at once; nobody has to estimate it."""
    world, response, *_ = await run(tmp_path, stream=stream)

    completed = world.one(RequestEvent, kind=RequestKind.COMPLETED)
    assert (200, 360_000) == (response.status, completed.amount_nano)
    assert {"attempts SUCCEEDED", "budgets COMMITTED", "costs CHARGE"} <= set(world.kinds())


async def test_new_requests_are_503_and_no_provider_is_called(tmp_path: Path) -> None:
    """With Retry-After: another gateway may serve them."""
    world, _, second, _ = await run(tmp_path)

    assert (503, "spool_unwritable", "1") == (second.status, second.error["code"], second.headers["retry-after"])
    assert 1 == len(world.upstream.calls)


async def test_readyz_names_the_reason(tmp_path: Path) -> None:
    """In the system's words."""
    *_, ready = await run(tmp_path)

    spool = ready.json["parts"]["spool"]
    assert (503, False, f"the folder can't be written: {REASON}") == (ready.status, spool["ok"], spool["why"])


async def test_it_opens_when_the_folder_can_be_written_again(tmp_path: Path) -> None:
    """By itself; the next call is kept ahead again, and the metric tells both states."""

    async def metric() -> bytes:
        text = (await world.call("/metrics", method="GET")).body
        return next(line for line in text.splitlines() if line.startswith(b"quaestor_spool_unwritable "))[-3:]

    async with World(tmp_path, lambda _: chat_answer()) as world:
        block(world.options.spool_directory)
        await world.call()
        told = [await metric()]
        free(world.options.spool_directory)
        await opens(world)
        told.append(await metric())
        response = await world.call()
        kept = [path.name for path in world.options.spool_directory.iterdir()]

    assert (200, [b"1.0", b"0.0"]) == (response.status, told)
    assert ["gateway-ahead-000001.spool"] == kept


async def test_a_gateway_that_starts_without_its_folder_stays_closed(tmp_path: Path) -> None:
    """It need not lose a call's protection to find out."""
    world = World(tmp_path)
    directory = world.options.spool_directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    directory.write_bytes(b"")
    world.journal.start()
    async with asyncio.timeout(5):
        await until(lambda: world.journal.unwritable is not None)
    response = await world.call()
    free(directory)
    await opens(world)
    await world.journal.stop()

    assert (503, "spool_unwritable") == (response.status, response.error["code"])


async def test_without_kafka_too_a_call_is_not_answered(tmp_path: Path) -> None:
    """Nobody may count on an answer that is recorded nowhere; the reaper ends it."""

    def answer(_: Call) -> MemoryAnswer:
        block(world.options.spool_directory)
        world.take_log_away()
        return chat_answer()

    async with World(tmp_path, answer) as world:
        response = await world.call()
        reason = world.journal.unwritable
        world.bring_log_back()
        free(world.options.spool_directory)

    assert (500, "not_recorded", REASON) == (response.status, response.error["code"], reason)


def test_a_worker_goes_on_telling_when_its_disk_takes_it_again(tmp_path: Path) -> None:
    """What one worker could not leave for the others, they get the next time."""
    world, directory = World(tmp_path), tmp_path / "run"
    readiness = Readiness(world.control, world.journal, world.holds, directory)  # type: ignore[arg-type]  # stands still
    directory.write_bytes(b"")
    readiness.write(b"quaestor_a 1\n", {"state": "running"})
    readiness.withdraw()
    free(directory)
    directory.mkdir()
    readiness.write(b"quaestor_a 1\n", {"state": "running"})
    told = sorted(path.suffix for path in directory.iterdir())
    readiness.withdraw()

    assert ([".metrics", ".status"], []) == (told, list(directory.iterdir()))


def test_a_trial_leaves_nothing(tmp_path: Path) -> None:
    """Neither in a folder that it made nor where there can be none."""
    try_folder(tmp_path / "a" / "b", "one")
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(SpoolUnwritableError, match=REASON):
        try_folder(tmp_path / "file", "one")
    assert ([], b"") == (list((tmp_path / "a" / "b").iterdir()), (tmp_path / "file").read_bytes())
