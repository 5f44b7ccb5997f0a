"""What every anchor must do: in memory, in a file, in a bucket with Object Lock, with a time stamp authority."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from api.anchors.s3 import S3Anchor, S3Options
from api.anchors.timestamp import TimestampAnchor
from schemas.errors import IntegrityError, StoreUnavailableError
from sinks.audit.anchors.file import FileAnchor
from sinks.audit.anchors.seam import Anchor, Anchored, MemoryAnchor
from tests.support.anchors import ACCESS_KEY, BUCKET, REGION, SECRET_KEY, Authority, Bucket, note_of, serving

NOW = 1_700_000_000_000_000
NEEDS_OPENSSL = pytest.mark.skipif(shutil.which("openssl") is None, reason="the authority is the openssl command")


class World:
    """An anchor, how to make another one on the same place, and how to take the place away."""

    def __init__(self, make: Callable[[], Anchor], go_away: Callable[[], object]) -> None:
        """Nothing is kept there."""
        self.make, self.go_away = make, go_away
        self.anchor = make()

    async def sizes(self) -> list[int]:
        """The sizes that are kept, as one sees who comes anew."""
        other = self.make()
        try:
            return [each.checkpoint.size for each in await other.kept()]
        finally:
            if other is not self.anchor:
                await other.close()


def options(endpoint: str, folder: Path) -> S3Options:
    """Of the test's bucket, its credentials in files."""
    (folder / "access").write_text(ACCESS_KEY)
    (folder / "secret").write_text(SECRET_KEY)
    return S3Options(endpoint, REGION, BUCKET, "audit log/", 30, f"file:{folder}/access", f"file:{folder}/secret")


@pytest.fixture(params=["memory", "file", "s3", pytest.param("rfc3161", marks=NEEDS_OPENSSL)])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """Each kind of anchor, empty."""
    async with AsyncExitStack() as stack:
        made = await world_of(request.param, tmp_path, stack)
        yield made
        await made.anchor.close()


async def world_of(kind: str, folder: Path, stack: AsyncExitStack) -> World:
    """An anchor of a kind."""
    if kind == "memory":
        memory = MemoryAnchor()
        return World(lambda: memory, lambda: setattr(memory, "away", True))
    if kind == "file":
        home = folder / "worm"
        home.mkdir()
        return World(lambda: FileAnchor(home / "anchor.jsonl"), lambda: home.rename(folder / "gone"))
    if kind == "s3":
        bucket = Bucket(page_keys=2)
        url = await stack.enter_async_context(serving(bucket.handle))
        given = options(url, folder)
        return World(lambda: S3Anchor(given, lambda: NOW / 1e6), lambda: setattr(bucket, "away", True))
    authority = Authority(folder / "authority")
    url = await stack.enter_async_context(serving(authority.handle))
    tokens = folder / "tokens"
    return World(
        lambda: TimestampAnchor(f"{url}/tsr", tokens, authority.roots), lambda: setattr(authority, "away", True)
    )


async def test_what_is_put_is_kept(world: World) -> None:
    """Every note comes back as it was, the smallest first, also to one who comes later."""
    notes = [note_of(size) for size in (1, 9, 10, 100, 101)]
    assert [] == await world.anchor.kept()
    for note in notes:
        await world.anchor.put(note, NOW)

    kept: list[Anchored] = await world.anchor.kept()
    assert notes == [each.note for each in kept]
    assert all(each.at_micros > 0 for each in kept)
    assert [1, 9, 10, 100, 101] == await world.sizes()


async def test_the_same_again_changes_nothing(world: World) -> None:
    """A checkpoint that is kept is not kept twice, whoever signed it meanwhile."""
    await world.anchor.put(note_of(5), NOW)
    await world.anchor.put(note_of(5), NOW + 1)
    await world.anchor.put(note_of(5) + note_of(5).rsplit("\n\n", 1)[1], NOW + 2)

    assert [5] == await world.sizes()


async def test_it_does_not_go_backwards(world: World) -> None:
    """A smaller one after a larger one is refused: somebody has an older log."""
    await world.anchor.put(note_of(10), NOW)

    with pytest.raises(IntegrityError, match="10 entries"):
        await world.anchor.put(note_of(9), NOW)
    assert [10] == await world.sizes()


async def test_another_root_of_the_same_size_is_refused(world: World) -> None:
    """There is one history: a second one is told by name."""
    await world.anchor.put(note_of(10), NOW)

    with pytest.raises(IntegrityError, match="another root at 10 entries"):
        await world.anchor.put(note_of(10, root=8), NOW)
    assert [10] == await world.sizes()


async def test_one_that_is_away_says_so(world: World) -> None:
    """Nothing is lost by it: it is asked again later."""
    await world.anchor.put(note_of(10), NOW)
    world.go_away()

    with pytest.raises(StoreUnavailableError):
        await world.anchor.put(note_of(11), NOW)


async def test_the_name_shows_no_credential(world: World) -> None:
    """A name is for tables and logs."""
    assert ACCESS_KEY not in repr(world.anchor) + world.anchor.name
    assert SECRET_KEY not in repr(world.anchor) + world.anchor.name
