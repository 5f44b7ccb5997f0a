"""Whether this worker can serve, part by part, and what all workers say together.

Workers share nothing but a directory: each writes its metrics there once a second, and whichever is asked adds them up.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import structlog

from api.gateway.journal import Journal
from sinks.redis.holds import HoldStore
from streams.control import ControlFollower

log = structlog.get_logger(__name__)

#: A worker that has not written for so long is gone.
STALE_SECONDS = 10.0
METRICS_SUFFIX = ".metrics"
STATUS_SUFFIX = ".status"


class Readiness:
    """Looks at the parts; asks nobody, so it is cheap and never hangs."""

    def __init__(
        self,
        control: ControlFollower,
        journal: Journal,
        holds: HoldStore,
        directory: Path | None = None,
        schemas_known: Callable[[], bool] = lambda: True,
    ) -> None:
        """`directory` is shared by the workers; None when there is one only."""
        self._control, self._journal, self._holds = control, journal, holds
        self._directory, self._schemas_known = directory, schemas_known
        self._is_written = True

    def parts(self) -> dict[str, dict[str, Any]]:
        """Each part: whether it is usable, and if not, why."""
        control, journal = self._control, self._journal
        state = control.state
        closed = journal.closed()
        reasons = sorted({reason.value for tenant in state.tenants if (reason := self._holds.closed_reason(tenant))})
        return {
            "kafka": _part(not journal.away, "the log did not answer"),
            "schemas": _part(self._schemas_known(), "the schema registry did not answer"),
            "control": _part(control.caught_up, "the control topic is not read yet", lag_events=control.lag_events),
            "spool": _part(
                journal.unwritable is None and (closed is None or closed.code != "spool_draining"),
                f"the folder can't be written: {journal.unwritable}"
                if journal.unwritable is not None
                else "events are waiting to be written",
                bytes=journal.spooled_bytes,
            ),
            "admission": _part(not reasons, ", ".join(reasons)),
            "prices": _part(bool(state.prices), "no price book is published"),
        }

    def ready(self) -> bool:
        """Whether every part is usable."""
        return all(part["ok"] for part in self.parts().values())

    def write(self, metrics: bytes, status: dict[str, Any]) -> None:
        """Leave what this worker says for the others. A disk that does not take it is tried again the next time."""
        if self._directory is None:
            return
        try:
            _write(self._directory / f"{os.getpid()}{METRICS_SUFFIX}", metrics)
            _write(self._directory / f"{os.getpid()}{STATUS_SUFFIX}", msgspec.json.encode(status))
        except OSError as error:
            if self._is_written:
                log.warning("status_not_written", directory=str(self._directory), error=error.strerror)
            self._is_written = False
        else:
            self._is_written = True

    def withdraw(self) -> None:
        """Take back what this worker left."""
        if self._directory is not None:
            for suffix in (METRICS_SUFFIX, STATUS_SUFFIX):
                with contextlib.suppress(OSError):  # nobody believes an old one
                    (self._directory / f"{os.getpid()}{suffix}").unlink()

    def merged(self, own: bytes) -> bytes:
        """The metrics of this worker added to those of the others."""
        if self._directory is None:
            return own
        others = [path for path in fresh_files(self._directory, METRICS_SUFFIX) if path.stem != str(os.getpid())]
        return merge([own, *(path.read_bytes() for path in others)])


def fresh_files(directory: Path, suffix: str) -> list[Path]:
    """What living workers left."""
    oldest = time.time() - STALE_SECONDS
    return sorted(path for path in directory.glob(f"*{suffix}") if path.stat().st_mtime >= oldest)


def merge(texts: list[bytes]) -> bytes:
    """Sum Prometheus texts sample by sample; each family stands together under its own comments."""
    families: dict[str, dict[str, float | None]] = {}
    family: dict[str, float | None] = {}
    for line in (line for text in texts for line in text.decode().splitlines()):
        if line.startswith("# HELP "):
            family = families.setdefault(line.split(" ")[2], {})
        if line.startswith("#"):
            family.setdefault(line, None)
        else:
            name, _, value = line.rpartition(" ")
            family[name] = (family.get(name) or 0.0) + float(value)
    lines = [(line, value) for family in families.values() for line, value in family.items()]
    return "".join(f"{line}\n" if value is None else f"{line} {value}\n" for line, value in lines).encode()


def _part(usable: bool, why: str, **more: Any) -> dict[str, Any]:
    return {"ok": usable, **({} if usable else {"why": why}), **more}


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(".writing")
    temporary.write_bytes(content)
    temporary.replace(path)
