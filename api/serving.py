"""What processes that serve HTTP share: the listening socket, and uvicorn without its signal handlers."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator

import uvicorn

from schemas.errors import ConfigurationError

BACKLOG = 1_024


class Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


def listen(name: str, host: str, port: int) -> socket.socket:
    """A socket that listens; raises ConfigurationError when it can't, with the setting to change."""
    try:
        return listening_socket(host, port)
    except OSError as error:
        where = f"{host}:{port}"
        if error.errno == errno.EADDRINUSE:
            raise ConfigurationError(f"{where} is taken; set QUAESTOR_{name.upper()}_PORT to a free port") from None
        raise ConfigurationError(f"the {name} can't listen on {where}: {error.strerror}") from None


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket that listens; raises OSError when the address is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except BaseException:  # also when interrupted: the descriptor must not stay open
        listener.close()
        raise
    return listener
