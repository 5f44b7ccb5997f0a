"""The seam to where alerts go: one alert out, one receipt back.

`HttpOutlet` (http.py: Slack, webhooks), `MailOutlet` (mail.py) and `MemoryOutlet` fill it;
tests/contract/test_outlets.py is their suite.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from processors.control import Channel
from schemas.events import Alert


class Sent(NamedTuple):
    """The receiver has it."""


class Later(NamedTuple):
    """It may work later: nobody answered, or the receiver said so."""

    #: One line without addresses and secrets.
    reason: str
    #: What the receiver asked for; 0 when nothing.
    asked_seconds: float = 0.0


class Never(NamedTuple):
    """Trying again would not help."""

    #: One line without addresses and secrets.
    reason: str


Receipt = Sent | Later | Never


class Outlet(Protocol):
    """Sends alerts. Safe for many at once on one loop; ends within ALERT_SEND_SECONDS or little more."""

    async def send(self, channel: Channel, alert: Alert, target: str, secret: str | None, now_seconds: int) -> Receipt:
        """Send once; `target` and `secret` are what the channel's references hold.

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
        #: Answers to give first, one for each call.
        self.answers: list[Receipt] = []
        self.calls = 0

    async def send(self, channel: Channel, alert: Alert, target: str, secret: str | None, now_seconds: int) -> Receipt:  # noqa: ARG002
        """As the seam says."""
        self.calls += 1
        receipt: Receipt = self.answers.pop(0) if self.answers else Sent()
        if isinstance(receipt, Sent):
            self.taken.append((channel.channel_id, target, alert))
        return receipt

    async def close(self) -> None:
        """Nothing to let go of."""
