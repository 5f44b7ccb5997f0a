"""`quaestor price list | show | set | import`: price books, one per provider."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli.control_keys import ReasonOption
from api.cli.control_session import control_session
from api.cli.terminal import DataOption, JsonOption, fail, note, print_json, table, terminal
from api.control.session import ControlSession
from api.settings import load_settings
from processors.control import publish_prices
from processors.pricing import Price, PriceBook, Rates, merged_book
from processors.pricing.bundle import FileRates
from processors.pricing.feed import Feed, FindingKind, read_feed
from schemas.errors import ConfigurationError

PICO_PER_MILLION_TOKENS = 1_000_000
FEED_BYTES_MAX = 16 * 1024 * 1024
ModelArgument = Annotated[str, typer.Argument(help="The provider's name of the model.")]
PriceOption = Annotated[str | None, typer.Option(help="USD per million tokens.")]


def app() -> typer.Typer:
    """The group."""
    group = typer.Typer(help="What models cost. Amounts are USD per million tokens.", no_args_is_help=True)
    group.command("list")(list_prices)
    group.command("show")(show)
    group.command("set")(set_price)
    group.command("import")(import_feed)
    return group


def list_prices(
    provider: Annotated[str | None, typer.Option(help="Only this provider's.")] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List prices in force."""
    with control_session(load_settings(data)) as session:
        books = [book for name, book in sorted(session.state.books.items()) if provider in {None, name}]
    rows = [price_row(price, book.version) for book in books for price in book.prices]
    if as_json:
        print_json(
            {"books": [{"provider": book.provider_id, "version": book.version} for book in books], "prices": rows}
        )
        return
    terminal().print(_table("Prices, USD per million tokens", rows))


def show(
    provider: Annotated[str, typer.Argument(help="The provider.")],
    model: ModelArgument,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one price with its tiers and where it comes from."""
    with control_session(load_settings(data)) as session:
        state = session.state
    price = state.price(provider, model)
    if price is None:
        fail(f"{provider} has no price for {model!r}; `quaestor price list --provider {provider}` shows those it has")
    row = price_row(price, state.price_version(provider) or "")
    if as_json:
        print_json(row)
        return
    terminal().print(_table(price.price_id, [row]))
    for tier in row["tiers"]:
        rates = ", ".join(f"{name} {value}" for name, value in tier.items() if name != "above_input_tokens" and value)
        terminal().print(f"above {tier['above_input_tokens']:,} input tokens: {rates}")
    terminal().print(f"{row['source'] or 'no source'} ({row['dated'] or 'no date'}); {row['version']}", style="dim")


def set_price(
    provider: Annotated[str, typer.Argument(help="The provider.")],
    model: ModelArgument,
    input: Annotated[str, typer.Option(help="USD per million input tokens.")],  # noqa: A002 - the option's name
    output: Annotated[str, typer.Option(help="USD per million output tokens.")],
    cached_input: PriceOption = None,
    cache_write: PriceOption = None,
    reasoning: PriceOption = None,
    max_output_tokens: Annotated[int | None, typer.Option(help="Most output tokens the model gives.")] = None,
    visible_output: Annotated[
        bool | None,
        typer.Option(help="Whether streams show every output token as text, so that they may be held for in steps."),
    ] = None,
    source: Annotated[str, typer.Option(help="Where the fact comes from.")] = "set by hand",
    reason: ReasonOption = None,
    data: DataOption = None,
) -> None:
    """Set the price of one model; other prices of the provider stay."""
    given = FileRates(
        input=input, output=output, cached_input=cached_input, cache_write=cache_write, reasoning=reasoning
    )
    price = Price(
        price_id=f"{provider}/{model}",
        provider_id=provider,
        model=model,
        rates=_rates(given),
        max_output_tokens=max_output_tokens,
        visible_output=visible_output,
        source=source,
        dated=today(),
    )
    with control_session(load_settings(data)) as session:
        version = _publish(session, provider, [price], reason)
    note(f"{price.price_id} is priced; {version} is in force")


def import_feed(
    file: Annotated[Path, typer.Argument(help="JSON with cents per token, as Portkey-AI/models publishes.")],
    provider: Annotated[str, typer.Option(help="The provider whose prices these are.")],
    source: Annotated[str | None, typer.Option(help="Where they come from; the file's name when not given.")] = None,
    dated: Annotated[str | None, typer.Option(help="Day of the facts, YYYY-MM-DD; today when not given.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report only; nothing is published.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Name ignored units too.")] = False,
    reason: ReasonOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Import a price feed into a provider's price book; every value not taken as it stands is reported."""
    feed = read_feed(_text(file), provider, source or f"file {file.name}", dated or today())
    version = None
    if not dry_run:
        with control_session(load_settings(data)) as session:
            version = _publish(session, provider, feed.prices, reason)
    if as_json:
        print_json(_report(feed, version))
        return
    _show_findings(feed, verbose=verbose)
    counts = ", ".join(f"{count} {kind.value.lower()}" for kind, count in sorted(_counts(feed).items()))
    note(f"{len(feed.prices)} prices of {provider}; {counts or 'nothing to report'}")
    note(f"{version} is in force" if version else "nothing was published")


def price_row(price: Price, version: str) -> dict[str, Any]:
    """A price for people and programs."""
    tiers = [{"above_input_tokens": tier.above_input_tokens} | _amounts(tier.rates) for tier in price.tiers]
    return {
        "provider": price.provider_id,
        "model": price.model,
        "currency": price.currency,
        **_amounts(price.rates),
        "tiers": tiers,
        "max_output_tokens": price.max_output_tokens,
        "context_tokens": price.context_tokens,
        "visible_output": price.visible_output,
        "source": price.source,
        "dated": price.dated,
        "version": version,
    }


def per_million(pico: int | None) -> str | None:
    """Units of currency per million tokens, exact decimal text, of pico-units per token."""
    if pico is None:
        return None
    text = f"{Decimal(pico) / PICO_PER_MILLION_TOKENS:f}"
    whole, _, fraction = text.partition(".")
    return f"{whole}.{fraction.rstrip('0').ljust(2, '0')}"


def today() -> str:
    """The day, UTC."""
    return datetime.fromtimestamp(time.time(), UTC).strftime("%Y-%m-%d")


def _amounts(rates: Rates) -> dict[str, str | None]:
    return {
        "input": per_million(rates.input),
        "cached_input": per_million(rates.cached_input),
        "cache_write": per_million(rates.cache_write),
        "output": per_million(rates.output),
        "reasoning": per_million(rates.reasoning),
    }


def _table(title: str, rows: Sequence[dict[str, Any]]) -> Any:
    columns = ("model", "input", "cached", "write", "output", "reason", "tiers")
    names = ("input", "cached_input", "cache_write", "output", "reasoning")
    cells = (
        (f"{row['provider']}/{row['model']}", *(row[name] or "-" for name in names), len(row["tiers"]) or "-")
        for row in rows
    )
    return table(title, columns, cells, numbers=(1, 2, 3, 4, 5, 6))


def _rates(given: FileRates) -> Rates:
    try:
        return given.rates()
    except ValueError as error:
        fail(str(error), 2)


def _publish(session: ControlSession, provider: str, prices: Sequence[Price], reason: str | None) -> str:
    """Merge prices into the provider's book; returns its version."""
    made: list[PriceBook] = []

    def decide(state: Any, origin: Any) -> Any:
        made.append(merged_book(state.books.get(provider), provider, prices))
        return publish_prices(state, made[-1], origin)

    session.settle(decide, reason)
    return made[-1].version


def _text(file: Path) -> str:
    try:
        if file.stat().st_size > FEED_BYTES_MAX:
            raise ConfigurationError(f"{file} is larger than {FEED_BYTES_MAX} bytes")
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{file} is not UTF-8 ({error.reason})") from None


def _counts(feed: Feed) -> Counter[FindingKind]:
    return Counter(finding.kind for finding in feed.findings)


def _report(feed: Feed, version: str | None) -> dict[str, Any]:
    findings = [{"kind": one.kind.value, "model": one.model, "detail": one.detail} for one in feed.findings]
    return {"prices": len(feed.prices), "version": version, "findings": findings}


def _show_findings(feed: Feed, *, verbose: bool) -> None:
    for one in feed.findings:
        if verbose or one.kind is not FindingKind.IGNORED:
            print(f"{one.kind.value.lower():8} {one.model}: {one.detail}")
