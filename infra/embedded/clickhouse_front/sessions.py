"""Sessions: handles that live across requests, so that SET, USE and temporary tables last."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from infra.embedded.clickhouse_front import engine, limits
from infra.embedded.clickhouse_front.faults import (
    LIMIT_EXCEEDED,
    SESSION_IS_LOCKED,
    SESSION_NOT_FOUND,
    EngineError,
    FrontError,
)
from infra.embedded.clickhouse_front.requests import FrontRequest

VALUES = "SELECT name, changed, value FROM system.settings WHERE name IN "


@dataclass
class _Session:
    handle: Any
    lock: threading.Lock = field(default_factory=threading.Lock)
    expires_seconds: float = 0.0


class Sessions:
    """The open sessions of all users; bounded, each used by one request at a time. Thread-safe."""

    def __init__(self, owner: engine.Engine) -> None:
        """Nothing is open at first."""
        self._engine = owner
        self._sessions: dict[tuple[str, str], _Session] = {}
        self._lock = threading.Lock()

    @property
    def are_open(self) -> bool:
        """Whether there is any."""
        return bool(self._sessions)

    def start(self, user: str, request: FrontRequest) -> engine.Answer:
        """Run a request in its session; raises FrontError. Close the answer: the session is locked until then."""
        session = self._acquire((user, str(request.session_id)), must_exist=request.session_must_exist)
        before: dict[str, str | None] = {}
        try:
            before = _values(session.handle, request.settings)
            answer = engine.run(session.handle, request, in_session=True)
        except BaseException:
            self._release(session, request, before)
            raise
        answer.close = engine.closer(answer, lambda: self._release(session, request, before))
        return answer

    def expire(self, now_seconds: float) -> None:
        """Close sessions whose time has passed."""
        with self._lock:
            for name, session in list(self._sessions.items()):
                if now_seconds >= session.expires_seconds and session.lock.acquire(blocking=False):
                    del self._sessions[name]
                    session.handle.close()

    def close(self) -> None:
        """Close all; used once nothing runs any more."""
        with self._lock:
            for session in self._sessions.values():
                session.handle.close()
            self._sessions.clear()

    def _acquire(self, name: tuple[str, str], *, must_exist: bool) -> _Session:
        with self._lock:
            session = self._sessions.get(name)
            if session is None:
                if must_exist:
                    raise FrontError(SESSION_NOT_FOUND, f"Session {name[1]} not found")
                if len(self._sessions) >= limits.SESSIONS_MAX:
                    raise FrontError(LIMIT_EXCEEDED, f"{limits.SESSIONS_MAX} sessions are open")
                session = self._sessions[name] = _Session(self._engine.open())
            session.expires_seconds = time.monotonic() + limits.SESSION_SECONDS_MAX
        # The client may send the next request before this side has let go of the one before.
        if not session.lock.acquire(timeout=limits.SESSION_WAIT_SECONDS):
            raise FrontError(SESSION_IS_LOCKED, f"Session {name[1]} is locked by a concurrent client")
        return session

    def _release(self, session: _Session, request: FrontRequest, before: Mapping[str, str | None]) -> None:
        """Undo the request's own settings (a token left behind would drop every later insert), then let go."""
        try:
            for setting, value in before.items():
                engine.statement(session.handle, f"SET {setting}={'DEFAULT' if value is None else engine.quote(value)}")
        except EngineError:
            session.expires_seconds = 0.0
        else:
            session.expires_seconds = time.monotonic() + request.session_seconds
        finally:
            session.lock.release()


def _values(handle: Any, settings: Mapping[str, str]) -> dict[str, str | None]:
    """The session's own values of these settings; None where it has the default."""
    if not settings:
        return {}
    names = ", ".join(engine.quote(name) for name in settings)
    text = engine.statement(handle, VALUES + f"({names})")
    rows = [line.split("\t") for line in text.splitlines()]
    return {name: value if changed == "1" else None for name, changed, value in rows}
