"""The health stream as a process that a test can kill: `python -m tests.support.health_program BOOTSTRAP FOLDER`.

Says `running` in a line once it has its partitions.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from streams.agents.run import run_health
from streams.codec import Codec, LocalSchemas
from streams.log import Membership
from streams.monitor import Monitor

#: Longer than any test waits: whoever has its partitions earlier did not wait for this session to end.
MEMBERSHIP = Membership(120.0, "dying")
LOOK_SECONDS = 0.05


async def main(bootstrap: str, folder: Path) -> None:
    """Run until killed."""
    monitor = Monitor("stream-health")
    work = run_health(bootstrap, Codec(LocalSchemas()), monitor, asyncio.Event(), folder, MEMBERSHIP)
    running = asyncio.create_task(work)
    while monitor.status()["state"] != "running" and not running.done():  # noqa: ASYNC110 - a monitor tells nobody
        await asyncio.sleep(LOOK_SECONDS)
    sys.stdout.write("ended\n" if running.done() else "running\n")
    sys.stdout.flush()
    await running


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
