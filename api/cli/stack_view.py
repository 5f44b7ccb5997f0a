"""What people see while the stack starts and stops: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TextIO
from urllib.parse import urlsplit

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from infra.embedded.endpoints import Endpoints, without_credentials
from schemas.limits import REDIS_FULL_PER_CENT, REDIS_WARNING_PER_CENT

#: Which setting says where a part is.
ADDRESSES: Mapping[str, str] = {
    "gateway": "gateway_url",
    "console": "console_url",
    "simulator": "simulator_url",
    "kafka": "kafka_bootstrap",
    "registry": "registry_url",
    "postgres": "postgres_dsn",
    "redis": "redis_url",
    "clickhouse": "clickhouse_url",
}
APPLICATIONS = frozenset({"gateway", "console", "simulator"})
COLOURS: Mapping[str, str] = {
    "running": "green",
    "waiting": "green",
    "stopped": "dim",
    "failed": "bold red",
    "down": "bold red",
    "silent": "bold red",
    "restarting": "yellow",
    "degraded": "yellow",
}
MEGABYTE = 1_000_000
#: Without a terminal a download says one line per tenth.
LINES_PER_DOWNLOAD = 10


class StackView:
    """Shows events as they come; remembers whether all went well."""

    def __init__(self, stream: TextIO, *, stopping: bool = False) -> None:
        """Write to this stream, usually standard error."""
        self.message = ""
        self._stopping = self._done = stopping
        self._parts: dict[str, Mapping[str, Any]] = {}
        self._console = Console(file=stream, highlight=False, markup=False)
        self._live = Live(console=self._console, refresh_per_second=8) if self._console.is_terminal else None
        self._told: dict[str, int] = {}
        self._started = time.monotonic()

    @property
    def good(self) -> bool:
        """Whether the end came, and no part failed for good."""
        return self._done and not self.message and not self._failed()

    def show(self, event: Mapping[str, Any]) -> None:
        """Take one event in."""
        kind = event["event"]
        if kind == "progress":
            self._parts[event["part"]] = event
            if self._live is None:
                self._line(event)
        elif kind == "failed":
            self.message = str(event["message"])
        elif kind == "stopped" and not self._stopping:
            self.message = (
                self.message or "it was stopped while it started: see logs/supervisor.log in the data directory"
            )
        elif kind in {"done", "stopped"}:
            self._done = True
            if failed := self._failed():
                self.message = f"{', '.join(failed)} not ready: `quaestor status`, and the logs in the data directory"
        elif kind == "already":
            self._console.print("it runs already; looking after what does not")
        if self._live is not None:
            self._live.update(self._table())

    def __enter__(self) -> Self:
        """Begin to draw."""
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the last picture and say how long it took."""
        if self._live is not None:
            self._live.stop()
        if self._done and kind is None:
            self._console.print(f"{time.monotonic() - self._started:.1f} s", style="dim")

    def _failed(self) -> list[str]:
        return [name for name, event in self._parts.items() if event["state"] == "failed"]

    def _line(self, event: Mapping[str, Any]) -> None:
        """One line per step; a download says a line per tenth."""
        if event["state"] == "downloading":
            tenth = event["done"] * LINES_PER_DOWNLOAD // max(1, event["total"])
            if self._told.get(event["part"]) == tenth:
                return
            self._told[event["part"]] = tenth
        self._console.print(f"{event['part']}: {event['state']} {_detail(event)}".rstrip())

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for name, event in self._parts.items():
            shown: Any = Text(_detail(event), style="dim", overflow="ellipsis", no_wrap=True)
            if event["state"] == "downloading":
                shown = Table.grid(padding=(0, 1))
                shown.add_row(ProgressBar(total=event["total"], completed=event["done"], width=30), _detail(event))
            table.add_row(name, state_text(event["state"]), shown)
        return table


def _detail(event: Mapping[str, Any]) -> str:
    if event["state"] == "downloading":
        return f"{event['detail']}: {event['done'] / MEGABYTE:.0f} of {event['total'] / MEGABYTE:.0f} MB"
    return str(event["detail"])


def state_text(state: str) -> Text:
    """A state in its colour."""
    return Text(state, COLOURS.get(state, "cyan"))


def rebuild_table(rebuilds: Sequence[Mapping[str, Any]]) -> Table:
    """How far each budgets partition is whose admission is closed, with a bar."""
    grid = Table.grid(padding=(0, 2))
    for each in rebuilds:
        known = each["barrier"] is not None
        way = f"offset {each['at']} of {each['barrier']}, from {each['from']}" if known else f"offset {each['at']}"
        bar = ProgressBar(total=100, completed=each["per_cent"], width=30)
        share = f"{each['per_cent']} %" if known else "-"
        why = Text(f"{each['source']}: {each['detail']}", style="dim", overflow="ellipsis", no_wrap=True)
        grid.add_row(Text(f"rebuilding budgets/{each['partition']}", style="yellow"), bar, share, way, why)
    return grid


def memory_text(memory: Mapping[str, int]) -> Text:
    """What Redis uses of what it may use; from a warning on, what to do."""
    used, ceiling, share = (memory[name] for name in ("used_bytes", "ceiling_bytes", "per_cent"))
    if not ceiling:
        return Text(f"redis uses {used / MEGABYTE:.0f} MB, without a bound", "dim")
    words = f"redis uses {used / MEGABYTE:.0f} of {ceiling / MEGABYTE:.0f} MB ({share} %)"
    if share >= REDIS_FULL_PER_CENT:
        return Text(f"{words}: no call under a limit is admitted; give it more maxmemory", "bold red")
    if share >= REDIS_WARNING_PER_CENT:
        return Text(f"{words}: at {REDIS_FULL_PER_CENT} % admission ends; give it more maxmemory", "yellow")
    return Text(words, "dim")


def endpoint_rows(found: Endpoints) -> list[dict[str, Any]]:
    """One row per address: name, kind, host, port and URL without credentials."""
    rows: list[dict[str, Any]] = []
    for name, setting in ADDRESSES.items():
        if setting in found.settings:
            url = without_credentials(found.settings[setting])
            parts = urlsplit(url if "://" in url else f"//{url}")
            kind = "application" if name in APPLICATIONS else "server"
            rows.append({"name": name, "kind": kind, "host": parts.hostname, "port": parts.port, "url": url})
    for name, entry in found.processes.items():
        if entry.monitor_port:
            url = f"http://127.0.0.1:{entry.monitor_port}/metrics"
            row = {"name": f"{name} metrics", "kind": "monitor", "host": "127.0.0.1", "port": entry.monitor_port}
            rows.append(row | {"url": url})
    return rows


def next_steps(servers_only: bool) -> list[Text]:
    """What to do next, a line each."""
    if servers_only:
        return [Text.assemble("next: ", ("quaestor up", "bold"), " adds the gateway, streams and sinks")]
    create = ("quaestor key create --tenant acme --team search --project web", "bold")
    others = (("quaestor status", "bold"), " · ", ("quaestor down", "bold"), " (nothing is lost)")
    return [Text.assemble("next: ", create), Text.assemble("      ", *others)]
