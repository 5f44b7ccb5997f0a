"""Versions of everything that runs, for `status` and state.json."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version

from infra.embedded.java import java_home, java_version
from infra.embedded.stack import Stack


def all_versions(stack: Stack) -> Mapping[str, str]:
    """Ours, Python's, Java's and each server's."""
    try:
        ours = package_version("quaestor")
    except PackageNotFoundError:
        ours = "unpackaged"
    return {
        "quaestor": ours,
        "python": platform.python_version(),
        "java": java_version(java_home()),
        **stack.versions(),
    }
