"""What docs/guides/auditors.md tells an auditor to run about witnesses believes the right ones and no others."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from processors.audit.note import Signer, parse_note
from processors.audit.witness import Cosigner
from tests.support.witnesses import AskingLog, cosigner, seed

PAGE = Path(__file__).parents[3] / "docs" / "guides" / "auditors.md"
SECONDS_MAX = 60
LOG = AskingLog()
ONE, TWO = cosigner("one"), cosigner("two")
TEXT = parse_note(LOG.checkpoint(7))[0]
COSIGNED = LOG.checkpoint(7) + ONE.cosign(TEXT, 1_700_000_000).text + TWO.cosign(TEXT, 1_700_000_060).text

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="the page has openssl check the signatures")


def check(folder: Path, note: str, *vkeys: str) -> tuple[int, list[str]]:
    """Exit code and lines of the page's program, run with the standard library alone."""
    program = next(
        block
        for block in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
        if "cosignature/v1" in block
    )
    (folder / "checkpoint").write_text(note, encoding="utf-8")
    command = [sys.executable, "-I", "-c", program, str(folder / "checkpoint"), *vkeys]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
    return done.returncode, (done.stdout + done.stderr).strip().splitlines()


def test_those_who_signed_are_named(tmp_path: Path) -> None:
    """With the log, its size, and when."""
    assert (
        0,
        [
            "one.example/witness saw log.example/asking at 7 entries on 2023-11-14 22:13:20 UTC",
            "two.example/witness saw log.example/asking at 7 entries on 2023-11-14 22:14:20 UTC",
        ],
    ) == check(tmp_path, COSIGNED, ONE.verifier.vkey, TWO.verifier.vkey)


@pytest.mark.parametrize(
    ("note", "vkey", "words"),
    [
        (LOG.checkpoint(7), ONE.verifier.vkey, "one.example/witness has not signed this checkpoint"),
        (COSIGNED, cosigner("three").verifier.vkey, "three.example/witness has not signed"),
        (COSIGNED, Cosigner(Signer("one.example/witness", seed("two"))).verifier.vkey, "has not signed"),
        (COSIGNED.replace("\n7\n", "\n8\n"), ONE.verifier.vkey, "the signature of one.example/witness is wrong"),
        (COSIGNED, LOG.signer.verifier.vkey, "is not a witness's"),
        (COSIGNED, ONE.verifier.vkey.replace("+B", "+C"), "its own hash is wrong"),
    ],
    ids=["nobody", "another", "another key", "another text", "a log", "a damaged key"],
)
def test_others_are_not_believed(tmp_path: Path, note: str, vkey: str, words: str) -> None:
    """Each with its reason."""
    code, lines = check(tmp_path, note, vkey)

    assert 1 == code
    assert words in lines[-1]
