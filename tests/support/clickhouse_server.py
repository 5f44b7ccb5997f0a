"""A throw-away ClickHouse for tests: the embedded front on a free loopback port, or the server CLICKHOUSE_URL names."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from infra.embedded.ports import free_ports

ROOT = Path(__file__).parents[2]
START_SECONDS = 60
STOP_SECONDS = 20


class ClickHouseServer:
    """One front with its own data directory."""

    def __init__(self, *options: str) -> None:
        """Make the data directory; `options` go to the front's command line."""
        self.folder = Path(tempfile.mkdtemp(prefix="quaestor-clickhouse-"))
        self.port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{self.port}"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The front's process."""
        return self._process.pid if self._process else 0

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the command without waiting."""
        where = ["--path", str(self.folder / "data"), "--port", str(self.port)]
        command = [sys.executable, "-m", "infra.embedded.clickhouse_front", *where, *self._options]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def start(self) -> None:
        """Start and wait until it answers."""
        log = (self.folder / "log").open("ab")
        where = ["--path", str(self.folder / "data"), "--port", str(self.port)]
        command = [sys.executable, "-m", "infra.embedded.clickhouse_front", *where, *self._options]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        log.close()
        until = time.monotonic() + START_SECONDS
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError((self.folder / "log").read_text())
            time.sleep(0.05)

    def answers(self) -> bool:
        """Whether /ping does."""
        try:
            with urllib.request.urlopen(f"{self.url}/ping", timeout=1) as response:  # noqa: S310 - our own address
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal and wait; returns the exit code."""
        if self._process is None:
            return 0
        self._process.send_signal(number)
        code = self._process.wait(STOP_SECONDS)
        self._process = None
        return code

    def kill(self) -> None:
        """As a crash."""
        self.stop(signal.SIGKILL)

    def remove(self) -> None:
        """Stop and delete everything."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def external_url() -> str | None:
    """A real server to run the same suites against, when there is one."""
    return os.environ.get("CLICKHOUSE_URL")
