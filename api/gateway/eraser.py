"""Erasures as the control topic tells them, carried out in one worker and in the vault."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet

import structlog

from api.gateway.parts import Control
from api.gateway.subjects import Subjects
from processors.control import Erasure
from schemas.errors import StoreUnavailableError
from sinks.postgres.vault import SubjectVault

log = structlog.get_logger(__name__)

LOOK_SECONDS = 0.25
#: How often the vault is cleared of all that was ever erased: a backup may bring rows back at any time.
SWEEP_SECONDS = 60.0


class Eraser:
    """Lets go of keys that this worker keeps, and deletes rows that the vault has no longer to have."""

    def __init__(
        self, control: Control, subjects: Subjects, vault: SubjectVault, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Nothing is swept yet: at a start, all that was ever erased is."""
        self._control, self._subjects, self._vault, self._clock = control, subjects, vault, clock
        self._seen: Mapping[str, Erasure] = {}
        self._swept: AbstractSet[str] = frozenset()
        self._sweep_at = 0.0

    async def run(self) -> None:
        """Look again and again, for as long as it is not cancelled."""
        while True:
            try:
                await self.look()
            except Exception:  # it must not end silently: without it keys would be kept for longer than promised
                log.exception("eraser_failed")
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Do what is due; a vault that is away is tried again at the next look."""
        self._subjects.forget()
        erasures = self._control.state.erasures
        if erasures is not self._seen:
            self._subjects.forget_erased()
            self._seen = erasures
        is_due = self._clock() >= self._sweep_at
        wanted = erasures.keys() if is_due else erasures.keys() - self._swept
        if not wanted:
            return
        try:
            destroyed = await self._vault.destroy(wanted)
        except StoreUnavailableError as error:
            log.warning("erasures_wait_for_the_vault", error=str(error))
            return
        self._swept = erasures.keys()
        if is_due:
            self._sweep_at = self._clock() + SWEEP_SECONDS
        if destroyed:
            log.info("erased_subjects_destroyed", rows=destroyed)
