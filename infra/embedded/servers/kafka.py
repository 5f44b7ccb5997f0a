"""Apache Kafka as one KRaft node that is broker and controller."""

from __future__ import annotations

import base64
import subprocess
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from infra.embedded.errors import ServerFailedError
from infra.embedded.java import TRAIN_SECONDS_MAX, JavaRuntime
from infra.embedded.ports import INNER_PORTS, LOOPBACK, free_ports
from infra.embedded.process import Launch, Spawner, last_line, rotate
from infra.embedded.progress import Progress, ProgressCallback
from infra.embedded.servers.base import Server, ServerContext
from infra.embedded.servers.probes import kafka_answers

FORMAT_SECONDS_MAX = 180
HEAP_MEGABYTES_MAX = 512
#: -Xms stays small: the collector takes what it needs. The thorough compiler waits until a method is really hot: at its
#: usual thresholds it spends more time on a broker that starts than starting takes. Unsafe and native access are asked
#: for by its libraries.
JAVA_OPTIONS = (
    f"-Xmx{HEAP_MEGABYTES_MAX}m",
    "-Xms64m",
    "-XX:+UseSerialGC",
    "-XX:Tier4InvocationThreshold=20000",
    "-XX:Tier4MinInvocationThreshold=4000",
    "-XX:Tier4CompileThreshold=60000",
    "-XX:Tier4BackEdgeThreshold=160000",
    "-XX:+UnlockDiagnosticVMOptions",
    "-XX:-AOTReplayTraining",
    "-XX:+ExitOnOutOfMemoryError",
    "-XX:-UsePerfData",
    "-Djava.awt.headless=true",
    "--sun-misc-unsafe-memory-access=allow",
    "--enable-native-access=ALL-UNNAMED",
)

#: Kept for ever, as the architecture asks, unless a topic says otherwise; internal topics are sized for one machine.
#: A killed broker may come back only when its last session is over: three seconds instead of nine.
PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port}
log.dirs={log_directory}
auto.create.topics.enable=false
default.replication.factor=1
min.insync.replicas=1
log.retention.ms=-1
log.retention.bytes=-1
log.message.timestamp.type=CreateTime
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
offsets.retention.minutes=525600
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
log.cleaner.dedupe.buffer.size=16777216
num.network.threads=2
num.io.threads=4
num.recovery.threads.per.data.dir=2
"""

LOG4J = """\
rootLogger.level = warn
rootLogger.appenderRef.stdout.ref = stdout
appender.stdout.type = Console
appender.stdout.name = stdout
appender.stdout.layout.type = PatternLayout
appender.stdout.layout.pattern = %d{ISO8601} %p %c{1} %m%n
logger.server.name = kafka.server.KafkaRaftServer
logger.server.level = info
"""


class KafkaServer(Server):
    """The log. Records are acknowledged when the kernel has them: a killed broker loses nothing."""

    name: ClassVar[str] = "kafka"

    def __init__(self, context: ServerContext, port: int) -> None:
        """Its controller listens on a port of its own, a free one at every start."""
        super().__init__(context, port)
        self._java: JavaRuntime | None = None
        self._options: tuple[str, ...] = ()

    def version(self) -> str:
        """The pinned version."""
        return self.context.artifacts.version("kafka")

    def settings(self) -> Mapping[str, str]:
        """Where clients connect first."""
        return {"kafka_bootstrap": f"{LOOPBACK}:{self.port}"}

    def ready(self) -> bool:
        """Whether it answers as a broker."""
        return kafka_answers(self.port)

    def prepare(self, progress: ProgressCallback) -> None:
        """Download, train Java, format the folder; each once."""
        jars = self.context.artifacts.ensure("kafka", progress)
        self._java = JavaRuntime(self.context.artifacts.root)
        progress(Progress(self.name, "preparing"))
        if not self._options:
            key = "\n".join((str(jars), *JAVA_OPTIONS))
            self._options = self._java.trained(self.name, key, lambda options: self._train(options, progress))
        self._write_configuration()
        if not (self.folder / "log" / "meta.properties").exists():
            self._format()

    def launch(self) -> Launch:
        """`java kafka.Kafka server.properties`."""
        return Launch(self.name, self._command("kafka.Kafka", str(self._properties)), self.log)

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"

    def _command(self, main: str, *arguments: str) -> tuple[str, ...]:
        java = self._java or JavaRuntime(self.context.artifacts.root)
        jars = sorted(str(path) for path in self.context.artifacts.ensure("kafka").glob("*.jar"))
        logging = f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}"
        options = (*self._options, *JAVA_OPTIONS, logging)
        return (java.program, *options, "-cp", ":".join(jars), main, *arguments)

    def _write_configuration(self) -> None:
        self.inner_ports = free_ports(1, INNER_PORTS)
        values = {
            "host": LOOPBACK,
            "port": self.port,
            "controller_port": self.inner_ports[0],
            "log_directory": self.folder.absolute() / "log",
        }
        self._properties.write_text(PROPERTIES.format_map(values), encoding="utf-8")
        (self.folder / "log4j2.properties").write_text(LOG4J, encoding="utf-8")

    def _format(self) -> None:
        first, *rest = uuid.uuid4().bytes
        # One id in 64 would begin with a dash, which the tool takes for an option.
        cluster = base64.urlsafe_b64encode(bytes([first & 0x7F, *rest])).decode().rstrip("=")
        arguments = ("format", "--ignore-formatted", "-t", cluster, "-c", str(self._properties))
        rotate(self.log)
        with self.log.open("ab") as output:
            done = subprocess.run(
                self._command("kafka.tools.StorageTool", *arguments),
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=FORMAT_SECONDS_MAX,
                check=False,
            )
        if done.returncode != 0:
            raise ServerFailedError(self.name, f"could not format its folder: {last_line(self.log)}", self.log)

    def _train(self, options: tuple[str, ...], progress: ProgressCallback) -> None:
        progress(Progress(self.name, "preparing", "making it start faster, once"))
        with tempfile.TemporaryDirectory() as folder, Spawner() as spawner:
            trainee = _Trainee(
                ServerContext(Path(folder), spawner, self.context.artifacts), free_ports(1, INNER_PORTS)[0]
            )
            trainee.train(options)


class _Trainee(KafkaServer):
    """A throw-away broker whose run teaches Java what to have ready."""

    stop_seconds_max: ClassVar[float] = TRAIN_SECONDS_MAX

    def train(self, options: tuple[str, ...]) -> None:
        self._java = JavaRuntime(self.context.artifacts.root)
        self.folder.mkdir(parents=True)
        self._write_configuration()
        self._options = self._java.shared_classes()
        self._format()
        self._options = options
        self.start()
        self.stop()
