"""What is peculiar to a bucket with Object Lock, and to a time stamp authority."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from api.anchors.s3 import S3Anchor
from api.anchors.timestamp import TimestampAnchor
from schemas.errors import ConfigurationError, IntegrityError, StoreUnavailableError
from sinks.audit.anchors.check import check_anchor
from sinks.audit.anchors.keeper import AnchorKeeper, AnchorPlan
from sinks.audit.anchors.state import AnchorStates
from sinks.audit.files import LogFiles
from sinks.audit.process import published
from tests.contract.test_anchors import NEEDS_OPENSSL, NOW, options
from tests.support.anchors import ACCESS_KEY, SECRET_KEY, Authority, Bucket, note_of, serving
from tests.support.audit import AuditWorld


@pytest.fixture
async def bucket() -> AsyncIterator[tuple[Bucket, str]]:
    """An empty bucket and its endpoint."""
    made = Bucket(page_keys=2)
    async with serving(made.handle) as url:
        yield made, url


@pytest.fixture
async def locked(bucket: tuple[Bucket, str], tmp_path: Path) -> AsyncIterator[S3Anchor]:
    """An anchor of that bucket, thirty days long."""
    anchor = S3Anchor(options(bucket[1], tmp_path), lambda: NOW / 1e6)
    yield anchor
    await anchor.close()


async def test_objects_are_locked(bucket: tuple[Bucket, str], locked: S3Anchor) -> None:
    """COMPLIANCE mode until thirty days from now, under the size in nineteen digits, every request signed."""
    await locked.put(note_of(42), NOW)

    (version,) = bucket[0].versions
    assert ("audit log/0000000000000000042", "2023-12-14T22:13:20Z") == (version.key, version.retain_until)
    assert [] == bucket[0].refusals


async def test_what_was_put_over_a_checkpoint_does_not_hide_it(bucket: tuple[Bucket, str], locked: S3Anchor) -> None:
    """The locked version stays and is judged, as is the one over it; other objects are passed over."""
    await locked.put(note_of(42), NOW)
    bucket[0].put_over("audit log/0000000000000000042", note_of(42, root=9).encode())
    bucket[0].put_over("audit log/readme", b"hello")

    assert {note_of(42), note_of(42, root=9)} == {each.note for each in await locked.kept()}


async def test_an_object_under_another_size_is_refused(bucket: tuple[Bucket, str], locked: S3Anchor) -> None:
    """Its key and its checkpoint must agree."""
    bucket[0].put_over("audit log/0000000000000000042", note_of(41).encode())

    with pytest.raises(IntegrityError, match="over 41 entries"):
        await locked.kept()


@pytest.mark.parametrize("case", ["wrong secret", "no secret"])
async def test_credentials_that_do_not_work(
    bucket: tuple[Bucket, str], locked: S3Anchor, tmp_path: Path, case: str
) -> None:
    """The bucket's word for it is told, or the reference that is empty; never the secret."""
    (tmp_path / "secret").write_text("wrong" if case == "wrong secret" else "")

    with pytest.raises(StoreUnavailableError) as refused:
        await locked.put(note_of(1), NOW)
    expected = "403 SignatureDoesNotMatch" if case == "wrong secret" else f"file:{tmp_path}/secret is empty"
    assert expected in str(refused.value)
    assert not any(word in str(refused.value) for word in ("wrong", ACCESS_KEY, SECRET_KEY))


async def test_a_bucket_that_hangs_is_given_up(bucket: tuple[Bucket, str], locked: S3Anchor, tmp_path: Path) -> None:
    """The keeper's time-out ends the request, and the next one works."""
    log = AuditWorld(tmp_path / "log")
    await log.claim()
    await log.grow(10)
    states, files = AnchorStates(tmp_path / "states"), LogFiles(log.layout.directory)
    bucket[0].hangs = True
    assert 1 == await AnchorKeeper([], files, states, lambda: NOW).step(AnchorPlan(locked, 60, 0.2))
    assert "no answer within 0.2 seconds" == states.load(locked.name).error
    bucket[0].hangs = False

    assert 60 == await AnchorKeeper([], files, states, lambda: NOW).step(AnchorPlan(locked, 60, 10))
    keys, _ = published(log.layout)
    found = await check_anchor(locked, states.load(locked.name), files, keys.chain, lambda: published(log.layout)[1])
    assert (True, 1) == (found.ok, found.actual)


@pytest.fixture
async def authority(tmp_path: Path) -> AsyncIterator[tuple[Authority, str]]:
    """A time stamp authority and its address."""
    made = Authority(tmp_path / "authority")
    async with serving(made.handle) as url:
        yield made, f"{url}/tsr"


@NEEDS_OPENSSL
async def test_openssl_verifies_the_token(authority: tuple[Authority, str], tmp_path: Path) -> None:
    """The command of the guide says OK for the checkpoint, and fails for another one."""
    made, url = authority
    anchor = TimestampAnchor(url, tmp_path / "tokens", made.roots)
    await anchor.put(note_of(42), NOW)
    await anchor.close()
    token, data = tmp_path / "tokens/42.tsr", tmp_path / "tokens/42.checkpoint"

    arguments = ("-verify", "-in", str(token), "-CAfile", str(made.roots))
    assert "Verification: OK" in made.openssl(*arguments, "-data", str(data))
    data.write_text(note_of(43), "utf-8")
    with pytest.raises(Exception, match="non-zero exit status"):
        made.openssl(*arguments, "-data", str(data))


@NEEDS_OPENSSL
async def test_a_stamp_of_something_else_is_refused(authority: tuple[Authority, str], tmp_path: Path) -> None:
    """An answer to an earlier question, and bytes that are none: neither is kept."""
    made, url = authority
    anchor = TimestampAnchor(url, tmp_path / "tokens", made.roots)
    await anchor.put(note_of(1), NOW)
    token = (tmp_path / "tokens/1.tsr").read_bytes()
    other = TimestampAnchor(url, tmp_path / "others", made.roots)
    for stale, note, words in (
        (token, note_of(2), "of something else"),
        (token, note_of(1), "answers another question"),
        (b"junk", note_of(1), "can't be read"),
    ):
        made.stale = stale
        with pytest.raises(IntegrityError, match=words):
            await other.put(note, NOW)

    assert [] == await other.kept()
    await anchor.close()
    await other.close()


@NEEDS_OPENSSL
async def test_the_authority_must_lead_to_the_roots(authority: tuple[Authority, str], tmp_path: Path) -> None:
    """With another authority's roots its stamps are worth nothing; without roots its signature is not looked at."""
    url = authority[1]
    stranger = Authority(tmp_path / "stranger")
    trusting = TimestampAnchor(url, tmp_path / "tokens")
    await trusting.put(note_of(1), NOW)
    wary = TimestampAnchor(url, tmp_path / "tokens", stranger.roots)

    assert 1 == len(await trusting.kept())
    with pytest.raises(IntegrityError, match="not the authority's"):
        await wary.kept()
    await trusting.close()
    await wary.close()


@NEEDS_OPENSSL
@pytest.mark.parametrize("case", ["checkpoint changed", "checkpoint gone", "moved"])
async def test_a_changed_folder_of_tokens_is_found(authority: tuple[Authority, str], tmp_path: Path, case: str) -> None:
    """Checkpoint and token must fit each other and their name."""
    made, url = authority
    anchor, tokens = TimestampAnchor(url, tmp_path / "tokens", made.roots), tmp_path / "tokens"
    await anchor.put(note_of(5), NOW)
    if case == "checkpoint changed":
        (tokens / "5.checkpoint").write_text(note_of(5, root=9), "utf-8")
    elif case == "checkpoint gone":
        (tokens / "5.checkpoint").unlink()
    else:
        for suffix in ("checkpoint", "tsr"):
            (tokens / f"5.{suffix}").rename(tokens / f"6.{suffix}")

    words = {"checkpoint changed": "something else", "checkpoint gone": "missing", "moved": "over 5 entries"}[case]
    with pytest.raises(IntegrityError, match=words):
        await anchor.kept()
    await anchor.close()


async def test_roots_that_are_none_are_refused(tmp_path: Path) -> None:
    """At the start, not at the first stamp."""
    (tmp_path / "roots.pem").write_text("junk")

    with pytest.raises(ConfigurationError, match=r"roots\.pem"):
        TimestampAnchor("http://127.0.0.1:1/tsr", tmp_path, tmp_path / "roots.pem")
