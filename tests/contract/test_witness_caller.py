"""What every way to a witness must do, asked of the one in this process and of HTTP to a witness that runs."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from api.audit.witness_client import HttpWitnesses
from processors.audit.note import Verifier, parse_vkey, signatures_of
from processors.audit.witness import SIZE_TYPE, Answer, followed
from schemas.limits import WITNESS_ANSWER_BYTES_MAX
from sinks.audit.witnesses import MemoryWitnesses, WitnessCaller
from tests.support.audit import entries_of
from tests.support.witnesses import AskingLog, WitnessProcess, cosigner, witness_process

SECONDS = 10.0
#: Every test has a log of its own, which the witness follows from the start.
LOGS = [AskingLog(f"log.example/{number}") for number in range(20)]
WITNESS = cosigner("one")


class World:
    """A caller and a witness that it reaches."""

    def __init__(self, caller: WitnessCaller, url: str, nowhere: str, verifier: Verifier, log: AskingLog) -> None:
        """The witness has seen nothing of this log."""
        self.caller, self.url, self.nowhere, self.verifier, self.log = caller, url, nowhere, verifier, log

    async def ask(self, body: bytes) -> Answer:
        """An answer, which there must be."""
        said = await asyncio.wait_for(self.caller.add_checkpoint(self.url, body), SECONDS)
        assert isinstance(said, Answer)
        return said


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WitnessProcess]:
    """One witness for the module."""
    vkeys = [log.signer.verifier.vkey for log in LOGS]
    with witness_process(tmp_path_factory.mktemp("witness"), "one.example/witness", vkeys) as running:
        yield running


@pytest.fixture(scope="module")
def logs() -> Iterator[AskingLog]:
    """Logs that nobody has asked for yet."""
    return iter(LOGS)


@pytest.fixture(params=["memory", "process"])
async def world(request: pytest.FixtureRequest, logs: Iterator[AskingLog]) -> AsyncIterator[World]:
    """Each kind."""
    log = next(logs)
    if request.param == "memory":
        memory = MemoryWitnesses()
        memory.add("memory", WITNESS, followed([log.signer.verifier]))
        yield World(memory, "memory", "nowhere", WITNESS.verifier, log)
        return
    running: WitnessProcess = request.getfixturevalue("process")
    http = HttpWitnesses()
    yield World(http, running.url, f"http://127.0.0.1:{free_port()}", parse_vkey(running.vkey), log)
    await http.close()


def free_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


async def test_a_checkpoint_is_cosigned(world: World) -> None:
    """Step by step, under the witness's key."""
    for old_size, size in itertools.pairwise((0, 3, 3, 8, 40)):
        said = await world.ask(world.log.ask(old_size, size))
        assert 200 == said.status
        assert [world.verifier] == list(signatures_of(world.log.checkpoint(size) + said.body, [world.verifier])[1])


async def test_another_size_is_a_conflict(world: World) -> None:
    """With the size that the witness stands at."""
    await world.ask(world.log.ask(0, 7))

    said = await world.ask(world.log.ask(3, 9))
    assert (409, "7\n", SIZE_TYPE) == said


async def test_a_second_history_is_refused(world: World) -> None:
    """Whatever its proof shows."""
    fork = AskingLog(world.log.signer.name, [b"another", *entries_of(40)[1:]])
    await world.ask(world.log.ask(0, 7))

    same, larger = await world.ask(fork.ask(7, 7)), await world.ask(fork.ask(7, 9))
    assert [422, 422] == [same.status, larger.status]
    assert "two histories" in same.body
    assert 200 == (await world.ask(world.log.ask(7, 9))).status


async def test_rubbish_strangers_and_wrong_signatures_are_refused(world: World) -> None:
    """Each with its status."""
    stranger = AskingLog("stranger.example/log")
    altered = world.log.ask(0, 5).replace(b"\n5\n", b"\n6\n")

    assert [400, 404, 403] == [(await world.ask(body)).status for body in (b"what", stranger.ask(0, 5), altered)]


async def test_two_at_once_never_both_pass(world: World) -> None:
    """Over many rounds: one is cosigned, the other is told where the witness stands."""
    for old_size in range(0, 38, 2):
        asked = [world.ask(world.log.ask(old_size, old_size + step)) for step in (1, 2)]
        said = await asyncio.gather(*asked)
        assert [200, 409] == sorted(each.status for each in said)
        if said[0].status == 200:
            assert f"{old_size + 1}\n" == said[1].body
            assert 200 == (await world.ask(world.log.ask(old_size + 1, old_size + 2))).status


async def test_nobody_there_is_said(world: World) -> None:
    """In words, not as a fault."""
    assert isinstance(await world.caller.add_checkpoint(world.nowhere, world.log.ask(0, 5)), str)


@asynccontextmanager
async def served(answer: Callable[[web.Request], web.StreamResponse | None]) -> AsyncIterator[str]:
    """A server that is no witness; None: it never answers."""
    asked, leaving = asyncio.Event(), asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        await request.read()
        asked.set()
        said = answer(request)
        if said is None:
            await leaving.wait()
            return web.Response()
        return said

    application = web.Application()
    application.router.add_route("*", "/{any:.*}", handle)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", free_port())
    await site.start()
    try:
        yield site.name
    finally:
        leaving.set()
        await runner.cleanup()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda _: web.Response(text="what"), (200, "what")),
        (lambda _: web.Response(status=500, text="oops"), (500, "oops")),
        (lambda _: web.Response(body=b"\xff"), "its answer is not text"),
        (lambda _: web.Response(status=302, headers={"location": "/elsewhere"}, text=""), (302, "")),
        (lambda _: web.Response(body=b"x" * (WITNESS_ANSWER_BYTES_MAX + 1)), "HTTP 200 with more than 65536 bytes"),
    ],
    ids=["garbage", "fault", "bytes", "redirect", "too much"],
)
async def test_what_is_no_witness_is_told_as_it_is(
    answer: Callable[[web.Request], web.StreamResponse], said: tuple[int, str] | str
) -> None:
    """Redirects are not followed, and what is too large is not read."""
    caller = HttpWitnesses()
    async with served(answer) as url:
        found = await caller.add_checkpoint(url, b"old 0\n")
        await caller.close()

    assert said == (found[:2] if isinstance(found, Answer) else found)


async def test_the_prefix_is_kept() -> None:
    """With and without a slash at its end."""
    paths: list[str] = []

    def noted(request: web.Request) -> web.StreamResponse:
        paths.append(f"{request.method} {request.path}")
        return web.Response()

    caller = HttpWitnesses()
    async with served(noted) as url:
        await caller.add_checkpoint(f"{url}/a/prefix", b"")
        await caller.add_checkpoint(f"{url}/a/prefix/", b"")
        await caller.close()

    assert ["POST /a/prefix/add-checkpoint"] * 2 == paths


async def test_a_call_that_is_given_up_lets_go() -> None:
    """A witness that never answers holds nothing back."""
    caller = HttpWitnesses()
    async with served(lambda _: None) as url:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(caller.add_checkpoint(url, b""), 0.05)
        await asyncio.wait_for(caller.close(), SECONDS)


@pytest.mark.parametrize("url", ["", "what", "ftp://127.0.0.1/", "http://[", "http://127.0.0.1:99999/"])
async def test_an_address_that_is_none_is_said(url: str) -> None:
    """In words: one line of the policy must not end the publisher."""
    caller = HttpWitnesses()
    said = await caller.add_checkpoint(url, b"")
    await caller.close()

    assert isinstance(said, str)
