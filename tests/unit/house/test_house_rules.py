"""The rules that linters do not know; each failure names the file and what to do instead."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = ("schemas", "processors", "streams", "sinks", "api", "infra")
GENERATED = {"schemas/events.py"}
FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 400
BANNED = {
    r"\bdatetime\.(now|utcnow)\b": "take now_micros as an argument; entry points read the clock",
    r"\bos\.environ\b|\bos\.getenv\b": "take a plain argument; api/settings.py and entry points read the environment",
    r"\bfloat\(.*(amount|nano|pico|price)": "money is integers: schemas.money",
    r"\bTODO\b|\bFIXME\b|\bXXX\b": "finish it, or write it down in an issue",
    r"\bprint\(": "structlog, except in api/cli",
}
#: Where a banned call belongs, with the reason.
ALLOWED = {
    r"\bprint\(": ("api/cli/", "schemas/generate.py"),
    r"\bos\.environ\b|\bos\.getenv\b": ("api/settings.py", "api/cli/", "infra/embedded/", "api/providers/secrets.py"),
}


def tracked(*suffixes: str) -> list[str]:
    """Files that git tracks or would track, by suffix."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\n")
    return sorted(name for name in set(names) if name.endswith(suffixes) and (ROOT / name).is_file())


def product_files() -> list[str]:
    """The Python files of the product, without generated ones."""
    return [name for name in tracked(".py") if name.split("/")[0] in PACKAGES and name not in GENERATED]


def test_no_function_crosses_seventy_lines() -> None:
    """A function longer than 70 lines hides two functions."""
    long = []
    for name in [*product_files(), *(name for name in tracked(".py") if name.startswith(("tests/", "benchmarks/")))]:
        for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES_MAX:
                    long.append(f"{name}:{node.lineno} {node.name}: {lines} lines")

    assert [] == long


def test_no_file_crosses_four_hundred_lines() -> None:
    """A file longer than 400 lines holds two subjects."""
    lengths = {name: len((ROOT / name).read_text(encoding="utf-8").splitlines()) for name in product_files()}

    assert {} == {name: lines for name, lines in lengths.items() if lines > FILE_LINES_MAX}


@pytest.mark.parametrize("pattern", BANNED, ids=lambda pattern: pattern[:24])
def test_banned_calls_name_their_replacement(pattern: str) -> None:
    """A banned call stands nowhere but where it belongs."""
    found = []
    for name in product_files():
        if name.startswith(ALLOWED.get(pattern, ())):
            continue
        for number, line in enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), 1):
            if re.search(pattern, line) and "noqa: house" not in line:
                found.append(f"{name}:{number}: {BANNED[pattern]}")

    assert [] == found


def test_every_markdown_file_has_one_title() -> None:
    """A page has exactly one first-level heading."""
    wrong = []
    for name in tracked(".md"):
        text = re.sub(r"^```.*?^```", "", (ROOT / name).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        if len(re.findall(r"^# ", text, flags=re.MULTILINE)) != 1:
            wrong.append(name)

    assert [] == wrong


def test_decisions_are_numbered_once() -> None:
    """No two decisions share a number."""
    numbers = [path.name[:4] for path in (ROOT / "docs/decisions").glob("[0-9]*.md")]

    assert sorted(set(numbers)) == sorted(numbers)


def test_no_registry_address_or_machine_path_is_committed() -> None:
    """Locks carry names, versions and hashes; nothing points at a registry or at somebody's machine."""
    address = re.compile(r"https?://[^ \"']+\.(whl|tar\.gz|tgz|jar)\b|--(extra-)?index-url|/(home|root|work)/[a-z]")
    skipped = "tests/unit/house/"
    found = [
        f"{name}:{number}"
        for name in tracked(".py", ".toml", ".lock", ".json", ".yml", ".yaml", ".sh", "Makefile", "run")
        if not name.startswith(skipped)
        for number, line in enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), 1)
        if address.search(line)
    ]

    assert [] == found


@pytest.mark.parametrize("package", PACKAGES)
def test_root_packages_are_ours(package: str) -> None:
    """A generic root name in site-packages can't shadow ours."""
    spec = importlib.util.find_spec(package)

    assert spec is not None
    assert spec.origin is not None
    assert ROOT / package == Path(spec.origin).parent
