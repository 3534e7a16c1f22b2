"""A real RabbitMQ on free ports in a temporary folder; started, killed and stopped by its id."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from threading import Event
from typing import Any

import aio_pika
import psutil

SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""Debian's wrapper in the path becomes another user first; this is what it starts."""

START_S = 60.0
LETTERS_S = 120.0
POLL_S = 0.05


def is_installed() -> bool:
    return SERVER.exists() and shutil.which("epmd") is not None


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class RabbitProcess:
    """One broker. It keeps its ports and its folder when it is killed and started again."""

    def __init__(self, folder: Path, certificates: tuple[Path, Path, Path] | None = None) -> None:
        """Make a broker that does not run.

        Args:
            folder: For everything it writes.
            certificates: Files of who signs, of the server's chain and of its key; for TLS.
        """
        self.folder = folder
        self.port, self.tls_port = free_port(), free_port()
        self._names_port, self._peers_port = free_port(), free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._names: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        lines = [
            f"listeners.tcp.default = 127.0.0.1:{self.port}",
            "loopback_users = none",
            "log.console = false",
        ]
        if certificates is not None:
            lines += [
                f"listeners.ssl.default = 127.0.0.1:{self.tls_port}",
                f"ssl_options.cacertfile = {certificates[0]}",
                f"ssl_options.certfile = {certificates[1]}",
                f"ssl_options.keyfile = {certificates[2]}",
            ]
        (folder / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
        (folder / "enabled_plugins").write_text("[].\n")

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}"

    def start(self) -> None:
        """Return once it takes connections."""
        environment = {
            **os.environ,
            "HOME": str(self.folder),
            "ERL_EPMD_PORT": str(self._names_port),
            "RABBITMQ_NODENAME": f"raysaga{self.port}@localhost",
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_DIST_PORT": str(self._peers_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2",
        }
        if self._names is None:
            # Else it would start one by itself, which outlives it.
            self._names = subprocess.Popen(
                ["epmd", "-address", "127.0.0.1", "-port", str(self._names_port)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        with (self.folder / "out").open("ab") as out:
            self._process = subprocess.Popen(
                [str(SERVER)], env=environment, stdout=out, stderr=out, stdin=subprocess.DEVNULL
            )
        pause = Event()
        for _ in range(int(START_S / POLL_S)):
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                assert self._process.poll() is None, (self.folder / "out").read_text()
                pause.wait(POLL_S)
            else:
                return
        raise TimeoutError(f"RabbitMQ does not start; see {self.folder}")

    @property
    def pid(self) -> int:
        """Of the virtual machine, which is the last of the scripts' processes."""
        assert self._process is not None
        family = [psutil.Process(self._process.pid)]
        family += family[0].children(recursive=True)
        return next(process.pid for process in family if process.name().startswith("beam"))

    def kill(self) -> None:
        """End it as a power cut would."""
        assert self._process is not None
        os.kill(self.pid, signal.SIGKILL)
        self._process.wait(30)

    def stop(self) -> None:
        """End it in good order, with all that it started."""
        if self._process is not None and self._process.poll() is None:
            os.kill(self.pid, signal.SIGTERM)
            self._process.wait(60)
        if self._names is not None:
            self._names.kill()
            self._names.wait(30)
            self._names = None

    async def dead_letters(self, name: str, count: int) -> list[dict[str, Any]]:
        """Return the headers of `count` dead letters of a queue, taken from it."""
        connection = await aio_pika.connect(self.url)
        async with connection:
            channel = await connection.channel()
            dead = await channel.get_queue(f"{name}.dead")
            found = []
            async with asyncio.timeout(LETTERS_S), dead.iterator() as letters:
                async for letter in letters:
                    await letter.ack()
                    found.append(dict(letter.headers))
                    if len(found) == count:
                        return found
        raise AssertionError
