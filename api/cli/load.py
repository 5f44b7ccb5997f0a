"""`quaestor load`: drives the gateway with a recorded trace or a made mix."""

from __future__ import annotations

import asyncio
import contextlib
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from api.cli.terminal import DataOption, JsonOption, note, print_json, progress, table, terminal
from api.load.answers import AnswersFile
from api.load.calls import Call, mixed_calls, read_trace
from api.load.generator import Generator, Summary, Target
from api.settings import Settings, load_settings
from schemas.errors import LogUnavailableError

KEY_SECONDS_MAX = 10.0
DEFAULT_MODELS = ("default", "fast", "smart")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("load")(load)


def load(
    trace: Annotated[Path | None, typer.Option(help="CSV with TIMESTAMP, ContextTokens, GeneratedTokens.")] = None,
    speed: Annotated[float, typer.Option(min=0.001, help="How many times faster than recorded.")] = 1.0,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many calls.")] = None,
    requests: Annotated[int, typer.Option(min=1, help="Without a trace: calls of a made mix.")] = 1_000,
    rate: Annotated[float, typer.Option(min=0.1, help="Without a trace: calls per second.")] = 100.0,
    concurrency: Annotated[int, typer.Option(min=1, max=1_000, help="Calls under way at once.")] = 64,
    model: Annotated[str, typer.Option(help="Model or alias that a trace's calls ask for.")] = "default",
    stream_share: Annotated[float, typer.Option(min=0, max=1, help="Share of a trace's calls that stream.")] = 0.25,
    seed: Annotated[int, typer.Option(help="Seed of the made mix.")] = 1,
    answers: Annotated[Path | None, typer.Option(help="File that takes one JSON line per answer.")] = None,
    key: Annotated[str | None, typer.Option(envvar="QUAESTOR_KEY", help="Virtual key; one is made when unset.")] = None,
    url: Annotated[str | None, typer.Option(help="Gateway; the running one when unset.")] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Drive the gateway with a recorded trace or a made mix; exit code 0 only when every call was answered."""
    settings = load_settings(data)
    if trace is None:
        calls = mixed_calls(min(requests, limit or requests), rate, seed, 1, DEFAULT_MODELS)
    else:
        calls = read_trace(trace, speed, limit, model, stream_share)
    keys = [key or make_key(settings, "load", "load", "load")]
    with contextlib.nullcontext() if answers is None else AnswersFile(answers) as file:
        summary = run_load(Target(url or settings.gateway_url, keys, concurrency), calls, file, quiet=as_json)
    report(summary, len(calls), as_json=as_json)
    raise typer.Exit(0 if summary.answered == len(calls) else 1)


def make_key(settings: Settings, tenant: str, team: str, project: str) -> str:
    """A new virtual key, usable by the time this returns."""
    from api.cli.control import create_key  # noqa: PLC0415 - Kafka clients are loaded only when a key must be made

    key = create_key(settings, tenant_id=tenant, team_id=team, project_id=project, name="made by load")
    wait_for_key(settings.gateway_url, key)
    return key


def wait_for_key(gateway_url: str, key: str) -> None:
    """Return when the gateway accepts a key; raises LogUnavailableError when it does not within ten seconds."""
    headers = {"Authorization": f"Bearer {key}"}
    request = urllib.request.Request(f"{gateway_url}/v1/models", headers=headers)  # noqa: S310 - our own gateway
    deadline = time.monotonic() + KEY_SECONDS_MAX
    while True:
        try:
            with urllib.request.urlopen(request, timeout=KEY_SECONDS_MAX) as answer:  # noqa: S310 - likewise
                answer.read()
                return
        except (urllib.error.URLError, TimeoutError) as error:
            if time.monotonic() > deadline:
                words = f"the gateway at {gateway_url} does not accept a new key: {error}; see `quaestor status`"
                raise LogUnavailableError(words) from None
            time.sleep(0.05)


def run_load(target: Target, calls: list[Call], answers: AnswersFile | None, *, quiet: bool) -> Summary:
    """Make the calls with a progress bar on standard error."""
    with progress(quiet=quiet) as bar:
        task = bar.add_task("calls", total=len(calls), note="")

        def show(summary: Summary) -> None:
            failed = sum(summary.failed.values())
            words = f"{failed} failed, {summary.retried} retried" if failed or summary.retried else ""
            bar.update(task, completed=summary.answered + failed, note=words)

        return asyncio.run(Generator(target, answers, show).run(calls))


def summary_json(summary: Summary, calls: int) -> dict[str, Any]:
    """The summary for programs; times in milliseconds."""
    return {
        "calls": calls,
        "answered": summary.answered,
        "failed": dict(summary.failed),
        "retried": summary.retried,
        "duration_seconds": round(summary.duration_seconds, 3),
        "requests_per_second": round(summary.answered / max(summary.duration_seconds, 1e-9), 1),
        "latency_milliseconds": {
            name: round(summary.percentile(share) * 1_000, 2)
            for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))
        },
        "input_tokens": summary.input_tokens,
        "output_tokens": summary.output_tokens,
    }


def report(summary: Summary, calls: int, *, as_json: bool) -> None:
    """Print the summary."""
    facts = summary_json(summary, calls)
    if as_json:
        print_json(facts)
        return
    latency = facts.pop("latency_milliseconds")
    rows = [(name.replace("_", " "), value if value != {} else "none") for name, value in facts.items()]
    rows += [(f"latency {name}", f"{value} ms") for name, value in latency.items()]
    terminal().print(table("Load", ("what", "value"), rows, numbers=(1,)))
    if summary.answered < calls:
        without = (f"{calls - summary.answered} calls got no answer", "red")
        note(Text.assemble(without, "; `quaestor status` says what is not running"))
