"""Write artifacts.lock.json anew: `python -m infra.embedded.lock`. Run it when a version below changes.

Resolves the dependencies of each server, downloads every file once, and pins name, version and hash. What is
downloaded stands in a temporary folder and is thrown away; no address is written.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path

import structlog

from infra.embedded.artifacts import LOCK_FILE, PinnedFile, fetch_with_jgo, sha256_of

KAFKA = ("org.apache.kafka", "kafka_2.13", "4.1.2")
#: Kafka's own distribution adds the binding of slf4j to log4j, which its Maven dependencies leave out.
KAFKA_EXTRA = (("org.apache.logging.log4j", "log4j-slf4j-impl", "2.24.3"),)
REGISTRY = ("io.apicurio", "apicurio-registry-app", "3.3.3")

Coordinates = tuple[str, str, str, str, str]


def kafka_files(cache: Path) -> list[Coordinates]:
    """Kafka and everything it needs at run time."""
    from jgo.maven import MavenContext  # noqa: PLC0415 - slow to import

    context = MavenContext(repo_cache=cache)
    dependency = context.create_dependency(":".join(KAFKA))
    _, needed = context.resolver.resolve([dependency])
    found: list[Coordinates] = [(*KAFKA, "", "jar"), *((*extra, "", "jar") for extra in KAFKA_EXTRA)]
    found += [(each.groupId, each.artifactId, each.version, each.classifier, each.type) for each in needed]
    return sorted(found)


def pinned(coordinates: Coordinates, cache: Path) -> PinnedFile:
    """The file of these coordinates with the hash and size it has today."""
    group, artifact, version, classifier, packaging = coordinates
    unverified = PinnedFile(group, artifact, version, classifier, packaging, "", 0)
    path = fetch_with_jgo(unverified, cache, lambda _: None)
    return PinnedFile(group, artifact, version, classifier, packaging, sha256_of(path), path.stat().st_size)


def main() -> None:
    """Resolve, download, hash, write."""
    log = structlog.get_logger()
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        kafka = [asdict(pinned(coordinates, cache)) for coordinates in kafka_files(cache)]
        registry = [asdict(pinned((*REGISTRY, "all", "tar.gz"), cache))]
    bundles = {
        "kafka": {"version": KAFKA[2], "unpack": False, "files": kafka},
        "registry": {"version": REGISTRY[2], "unpack": True, "files": registry},
    }
    LOCK_FILE.write_text(json.dumps({"bundles": bundles}, indent=1) + "\n", encoding="utf-8")
    log.info("lock_written", files=len(kafka) + len(registry), path=str(LOCK_FILE))


if __name__ == "__main__":
    main()
