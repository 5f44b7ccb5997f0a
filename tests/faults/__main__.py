"""The fault suite on real servers: `python -m tests.faults [--rounds N] [--only NAME]... [--seed S] [--json]`.

Prints a table (fault x rounds x lost x doubled x seconds); exit code 0 only when everything is zero.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import secrets
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import structlog
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from schemas.errors import QuaestorError
from tests.faults import gateway, gateways, kills, outages, poison, sequencers, simulated, storms, twice
from tests.faults.report import Row
from tests.faults.world import STORES, StuckError, World

Tick = Callable[[], None]
Hurt = Callable[[World, int, Tick], Awaitable[list[Row]]]
Alone = Callable[[Path, Random, int, Tick], list[Row]]


@dataclass(frozen=True)
class Fault:
    """One part of the suite: on servers of its own, or `alone` with a folder."""

    what: str
    #: Of a full run.
    rounds: int
    #: Steps of the progress bar for so many rounds.
    steps: Callable[[int], int]
    hurt: Hurt | None = None
    alone: Alone | None = None


FAULTS: dict[str, Fault] = {
    "simulation": Fault("simulated faults", 500, lambda _: len(simulated.SINKS), alone=simulated.simulated),
    "kill": Fault("kill -9 of each sink", 100, lambda n: n * len(STORES), kills.kill_sinks),
    "zombie": Fault("zombies of each sink", 20, lambda n: n * len(STORES), kills.zombies),
    "servers": Fault("kill -9 of servers", 6, lambda n: n * len(outages.SERVERS), outages.kill_servers),
    "pairs": Fault("kill -9 of pairs of servers", 2, lambda n: n * len(outages.PAIRS), outages.kill_pairs),
    "network": Fault("lost answers, delays, cuts", 20, outages.network_rounds, outages.network),
    "storm": Fault("rebalance storms", 1, storms.storm_rounds, storms.storms),
    "scale": Fault("scaling out", 10, lambda n: n * (len(STORES) - 1), storms.scale_out),
    "twice": Fault("events produced twice", 10, lambda n: n, twice.twice),
    "poison": Fault("poison", 20, poison.poison_rounds, poison.poison),
    "gateway": Fault("calls through the gateway", 16, lambda n: n, alone=gateway.gateway),
    "sequencers": Fault("kill -9 of the audit sequencer", 200, lambda n: n, alone=sequencers.sequencers),
    "gateways": Fault("kill -9 of gateways", 200, lambda n: n, alone=gateways.gateways),
}


def main() -> int:
    """Run what was asked for; 0 only when nothing was lost, doubled or stuck."""
    asked = _arguments()
    for name in [name for name in os.environ if name.startswith("QUAESTOR_")]:
        del os.environ[name]
    # What this process's own clients meet while servers are away is no news here.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    console = Console(stderr=asked.json)
    rows: list[Row] = []
    records = Counter(acknowledged=0, repeated=0, restarts=0)
    started = time.monotonic()
    with _bar(console) as bar:
        try:
            for name in asked.only or FAULTS:
                found = _run(name, asked, bar, records)
                rows += found
                for row in found:
                    bar.console.print(row.worded(), style="" if row.ok else "red", highlight=False)
        except KeyboardInterrupt:
            rows.append(Row("the run", first_difference="interrupted; what ended before is in the table"))
    seconds = time.monotonic() - started
    failed = [row for row in rows if not row.ok]
    if asked.json:
        report = {"ok": not failed, "seed": asked.seed, "seconds": round(seconds, 1), "records": records}
        sys.stdout.write(json.dumps(report | {"faults": [row.as_json() for row in rows]}, indent=1) + "\n")
    else:
        _print(console, rows, seconds, asked.seed)
        words = (
            "{acknowledged:,} records of load in the log, {repeated:,} of them events produced twice, at other offsets;"
            " {restarts:,} processes ended by themselves and were started again"
        )
        if records["acknowledged"]:
            console.print(words.format_map(records), highlight=False)
    for row in failed:
        console.print(f"[red]{row.fault}[/]: {row.first_difference}", highlight=False)
    if failed:
        again = " ".join(f"--only {name}" for name in asked.only or ())
        console.print(f"again with the same draws: python -m tests.faults --seed {asked.seed} {again}", highlight=False)
    return 1 if failed else 0


def _run(name: str, asked: argparse.Namespace, bar: Progress, records: Counter[str]) -> list[Row]:
    """One part, in a folder of its own, which stays when something was wrong; its load is counted in `records`."""
    folder = Path(tempfile.mkdtemp(prefix=f"quaestor-faults-{name}-"))
    folder.chmod(0o711)
    random = Random(f"{asked.seed}/{name}")
    fault = FAULTS[name]
    rounds = asked.rounds or fault.rounds
    task = bar.add_task(fault.what, total=fault.steps(rounds))
    if fault.alone is not None:
        rows = fault.alone(folder, random, rounds, lambda: bar.advance(task))
    else:
        world = World(folder, random)
        rows = asyncio.run(_hurt(fault, world, rounds, lambda: bar.advance(task)))
        if hasattr(world, "load"):
            load = world.load
            records.update(acknowledged=load.acknowledged, repeated=load.repeated, restarts=world.restarts)
    if all(row.ok for row in rows):
        shutil.rmtree(folder, ignore_errors=True)
    else:
        bar.console.print(f"what is left of it: {folder}", highlight=False)
    return rows


async def _hurt(fault: Fault, world: World, rounds: int, tick: Tick) -> list[Row]:
    started = time.monotonic()
    try:
        await world.start()
        return await fault.hurt(world, rounds, tick) if fault.hurt is not None else []
    except (StuckError, TimeoutError, QuaestorError) as error:
        return [_ended(fault, error, started)]
    except Exception as error:  # noqa: BLE001 - whatever ends one part must not cost the table of the others
        (world.folder / "traceback.txt").write_text(traceback.format_exc(), encoding="utf-8")
        return [_ended(fault, error, started)]
    finally:
        await world.close()


def _ended(fault: Fault, error: Exception, started: float) -> Row:
    words = f"{type(error).__name__}: {error}"
    return Row(fault.what, seconds=time.monotonic() - started, first_difference=words)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--rounds", type=int, help="rounds of each fault; by default those of a full run")
    parser.add_argument("--only", action="append", choices=tuple(FAULTS), help="only these parts")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**32), help="decides every draw of the suite")
    parser.add_argument("--json", action="store_true", help="the table for programs, on standard output")
    return parser.parse_args()


def _bar(console: Console) -> Progress:
    words = TextColumn("{task.description}")
    return Progress(words, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console)


def _print(console: Console, rows: Sequence[Row], seconds: float, seed: int) -> None:
    table = Table(title=f"Faults (seed {seed}, {seconds / 60:.1f} min)")
    table.add_column("fault")
    for name in ("rounds", "lost", "doubled", "seconds"):
        table.add_column(name, justify="right")
    for row in rows:
        colour = "" if row.ok else "red"
        numbers = (str(row.rounds), str(row.lost), str(row.doubled), f"{row.seconds:.0f}")
        table.add_row(row.fault, *numbers, style=colour)
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
