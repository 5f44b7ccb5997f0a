"""Every metric of the product, in one table; docs/reference/metrics.md lists it and a test compares.

A process makes one `Metrics` and hands it down; there is no global registry. A name that is not in the table does not
type-check, and raises KeyError.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

CounterName = Literal[
    "quaestor_records_published_total",  # records acknowledged by Kafka
    "quaestor_publish_failures_total",  # groups of records that Kafka did not acknowledge
    "quaestor_records_consumed_total",  # records taken from the log
    "quaestor_records_quarantined_total",  # records set aside
    "quaestor_records_parked_total",  # records that wait behind one that was set aside
    "quaestor_records_redriven_total",  # records that were set aside and tried again
    "quaestor_batches_written_total",  # batches a sink applied
    "quaestor_store_retries_total",  # what a sink had to try again
    "quaestor_requests_total",  # requests answered by the gateway
    "quaestor_attempts_total",  # calls to providers
    "quaestor_holds_total",  # holds asked for
    "quaestor_alerts_total",  # alerts told
    "quaestor_alert_sends_total",  # attempts to hand an alert to a channel
    "quaestor_extensions_total",  # extensions of holds asked for, and streams ended for want of one
    "quaestor_budget_snapshots_total",  # snapshots of live budgets
    "quaestor_console_requests_total",  # requests answered by the console
]
GaugeName = Literal[
    "quaestor_lag_events",  # records between the cursor and the end of a partition
    "quaestor_oldest_unapplied_seconds",  # age of the oldest event that a sink has not applied
    "quaestor_requests_in_flight",  # requests in the gateway now
    "quaestor_spool_bytes",  # bytes waiting in the spool
    "quaestor_spool_unwritable",  # gateway workers whose spool folder can't be written
    "quaestor_admission_open",  # 1 when holds may be placed on a budgets partition
    "quaestor_redis_memory_used_bytes",  # memory that Redis uses
    "quaestor_redis_memory_ceiling_bytes",  # memory that it may use
    "quaestor_partitions_paused",  # partitions that stand still because too much of them was poison
    "quaestor_partitions_owned",  # partitions this process works on
    "quaestor_audit_unwitnessed_seconds",  # how long a signed checkpoint waits for its witnesses
]
HistogramName = Literal[
    "quaestor_record_seconds",  # events handed over to all acknowledged
    "quaestor_batch_records",  # records of one batch of a sink
    "quaestor_batch_seconds",  # one batch of a sink, begin to applied
    "quaestor_batch_step_seconds",  # one step on the way of a batch
    "quaestor_request_seconds",  # a request's arrival to its end
    "quaestor_attempt_seconds",  # a provider call, sent to its end
    "quaestor_budget_snapshot_seconds",  # one snapshot of a budgets partition
    "quaestor_console_request_seconds",  # a request to the console, begin to end
]
#: 0.5 ms to 60 s.
BUCKETS_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

BUCKETS_RECORDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000)


@dataclass(frozen=True)
class Metric:
    """One metric: its meaning, with the unit, and its labels."""

    meaning: str
    labels: tuple[str, ...] = ()


COUNTERS: dict[CounterName, Metric] = {
    "quaestor_records_published_total": Metric("Records acknowledged by Kafka.", ("topic",)),
    "quaestor_publish_failures_total": Metric("Groups of records that Kafka did not acknowledge."),
    "quaestor_records_consumed_total": Metric("Records taken from the log.", ("topic",)),
    "quaestor_records_quarantined_total": Metric("Records set aside.", ("topic", "reason")),
    "quaestor_records_parked_total": Metric("Records that wait behind one that was set aside.", ("topic",)),
    "quaestor_records_redriven_total": Metric(
        "Records that were set aside and tried again.", ("projection", "outcome")
    ),
    "quaestor_batches_written_total": Metric("Batches a sink applied.", ("projection",)),
    "quaestor_store_retries_total": Metric(
        "What a sink had to try again: writes, and questions to the store, the log or the registry.", ("projection",)
    ),
    "quaestor_requests_total": Metric("Requests answered by the gateway.", ("operation", "status")),
    "quaestor_attempts_total": Metric("Calls to providers.", ("provider", "outcome")),
    "quaestor_holds_total": Metric("Holds asked for.", ("outcome",)),
    "quaestor_alerts_total": Metric("Alerts told by guardrails.", ("kind",)),
    "quaestor_alert_sends_total": Metric(
        "Attempts to hand an alert to a channel: sent, later, never.", ("channel_kind", "outcome")
    ),
    "quaestor_extensions_total": Metric(
        "Extensions of holds that streams asked for: granted, refused, closed, lost; and streams that were stopped.",
        ("outcome",),
    ),
    "quaestor_budget_snapshots_total": Metric("Snapshots of a budgets partition, kept or failed.", ("outcome",)),
    "quaestor_console_requests_total": Metric("Requests answered by the console.", ("operation", "status")),
}
GAUGES: dict[GaugeName, Metric] = {
    "quaestor_lag_events": Metric("Records between the cursor and the end of a partition.", ("topic", "partition")),
    "quaestor_oldest_unapplied_seconds": Metric(
        "Age of the oldest event that the sink has not applied yet, seconds; 0 when none waits.", ("projection",)
    ),
    "quaestor_requests_in_flight": Metric("Requests in the gateway now."),
    "quaestor_spool_bytes": Metric("Bytes waiting in the spool."),
    "quaestor_spool_unwritable": Metric("Gateway workers whose spool folder can't be written; new requests get 503."),
    "quaestor_admission_open": Metric("1 when holds may be placed on a budgets partition, else 0.", ("partition",)),
    "quaestor_redis_memory_used_bytes": Metric(
        "Memory that Redis uses; from 95 % of its ceiling on no call under a limit is admitted."
    ),
    "quaestor_redis_memory_ceiling_bytes": Metric("Memory that Redis may use (maxmemory); 0 when it has no bound."),
    "quaestor_partitions_paused": Metric("Partitions that stand still because too much of them was poison."),
    "quaestor_partitions_owned": Metric("Partitions this process works on."),
    "quaestor_audit_unwitnessed_seconds": Metric(
        "How long a signed checkpoint of the audit log has waited for a quorum of witnesses, seconds; 0 when none does."
    ),
}
HISTOGRAMS: dict[HistogramName, Metric] = {
    "quaestor_record_seconds": Metric("Events handed over to all acknowledged, seconds."),
    "quaestor_batch_records": Metric("Records of one batch of a sink, poison included.", ("projection",)),
    "quaestor_batch_seconds": Metric(
        "One batch of a sink, begin to applied, waiting for a store that is away included, seconds.", ("projection",)
    ),
    "quaestor_batch_step_seconds": Metric(
        "One step of a batch, seconds: wait (its oldest record made to the batch cut), then those of its sink.",
        ("projection", "step"),
    ),
    "quaestor_request_seconds": Metric("A request's arrival to its end, seconds.", ("operation",)),
    "quaestor_attempt_seconds": Metric("A provider call, sent to its end, seconds.", ("provider",)),
    "quaestor_budget_snapshot_seconds": Metric("One snapshot of a budgets partition, rests included, seconds."),
    "quaestor_console_request_seconds": Metric("A request to the console, begin to end, seconds.", ("operation",)),
}


class Metrics:
    """The metrics of one process, made when first asked for."""

    def __init__(self) -> None:
        """Start with an empty registry."""
        self.registry = CollectorRegistry()
        self._made: dict[str, Counter | Gauge | Histogram] = {}

    def counter(self, name: CounterName) -> Counter:
        """A counter; raises KeyError for a name that is not in the table."""
        metric, made = COUNTERS[name], self._made.get(name)
        if not isinstance(made, Counter):
            made = self._made[name] = Counter(name, metric.meaning, metric.labels, registry=self.registry)
        return made

    def gauge(self, name: GaugeName) -> Gauge:
        """A gauge; raises KeyError for a name that is not in the table."""
        metric, made = GAUGES[name], self._made.get(name)
        if not isinstance(made, Gauge):
            made = self._made[name] = Gauge(name, metric.meaning, metric.labels, registry=self.registry)
        return made

    def histogram(self, name: HistogramName) -> Histogram:
        """A histogram; raises KeyError for a name that is not in the table."""
        metric, made = HISTOGRAMS[name], self._made.get(name)
        if not isinstance(made, Histogram):
            buckets = BUCKETS_RECORDS if name.endswith("_records") else BUCKETS_SECONDS
            made = Histogram(name, metric.meaning, metric.labels, registry=self.registry, buckets=buckets)
            self._made[name] = made
        return made
