"""Drives every sink over the log: consume, decode, batch, write, retry, rebalance, quarantine.

`sinks.runner.runner` is imported by whoever runs a sink: without it a process that only folds the log begins sooner.
"""

from __future__ import annotations

from sinks.runner.seam import Batch, BatchPolicy, Decoded, Poison, Progress, QuarantineStore, Sink, Span

__all__ = ["Batch", "BatchPolicy", "Decoded", "Poison", "Progress", "QuarantineStore", "Sink", "Span"]
