"""Which port each part of the stack listens on, always on loopback."""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from itertools import islice
from random import SystemRandom

from infra.embedded.errors import PortTakenError
from schemas.errors import ConfigurationError

LOOPBACK = "127.0.0.1"
#: Below those that systems give to outgoing connections (Linux from 32768 on, others from 49152): one of these would
#: take the port of a server between the look and its start, which are seconds apart with Java.
AUTO_PORTS = range(20_000, 28_000)
#: Those that only the stack itself knows, such as of each process' status: drawn while others are not taken yet.
INNER_PORTS = range(28_000, 32_000)


@dataclass(frozen=True, slots=True)
class PortPlan:
    """The ports of one stack; the field names are those of the settings without `_port`."""

    kafka: int = 19092
    registry: int = 18081
    postgres: int = 15432
    redis: int = 16379
    clickhouse: int = 18123
    gateway: int = 8080
    console: int = 8081
    simulator: int = 18090

    @classmethod
    def auto(cls, preferred: Mapping[str, int] | None = None) -> PortPlan:
        """Free ports; those of `preferred` (an earlier run's) where they are still free."""
        wanted = preferred or {}
        kept = {each.name: wanted[each.name] for each in fields(cls) if is_free(wanted.get(each.name, 0))}
        names = [each.name for each in fields(cls) if each.name not in kept]
        return replace(cls(**dict(zip(names, free_ports(len(names)), strict=True))), **kept)

    def of(self, part: str) -> int:
        """The port of a part."""
        return int(getattr(self, part))


def free_ports(count: int, among: range = AUTO_PORTS) -> list[int]:
    """Distinct ports of a range that are free now, picked at random; nothing reserves them.

    Raises ConfigurationError when none is left.
    """
    drawn = SystemRandom().sample(among, len(among))
    found = list(islice((port for port in drawn if is_free(port)), count))
    if len(found) < count:
        raise ConfigurationError(f"no port from {among.start} to {among.stop - 1} is free")
    return found


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port; 0 is no port."""
    if not port:
        return False
    with socket.socket() as probe:
        # Connections of an earlier server that are still winding down don't keep a new one from listening.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            if error.errno in {errno.EADDRINUSE, errno.EACCES}:
                return False
            raise
    return True


def check_free(part: str, port: int) -> None:
    """Raise PortTakenError with the setting to change when the port of a part is taken."""
    if not is_free(port):
        raise PortTakenError(part, port, f"QUAESTOR_{part.upper()}_PORT")
