"""A real Kafka of one node (KRaft) on free ports in a temporary folder; stopped by its id."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path
from threading import Event
from typing import Any

from aiokafka import AIOKafkaConsumer
from cryptography.hazmat.primitives import serialization

from .rabbit_process import free_port

JARS = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "raysaga" / "kafka"
"""Where `install.sh` puts them."""

USER, PASSWORD = "ann", "s3cret"
CLUSTER = "MkU3OEVBNTcwNTJENDM2Qg"
START_S = 60.0
POLL_S = 0.05
JAVA = (
    *("java", "-Xms256m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
    *("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{JARS}/*"),
)


def is_installed() -> bool:
    return shutil.which("java") is not None and any(JARS.glob("kafka_*.jar"))


def _key_store(folder: Path, certificates: tuple[Path, Path, Path]) -> Path:
    """Return the file that a broker's key and chain are in, in the one form that Java reads."""
    key = serialization.load_pem_private_key(certificates[2].read_bytes(), None)
    store = folder / "server.pem"
    store.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificates[1].read_bytes()
    )
    return store


class KafkaProcess:
    """One broker. It keeps its ports and its folder when it is killed and started again.

    Attributes:
        proxied_port: Where a proxy reaches it, which must listen at `proxy_port`: Kafka
            tells its clients where to connect to.
    """

    def __init__(self, folder: Path, certificates: tuple[Path, Path, Path]) -> None:
        """Make a broker that does not run.

        Args:
            folder: For everything it writes.
            certificates: Files of who signs, of the server's chain and of its key; for TLS.
        """
        self.folder = folder
        self.port, self.tls_port, self.sasl_port = free_port(), free_port(), free_port()
        self.proxied_port, self.proxy_port = free_port(), free_port()
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        listeners = {
            "PLAINTEXT": self.port,
            "PROXIED": self.proxied_port,
            "SASL": self.sasl_port,
            "TLS": self.tls_port,
        }
        told = {**listeners, "PROXIED": self.proxy_port}
        controller = free_port()
        store = _key_store(folder, certificates)
        jaas = f'required user_{USER}="{PASSWORD}"'
        lines = [
            "process.roles=broker,controller",
            "node.id=1",
            "listeners="
            + ",".join(f"{name}://127.0.0.1:{port}" for name, port in listeners.items())
            + f",CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners="
            + ",".join(f"{name}://localhost:{port}" for name, port in told.items()),
            "controller.listener.names=CONTROLLER",
            f"controller.quorum.voters=1@127.0.0.1:{controller}",
            (
                "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,"
                "SASL:SASL_PLAINTEXT,TLS:SSL,CONTROLLER:PLAINTEXT"
            ),
            "inter.broker.listener.name=PLAINTEXT",
            "listener.name.sasl.sasl.enabled.mechanisms=PLAIN",
            (
                "listener.name.sasl.plain.sasl.jaas.config="
                f"org.apache.kafka.common.security.plain.PlainLoginModule {jaas};"
            ),
            "listener.name.tls.ssl.keystore.type=PEM",
            f"listener.name.tls.ssl.keystore.location={store}",
            f"log.dirs={folder / 'data'}",
            "auto.create.topics.enable=false",
            "log.cleaner.dedupe.buffer.size=2097152",
            "group.initial.rebalance.delay.ms=0",
            "group.min.session.timeout.ms=1000",
            "offsets.topic.num.partitions=1",
            "offsets.topic.replication.factor=1",
            "share.coordinator.state.topic.num.partitions=1",
            "share.coordinator.state.topic.replication.factor=1",
        ]
        self._settings = folder / "server.properties"
        self._settings.write_text("\n".join(lines) + "\n")

    @property
    def url(self) -> str:
        return f"kafka://localhost:{self.port}"

    def start(self) -> None:
        """Return once it takes connections."""
        with (self.folder / "out").open("ab") as out:
            if not (self.folder / "data").exists():
                tool = ("kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c")
                subprocess.run(
                    [*JAVA, *tool, str(self._settings)], check=True, stdout=out, stderr=out
                )
            self._process = subprocess.Popen(
                [*JAVA, "kafka.Kafka", str(self._settings)],
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
            )
        pause = Event()
        for _ in range(int(START_S / POLL_S)):
            try:
                socket.create_connection(("127.0.0.1", self.tls_port), timeout=1).close()
            except OSError:
                assert self._process.poll() is None, (self.folder / "out").read_text()
                pause.wait(POLL_S)
            else:
                return
        raise TimeoutError(f"Kafka does not start; see {self.folder}")

    def kill(self) -> None:
        """End it as a power cut would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(30)

    def stop(self) -> None:
        """End it in good order."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(60)

    async def dead_letters(self, name: str, count: int) -> list[dict[str, Any]]:
        """Return the headers of `count` dead letters of a topic."""
        consumer = AIOKafkaConsumer(
            f"{name}.dead",
            bootstrap_servers=f"localhost:{self.port}",
            auto_offset_reset="earliest",
        )
        await consumer.start()
        try:
            found = [await consumer.getone() for _ in range(count)]
        finally:
            await consumer.stop()
        return [{name: value.decode() for name, value in letter.headers} for letter in found]
