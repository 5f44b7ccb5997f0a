"""Provider health: latency and errors over closed windows."""

from __future__ import annotations

from processors.health.histogram import Histogram
from processors.health.windows import HealthWindows, WindowKey, state_of

__all__ = ["HealthWindows", "Histogram", "WindowKey", "state_of"]
