"""Every version a schema ever had, kept with a golden sample: `python -m schemas.history` keeps what is new.

    versions/<topic>/<n>.avsc   the schema as it was registered
    samples/<topic>/<n>.json    one record of it, every field set (bytes as hexadecimal)
    samples/<topic>/<n>.bin     the same as its Avro body

Kept files never change. `--check` says whether anything is missing or against the rules of `schemas.lint`.
"""

from __future__ import annotations

import json
import sys
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import fastavro

from schemas.lint import changes_refused, problems_of

HERE = Path(__file__).parent
AVRO, VERSIONS, SAMPLES = HERE / "avro", HERE / "versions", HERE / "samples"
SAMPLE_UUID = "018bcfe5-6800-7000-8000-000000000001"
SAMPLE_LONG = 1_700_000_000_123_456


def topics() -> list[str]:
    """All topics that have a schema."""
    return sorted(path.name.removesuffix(".avsc") for path in AVRO.glob("*.avsc"))


def current(topic: str) -> Any:
    """The schema that producers write now."""
    return json.loads((AVRO / f"{topic}.avsc").read_text(encoding="utf-8"))


def kept(topic: str) -> dict[int, Any]:
    """Every kept version of a topic's schema, oldest first."""
    paths = sorted((VERSIONS / topic).glob("*.avsc"), key=lambda path: int(path.stem))
    return {int(path.stem): json.loads(path.read_text(encoding="utf-8")) for path in paths}


def sample(topic: str, version: int) -> tuple[Any, bytes]:
    """The golden record of a version: as JSON shows it, and its Avro body."""
    folder = SAMPLES / topic
    return json.loads((folder / f"{version}.json").read_text(encoding="utf-8")), (
        folder / f"{version}.bin"
    ).read_bytes()


def problems() -> list[str]:
    """What is missing, changed or against the rules, over all topics; empty when all is well."""
    return [f"{topic}: {problem}" for topic in topics() for problem in _problems(topic)]


def _problems(topic: str) -> list[str]:
    schema, versions = current(topic), kept(topic)
    found = problems_of(schema)
    history = [*versions.values(), schema]
    for old, new in pairwise(history):
        found += changes_refused(old, new)
    if schema["version"] not in versions:
        found.append(f"version {schema['version']} is not kept: run `python -m schemas.history`")
    elif versions[schema["version"]] != schema:
        found.append(f"version {schema['version']} differs from the kept one")
    return found + [f"version {n} has no sample" for n in versions if not (SAMPLES / topic / f"{n}.bin").is_file()]


def keep(topic: str) -> bool:
    """Keep the current version and a sample of it, unless it is kept; returns whether it was new."""
    schema = current(topic)
    version = int(schema["version"])
    target = VERSIONS / topic / f"{version}.avsc"
    if target.exists():
        return False
    for folder in (VERSIONS / topic, SAMPLES / topic):
        folder.mkdir(parents=True, exist_ok=True)
    record = sample_value(schema, topic, version)
    body = BytesIO()
    fastavro.schemaless_writer(body, fastavro.parse_schema(json.loads(json.dumps(schema))), record)
    target.write_text((AVRO / f"{topic}.avsc").read_text(encoding="utf-8"), encoding="utf-8")
    text = json.dumps(record, indent=2, default=bytes.hex) + "\n"
    (SAMPLES / topic / f"{version}.json").write_text(text, encoding="utf-8")
    (SAMPLES / topic / f"{version}.bin").write_bytes(body.getvalue())
    return True


def sample_value(avro: Any, name: str, version: int) -> Any:
    """A value of a type in which every field says something."""
    if isinstance(avro, list):
        return sample_value(next(branch for branch in avro if branch != "null"), name, version)
    kind = avro["type"] if isinstance(avro, dict) else avro
    match kind:
        case "record":
            fields = {field["name"]: sample_value(field["type"], field["name"], version) for field in avro["fields"]}
            return fields | ({"schema_version": version} if "schema_version" in fields else {})
        case "enum":
            return avro["symbols"][-1]
        case "array":
            return [sample_value(avro["items"], name, version)]
        case "map":
            return {
                "k": sample_value(avro["values"], name, version),
                "ключ": sample_value(avro["values"], name, version),
            }
        case "string":
            return SAMPLE_UUID if isinstance(avro, dict) and avro.get("logicalType") == "uuid" else f"{name} é"
    plain = {"long": SAMPLE_LONG, "int": -3, "double": 0.25, "boolean": True, "bytes": bytes(range(250, 256))}
    return plain[kind]


def main(arguments: list[str]) -> int:
    """Keep what is new, or with --check say what is wrong; returns the exit code."""
    if "--check" not in arguments:
        for topic in topics():
            keep(topic)
    found = problems()
    sys.stderr.writelines(f"{problem}\n" for problem in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
