"""README.md and docs/start.md do what they say: their marked blocks are executed as a newcomer would."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.e2e.product import QUAESTOR, ROOT, Product

BLOCK = re.compile(r"<!-- follow: [a-z-]+ -->\n```bash\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize("page", ["README.md", "docs/start.md"])
def test_the_blocks_of_a_page_run(product: Product, page: str, tmp_path: Path) -> None:
    """Every marked block of the page, in order, in one shell, ends well."""
    blocks = BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
    script = "set -euo pipefail\n" + "\n".join(blocks)
    # The page names the default places; the product under test stands on free ports.
    script = script.replace("http://127.0.0.1:8080", product.setting("gateway_url")).replace(
        ".venv/bin/quaestor", str(QUAESTOR)
    )

    done = subprocess.run(
        ["bash", "-c", script],  # noqa: S607 - bash from PATH, as a newcomer has it
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=product.environment(),
        timeout=170,
        check=False,
    )

    assert 0 == done.returncode, f"{done.stdout}\n{done.stderr}"
    assert blocks
