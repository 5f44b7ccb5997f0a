"""Tally: counters and histograms of a hot path, counted by one thread in plain numbers and read by any.

prometheus_client takes a lock for every number it changes, five of them per request; here a count is one store in a
dictionary, and the metrics are made of the numbers when somebody asks for them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from streams.metrics import BUCKETS_SECONDS, COUNTERS, HISTOGRAMS, CounterName, HistogramName, Metrics

#: Combinations of labels of all metrics together; beyond it the rest counts under OTHER.
COMBINATIONS_MAX = 1_000
OTHER = "other"
BOUNDS = [floatToGoString(bound) for bound in (*BUCKETS_SECONDS, float("inf"))]  # type: ignore[no-untyped-call]
Combination = tuple[str, ...]


class Tally(Collector):
    """Some metrics of a process. Counted by one thread only."""

    def __init__(
        self, metrics: Metrics, counters: tuple[CounterName, ...], histograms: tuple[HistogramName, ...]
    ) -> None:
        """Take these over from `metrics`: nothing else may count them. Histograms are of seconds."""
        self._counters, self._histograms = counters, histograms
        #: Name and labels: how often.
        self._counts: dict[Combination, int] = {}
        #: Name and labels: how often in each bucket and above the last one, then the sum.
        self._seconds: dict[Combination, tuple[list[int], list[float]]] = {}
        metrics.registry.register(self)

    def count(self, name: CounterName, *labels: str) -> None:
        """One more."""
        key = (name, *labels)
        known = self._counts.get(key)
        if known is None:
            key = self._new(key)
            known = self._counts.get(key, 0)
        self._counts[key] = known + 1

    def observe(self, name: HistogramName, seconds: float, *labels: str) -> None:
        """One more that took so long."""
        key = (name, *labels)
        known = self._seconds.get(key)
        if known is None:
            known = self._seconds.setdefault(self._new(key), ([0] * len(BOUNDS), [0.0]))
        known[0][bisect_left(BUCKETS_SECONDS, seconds)] += 1
        known[1][0] += seconds

    def collect(self) -> Iterator[CounterMetricFamily | HistogramMetricFamily]:
        """The metrics as they stand, also those without a count yet."""
        counts, seconds = dict(self._counts), dict(self._seconds)
        for name in self._counters:
            counter = CounterMetricFamily(name, COUNTERS[name].meaning, labels=COUNTERS[name].labels)
            for (counted, *labels), count in counts.items():
                if counted == name:
                    counter.add_metric(labels, count)
            yield counter
        for timed in self._histograms:
            histogram = HistogramMetricFamily(timed, HISTOGRAMS[timed].meaning, labels=HISTOGRAMS[timed].labels)
            for (observed, *labels), (buckets, total) in seconds.items():
                if observed == timed:
                    histogram.add_metric(labels, list(zip(BOUNDS, accumulate(buckets), strict=True)), total[0])
            yield histogram

    def _new(self, key: Combination) -> Combination:
        """Under what a combination that is not known yet counts."""
        if len(self._counts) + len(self._seconds) < COMBINATIONS_MAX:
            return key
        return (key[0], *(OTHER,) * (len(key) - 1))
