"""The whole product, started through its own command line on free ports, shared by every test of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.product import Product


@pytest.fixture(scope="package")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """A running product; stopped at the end, with its logs shown when it would not start."""
    made = Product(tmp_path_factory.mktemp("product") / "data")
    try:
        made.up()
        yield made
    finally:
        made.close()
