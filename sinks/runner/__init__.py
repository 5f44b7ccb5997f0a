"""Drives every sink over the log: consume, decode, batch, write, retry, rebalance, quarantine."""

from __future__ import annotations

from sinks.runner.runner import run_sink
from sinks.runner.seam import Batch, BatchPolicy, Decoded, Poison, Progress, QuarantineStore, Sink, Span

__all__ = ["Batch", "BatchPolicy", "Decoded", "Poison", "Progress", "QuarantineStore", "Sink", "Span", "run_sink"]
