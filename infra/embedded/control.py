"""The supervisor's ear: a Unix socket in the data directory that takes one request and answers with lines of JSON.

The socket is reached through the folder's descriptor, because the kernel allows a socket's path 107 bytes and data
directories can be deeper.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOCKET_FILE = "control.sock"
REQUEST_BYTES_MAX = 1024 * 1024
REQUEST_SECONDS_MAX = 5.0
BACKLOG_MAX = 8


@dataclass(frozen=True, slots=True)
class Request:
    """A request of `quaestor up` or `down`, and the line it is answered on."""

    command: str
    content: Mapping[str, Any]
    listener: Listener


class Listener:
    """Somebody who follows what the supervisor does; one who went away is no trouble."""

    def __init__(self, descriptor: int) -> None:
        """Take over a writable descriptor."""
        self._descriptor: int | None = descriptor
        self._lock = threading.Lock()

    def tell(self, event: Mapping[str, Any]) -> None:
        """Write one line."""
        with self._lock:
            if self._descriptor is None:
                return
            try:
                os.write(self._descriptor, json.dumps(event).encode() + b"\n")
            except OSError:
                self._close()

    def close(self) -> None:
        """End the answer."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class Listeners:
    """All who follow the supervisor now; used by its main thread and the one that takes requests."""

    def __init__(self, listeners: Iterable[Listener] = ()) -> None:
        """Begin with these."""
        self._listeners = set(listeners)
        self._lock = threading.Lock()

    def add(self, listener: Listener) -> None:
        """One more, unless it is there."""
        with self._lock:
            self._listeners.add(listener)

    def tell(self, event: Mapping[str, Any]) -> None:
        """Tell all."""
        with self._lock:
            for listener in self._listeners:
                listener.tell(event)

    def end(self, event: Mapping[str, Any]) -> None:
        """Tell all for the last time."""
        with self._lock:
            for listener in self._listeners:
                listener.tell(event)
                listener.close()
            self._listeners.clear()


class ControlServer:
    """Takes requests on a thread and hands them to `handle`, which must not block for long."""

    def __init__(self, data: Path, handle: Callable[[Request], None]) -> None:
        """Listen at once; raises OSError when the folder can't be written."""
        self._handle = handle
        self._path = data / SOCKET_FILE
        self._path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX)
        with _short(data) as path:
            self._socket.bind(path)
        self._path.chmod(0o600)
        self._socket.listen(BACKLOG_MAX)
        self._thread = threading.Thread(target=self._serve, name="control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take no more requests."""
        self._path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return  # closed
            with contextlib.suppress(OSError, ValueError, KeyError), connection:
                connection.settimeout(REQUEST_SECONDS_MAX)
                content = json.loads(_line(connection))
                listener = Listener(os.dup(connection.fileno()))
                self._handle(Request(content["command"], content, listener))


def ask(data: Path, content: Mapping[str, Any], seconds_max: float) -> Iterator[dict[str, Any]]:
    """Send a request and give the lines of its answer as they come.

    Raises OSError when nobody listens, TimeoutError when no line came for `seconds_max`.
    """
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as connection:
        connection.settimeout(seconds_max)
        with _short(data) as path:
            connection.connect(path)
        connection.sendall(json.dumps(content).encode() + b"\n")
        with connection.makefile("rb") as lines:
            for line in lines:
                yield json.loads(line)


def _line(connection: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n") and len(line) < REQUEST_BYTES_MAX:
        part = connection.recv(65536)
        if not part:
            break
        line += part
    return line


@contextlib.contextmanager
def _short(data: Path) -> Iterator[str]:
    """A path to the socket that is short however deep the folder is."""
    folder = os.open(data, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{SOCKET_FILE}"
    finally:
        os.close(folder)
