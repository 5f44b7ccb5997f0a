"""The gateway's metrics, with the children of label combinations kept: looking one up costs as much as counting."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

from streams.metrics import Metrics

CHILDREN_MAX = 1_000
OTHER = "other"


class Meters:
    """Counts what happens in one worker."""

    def __init__(self, metrics: Metrics) -> None:
        """Name the metrics; nothing is counted yet."""
        self.metrics = metrics
        self._requests = metrics.counter("quaestor_requests_total")
        self._attempts = metrics.counter("quaestor_attempts_total")
        self._holds = metrics.counter("quaestor_holds_total")
        self._extensions = metrics.counter("quaestor_extensions_total")
        self._request_seconds = metrics.histogram("quaestor_request_seconds")
        self._attempt_seconds = metrics.histogram("quaestor_attempt_seconds")
        self._in_flight = metrics.gauge("quaestor_requests_in_flight")
        self._spool_bytes = metrics.gauge("quaestor_spool_bytes")
        self._children: dict[tuple[str, ...], Counter | Histogram] = {}
        #: Requests running now.
        self.in_flight = 0

    def request(self, operation: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._counter(self._requests, "requests", operation, str(status)).inc()
        self._histogram(self._request_seconds, "request_seconds", operation).observe(seconds)

    def attempt(self, provider_id: str, outcome: str, seconds: float) -> None:
        """A provider was called."""
        self._counter(self._attempts, "attempts", provider_id, outcome).inc()
        self._histogram(self._attempt_seconds, "attempt_seconds", provider_id).observe(seconds)

    def hold(self, outcome: str) -> None:
        """A hold was asked for."""
        self._counter(self._holds, "holds", outcome).inc()

    def extension(self, outcome: str) -> None:
        """A stream asked for more, or was stopped."""
        self._counter(self._extensions, "extensions", outcome).inc()

    def gauges(self, spool_bytes: int) -> None:
        """What is so now; called before the metrics are read."""
        self._in_flight.set(self.in_flight)
        self._spool_bytes.set(spool_bytes)

    def _counter(self, parent: Counter, *names: str) -> Counter:
        child = self._children.get(names) or self._child(parent, names)
        assert isinstance(child, Counter)
        return child

    def _histogram(self, parent: Histogram, *names: str) -> Histogram:
        child = self._children.get(names) or self._child(parent, names)
        assert isinstance(child, Histogram)
        return child

    def _child(self, parent: Counter | Histogram, names: tuple[str, ...]) -> Counter | Histogram:
        """A child by its labels; beyond CHILDREN_MAX combinations the rest counts under 'other'."""
        labels = names[1:]
        if len(self._children) >= CHILDREN_MAX:
            return parent.labels(*(OTHER,) * len(labels))
        child = self._children[names] = parent.labels(*labels)
        return child
