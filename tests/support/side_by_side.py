"""Which process runs which tests, when there are several (docs/decisions/0178)."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

#: Folders with servers, longest first: one process runs all of a folder, in order, since its tests share servers.
#: Tests of other folders are pure: sockets are off there, and a process takes them file by file.
WITH_SERVERS = ("e2e", "integration", "gateway", "contract", "faults")


def part_of(nodeid: str) -> str:
    """What has to stay in one process with this test: `tests/<folder>/.../<file>::<test>`."""
    file = nodeid.partition("::")[0]
    folder = file.split("/")[1]
    return folder if folder in WITH_SERVERS else file


def turn_of(nodeid: str) -> int:
    """When a test's turn comes: the longest parts begin, and what is small fills up the processes at the end."""
    part = part_of(nodeid)
    return WITH_SERVERS.index(part) if part in WITH_SERVERS else len(WITH_SERVERS)


class ByWhatTestsShare(LoadScopeScheduling):
    """Hands out tests in parts, in the order in which they were collected."""

    def _split_scope(self, nodeid: str) -> str:
        return part_of(nodeid)
