"""The control plane as the console asks it: one question after the other, in a thread that keeps a session open."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from typing import NamedTuple, TypeVar

from api.control.session import ControlSession, Write
from processors.control import ControlState
from schemas.errors import CodecError, IntegrityError, LogError
from schemas.events import ControlEvent

Answer = TypeVar("Answer")


class Written(NamedTuple):
    """What a write recorded, and the state it was decided on."""

    events: list[ControlEvent]
    before: ControlState


class ControlPlane:
    """Reads and changes of the control plane; all of it raises LogError. Closed by its maker.

    The session is opened by the first question, so a console that is never asked keeps no Kafka client; it is left
    when the log fails, and the next question opens another.
    """

    def __init__(self, sit: Callable[[], AbstractContextManager[ControlSession]]) -> None:
        """`sit` opens a session, within the thread that will use it."""
        self._sit = sit
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="control")
        self._open = ExitStack()
        self._session: ControlSession | None = None

    async def state(self) -> ControlState:
        """As of the end of the control topic now."""
        return await self._ask(ControlSession.refresh)

    async def write(self, write: Write) -> Written:
        """As ControlSession.write: answered once Kafka has acknowledged it. Raises what that raises."""

        def made(session: ControlSession) -> Written:
            events = session.write(write)
            return Written(events, session.state)

        return await self._ask(made)

    async def close(self) -> None:
        """Wait for the question under way, and let go."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._leave)
        self._thread.shutdown()

    async def _ask(self, question: Callable[[ControlSession], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._answered, question)

    def _answered(self, question: Callable[[ControlSession], Answer]) -> Answer:
        try:
            if self._session is None:
                self._session = self._open.enter_context(self._sit())
            return question(self._session)
        except (LogError, IntegrityError, CodecError):
            self._leave()
            raise

    def _leave(self) -> None:
        self._session = None
        self._open.close()
