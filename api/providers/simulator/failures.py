"""How a simulated provider fails: by a field of the request, by a script, or by chance."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

import msgspec

from schemas.errors import ConfigurationError

#: Requests remembered for `fail_times`; older ones begin anew.
REMEMBERED_REQUESTS_MAX = 10_000
SCRIPT_REQUESTS_MAX = 1_000_000
_DRAW_SCALE = 2**64


class Failure(StrEnum):
    """What goes wrong."""

    #: Error answers in OpenAI's shape.
    STATUS_400 = "400"
    STATUS_401 = "401"
    STATUS_404 = "404"
    STATUS_429 = "429"
    STATUS_500 = "500"
    STATUS_503 = "503"
    #: Never answers.
    TIMEOUT = "timeout"
    #: Waits long before the first byte, then answers.
    SLOW_HEADERS = "slow_headers"
    #: The connection is reset: before the answer, or in the middle of a stream.
    DISCONNECT = "disconnect"
    #: The answer ends too early: half of the body, or a stream without its last chunks and [DONE].
    TRUNCATE = "truncate"
    #: Status 200 and bytes that are no JSON.
    GARBAGE = "garbage"
    #: A good answer that does not say what was used.
    NO_USAGE = "no_usage"

    @property
    def status(self) -> int | None:
        """HTTP status of an error answer, None for the other failures."""
        return int(self.value) if self.value.isdigit() else None


class ScriptLine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of a script: a request or a range of them, counted from 1, and how they fail."""

    request: int | None = None
    first: int | None = None
    last: int | None = None
    fail: Failure


def read_script(path: Path) -> dict[int, Failure]:
    """The failures of a script file by number of the request; raises ConfigurationError with what is wrong.

    The file is JSON such as `[{"request": 3, "fail": "500"}, {"first": 7, "last": 9, "fail": "429"}]`.
    """
    try:
        lines = msgspec.json.decode(path.read_bytes(), type=list[ScriptLine])
    except OSError as error:
        raise ConfigurationError(f"script {path}: {error.strerror}") from None
    except msgspec.MsgspecError as error:
        raise ConfigurationError(f"script {path}: {error}") from None
    failures: dict[int, Failure] = {}
    for line in lines:
        first = line.request if line.first is None else line.first
        last = first if line.last is None else line.last
        if first is None or last is None or not 1 <= first <= last <= SCRIPT_REQUESTS_MAX:
            raise ConfigurationError(f"script {path}: name 'request', or 'first' and 'last', counted from 1")
        failures.update(dict.fromkeys(range(first, last + 1), line.fail))
    return failures


class FailurePlan:
    """Decides for every request whether and how it fails; remembers how often it has seen a request, up to a bound."""

    def __init__(self, seed: int, error_rate: float, error: Failure, script: Mapping[int, Failure]) -> None:
        """`error_rate` is the part of requests that fail by chance with `error`."""
        self._seed = seed
        self._threshold = int(error_rate * _DRAW_SCALE)
        self._error = error
        self._script = script
        self._seen: OrderedDict[bytes, int] = OrderedDict()

    def failure(self, number: int, digest: bytes, asked: Failure | None, times: int | None) -> Failure | None:
        """How the request of this number (from 1) and digest fails, None when it does not.

        What the request asks for comes first (the first `times` times it is seen), then the script, then chance.
        """
        if asked is not None and (times is None or self._count(digest) <= times):
            return asked
        scripted = self._script.get(number)
        if scripted is not None:
            return scripted
        return self._error if self._threshold and self._draw(number) < self._threshold else None

    def _draw(self, number: int) -> int:
        digest = hashlib.blake2b(f"{self._seed}/{number}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big")

    def _count(self, digest: bytes) -> int:
        times = self._seen.pop(digest, 0) + 1
        self._seen[digest] = times
        if len(self._seen) > REMEMBERED_REQUESTS_MAX:
            self._seen.popitem(last=False)
        return times
