"""A ClickHouse of a simulation: inserts with tokens and their window, a view's sums, and the look for rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sinks.clickhouse.client import Guard
from sinks.clickhouse.plans import Piece
from sinks.clickhouse.sink import TRUSTED_AGE_SECONDS
from sinks.runner.seam import Decoded
from tests.support.simulation_loop import VirtualLoop, Wire


class ClickHouseServer:
    """Tables without unique keys, a materialized view's sums beside each, and windows of deduplication."""

    def __init__(self, loop: VirtualLoop) -> None:
        """Empty."""
        self._loop = loop
        self.rows: list[tuple[int, int, str, int]] = []
        #: What the view counted: rows and money.
        self.rollup = [0, 0]
        self._tokens: dict[str, float] = {}

    def insert(self, names: Sequence[str], columns: Sequence[Sequence[Any]], token: str) -> None:
        """One block; dropped whole, in table and view, when its token is in the window."""
        if token in self._tokens:
            return
        self._tokens[token] = self._loop.now
        named = {name: [_plain(value) for value in column] for name, column in zip(names, columns, strict=True)}
        places = zip(named["_part"], named["_off"], named["event_id"], named["amount_nano"], strict=True)
        rows = [(int(part), int(offset), str(event), int(amount)) for part, offset, event, amount in places]
        self.rows += rows
        self.rollup = [self.rollup[0] + len(rows), self.rollup[1] + sum(row[3] for row in rows)]

    def query(self, parameters: Mapping[str, Any]) -> list[tuple[int, ...]]:
        """Which of some offsets have rows, how many rows a range has, or the last rows from some offsets on."""
        if "parts" in parameters:
            return self._behind(dict(zip(parameters["parts"], parameters["firsts"], strict=True)))
        excluded = parameters.get("excluded", ())
        offsets = [row[1] for row in self.rows if row[0] == parameters["part"] and row[1] not in excluded]
        if "offsets" in parameters:
            return [(offset,) for offset in offsets if offset in parameters["offsets"]]
        return [(sum(1 for offset in offsets if parameters["first"] <= offset < parameters["after"]),)]

    def _behind(self, firsts: Mapping[int, int]) -> list[tuple[int, ...]]:
        last: dict[int, int] = {}
        for part, offset, *_ in self.rows:
            if offset >= firsts.get(part, offset + 1):
                last[part] = max(offset, last.get(part, 0))
        return list(last.items())

    def forget(self) -> None:
        """Tokens older than what the sink trusts leave the window."""
        oldest = self._loop.now - TRUSTED_AGE_SECONDS
        self._tokens = {token: at for token, at in self._tokens.items() if at > oldest}


def _plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


class ClickHouseConnection:
    """What the sink needs of sinks.clickhouse.client.ClickHouse."""

    database = "simulated"

    def __init__(self, server: ClickHouseServer, wire: Wire, process: str) -> None:
        """Of one process."""
        self._server = server
        self._wire = wire
        self._process = process

    async def open(self) -> None:
        """Nothing to wait for."""

    async def close(self) -> None:
        """Nothing to let go of."""

    async def insert(
        self, _table: str, names: Sequence[str], _types: Sequence[str], columns: Any, token: str, guard: Guard
    ) -> None:
        """Insert a block."""
        guard()
        await self._wire.call(self._process, "insert", lambda: self._server.insert(names, columns, token))

    async def query(self, _sql: str, parameters: Mapping[str, Any]) -> list[tuple[int, ...]]:
        """The queries of the sink look for rows of partitions."""
        found: list[tuple[int, ...]]
        found = await self._wire.call(self._process, "query", lambda: self._server.query(parameters))
        return found


class OneStep:
    """What the sink needs of sinks.clickhouse.rollups.Rollups: here rows and their view's sums are one step."""

    async def mend(self, _topic: str, _pieces: Sequence[Piece]) -> None:
        """Nothing can differ."""

    async def mend_records(self, _topic: str, _records: Sequence[Decoded]) -> None:
        """Nothing can differ."""
