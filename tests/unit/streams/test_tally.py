"""Tally: metrics counted in plain numbers."""

from __future__ import annotations

from prometheus_client import generate_latest

from streams.metrics import Metrics
from streams.tally import COMBINATIONS_MAX, OTHER, Tally

SECONDS = (0.0, 0.0005, 0.0006, 0.01, 59.9, 60.0, 61.0)


def lines(metrics: Metrics) -> list[str]:
    """What a scrape says, without the times at which prometheus_client made its numbers."""
    text = generate_latest(metrics.registry).decode()
    return sorted(line for line in text.splitlines() if "_created" not in line)


def test_a_scrape_says_what_prometheus_client_would() -> None:
    """The same names, labels, buckets and sums."""
    ours, theirs = Metrics(), Metrics()
    tally = Tally(ours, ("quaestor_requests_total",), ("quaestor_request_seconds",))
    counter, histogram = theirs.counter("quaestor_requests_total"), theirs.histogram("quaestor_request_seconds")
    for seconds in SECONDS:
        tally.count("quaestor_requests_total", "CHAT_COMPLETIONS", "200")
        counter.labels("CHAT_COMPLETIONS", "200").inc()
        tally.observe("quaestor_request_seconds", seconds, "CHAT_COMPLETIONS")
        histogram.labels("CHAT_COMPLETIONS").observe(seconds)

    assert lines(ours) == lines(theirs)


def test_too_many_combinations_count_together() -> None:
    """A label that takes any value does not fill the memory."""
    metrics = Metrics()
    tally = Tally(metrics, ("quaestor_holds_total",), ("quaestor_attempt_seconds",))
    for number in range(COMBINATIONS_MAX + 5):
        tally.count("quaestor_holds_total", str(number))
    tally.observe("quaestor_attempt_seconds", 1.0, "new")
    said = lines(metrics)

    assert len([line for line in said if line.startswith("quaestor_holds_total{")]) == COMBINATIONS_MAX + 1
    assert f'quaestor_holds_total{{outcome="{OTHER}"}} 5.0' in said
    assert f'quaestor_attempt_seconds_count{{provider="{OTHER}"}} 1.0' in said
