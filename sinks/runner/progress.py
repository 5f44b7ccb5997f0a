"""Progress over the process's monitor: /status for people, metrics for machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from schemas.events import QuarantinedRecord, QuarantineKind
from sinks.runner.seam import Progress
from streams.log import Partition
from streams.monitor import Monitor


class MonitorProgress(Progress):
    """Tells a Monitor how a sink stands. Thread-safe, as the monitor is."""

    def __init__(self, monitor: Monitor, projection: str) -> None:
        """`projection` labels the metrics."""
        self._monitor = monitor
        self._projection = projection
        self._broken: dict[str, str] = {}
        #: Partitions whose lag was told last.
        self._told: set[Partition] = set()
        self._paused: dict[str, str] = {}

    def running(self) -> None:
        """As the seam says; a broken partition keeps the process degraded."""
        self._monitor.set(state="degraded" if self._broken or self._paused else "running", detail="")

    def waiting(self, detail: str) -> None:
        """As the seam says."""
        self._monitor.set(state="waiting", detail=detail)

    def broken(self, partitions: Mapping[Partition, str]) -> None:
        """As the seam says."""
        self._broken = {str(partition): why for partition, why in partitions.items()}
        self._monitor.set(broken=dict(self._broken))
        self.running()

    def paused(self, partitions: Mapping[Partition, str]) -> None:
        """As the seam says; a partition that stands still keeps the process degraded."""
        self._paused = {str(partition): why for partition, why in partitions.items()}
        self._monitor.set(paused=dict(self._paused))
        self._monitor.metrics.gauge("quaestor_partitions_paused").set(len(self._paused))
        self.running()

    def lag(self, lag_events: Mapping[Partition, int], oldest_seconds: float) -> None:
        """As the seam says; partitions that others own now are told no longer."""
        self._monitor.set(
            lag_events=sum(lag_events.values()),
            freshness_seconds=round(oldest_seconds, 3),
            partitions=len(lag_events),
        )
        metrics = self._monitor.metrics
        metrics.gauge("quaestor_oldest_unapplied_seconds").labels(self._projection).set(oldest_seconds)
        metrics.gauge("quaestor_partitions_owned").set(len(lag_events))
        gauge = metrics.gauge("quaestor_lag_events")
        for partition in self._told - lag_events.keys():
            gauge.remove(partition.topic, str(partition.number))
        self._told = set(lag_events)
        for partition, events in lag_events.items():
            gauge.labels(partition.topic, str(partition.number)).set(events)

    def batch(self, records: int, write_seconds: float, steps: Mapping[str, float]) -> None:
        """As the seam says."""
        metrics = self._monitor.metrics
        metrics.counter("quaestor_batches_written_total").labels(self._projection).inc()
        metrics.histogram("quaestor_batch_records").labels(self._projection).observe(records)
        metrics.histogram("quaestor_batch_seconds").labels(self._projection).observe(write_seconds)
        for step, seconds in steps.items():
            metrics.histogram("quaestor_batch_step_seconds").labels(self._projection, step).observe(seconds)

    def retry(self) -> None:
        """As the seam says."""
        self._monitor.metrics.counter("quaestor_store_retries_total").labels(self._projection).inc()

    def quarantined(self, records: Sequence[QuarantinedRecord]) -> None:
        """As the seam says."""
        quarantined = self._monitor.metrics.counter("quaestor_records_quarantined_total")
        parked = self._monitor.metrics.counter("quaestor_records_parked_total")
        for record in records:
            if record.kind is QuarantineKind.PARKED:
                parked.labels(record.source_topic).inc()
            else:
                quarantined.labels(record.source_topic, record.reason.value).inc()

    def redriven(self, applied: int, failed: int) -> None:
        """As the seam says."""
        counter = self._monitor.metrics.counter("quaestor_records_redriven_total")
        counter.labels(self._projection, "applied").inc(applied)
        counter.labels(self._projection, "failed").inc(failed)
