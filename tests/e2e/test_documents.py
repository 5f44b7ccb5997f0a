"""README.md and docs/start.md do what they say: their blocks are executed as a newcomer would, or say why not."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.product import QUAESTOR, ROOT, Product

PAGES = ("README.md", "docs/start.md")
#: Its mark, and what stands in it.
BLOCK = re.compile(r"(?:<!-- (.*) -->\n)?^```.*\n((?:.*\n)*?)```$", re.MULTILINE)
#: A block is one or the other, by its first words: the name of what it belongs to, or why nobody can run it here.
FOLLOWED, LEFT_OUT = "follow: ", "not followed: "
#: What the second candidate would not say: the answer has the name of the model that was asked upstream.
BY_THE_REAL_PROVIDER = """
curl -sSf http://127.0.0.1:8080/v1/chat/completions -H "Authorization: Bearer $KEY" \\
  -d '{"model": "smart", "max_tokens": 4, "messages": [{"role": "user", "content": "Who?"}]}' \\
  | grep '"model":"gpt-4o-mini"'
"""


def blocks_of(page: str) -> list[tuple[str, str]]:
    """The mark and the text of each block, in order."""
    return BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))


@pytest.fixture
def followed(product: Product, tmp_path: Path) -> Iterator[Product]:
    """The product, put back afterwards to the provider, the alias and the environment that it had."""
    yield product
    if "openai" in product.run("provider", "list", "--json"):
        product.run("route", "set", "smart", "--candidate", "simulator/sim-large", "--candidate", "simulator/sim-small")
        product.run("provider", "remove", "openai")
        product.up()


def follow(product: Product, script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script of a page. It names default places and a provider that costs money; both stand here instead."""
    places = {
        "http://127.0.0.1:8080": product.setting("gateway_url"),
        "https://api.openai.com/v1": product.setting("simulator_url"),
        ".venv/bin/quaestor": str(QUAESTOR),
    }
    for there, here in places.items():
        script = script.replace(there, here)
    return subprocess.run(
        ["bash", "-c", f"set -euo pipefail\n{script}"],  # noqa: S607 - bash from PATH, as a newcomer has it
        capture_output=True,
        text=True,
        cwd=folder,
        env=product.environment(),
        timeout=170,
        check=False,
    )


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_a_page_is_followed_or_says_why_not(page: str) -> None:
    """Nothing that a newcomer types goes without either."""
    marks = [mark for mark, _ in blocks_of(page)]

    assert (ROOT / page).read_text(encoding="utf-8").count("\n```") == 2 * len(marks)
    assert [] == [mark for mark in marks if not mark.startswith((FOLLOWED, LEFT_OUT)) or mark in {FOLLOWED, LEFT_OUT}]


@pytest.mark.parametrize(
    ("page", "afterwards"), [("README.md", BY_THE_REAL_PROVIDER), ("docs/start.md", "")], ids=PAGES
)
def test_the_blocks_of_a_page_run(followed: Product, page: str, afterwards: str, tmp_path: Path) -> None:
    """Every block to be followed, in order, in one shell, ends well; a provider that was added answers."""
    blocks = [text for mark, text in blocks_of(page) if mark.startswith(FOLLOWED)]

    done = follow(followed, "\n".join([*blocks, afterwards]), tmp_path)

    assert 0 == done.returncode, f"{done.stdout}\n{done.stderr}"
    assert blocks


@pytest.mark.parametrize("page", PAGES)
def test_a_call_that_is_refused_ends_a_page(product: Product, page: str, tmp_path: Path) -> None:
    """So a page whose calls do not work is found."""
    calls = re.findall(r"^curl (?:.*\\\n)*.*$", "".join(text for _, text in blocks_of(page)), re.MULTILINE)

    assert calls
    assert [22] * len(calls) == [follow(product, f"KEY=qk_wrong\n{call}", tmp_path).returncode for call in calls]
