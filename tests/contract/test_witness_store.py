"""What every memory of a witness must do, asked of the one in this process and of the one in files."""

from __future__ import annotations

import asyncio
import fcntl
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from processors.audit.witness import origin_hash
from schemas.errors import IntegrityError, StoreUnavailableError
from sinks.audit.witness_store import FileWitnessStore, MemoryWitnessStore, WitnessStore, answer
from tests.support.witnesses import AskingLog, cosigner

LOG = AskingLog()
WITNESS = cosigner("one")
NOW_SECONDS = 1_700_000_000
THREADS = 8


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> WitnessStore:
    """An empty memory."""
    return MemoryWitnessStore() if request.param == "memory" else FileWitnessStore(tmp_path / "logs")


def test_nothing_is_remembered_of_a_new_log(store: WitnessStore) -> None:
    """None, whatever the origin looks like."""
    assert [None, None] == [store.latest("log.example/one"), store.latest("../../etc/passwd")]


def test_only_who_knows_what_stands_there_replaces_it(store: WitnessStore) -> None:
    """Compare and set."""
    assert store.swap("one", None, "first\n")
    assert not store.swap("one", None, "second\n")
    assert not store.swap("one", "second\n", "third\n")
    assert store.swap("one", "first\n", "second\n")
    assert "second\n" == store.latest("one")


def test_logs_do_not_meet(store: WitnessStore) -> None:
    """Each origin has a note of its own."""
    assert store.swap("one", None, "1\n")
    assert store.swap("two", None, "2\n")

    assert ["1\n", "2\n"] == [store.latest("one"), store.latest("two")]


def test_of_many_at_once_one_succeeds(store: WitnessStore) -> None:
    """All know the same; the others have changed nothing."""
    together = threading.Barrier(THREADS)

    def swap(round_and_number: tuple[int, int]) -> bool:
        old = store.latest("one")
        together.wait()
        return store.swap("one", old, f"{round_and_number}\n")

    with ThreadPoolExecutor(THREADS) as pool:
        for count in range(5):
            swapped = list(pool.map(swap, [(count, number) for number in range(THREADS)]))
            assert 1 == sum(swapped)
            assert f"({count}, {swapped.index(True)})\n" == store.latest("one")


def test_two_requests_of_one_old_size_never_both_pass(store: WitnessStore) -> None:
    """The race that the specification warns of: whoever comes second is told the size of the first."""
    for old_size in range(0, 30, 2):
        together = threading.Barrier(2)

        def ask(size: int, old_size: int = old_size, together: threading.Barrier = together) -> tuple[int, str]:
            together.wait()
            said = answer(store, LOG.ask(old_size, size), LOG.logs, WITNESS, NOW_SECONDS)
            return said.status, said.body if said.status == 409 else ""

        sizes = (old_size + 1, old_size + 2)
        with ThreadPoolExecutor(2) as pool:
            said = list(pool.map(ask, sizes))
        assert [200, 409] == sorted(status for status, _ in said)
        cosigned = sizes[[status for status, _ in said].index(200)]
        assert f"{cosigned}\n" in [body for _, body in said]
        if cosigned != old_size + 2:
            assert 200 == answer(store, LOG.ask(cosigned, old_size + 2), LOG.logs, WITNESS, NOW_SECONDS).status


def test_an_old_request_never_takes_the_log_back(store: WitnessStore) -> None:
    """Judged before another came in, and remembered after it: judged again."""

    class Late:
        """Another request is answered between this one's reading and its writing."""

        def latest(self, origin: str) -> str | None:
            """What stands there before it."""
            found = store.latest(origin)
            if found is None:
                assert 200 == answer(store, LOG.ask(0, 9), LOG.logs, WITNESS, NOW_SECONDS).status
            return found

        def swap(self, origin: str, old: str | None, new: str) -> bool:
            """As the store does."""
            return store.swap(origin, old, new)

    said = answer(Late(), LOG.ask(0, 5), LOG.logs, WITNESS, NOW_SECONDS)

    assert (409, "9\n") == (said.status, said.body)


def test_a_log_nobody_follows_is_not_looked_up(store: WitnessStore) -> None:
    """Strangers can't make a witness write or read."""
    said = answer(store, AskingLog("another.example/log").ask(0, 5), LOG.logs, WITNESS, NOW_SECONDS)

    assert (404, None) == (said.status, store.latest("another.example/log"))


async def test_the_same_checkpoint_again_is_cosigned_again(store: WitnessStore) -> None:
    """Whoever lost the answer asks again from the size that is known by now; both at once as well."""
    assert 200 == answer(store, LOG.ask(0, 5), LOG.logs, WITNESS, NOW_SECONDS).status

    asked = [asyncio.to_thread(answer, store, LOG.ask(5, 5), LOG.logs, WITNESS, NOW_SECONDS + each) for each in (1, 2)]
    assert [200, 200] == [said.status for said in await asyncio.gather(*asked)]


def test_what_was_remembered_is_there_for_the_next_process(tmp_path: Path) -> None:
    """In a file named by the origin's hash, which holds the note as monitors read it."""
    assert FileWitnessStore(tmp_path / "logs").swap("one", None, "note\n")

    assert "note\n" == FileWitnessStore(tmp_path / "logs").latest("one")
    assert "note\n" == (tmp_path / "logs" / f"{origin_hash('one')}.checkpoint").read_text()


class CrashError(Exception):
    """The process dies here."""


@pytest.mark.parametrize(("point", "status"), [("write ", 200), ("rename ", 200), ("renamed ", 409)])
def test_a_crash_before_the_answer_leaves_a_witness_that_goes_on(tmp_path: Path, point: str, status: int) -> None:
    """What was persisted and not answered is told as a conflict, and cosigned from there; what was not, as if new."""

    def dying(passed: str) -> None:
        if passed.startswith(point):
            raise CrashError

    with pytest.raises(CrashError):
        answer(FileWitnessStore(tmp_path, dying), LOG.ask(0, 5), LOG.logs, WITNESS, NOW_SECONDS)
    store = FileWitnessStore(tmp_path)

    assert status == answer(store, LOG.ask(0, 5), LOG.logs, WITNESS, NOW_SECONDS).status
    assert 200 == answer(store, LOG.ask(5, 5), LOG.logs, WITNESS, NOW_SECONDS).status
    fork = AskingLog(entries=[b"another"] * 9)
    assert 422 == answer(store, fork.ask(5, 9), LOG.logs, WITNESS, NOW_SECONDS).status


def test_a_disk_that_fails_is_no_answer(tmp_path: Path) -> None:
    """Nothing is cosigned that could not be remembered."""
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreUnavailableError):
        answer(FileWitnessStore(tmp_path / "file" / "logs"), LOG.ask(0, 5), LOG.logs, WITNESS, NOW_SECONDS)


def test_a_damaged_memory_is_no_empty_one(tmp_path: Path) -> None:
    """A witness that has forgotten would cosign a second history."""
    store = FileWitnessStore(tmp_path)
    answer(store, LOG.ask(0, 5), LOG.logs, WITNESS, NOW_SECONDS)
    path = tmp_path / f"{origin_hash(LOG.signer.name)}.checkpoint"

    for damaged in (b"", b"\xff", b"rubbish\n", path.read_bytes()[:-9]):
        path.write_bytes(damaged)
        with pytest.raises(IntegrityError):
            answer(store, LOG.ask(0, 5), LOG.logs, WITNESS, NOW_SECONDS)


def test_a_lock_that_is_held_keeps_others_waiting(tmp_path: Path) -> None:
    """The lock is the file system's: it holds between processes."""
    store = FileWitnessStore(tmp_path)
    assert store.swap("one", None, "1\n")
    with (tmp_path / f"{origin_hash('one')}.lock").open("ab") as held, ThreadPoolExecutor(1) as pool:
        fcntl.flock(held, fcntl.LOCK_EX)
        swapping = pool.submit(store.swap, "one", "1\n", "2\n")
        assert "1\n" == store.latest("one")
        fcntl.flock(held, fcntl.LOCK_UN)
        assert swapping.result()
