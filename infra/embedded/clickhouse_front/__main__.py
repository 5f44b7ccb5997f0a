"""`python -m infra.embedded.clickhouse_front --path DIR --port N`: own a data directory, serve it until told to stop.

One process and one worker: the engine can't be shared or forked. It starts in its own session, because the engine
signals its whole process group when it is told to shut down by SQL.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import TextIO

import structlog
import uvicorn

from infra.embedded.clickhouse_front import limits
from infra.embedded.clickhouse_front.app import Front
from infra.embedded.clickhouse_front.engine import Engine
from infra.embedded.clickhouse_front.faults import EngineError
from infra.embedded.clickhouse_front.users import User

LOOPBACK = ("127.0.0.1", "::1", "localhost")
#: How often the parent is looked for.
PARENT_SECONDS = 0.5
log = structlog.get_logger()


class OneServer(uvicorn.Server):
    """A server that ends with exit code 0 on SIGTERM and SIGINT; uvicorn's own raises the signal again."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let a signal end the serving, nothing more."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.handle_exit)
        yield


def main(arguments: list[str] | None = None) -> int:
    """Run until told to stop; the exit code is 0 after a stop, 1 when it can't start."""
    options = _options(arguments)
    _stand_alone(options.parent)
    try:
        users = _users(options)
        lock = _lock(options.path)
        configuration = _configuration(options.path)
    except OSError as error:
        return _fail(f"{error.filename or options.path}: {error.strerror}")
    with lock:
        try:
            owner = Engine(options.path / "data", configuration)
        except EngineError as error:
            return _fail(str(error))
        front = Front(owner, users)
        server = OneServer(_uvicorn(front, options))
        try:
            server.run()
        finally:
            front.close()
            owner.close()
    return 0 if server.started else 1


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="clickhouse_front", description="ClickHouse over HTTP on one machine.")
    parser.add_argument("--path", type=Path, required=True, help="data directory; made when missing")
    parser.add_argument("--host", default="127.0.0.1", choices=LOOPBACK, help="loopback address to listen on")
    parser.add_argument("--port", type=int, required=True, help="port to listen on")
    parser.add_argument("--password-file", type=Path, help="password of user default; none when left out")
    parser.add_argument("--reader-password-file", type=Path, help="password of the read-only user reader")
    parser.add_argument("--parent", type=int, default=0, help="parent process to end with")
    return parser.parse_args(arguments)


def _stand_alone(parent: int) -> None:
    """Leave the starter's process group, and end with the process named `parent`."""
    with contextlib.suppress(OSError):
        os.setsid()
    if parent:
        threading.Thread(target=_follow, args=(parent,), name="follow-parent", daemon=True).start()


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


def _lock(path: Path) -> TextIO:
    """Hold the directory for this process; raises OSError when another has it."""
    path.mkdir(parents=True, exist_ok=True)
    lock = (path / "front.lock").open("a+", encoding="ascii")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.seek(0)
        owner = lock.read().strip() or "unknown"
        lock.close()
        raise OSError(error.errno, f"another ClickHouse has this directory: process {owner}", str(path)) from error
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def _configuration(path: Path) -> Path:
    """Write the engine's two files beside the data, with the paths of this machine filled in."""
    directory = (path / "config").resolve()
    directory.mkdir(exist_ok=True)
    shipped = files("infra.embedded.clickhouse_front")
    users = directory / "users.xml"
    users.write_text(shipped.joinpath("users.xml").read_text(encoding="utf-8"), encoding="utf-8")
    options = shipped.joinpath("cfg.xml").read_text(encoding="utf-8").replace("{users}", str(users))
    (directory / "cfg.xml").write_text(options, encoding="utf-8")
    return directory / "cfg.xml"


def _users(options: argparse.Namespace) -> dict[str, User]:
    default = User("default", _secret(options.password_file), readonly=False)
    return {"default": default, "reader": User("reader", _secret(options.reader_password_file), readonly=True)}


def _secret(path: Path | None) -> str:
    return path.read_text(encoding="utf-8").strip() if path else ""


def _uvicorn(front: Front, options: argparse.Namespace) -> uvicorn.Config:
    return uvicorn.Config(
        front,
        host=options.host,
        port=options.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level=logging.WARNING,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=limits.SHUTDOWN_SECONDS,
    )


def _fail(message: str) -> int:
    sys.stderr.write(f"clickhouse_front: {message}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
