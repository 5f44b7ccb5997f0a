"""Which process runs which tests, when there are two (docs/decisions/0142)."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

#: Folders with servers, by what their tests share: one process runs all of these, in order. Tests of other folders are
#: pure: sockets are off there, and a process takes them file by file.
SHARING = {
    "contract": "shared servers",
    "integration": "shared servers",
    "e2e": "whole products",
    "faults": "whole products",
}


def part_of(nodeid: str) -> str:
    """What has to stay in one process with this test: `tests/<folder>/.../<file>::<test>`."""
    file = nodeid.partition("::")[0]
    return SHARING.get(file.split("/")[1], file)


class ByWhatTestsShare(LoadScopeScheduling):
    """Hands out tests in parts, in the order in which they were collected: folders with servers come first."""

    def _split_scope(self, nodeid: str) -> str:
        return part_of(nodeid)
