"""`quaestor audit witness` as a process: what it serves, what it refuses, and that it survives being killed."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from random import Random

import aiohttp
import pytest

from processors.audit.note import open_note, parse_vkey
from processors.audit.witness import origin_hash
from schemas.limits import WITNESS_BODY_BYTES_MAX
from tests.support.audit import entries_of
from tests.support.witnesses import ROOT, AskingLog, WitnessProcess, witness_process

LOG = AskingLog()
VKEY = LOG.signer.verifier.vkey
NAME = "one.example/witness"
KILLS = 6


async def post(session: aiohttp.ClientSession, url: str, body: bytes) -> tuple[int, str, str]:
    """Status, content type and text of an answer."""
    async with session.post(url + "add-checkpoint", data=body) as said:
        return said.status, said.headers["content-type"], await said.text()


async def get(session: aiohttp.ClientSession, url: str, path: str) -> tuple[int, str]:
    """Status and text of what is read."""
    async with session.get(url + path) as said:
        return said.status, await said.text()


async def test_what_a_witness_serves(tmp_path: Path) -> None:
    """Cosignatures, conflicts with their type, the cosigned checkpoint for monitors, and that it lives."""
    monitored = f"{origin_hash(LOG.signer.name)}/checkpoint"
    with witness_process(tmp_path, NAME, [VKEY]) as running:
        async with aiohttp.ClientSession() as session:
            assert (200, "ok\n") == await get(session, running.url, "healthz")
            assert 404 == (await get(session, running.url, monitored))[0]
            status, _, line = await post(session, running.url, LOG.ask(0, 5))
            assert (200, (200, LOG.checkpoint(5) + line)) == (status, await get(session, running.url, monitored))
            assert (409, "text/x.tlog.size", "5\n") == await post(session, running.url, LOG.ask(0, 7))
            assert 404 == (await get(session, running.url, f"{origin_hash('another')}/checkpoint"))[0]
            assert 404 == (await get(session, running.url, "../witness.key"))[0]
            assert 405 == (await get(session, running.url, "add-checkpoint"))[0]
            assert 413 == (await post(session, running.url, b"x" * (WITNESS_BODY_BYTES_MAX + 1)))[0]
            async with session.put(running.url + monitored) as put:
                assert 405 == put.status
        assert 2 == len(open_note(LOG.checkpoint(5) + line, [LOG.signer.verifier, parse_vkey(running.vkey)])[1])


async def test_a_refused_history_is_written_down(tmp_path: Path) -> None:
    """The witness keeps what the log signed: it is the proof of two histories."""
    fork = AskingLog(entries=[b"another", *entries_of(40)])
    with witness_process(tmp_path, NAME, [VKEY]) as running:
        async with aiohttp.ClientSession() as session:
            assert 200 == (await post(session, running.url, LOG.ask(0, 5)))[0]
            assert 422 == (await post(session, running.url, fork.ask(5, 5)))[0]
        assert running.process.stdout is not None
        running.process.terminate()
        lines = [json.loads(line) for line in running.process.stdout.read().splitlines()]

    told = next(line for line in lines if line["event"] == "witness_refused")
    assert ("two histories: another root was cosigned at 5 entries", "error") == (told["reason"], told["level"])
    assert fork.ask(5, 5).decode() == told["request"]


async def test_the_key_is_made_once(tmp_path: Path) -> None:
    """The same witness after a restart, with its key for its owner alone; a key file of its own wherever it is."""
    with witness_process(tmp_path, NAME, [VKEY]) as first:
        pass
    with witness_process(tmp_path, NAME, [VKEY]) as second:
        pass

    assert first.vkey == second.vkey
    assert (NAME, True) == (parse_vkey(first.vkey).name, parse_vkey(first.vkey).is_witness)
    assert 0o600 == (tmp_path / "witness.key").stat().st_mode & 0o777


async def test_killed_at_any_moment_it_never_goes_back(tmp_path: Path) -> None:
    """SIGKILL under load, again and again: what was answered is remembered, and no second history is cosigned."""
    random = Random(11)
    fork = AskingLog(entries=[b"another", *entries_of(40)])
    answered = 0
    for _ in range(KILLS):
        with witness_process(tmp_path, NAME, [VKEY]) as running:
            answered = await grow_until_killed(running, answered, random)
    with witness_process(tmp_path, NAME, [VKEY]) as running:
        async with aiohttp.ClientSession() as session:
            known = int((await post(session, running.url, LOG.ask(0, 40)))[2])
            refused = (await post(session, running.url, fork.ask(known, 40)))[0]

    assert answered <= known
    assert (True, 422) == (known > 0, refused)


async def grow_until_killed(running: WitnessProcess, answered: int, random: Random) -> int:
    """Ask for one size after the other until the witness dies; the size that was answered last."""
    known, left = 0, random.randrange(2, 5)
    async with aiohttp.ClientSession() as session:
        while True:
            size, left = min(known + 1, 40), left - 1
            asking = asyncio.create_task(post(session, running.url, LOG.ask(known, size)))
            if left == 0:
                for _ in range(random.randrange(40)):  # somewhere between sending it and its answer
                    await asyncio.sleep(0)
                running.process.send_signal(signal.SIGKILL)
            try:
                status, _, text = await asking
            except aiohttp.ClientError:
                return answered
            known = int(text) if status == 409 else size
            answered = known if status == 200 else answered
            assert status in {200, 409}
            assert known >= answered


async def test_its_port_is_told_when_it_is_taken(tmp_path: Path) -> None:
    """In one line, with exit code 1."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        found = run_witness(tmp_path, "--name", NAME, "--log", VKEY, "--port", str(taken.getsockname()[1]))

    assert 1 == found.returncode
    assert "can't listen on 127.0.0.1" in found.stderr


@pytest.mark.parametrize(
    ("name", "log", "words"),
    [
        ("a b", VKEY, "can't name a key"),
        (NAME, "what", "--log: the key"),
        (NAME, "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2", "a witness's key, not a log's"),
    ],
)
def test_what_it_can_not_be_started_with_is_said(tmp_path: Path, name: str, log: str, words: str) -> None:
    """Before a key is made."""
    found = run_witness(tmp_path, "--name", name, "--log", log)

    assert (1, True) == (found.returncode, words in found.stderr), found.stderr
    assert [] == list(tmp_path.iterdir())


def run_witness(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A witness that ends by itself."""
    command = [sys.executable, "-m", "api.cli.main", "audit", "witness", "--directory", str(directory), *arguments]
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=60)
