"""The fork server's own process: imports once what our processes share, then forks each of them from that.

`python -P -m infra.embedded.fork_server_process DESCRIPTOR MODULE...`. The descriptor is a socket. A request is one
message on it, a JSON object with the descriptor of a log beside it, and is answered by `{"pid": …}`; a forked process
that ends is told by `{"ended": …, "code": …}`. Nothing is begun before a fork but imports: no thread, no event loop, no
client. A forked process goes on as `python -P -m` would.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import runpy
import select
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Self

from infra.embedded.process import die_with_parent

REQUEST_BYTES_MAX = 4 * 1024 * 1024
WAKE_BYTES = 4096
#: Where /proc/self/stat says which memory holds the command line, counted after the name in brackets.
ARGUMENTS_BEGIN, ARGUMENTS_END = 45, 46
PR_SET_NAME = 15
NULL_BYTE = b"\0"


@dataclass(frozen=True, slots=True)
class Order:
    """What a forked process shall be; `log` is an open descriptor."""

    module: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    directory: str | None
    log: int

    @classmethod
    def receive(cls, channel: socket.socket) -> Self | None:
        """The next one; None when nobody will ask any more."""
        message, descriptors, _, _ = socket.recv_fds(channel, REQUEST_BYTES_MAX, 1)
        if not message:
            return None
        asked = json.loads(message)
        return cls(asked["module"], tuple(asked["arguments"]), asked["environment"], asked["directory"], descriptors[0])


class ForkServer:
    """Forks on request, and tells who ended."""

    def __init__(self, channel: socket.socket) -> None:
        """Begin to notice children that end."""
        self._channel = channel
        self._woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._wake)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only so that the descriptor is written

    def serve(self) -> Order | None:
        """Work until nobody asks any more; in a forked process, answers at once what that shall be."""
        poller = select.poll()
        poller.register(self._channel, select.POLLIN)
        poller.register(self._woken, select.POLLIN)
        while True:
            for descriptor, _ in poller.poll():
                if descriptor == self._woken:
                    os.read(self._woken, WAKE_BYTES)
                    self._tell_ended()
                elif (order := Order.receive(self._channel)) is None:
                    return None
                elif self._fork(order):
                    return order

    def _fork(self, order: Order) -> bool:
        """Whether this is the forked process."""
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._leave()
            become(order, parent)
            return True
        os.close(order.log)
        self._tell({"pid": pid})
        return False

    def _leave(self) -> None:
        """Keep nothing of the server in a forked process."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.close(self._wake)
        os.close(self._woken)
        self._channel.close()

    def _tell_ended(self) -> None:
        """Reap whoever ended: signals that come together are one."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._tell({"ended": pid, "code": os.waitstatus_to_exitcode(status)})

    def _tell(self, message: Mapping[str, Any]) -> None:
        self._channel.send(json.dumps(message).encode())


def become(order: Order, parent: int) -> None:
    """Make this forked process what a process of its own would be: session, death, log, environment, title."""
    os.setsid()
    die_with_parent()
    if os.getppid() != parent:  # it was gone before the signal was armed
        os._exit(1)
    for descriptor in (1, 2):
        os.dup2(order.log, descriptor)
    os.close(order.log)
    if order.directory is not None:
        os.chdir(order.directory)
    os.environ.clear()
    os.environ.update(order.environment)
    sys.argv = [order.module, *order.arguments]
    set_title(("quaestor", *order.arguments))


def set_title(words: tuple[str, ...]) -> None:
    """Let `ps` and `top` show these words: the command line lies in this process's own memory."""
    fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(") ")[2].split()
    begin, end = int(fields[ARGUMENTS_BEGIN]), int(fields[ARGUMENTS_END])
    title = NULL_BYTE.join(word.encode() for word in words)[: end - begin - 1]
    ctypes.memmove(begin, title.ljust(end - begin, NULL_BYTE), end - begin)
    ctypes.CDLL(None).prctl(PR_SET_NAME, "-".join(words[1:]).encode() + NULL_BYTE)


def main() -> None:
    """Import, serve, and in a forked process run its module."""
    for module in sys.argv[2:]:
        import_module(module)
    if (threads := len(list(Path("/proc/self/task").iterdir()))) != 1:
        sys.stderr.write(f"{threads} threads run after the imports: a process with threads can't be forked\n")
        os._exit(1)  # without waiting for them
    gc.freeze()  # so that no collection of a forked process copies what it shares
    order = ForkServer(socket.socket(fileno=int(sys.argv[1]))).serve()
    if order is not None:
        runpy.run_module(order.module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
