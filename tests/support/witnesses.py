"""Logs that ask witnesses, and witnesses as processes of their own."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from processors.audit.checkpoint import Checkpoint, sign_checkpoint
from processors.audit.note import Signer, Verifier
from processors.audit.witness import AddCheckpoint, Cosigner
from tests.support.audit import entries_of, naive_consistency, naive_root

ROOT = Path(__file__).parents[2]


def seed(name: str) -> bytes:
    """A key's seed, the same for the same name."""
    return sha256(name.encode()).digest()


def cosigner(name: str) -> Cosigner:
    """A witness's key."""
    return Cosigner(Signer(f"{name}.example/witness", seed(name)))


class AskingLog:
    """A log of made-up entries that signs what it is told to."""

    def __init__(self, origin: str = "log.example/asking", entries: Sequence[bytes] | None = None) -> None:
        """With a history of its own, or the usual one."""
        self.signer = Signer(origin, seed(origin))
        self.entries = entries_of(40) if entries is None else entries

    @property
    def logs(self) -> dict[str, list[Verifier]]:
        """What a witness that follows this log knows."""
        return {self.signer.name: [self.signer.verifier]}

    def checkpoint(self, size: int) -> str:
        """The signed checkpoint at a size."""
        return sign_checkpoint(Checkpoint(self.signer.name, size, naive_root(self.entries[:size])), self.signer)

    def proof(self, old_size: int, size: int) -> list[bytes]:
        """The consistency proof between two sizes."""
        return naive_consistency(old_size, self.entries[:size]) if old_size else []

    def ask(self, old_size: int, size: int) -> bytes:
        """A request's body."""
        return AddCheckpoint(old_size, tuple(self.proof(old_size, size)), self.checkpoint(size)).encode()


class WitnessProcess(NamedTuple):
    """A witness that runs."""

    process: subprocess.Popen[str]
    vkey: str
    url: str


@contextlib.contextmanager
def witness_process(directory: Path, name: str, vkeys: Sequence[str], port: int = 0) -> Iterator[WitnessProcess]:
    """`quaestor audit witness` in a process of its own, until the end of the block; it may be killed before."""
    command = [sys.executable, "-m", "api.cli.main", "audit", "witness", "--name", name, "--port", str(port)]
    command += ["--directory", str(directory), *(word for vkey in vkeys for word in ("--log", vkey))]
    with (
        (directory / "witness.log").open("a") as log,
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        assert process.stdout is not None
        try:
            vkey, listening = process.stdout.readline().strip(), process.stdout.readline().strip()
            assert "listens on" in listening, (directory / "witness.log").read_text()
            yield WitnessProcess(process, vkey, f"http://{listening.rsplit(' ', 1)[1]}/")
        finally:
            process.terminate()
