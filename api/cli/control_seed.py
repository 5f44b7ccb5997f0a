"""What a new installation begins with: the simulated provider, bundled prices, a bundled rate, and three aliases."""

from __future__ import annotations

from importlib.resources import files

from api.cli.control_rates import euros_for_dollars
from api.cli.control_session import control_session
from api.control.session import ControlSession, Decide
from api.settings import Settings
from processors.control import (
    ExchangeRate,
    Provider,
    Route,
    RouteCandidate,
    add_provider,
    publish_prices,
    set_exchange_rate,
    set_route,
)
from processors.pricing import PriceBook
from processors.pricing.bundle import read_bundle
from schemas.topics import SYSTEM_TENANT

SIMULATOR = "simulator"
#: Aliases set when absent, with the simulator's models in the order they are tried.
ALIASES = {
    "default": ("sim-small", "sim-large"),
    "fast": ("sim-small",),
    "smart": ("sim-large", "sim-small"),
}


def bundled_books() -> tuple[PriceBook, ...]:
    """The price books that come with this release; raises ConfigurationError when the file is damaged."""
    return read_bundle(_bundled("prices.json"))


def bundled_rate() -> ExchangeRate:
    """The rate from dollars to euros that comes with this release, with its day and source."""
    return euros_for_dollars(_bundled("eurofxref.csv").splitlines())


def _bundled(name: str) -> str:
    return files("processors.pricing").joinpath("data", name).read_text(encoding="utf-8")


def seed_defaults(settings: Settings, actor: str = "supervisor") -> list[str]:
    """Register the simulator, bundled prices and rate, and the default aliases where absent; returns what was done.

    Idempotent: what people changed stays, except that the simulator follows its setting. Blocks; raises LogError.
    """
    with control_session(settings, actor) as session:
        return seed(session, settings.simulator_url)


def seed(session: ControlSession, simulator_url: str) -> list[str]:
    """As `seed_defaults`, in an open session."""
    state = session.refresh()
    decides = [_simulator(simulator_url)]
    decides += [_book(book) for book in bundled_books() if book.provider_id not in state.books]
    rate = bundled_rate()
    decides += [_rate(rate)] if (rate.base, rate.quote) not in state.rates else []
    decides += [_route(alias) for alias in ALIASES if (SYSTEM_TENANT, alias) not in state.routes]
    return [f"{event.entity_kind.lower()} {event.entity_id}" for event in session.settle_all(decides)]


def _simulator(url: str) -> Decide:
    provider = Provider(provider_id=SIMULATOR, base_url=url)
    return lambda state, origin: add_provider(state, provider, origin, insecure=True, replace=True)


def _book(book: PriceBook) -> Decide:
    return lambda state, origin: publish_prices(state, book, origin)


def _rate(rate: ExchangeRate) -> Decide:
    return lambda state, origin: set_exchange_rate(state, rate, origin, replace=True)


def _route(alias: str) -> Decide:
    candidates = tuple(RouteCandidate(SIMULATOR, model) for model in ALIASES[alias])
    route = Route(alias=alias, tenant_id=SYSTEM_TENANT, candidates=candidates)
    return lambda state, origin: set_route(state, route, origin)
