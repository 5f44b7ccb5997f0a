"""One real schema registry with our schemas for a whole test run, started when first asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache

from streams.registry import register_all
from tests.support.shared_servers import address_of, server_of_its_own


@cache
def registry_url() -> str:
    """Where it listens; for tests that register nothing but our schemas."""
    url = address_of("registry")
    register_all(url)
    return url


@contextlib.contextmanager
def registry() -> Iterator[str]:
    """A registry of a test's own, with our schemas; its address."""
    with server_of_its_own("registry") as url:
        register_all(url)
        yield url
