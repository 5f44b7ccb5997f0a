"""How a simulated provider behaves when a request does not say otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from api.providers.simulator.failures import Failure

#: Models it lists; it answers to any name.
MODELS = ("sim-small", "sim-large", "sim-reasoning", "sim-embedding")


class SimulatorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Behaviour of the simulated provider; every draw is decided by the seed and the request's own bytes."""

    #: Decides every draw.
    seed: int = 1
    #: Bearer token it insists on. None: takes any.
    api_key: str | None = None
    #: Time to the first byte of an answer, milliseconds: the constant, or the median of the lognormal.
    latency_milliseconds: float = 0.0
    #: How latency is distributed.
    latency_distribution: Literal["constant", "lognormal"] = "constant"
    #: Standard deviation of the logarithm of the latency.
    latency_sigma: float = 0.5
    #: Time between chunks of a stream, milliseconds.
    chunk_milliseconds: float = 0.0
    #: Words in one chunk of a stream.
    chunk_tokens: int = 8
    #: Median of the lognormal length of answers to requests that name no length, tokens.
    completion_tokens_median: int = 120
    #: Standard deviation of its logarithm.
    completion_tokens_sigma: float = 0.7
    #: Longest answer drawn, tokens.
    completion_tokens_max: int = 4_096
    #: Part of requests that fail by themselves, 0 to 1.
    error_rate: float = 0.0
    #: How those fail.
    error: Failure = Failure.STATUS_500
    #: Failures by number of the request, counted from 1.
    script: Mapping[int, Failure] = {}
    #: How long slow_headers waits before it answers, milliseconds.
    slow_milliseconds: float = 10_000.0
    #: Where each request it was called with is noted, one JSON line each. None: nowhere.
    egress_log: Path | None = None
