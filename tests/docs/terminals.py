"""Types the commands of a page as its reader would: what listens, in a terminal of its own.

Guarantees: what listens is waited for until it does, goes on beside the commands after it, and
is ended, and must end well, before the next block that has such a command, and with the page.
What a block sets in its environment holds to its end. Where a page installs, nothing is
installed: what it names must be there, in a version that fits.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import distribution, version
from pathlib import Path
from threading import Event
from urllib.request import urlopen

from blocks import ELLIPSIS, Block, is_as_shown
from packaging.requirements import Requirement

COMMAND_S_MAX = 120
END_S_MAX = 60
INSTALLS = "pip install "
LISTENS = re.compile(r"raysaga (?:serve|ingress|egress|participant|traces --follow)\b")
READY = re.compile(r"(?:serving|taking|telling|following) ")
"""How a line begins by which a command says that it listens."""

PORT = 8_470
"""Of `raysaga serve`, unless it is told another."""


class Terminals:
    """The terminals of one reader of one page; closed by `close`."""

    def __init__(self, folder: Path, **environment: str) -> None:
        """Open none yet.

        Args:
            folder: In which the commands are typed.
            environment: What they find there beside our own.
        """
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._folder = folder
        self._environment = {**os.environ, "PATH": path, "COLUMNS": "80", **environment}
        self._listening: list[tuple[str, subprocess.Popen[str]]] = []

    def type(self, block: Block) -> None:
        """Run the commands of a block, and compare what they say with what is shown."""
        typed = list(commands_of(block))
        if any(LISTENS.match(command) for command, _ in typed):
            self.close()
        environment = self._environment
        for command, shown in typed:
            if command.startswith(INSTALLS):
                check_installed(command)
            elif LISTENS.match(command):
                self._listen(block, command, environment)
            else:
                environment = self._run(block, command, shown, environment)

    def close(self) -> None:
        """End what listens, as Ctrl-C does, and see that it ends well."""
        listening, self._listening = self._listening, []
        ended = [(where, *end(process)) for where, process in listening]
        for where, status, told in ended:
            assert status == 0, f"{where}\n{told[-2_000:]}"

    def _listen(self, block: Block, command: str, environment: dict[str, str]) -> None:
        where = f"{block.where}: {command}"
        if command.startswith("raysaga serve"):
            wait_until_free(PORT)
        process = subprocess.Popen(
            # So that the process is the command's own and not a shell's.
            ["bash", "-c", f"exec {command}"],
            cwd=self._folder,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._listening.append((where, process))
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if READY.match(line):
                break
        else:
            raise AssertionError(f"{where}\n{''.join(said)}")
        if command.startswith("raysaga serve"):
            with urlopen(f"http://127.0.0.1:{PORT}/") as page:
                assert page.status == 200

    def _run(
        self, block: Block, command: str, shown: list[str], environment: dict[str, str]
    ) -> dict[str, str]:
        """Run a command, and return the environment that it leaves.

        What is killed by a signal is no failure where the page says so by showing what came
        before.
        """
        with tempfile.NamedTemporaryFile() as left:
            done = subprocess.run(
                ["bash", "-e", "-c", f"set -a\n{command}\nenv -0 > {left.name}"],
                cwd=self._folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=COMMAND_S_MAX,
                check=False,
            )
            pairs = Path(left.name).read_text().split("\0")[:-1]
        told = f"{block.where}: {command}\n{done.stdout}{done.stderr[-2_000:]}"
        assert done.returncode == 0 or "CRASH=1" in command, told
        assert is_as_shown(done.stdout.splitlines(), shown), told
        return dict(pair.split("=", 1) for pair in pairs) or environment


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    """End a process as Ctrl-C does; return its status, and what it had left to say."""
    process.send_signal(signal.SIGINT)
    try:
        _, told = process.communicate(timeout=END_S_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        _, told = process.communicate()
    return process.returncode, told


def commands_of(block: Block) -> Iterator[tuple[str, list[str]]]:
    """Yield each command with the lines shown behind it; `sh` shows none.

    Lines of `sh` that neither listen nor install are one command together.
    """
    if block.language == "sh":
        together: list[str] = []
        for line in block.code.replace("\\\n", " ").splitlines():
            if line.startswith(INSTALLS) or LISTENS.match(line):
                if together:
                    yield "\n".join(together), [ELLIPSIS]
                yield line, [ELLIPSIS]
                together = []
            else:
                together.append(line)
        if together:
            yield "\n".join(together), [ELLIPSIS]
        return
    command, shown = "", []
    for line in block.code.splitlines():
        if line.startswith("$ "):
            if command:
                yield command, shown
            command, shown = line.removeprefix("$ "), []
        else:
            shown.append(line)
    assert command, f"{block.where} begins with no command"
    yield command, shown


def check_installed(command: str) -> None:
    """See that what a line of `pip install` names is there, with what its extras ask for.

    Raises:
        PackageNotFoundError: If something is missing.
    """
    for word in shlex.split(command.removeprefix(INSTALLS), comments=True):
        wanted = Requirement(word.removeprefix("./"))
        found = distribution(wanted.name)
        assert wanted.extras <= set(found.metadata.get_all("Provides-Extra") or ()), word
        for needed in map(Requirement, found.requires or ()):
            asked = needed.marker and any(
                needed.marker.evaluate({"extra": extra}) for extra in wanted.extras
            )
            assert not asked or needed.specifier.contains(version(needed.name)), needed
        assert wanted.specifier.contains(found.version), word


def wait_until_free(port: int) -> None:
    """Return once nobody listens at a port of this machine."""
    until_s = time.monotonic() + END_S_MAX
    while True:
        try:
            socket.create_server(("127.0.0.1", port)).close()
            return
        except OSError:
            assert time.monotonic() < until_s, f"port {port} stays in use"
            Event().wait(0.1)
