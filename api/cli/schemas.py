"""`quaestor schemas list | register | check | show`: the shapes of the events, here and in the registry."""

from __future__ import annotations

from typing import Annotated

import typer

from api.cli.terminal import DataOption, JsonOption, fail, print_json, table, terminal
from api.settings import load_settings
from schemas import generate, history
from schemas.describe import rows_of
from schemas.errors import LogUnavailableError, SchemaUnknownError
from schemas.topics import TOPIC_BY_NAME, TOPICS
from streams.registry import RegistrySchemas, compatible, register_all

PREFIX = "quaestor."


def register(app: typer.Typer) -> None:
    """Add the commands."""
    schemas = typer.Typer(name="schemas", help="The schemas of the events.", no_args_is_help=True)
    schemas.command("list")(list_schemas)
    schemas.command("register")(register_schemas)
    schemas.command("check")(check)
    schemas.command("show")(show)
    app.add_typer(schemas)


def list_schemas(data: DataOption = None, as_json: JsonOption = False) -> None:
    """Every topic's record, its version and its id in the registry."""
    ids = _ids(RegistrySchemas(load_settings(data).registry_url))
    rows = [
        {
            "topic": topic.name,
            "subject": topic.subject,
            "record": topic.event_type.__name__,
            "version": history.current(topic.name)["version"],
            "versions_kept": len(history.kept(topic.name)),
            "fields": len(history.current(topic.name)["fields"]),
            "partitions": topic.partitions,
            "registry_id": ids.get(topic.name),
        }
        for topic in TOPICS
    ]
    if as_json:
        print_json({"schemas": rows})
        return
    names = ("topic", "record", "version", "fields", "partitions", "registry_id")
    cells = [tuple("-" if row[name] is None else str(row[name]).removeprefix(PREFIX) for name in names) for row in rows]
    columns = ("topic", "record", "version", "fields", "partitions", "id")
    terminal().print(table("Schemas", columns, cells, numbers=(2, 3, 4, 5)))


def _ids(registry: RegistrySchemas) -> dict[str, int]:
    """Ids of what is registered; empty when the registry is away."""
    ids: dict[str, int] = {}
    for topic in TOPICS:
        try:
            ids[topic.name] = registry.id_of(topic.name)
        except SchemaUnknownError:
            continue
        except LogUnavailableError:
            return {}
    return ids


def register_schemas(data: DataOption = None, as_json: JsonOption = False) -> None:
    """Register every schema under FULL_TRANSITIVE; what is registered already keeps its id."""
    ids = register_all(load_settings(data).registry_url)
    if as_json:
        print_json({"ids": ids})
        return
    terminal().print(table("Registered", ("topic", "id"), ids.items(), numbers=(1,)))


def check(
    local: Annotated[bool, typer.Option("--local", help="Ask nothing of the registry.")] = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Whether the schemas follow our rules, are kept, match the event types, and would be taken by the registry."""
    problems = history.problems()
    if generate.main(["--check"]):
        problems.append("schemas/events.py is not what the schemas say: run `python -m schemas.generate`")
    if not local:
        url = load_settings(data).registry_url
        problems += [f"{t.name}: the registry would refuse it" for t in TOPICS if not compatible(url, t.name)]
    if as_json:
        print_json({"ok": not problems, "problems": problems})
    else:
        verdict = "wrong" if problems else "in order"
        for line in [*problems, f"{len(TOPICS)} schemas, {verdict}"]:
            terminal().print(line, soft_wrap=True)
    if problems:
        raise typer.Exit(1)


def show(
    topic: Annotated[str, typer.Argument(help="A topic, with or without 'quaestor.'.")],
    version: Annotated[int | None, typer.Option(help="A kept version; the current one when left out.")] = None,
    as_json: JsonOption = False,
) -> None:
    """A record's fields with their meaning; with --json the schema itself."""
    name = topic if topic in TOPIC_BY_NAME else PREFIX + topic
    if name not in TOPIC_BY_NAME:
        fail(f"no topic {topic!r}; there are: {', '.join(one.removeprefix(PREFIX) for one in TOPIC_BY_NAME)}", 2)
    versions = history.kept(name)
    if version is not None and version not in versions:
        fail(f"{name} has no version {version}; there are: {', '.join(map(str, versions))}", 2)
    schema = history.current(name) if version is None else versions[version]
    if as_json:
        print_json(schema)
        return
    title = f"{schema['name']} version {schema['version']}: {schema['doc']}"
    terminal().print(table(title, ("field", "type", "default", "meaning"), rows_of(schema)))
