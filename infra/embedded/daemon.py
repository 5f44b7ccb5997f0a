"""The supervisor as a process: locks the data directory, runs, and tells whoever started it how it goes.

`python -m infra.embedded.daemon PLAN DESCRIPTOR`: the plan as JSON, and a pipe on which progress is written. `start`,
`up` and `stop` are what the command line calls.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import structlog

from infra.embedded.control import Listener, ask
from infra.embedded.errors import explained
from infra.embedded.ports import PortPlan
from infra.embedded.process import rotate
from infra.embedded.secret_files import secrets_folder
from infra.embedded.servers.clickhouse import python_path
from infra.embedded.supervisor import Plan, Supervisor
from schemas.errors import ConfigurationError, QuaestorError
from streams.diagnostics import configure_diagnostics

LOCK_FILE = "supervisor.lock"
#: No line for so long means that the supervisor is stuck; downloads tell of every megabyte.
SILENCE_SECONDS_MAX = 180.0
STOP_SECONDS_MAX = 120.0
RETRY_SECONDS = 0.1

Events = Iterator[Mapping[str, Any]]


@contextlib.contextmanager
def locked(data: Path) -> Iterator[bool]:
    """Hold the data directory's lock for the block; False when somebody else holds it. Raises ConfigurationError."""
    try:
        secrets_folder(data)
        (data / "logs").mkdir(exist_ok=True)
        handle = (data / LOCK_FILE).open("a")
    except OSError as error:
        raise explained(error, data) from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def is_running(data: Path) -> bool:
    """Whether a supervisor holds the lock of this data directory."""
    try:
        with (data / LOCK_FILE).open("r") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def up(plan: Plan, environment: Mapping[str, str]) -> Events:
    """Start the stack, or repair the one that runs; events until `done` or `failed`.

    The first event is `{"event": "already"}` when it ran before. Raises ConfigurationError when the data directory
    can't be used or its supervisor is stuck.
    """
    deadline = time.monotonic() + STOP_SECONDS_MAX
    content = {"command": "up", "environment": dict(environment), "servers_only": plan.servers_only}
    while time.monotonic() < deadline:
        with locked(plan.data) as free:
            pass
        events = _start(plan) if free else iter(({"event": "already"},))
        first = next(events)
        yield first
        if first["event"] != "already":
            yield from events
            return
        with contextlib.suppress(ConnectionError, FileNotFoundError):  # it is just starting or stopping
            yield from _followed(ask(plan.data, content, SILENCE_SECONDS_MAX), plan.data)
            return
        time.sleep(RETRY_SECONDS)
    raise ConfigurationError(f"another quaestor holds {plan.data} and does not answer: `quaestor down`, then up")


def stop(data: Path) -> Events:
    """Stop the stack of a data directory; events until it is down. Nothing when nothing runs."""
    deadline = time.monotonic() + STOP_SECONDS_MAX
    while is_running(data):
        with contextlib.suppress(ConnectionError, FileNotFoundError):
            yield from _followed(ask(data, {"command": "stop"}, SILENCE_SECONDS_MAX), data)
        if time.monotonic() > deadline:
            raise ConfigurationError(f"the supervisor of {data} does not stop; its pid stands in {data}/state.json")
        time.sleep(RETRY_SECONDS)


def run(plan: Plan, listener: Listener) -> int:
    """Be the supervisor until stopped; the exit code. Used by this module's own process and by `up --foreground`."""
    with locked(plan.data) as free:
        if not free:
            listener.tell({"event": "already"})
            listener.close()
            return 0
        try:
            Supervisor(plan, [listener]).run()
        except QuaestorError as error:
            structlog.get_logger().exception("supervisor_failed")
            listener.tell({"event": "failed", "message": str(error)})
            return 1
        except OSError as error:
            structlog.get_logger().exception("supervisor_failed")
            listener.tell({"event": "failed", "message": str(explained(error, plan.data))})
            return 1
        finally:
            listener.close()
    return 0


def events_of(lines: Iterable[bytes]) -> Events:
    """The events written on a pipe."""
    return (json.loads(line) for line in lines)


def _start(plan: Plan) -> Events:
    """Start the supervisor's process in a session of its own and follow it."""
    log = plan.data / "logs" / "supervisor.log"
    reading, writing = os.pipe()
    try:
        rotate(log)
        with log.open("ab") as output:
            subprocess.Popen(
                (sys.executable, "-P", "-m", "infra.embedded.daemon", encode(plan), str(writing)),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(writing,),
                env={**os.environ, "PYTHONPATH": python_path()},
            )
    except OSError as error:
        os.close(reading)
        raise explained(error, plan.data) from error
    finally:
        os.close(writing)
    with os.fdopen(reading, "rb") as lines:
        yield from _followed(events_of(lines), plan.data)


def _followed(events: Events, data: Path) -> Events:
    """The events, and a `failed` one when they end without an end."""
    ended = False
    try:
        for event in events:
            ended = event["event"] in {"done", "failed", "stopped", "already"}
            yield event
    except TimeoutError:
        raise ConfigurationError(f"the supervisor of {data} does not answer; see {data}/logs/supervisor.log") from None
    if not ended:
        yield {"event": "failed", "message": f"the supervisor ended; see {data}/logs/supervisor.log"}


def encode(plan: Plan) -> str:
    """A plan as one argument of a command line."""
    ports = {name: plan.ports.of(name) for name in asdict(plan.ports)}
    raw = {"data": str(plan.data), "cache": str(plan.cache) if plan.cache else None, "ports": ports}
    return json.dumps(raw | {"servers_only": plan.servers_only})


def decode(text: str) -> Plan:
    """The plan that `encode` wrote."""
    raw = json.loads(text)
    cache = Path(raw["cache"]) if raw["cache"] else None
    return Plan(Path(raw["data"]), PortPlan(**raw["ports"]), cache, raw["servers_only"])


def main() -> int:
    """The process's entry."""
    configure_diagnostics()
    plan, descriptor = decode(sys.argv[1]), int(sys.argv[2])
    os.set_blocking(descriptor, False)
    os.set_inheritable(descriptor, False)
    try:
        return run(plan, Listener(descriptor))
    except ConfigurationError as error:
        with contextlib.suppress(OSError):
            os.write(descriptor, json.dumps({"event": "failed", "message": str(error)}).encode() + b"\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
