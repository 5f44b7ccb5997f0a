"""The seam to where alerts go: one alert out, one receipt back.

`HttpOutlet` (http.py: Slack, webhooks), `MailOutlet` (mail.py) and `MemoryOutlet` fill it;
tests/contract/test_outlets.py is their suite.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, Protocol

from processors.control import Channel
from schemas.events import Alert

#: Where nobody is done with an alert yet.
NOBODY: Mapping[str, int] = MappingProxyType({})


class Sent(NamedTuple):
    """The receiver has it."""


class Later(NamedTuple):
    """It may work later: nobody answered, or the receiver said so."""

    #: One line without addresses and secrets.
    reason: str
    #: What the receiver asked for; 0 when nothing.
    asked_seconds: float = 0.0
    #: Who is done with it of several that one target names, and what was said of each; they are not tried again.
    ended: Mapping[str, int] = NOBODY


class Never(NamedTuple):
    """Trying again would not help."""

    #: One line without addresses and secrets.
    reason: str


Receipt = Sent | Later | Never


class Outlet(Protocol):
    """Sends alerts. Safe for many at once on one loop; ends within ALERT_SEND_SECONDS or little more."""

    async def send(
        self,
        channel: Channel,
        alert: Alert,
        target: str,
        secret: str | None,
        now_seconds: int,
        ended: Mapping[str, int] = NOBODY,
    ) -> Receipt:
        """Send once; `target` and `secret` are what the channel's references hold, `ended` what attempts before said.

        The receiver can tell a repetition by the alert's id, which goes along.
        """

    async def close(self) -> None:
        """Let go of connections."""


class MemoryOutlet:
    """An Outlet that keeps what it was given: every seam ships its fake."""

    def __init__(self) -> None:
        """Everything is taken."""
        #: (channel id, target, alert) of what was taken.
        self.taken: list[tuple[str, str, Alert]] = []
        #: What each call said of attempts before it.
        self.ended: list[Mapping[str, int]] = []
        #: Answers to give first, one for each call.
        self.answers: list[Receipt] = []
        self.calls = 0

    async def send(
        self,
        channel: Channel,
        alert: Alert,
        target: str,
        secret: str | None,  # noqa: ARG002
        now_seconds: int,  # noqa: ARG002
        ended: Mapping[str, int] = NOBODY,
    ) -> Receipt:
        """As the seam says."""
        self.calls += 1
        self.ended.append(dict(ended))
        receipt: Receipt = self.answers.pop(0) if self.answers else Sent()
        if isinstance(receipt, Sent):
            self.taken.append((channel.channel_id, target, alert))
        return receipt

    async def close(self) -> None:
        """Nothing to let go of."""
