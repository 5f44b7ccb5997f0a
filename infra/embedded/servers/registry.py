"""Apicurio Registry: the Confluent-compatible schema registry, its schemas in an H2 file."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from infra.embedded.java import TRAIN_SECONDS_MAX, JavaRuntime
from infra.embedded.ports import INNER_PORTS, LOOPBACK, free_ports
from infra.embedded.process import Launch, Spawner
from infra.embedded.progress import Progress, ProgressCallback
from infra.embedded.servers.base import Server, ServerContext
from infra.embedded.servers.probes import http_answers

COMPATIBLE_API = "/apis/ccompat/v7"
#: It answers a few hundred requests in its life: the quick compiler alone is enough.
JAVA_OPTIONS = (
    "-Xmx256m",
    "-Xms64m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:+ExitOnOutOfMemoryError",
    "-XX:-UsePerfData",
    "-Djava.awt.headless=true",
    "--sun-misc-unsafe-memory-access=allow",
    "--enable-native-access=ALL-UNNAMED",
)


class RegistryServer(Server):
    """The schema registry. A schema it acknowledged is on disk: an id is never given twice."""

    name: ClassVar[str] = "registry"

    def __init__(self, context: ServerContext, port: int) -> None:
        """Nothing is prepared yet."""
        super().__init__(context, port)
        self._options: tuple[str, ...] = ()

    def version(self) -> str:
        """The pinned version."""
        return self.context.artifacts.version("registry")

    def settings(self) -> Mapping[str, str]:
        """The address of its Confluent-compatible API."""
        return {"registry_url": f"http://{LOOPBACK}:{self.port}{COMPATIBLE_API}"}

    def ready(self) -> bool:
        """Whether it lists subjects, for which it has to ask its database."""
        return http_answers(self.port, f"{COMPATIBLE_API}/subjects")

    def prepare(self, progress: ProgressCallback) -> None:
        """Download and train Java, each once."""
        home = self.context.artifacts.ensure("registry", progress)
        progress(Progress(self.name, "preparing"))
        if not self._options:
            java = JavaRuntime(self.context.artifacts.root)
            key = "\n".join((str(home), *JAVA_OPTIONS))
            self._options = java.trained(self.name, key, lambda options: self._train(options, progress))

    def launch(self) -> Launch:
        """`java -jar quarkus-run.jar`, all settings in the environment."""
        home = self.context.artifacts.ensure("registry")
        program = JavaRuntime(self.context.artifacts.root).program
        command = (program, *self._options, *JAVA_OPTIONS, "-jar", str(home / "quarkus-run.jar"))
        return Launch(self.name, command, self.log, environment=self._environment())

    def _environment(self) -> Mapping[str, str]:
        # Without WRITE_DELAY=0 H2 keeps a commit half a second in memory, and a killed registry would give the id of a
        # schema that events already carry to another one.
        database = f"jdbc:h2:file:{(self.folder / 'registry').absolute()};DB_CLOSE_ON_EXIT=FALSE;WRITE_DELAY=0"
        return {
            "QUARKUS_HTTP_HOST": LOOPBACK,
            "QUARKUS_HTTP_PORT": str(self.port),
            "QUARKUS_MANAGEMENT_HOST": LOOPBACK,
            "QUARKUS_MANAGEMENT_PORT": "0",  # any: nobody asks it
            "QUARKUS_LOG_LEVEL": "WARN",
            "QUARKUS_HTTP_ACCESS_LOG_ENABLED": "false",
            "QUARKUS_BANNER_ENABLED": "false",
            "QUARKUS_LOG_CONSOLE_COLOR": "false",
            "APICURIO_STORAGE_KIND": "sql",
            "APICURIO_STORAGE_SQL_KIND": "h2",
            "APICURIO_DATASOURCE_URL": database,
        }

    def _train(self, options: tuple[str, ...], progress: ProgressCallback) -> None:
        progress(Progress(self.name, "preparing", "making it start faster, once"))
        with tempfile.TemporaryDirectory() as folder, Spawner() as spawner:
            trainee = _Trainee(
                ServerContext(Path(folder), spawner, self.context.artifacts), free_ports(1, INNER_PORTS)[0]
            )
            trainee.train(options)


class _Trainee(RegistryServer):
    """A throw-away registry whose run teaches Java what to have ready."""

    stop_seconds_max: ClassVar[float] = TRAIN_SECONDS_MAX

    def train(self, options: tuple[str, ...]) -> None:
        self._options = options
        self.start()
        self.stop()
