"""What benchmarks say of a store is worth something: a check that has to fail does."""

from __future__ import annotations

from benchmarks.events import EventMaker
from benchmarks.filling import last_windows
from benchmarks.sink_checks import window_differences
from schemas.events import ProviderHealth
from sinks.redis.health import FIELDS

START_MICROS = 1_700_000_000_000_000


def kept(window: ProviderHealth) -> dict[str, str]:
    """A window as Redis gives it back."""
    return {name: str(getattr(window, name)) for name in FIELDS if getattr(window, name) is not None}


def test_the_last_windows_are_right() -> None:
    """Of each provider the window that ended last, whatever order they are read in."""
    windows = list(EventMaker(START_MICROS).health(9))
    assert "" == window_differences(last_windows(windows), [kept(each) for each in reversed(windows[-3:])])


def test_an_earlier_window_is_wrong() -> None:
    """A store that stopped one window early is named."""
    windows = list(EventMaker(START_MICROS).health(9))
    found = window_differences(last_windows(windows), [kept(each) for each in (windows[5], *windows[-3:-1])])
    assert f"{windows[8].provider_id}/{windows[8].model}/" == found


def test_a_window_that_is_missing_is_wrong() -> None:
    """Nothing kept is no agreement."""
    windows = list(EventMaker(START_MICROS).health(3))
    found = window_differences(last_windows(windows), [kept(each) for each in windows[1:]])
    assert f"{windows[0].provider_id}/{windows[0].model}/" == found
