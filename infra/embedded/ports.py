"""Which port each part of the stack listens on, always on loopback."""

from __future__ import annotations

import contextlib
import errno
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping
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
    """Distinct ports of a range that are free now and held by nobody, picked at random; hold them until they are used.

    Raises ConfigurationError when none is left.
    """
    drawn = SystemRandom().sample(among, len(among))
    found = list(islice((port for port in drawn if _can_bind(port, beside_holders=False)), count))
    if len(found) < count:
        raise ConfigurationError(f"no port from {among.start} to {among.stop - 1} is free")
    return found


@contextlib.contextmanager
def held(ports: Iterable[int]) -> Iterator[None]:
    """Nobody draws these while the block lasts; a server may still take them, and one that is taken stays as it is.

    Linux lets a server listen on a port that somebody else has bound without listening, as long as both say
    SO_REUSEADDR; other systems don't, and there nothing is held.
    """
    with contextlib.ExitStack() as sockets:
        for port in ports if sys.platform == "linux" else ():
            holder = sockets.enter_context(socket.socket())
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                holder.bind((LOOPBACK, port))
        yield


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port; 0 is no port."""
    # Connections of an earlier server that are still winding down don't keep a new one from listening.
    return bool(port) and _can_bind(port, beside_holders=True)


def _can_bind(port: int, *, beside_holders: bool) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(beside_holders))
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
