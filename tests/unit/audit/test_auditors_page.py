"""What docs/guides/auditors.md tells an auditor to run finds a sound log sound and names what is wrong with another."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from processors.audit.checkpoint import Checkpoint, parse_checkpoint
from processors.audit.note import parse_note
from processors.audit.tiles import decode_bundle, encode_bundle
from sinks.audit.reader import DirectoryLog
from sinks.audit.receipts import build_receipts
from tests.support.audit import ORIGIN, AuditWorld
from tests.unit.audit.test_public_log import entries_of, serve

PAGE = Path(__file__).parents[3] / "docs" / "guides" / "auditors.md"
SECONDS_MAX = 60

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="the page has openssl check the signature")


@pytest.fixture
async def world(tmp_path: Path) -> AuditWorld:
    """A published log of two batches, the second in partial tiles."""
    made = AuditWorld(tmp_path)
    await made.claim()
    await made.grow(150, 20)
    return made


def check(world: AuditWorld, vkey: str = "") -> tuple[int, str]:
    """Exit code and last line of the page's program, run with the standard library alone."""
    program = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)[0]
    command = [sys.executable, "-I", "-c", program, str(world.layout.directory), vkey or world.signer.verifier.vkey]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
    return done.returncode, (done.stdout + done.stderr).strip().splitlines()[-1]


def rewrite(world: AuditWorld, bundle: str, change: Callable[[list[bytes]], list[bytes]]) -> None:
    """Change the entries of a bundle."""
    path = world.layout.directory / "tile/entries" / bundle
    path.write_bytes(encode_bundle(change(decode_bundle(path.read_bytes()))))


async def test_a_sound_log(world: AuditWorld) -> None:
    """It ends with the size and the root that were signed."""
    report = await world.verify()

    code, words = check(world)
    assert (0, True) == (
        code,
        words.startswith(f"{report.origin}: all {report.size} entries are under the signed root"),
    )


def flipped(entries: list[bytes]) -> list[bytes]:
    """The commitment of entry 40 changed."""
    return [*entries[:40], entries[40][:90] + bytes([entries[40][90] ^ 1]) + entries[40][91:], *entries[41:]]


@pytest.mark.parametrize(
    ("bundle", "change", "words"),
    [
        ("000", flipped, r"FAILED: entry 4\d does not continue the chain of tenant_"),
        ("000", lambda entries: [entries[1], entries[0], *entries[2:]], "FAILED: entry 0 says that it is entry 1"),
        ("001.p/86", lambda entries: entries[:-1], "FAILED: the entries do not give the root signed at 342 entries"),
    ],
    ids=["flip", "swap", "cut"],
)
def test_a_log_that_was_changed(
    world: AuditWorld, bundle: str, change: Callable[[list[bytes]], list[bytes]], words: str
) -> None:
    """The first entry that does not fit is named, or the root."""
    rewrite(world, bundle, change)

    code, found = check(world)
    assert code == 1
    assert re.search(words, found)


def test_another_key(world: AuditWorld) -> None:
    """A log signed by somebody else is refused."""
    vkey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"

    assert check(world, vkey) == (1, "FAILED: the checkpoint is not signed by this key")


@pytest.mark.parametrize(
    ("dropped", "size", "origin", "words"),
    [
        (0, 300, ORIGIN, "FAILED: there are not 300 entries"),
        (1, 341, ORIGIN, "FAILED: the last entry does not say where the chains stand"),
        (0, 342, "elsewhere", "FAILED: the checkpoint is of another log, elsewhere"),
    ],
    ids=["size", "heads", "origin"],
)
async def test_a_signed_lie(world: AuditWorld, dropped: int, size: int, origin: str, words: str) -> None:
    """Whoever has the key can sign another size, leave the last heads entry out, or sign for another log."""
    entries = entries_of(world)
    serve(world, entries[: len(entries) - dropped])
    root = parse_checkpoint(parse_note(world.files.checkpoint() or "")[0]).root
    bundles = world.layout.directory / "tile/entries"
    # All of them, wherever the size said would have them looked for.
    (bundles / f"001.p/{size - 256}").write_bytes(encode_bundle(entries[256 : len(entries) - dropped]))
    world.files.publish(world.signer.sign(Checkpoint(origin, size, root).text))

    assert check(world) == (1, f"AssertionError: {words}")


async def check_receipt(world: AuditWorld, path: Path) -> tuple[int, str]:
    """Exit code and last line of the page's program for one receipt."""
    programs = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    program = next(each for each in programs if "tlog-proof@v1" in each)
    command = [sys.executable, "-I", "-c", program, str(path), world.signer.verifier.vkey]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=SECONDS_MAX, check=False
    )
    return done.returncode, (done.stdout + done.stderr).strip().splitlines()[-1]


@pytest.fixture
async def receipt(world: AuditWorld) -> str:
    """The receipt of one entry in the middle."""
    log = DirectoryLog(world.files)
    note = await log.checkpoint()
    assert note is not None
    (built,) = await build_receipts(log, note, 342, [200])
    return built.data.decode("utf-8")


async def test_a_sound_receipt(world: AuditWorld, receipt: str, tmp_path: Path) -> None:
    """It says which entry of how many is proven."""
    path = tmp_path / "one.tlog-proof"
    path.write_text(receipt, "utf-8")

    code, words = await check_receipt(world, path)
    assert (0, True) == (code, "this is index 200 of 342 entries under the signed root" in words)


@pytest.mark.parametrize("line", [1, 2, 3, 9])
async def test_a_receipt_that_was_changed(world: AuditWorld, receipt: str, tmp_path: Path, line: int) -> None:
    """Entry, index and hashes: whatever is changed, the proof leads elsewhere."""
    lines, path = receipt.split("\n"), tmp_path / "one.tlog-proof"
    old = lines[line]
    middle = len(old) - 3 if len(old) > 40 else len(old) - 1
    lines[line] = old[:middle] + ("1" if old[middle] != "1" else "2") + old[middle + 1 :]
    path.write_text("\n".join(lines), "utf-8")

    code, words = await check_receipt(world, path)
    assert code == 1
    assert "FAILED" in words
