"""The gateway's metrics."""

from __future__ import annotations

from streams.metrics import Metrics
from streams.tally import Tally


class Meters:
    """Counts what happens in one worker; owned by its event loop."""

    def __init__(self, metrics: Metrics) -> None:
        """Name the metrics; nothing is counted yet."""
        self.metrics = metrics
        self._tally = Tally(
            metrics,
            ("quaestor_requests_total", "quaestor_attempts_total", "quaestor_holds_total", "quaestor_extensions_total"),
            ("quaestor_request_seconds", "quaestor_attempt_seconds"),
        )
        self._in_flight = metrics.gauge("quaestor_requests_in_flight")
        self._spool_bytes = metrics.gauge("quaestor_spool_bytes")
        self._spool_unwritable = metrics.gauge("quaestor_spool_unwritable")
        #: Requests running now.
        self.in_flight = 0

    def request(self, operation: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._tally.count("quaestor_requests_total", operation, str(status))
        self._tally.observe("quaestor_request_seconds", seconds, operation)

    def attempt(self, provider_id: str, outcome: str, seconds: float) -> None:
        """A provider was called."""
        self._tally.count("quaestor_attempts_total", provider_id, outcome)
        self._tally.observe("quaestor_attempt_seconds", seconds, provider_id)

    def hold(self, outcome: str) -> None:
        """A hold was asked for."""
        self._tally.count("quaestor_holds_total", outcome)

    def extension(self, outcome: str) -> None:
        """A stream asked for more, or was stopped."""
        self._tally.count("quaestor_extensions_total", outcome)

    def gauges(self, spool_bytes: int, *, spool_unwritable: bool) -> None:
        """What is so now; called before the metrics are read."""
        self._in_flight.set(self.in_flight)
        self._spool_bytes.set(spool_bytes)
        self._spool_unwritable.set(spool_unwritable)
