"""What a further `quaestor up` brings along: variables that are new or changed since the stack was started."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

#: Variables of a terminal or shell, which differ from window to window and mean nothing to us.
SESSION = re.compile(
    r"_|PWD|OLDPWD|SHLVL|TERM.*|COLORTERM|COLUMNS|LINES|LS_COLORS|SSH_.*|XDG_.*|DBUS_.*|DISPLAY|WINDOWID|TMUX.*|STY|"
    r"HIST.*|PS1|INVOCATION_ID|JOURNAL_STREAM|MAKE.*|MFLAGS|PYTEST_.*|VIRTUAL_ENV.*|GPG_.*|LESS.*|EDITOR|PAGER"
)
#: Where the stack runs: given by `up` itself.
OWN = {"PYTHONPATH", "QUAESTOR_DATA", "QUAESTOR_MONITOR_PORT"}


@dataclass(frozen=True, slots=True)
class Change:
    """Variables that are new or have another value; `settings` tells whether one of ours is among them."""

    values: Mapping[str, str]
    settings: bool


def compare(old: Mapping[str, str], new: Mapping[str, str]) -> Change:
    """What is new or changed; variables that are missing in `new` stay as they were."""
    values = {
        name: value
        for name, value in new.items()
        if old.get(name) != value and name not in OWN and not SESSION.fullmatch(name)
    }
    return Change(values, any(name.startswith("QUAESTOR_") for name in values))
