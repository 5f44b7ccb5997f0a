"""An event loop without a clock, and a wire on which nothing moves until the simulation says so.

Coroutines of the product run on `VirtualLoop` unchanged: time is a number that the simulation moves, and `settle` runs
whatever can run now. Every call of a store goes over the `Wire`: it waits there until the simulation lets the server
carry it out, and again until its answer is let through, so every interleaving of processes is a sequence of choices.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from schemas.errors import StoreUnavailableError

T = TypeVar("T")


class _NoSelector(selectors.BaseSelector):
    """Watches nothing; being asked to wait means that nothing can run now."""

    def __init__(self) -> None:
        self.idle: Callable[[], None] = lambda: None
        self._keys: dict[int, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        number = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        key = self._keys[number] = selectors.SelectorKey(fileobj, number, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj if isinstance(fileobj, int) else fileobj.fileno())

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout > 0:
            self.idle()
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time stands still but for `advance`."""

    def __init__(self) -> None:
        """Begin at 0 seconds."""
        self.now = 0.0
        chosen = _NoSelector()
        super().__init__(chosen)
        chosen.idle = self.stop

    def time(self) -> float:
        """The simulation's time, seconds."""
        return self.now

    def settle(self) -> None:
        """Run everything that can run without time or the wire moving."""
        self.run_forever()

    def advance(self, seconds: float) -> None:
        """Move time, once nothing can run without it, and run what was waiting for it."""
        self.settle()
        self.now += seconds
        self.settle()


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing but its turn: what a fake store does in one step."""
    while True:
        try:
            waited = coroutine.send(None)
        except StopIteration as stop:
            result: T = stop.value
            return result
        if waited is not None:
            raise AssertionError("a fake store waits for nothing")


@dataclass(eq=False)
class Call:
    """A call under way."""

    number: int
    #: Name of the process that waits for it; a dead one waits no longer, but its call may still arrive.
    process: str
    what: str
    run: Callable[[], Any]
    future: asyncio.Future[Any]
    #: Whether the server carried it out; the answer is on its way back then.
    executed: bool = False
    result: Any = None
    fault: Exception | None = None
    orphaned: bool = False

    def execute(self) -> None:
        """The server carries the call out."""
        self.executed = True
        try:
            self.result = self.run()
        except Exception as fault:  # noqa: BLE001 - whatever the server says is the answer
            self.fault = fault

    def answer(self) -> None:
        """The answer arrives."""
        if self.future.done():
            return
        if self.fault is not None:
            self.future.set_exception(self.fault)
        else:
            self.future.set_result(self.result)

    def lose(self) -> None:
        """The connection breaks: whoever waits hears that the store can't be reached."""
        if not self.future.done():
            self.future.set_exception(StoreUnavailableError("the connection broke"))


@dataclass
class Wire:
    """The calls under way, oldest first."""

    loop: VirtualLoop
    calls: list[Call] = field(default_factory=list)
    _numbers: int = 0

    def call(self, process: str, what: str, run: Callable[[], Any]) -> Awaitable[Any]:
        """What the server answers, once the simulation lets it."""
        self._numbers += 1
        future = self.loop.create_future()
        self.calls.append(Call(self._numbers, process, what, run, future))
        return future

    def forget(self) -> None:
        """Drop calls that nobody waits for and nothing will come of."""
        self.calls = [call for call in self.calls if not call.future.done()]
