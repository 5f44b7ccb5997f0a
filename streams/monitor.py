"""Monitor: /metrics (Prometheus) and /status (JSON) of one process, served by a thread of its own on loopback."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from streams.metrics import Metrics

HOST = "127.0.0.1"
State = Literal["starting", "running", "waiting", "degraded", "stopping", "failed"]
REQUEST_SECONDS_MAX = 5.0


class Monitor:
    """What a process says about itself. Thread-safe; usable before start and after stop."""

    def __init__(self, process_name: str, port: int = 0, metrics: Metrics | None = None) -> None:
        """Port 0 takes a free one; nothing listens before start."""
        self.metrics = metrics or Metrics()
        self.port = port
        self._fields: dict[str, Any] = {
            "name": process_name,
            "state": "starting",
            "lag_events": None,
            "freshness_seconds": None,
        }
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> int:
        """Listen and answer; returns the port. Raises OSError when the port is taken."""
        server = self._server = ThreadingHTTPServer((HOST, self.port), _handler(self))
        server.daemon_threads = True
        self.port = int(server.server_address[1])
        threading.Thread(target=server.serve_forever, name="monitor", daemon=True).start()
        return self.port

    def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def set(
        self,
        *,
        state: State | None = None,
        lag_events: int | None = None,
        freshness_seconds: float | None = None,
        **extra: Any,
    ) -> None:
        """Change what /status says; fields left out or None stay as they are. Extra fields must be JSON values."""
        given = {"state": state, "lag_events": lag_events, "freshness_seconds": freshness_seconds, **extra}
        with self._lock:
            self._fields.update({name: value for name, value in given.items() if value is not None})

    def status(self) -> dict[str, Any]:
        """What /status says now."""
        with self._lock:
            return dict(self._fields)


def _handler(monitor: Monitor) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Answers two paths."""

        timeout = REQUEST_SECONDS_MAX

        def do_GET(self) -> None:
            """Answer /status, /metrics, or 404."""
            if self.path == "/status":
                self._answer("application/json", json.dumps(monitor.status()).encode())
            elif self.path == "/metrics":
                self._answer(CONTENT_TYPE_LATEST, generate_latest(monitor.metrics.registry))
            else:
                self.send_error(404)

        def _answer(self, content_type: str, body: bytes) -> None:
            self.send_response(200)
            self.send_header("content-type", content_type)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing: a scrape every second is no news."""

    return Handler
