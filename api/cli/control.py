"""`quaestor key | provider | route | price | budget | rate`: changes of the control plane, each one event."""

from __future__ import annotations

import typer

from api.cli import control_budgets, control_keys, control_prices, control_rates, control_routes
from api.cli.control_keys import create_key, new_key
from api.cli.control_seed import bundled_books, seed, seed_defaults
from api.cli.control_session import control_session
from api.control.session import ControlRefusedError, ControlSession

__all__ = [
    "ControlRefusedError",
    "ControlSession",
    "bundled_books",
    "control_session",
    "create_key",
    "new_key",
    "register",
    "seed",
    "seed_defaults",
]


def register(app: typer.Typer) -> None:
    """Add the command groups."""
    app.add_typer(control_keys.app(), name="key")
    app.add_typer(control_routes.providers(), name="provider")
    app.add_typer(control_routes.routes(), name="route")
    app.add_typer(control_prices.app(), name="price")
    app.add_typer(control_budgets.app(), name="budget")
    app.add_typer(control_rates.app(), name="rate")
