"""The gateway as processes: one worker here, or several supervised ones that share the listening socket."""

from __future__ import annotations

from api.gateway.options import GatewayOptions
from streams.monitor import Monitor


def run(options: GatewayOptions, monitor: Monitor | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then drain and return; blocks, and owns the process's signals.

    Raises ConfigurationError when the address is taken, naming it and the setting that changes it.
    """
    raise NotImplementedError
