"""Records that are redriven into ClickHouse: whoever dies between a row and its rollup leaves nothing half done."""

# ruff: noqa: S608 - names are this module's own

from __future__ import annotations

import pytest

from schemas.errors import QuaestorError, StoreUnavailableError
from sinks.runner.seam import Batch, Sink, Span
from tests.contract.test_redrive_contract import set_aside
from tests.contract.test_sink_contract import claim
from tests.integration.test_clickhouse_repair import delete
from tests.integration.test_clickhouse_sink import World, everything, world  # noqa: F401 - fixtures of that module

pytestmark = pytest.mark.stack
#: A table of facts, and the sums that a view makes of it.
VIEWS = (("costs", "rollup_cost_hourly"), ("requests", "rollup_requests_hourly"))


async def without(sink: Sink, table: str) -> tuple[Batch, list[Span]]:
    """Everything is written but for one table's records, which were set aside; they come back."""
    batch = everything()
    spans = set_aside(batch, f"quaestor.{table}")
    await claim(sink, batch)
    await sink.write(batch)
    return batch, spans


@pytest.mark.parametrize(("table", "rollup"), VIEWS)
async def test_a_redrive_that_died_before_its_rollup_is_completed_by_the_next(
    world: World,  # noqa: F811 - the fixture's value
    table: str,
    rollup: str,
) -> None:
    """The rows are found, so nothing is inserted: what the view lost with the process comes from the facts."""
    sink, successor = world.sink(), world.sink()
    batch, spans = await without(sink, table)
    for span in spans:
        await sink.redrive(span)
    await delete(world, rollup)
    await claim(successor, batch)
    for span in spans:
        await successor.redrive(span)
    await sink.close()
    await successor.close()

    await world.assert_whole()


async def test_a_view_that_throws_at_a_redrive_keeps_it_from_being_done(world: World) -> None:  # noqa: F811
    """The facts land all the same. It is no redrive that ended well; the one after the view was mended is."""
    view = f"{world.database}.rollup_cost_hourly_view"
    create = f"CREATE MATERIALIZED VIEW {view} TO {world.database}.rollup_cost_hourly AS "
    (ours,) = await world.one(f"SELECT as_select FROM system.tables WHERE concat(database, '.', name) = '{view}'")
    sink = world.sink()
    _, spans = await without(sink, "costs")
    await world.client.command(f"DROP VIEW {view}")
    await world.client.command(
        f"{create}SELECT toStartOfHour(occurred_at, 'UTC') AS hour, "
        f"toInt64(throwIf(costs.quantity > 0, 'no')) AS quantity FROM {world.database}.costs"
    )
    for span in spans:
        with pytest.raises(QuaestorError):
            await sink.redrive(span)
    assert (40,) == await world.one("SELECT count() FROM {db}.costs")
    await world.client.command(f"DROP VIEW {view}")
    await world.client.command(f"{create}{ours}")
    for span in spans:
        await sink.redrive(span)
    await sink.close()

    await world.assert_whole()


async def test_a_redrive_whose_token_was_noted_without_its_rows_is_not_done(world: World) -> None:  # noqa: F811
    """The server drops the insert and says nothing: the record is not there, and nobody is told that it is."""
    sink = world.sink()
    _, spans = await without(sink, "costs")
    await sink.redrive(spans[0])
    await delete(world, "costs")
    with pytest.raises(StoreUnavailableError, match="drops records"):
        await sink.redrive(spans[0])
    await sink.close()
