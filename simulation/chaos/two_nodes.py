"""A Ray cluster of two nodes in networks of their own: a head, and the node with the data folder.

    head 10.91.1.2 ---- 10.91.1.1 router 10.91.2.1 ---- 10.91.2.2 node

Each is a network namespace; nothing of it reaches beyond this machine. What is cut is cut at
the router, where packets vanish without a word, as they do on a wire: in one direction or both.

Guarantees: `close` leaves no process and no namespace.
Costs: five seconds to start. Ray is told to notice a lost node in about five seconds, and a
lost head in ten, instead of a minute.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from raysaga.actors.shells.cluster import RAY_ENVIRONMENT
from raysaga.simulation.chaos.fault import NeverHappenedError
from raysaga.simulation.chaos.machine import flaw_of
from raysaga.simulation.chaos.processes import kill_all
from raysaga.simulation.chaos.stage import STARTS_MAX, Launch, Stage

HEAD, NODE, ROUTER = "head", "node", "router"

_RAYS: Final = "ray"
"""The folder for Ray, as each machine sees its own."""

ADDRESSES: Final[Mapping[str, str]] = {HEAD: "10.91.1.2", NODE: "10.91.2.2"}
_GATES: Final[Mapping[str, str]] = {HEAD: "10.91.1.1", NODE: "10.91.2.1"}
_PORT: Final = 6379
_RAYLET_PORT: Final = 6380

_HIDDEN: Final = "hidden"
"""File of process ids that a machine is not to see."""

_ENTER: Final = f"""
for pid in $(cat "$0/{_HIDDEN}"); do mount --bind "$0/nothing" "/proc/$pid"; done
mount --bind "$0" "$1"
shift
exec "$@"
"""
"""What a process does to be on one of the machines: `$0` is its folder, `$1` where it sees it."""

_LOST: Final = "death reason = "
"""What the head writes about each node that it gives up."""

START_S_MAX: Final = 60.0
END_S_MAX: Final = 30.0

_ENVIRONMENT: Final[Mapping[str, str]] = {
    **RAY_ENVIRONMENT,
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "4",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
    # Nobody else can reach these networks.
    "RAY_AUTH_MODE": "disabled",
}

_OBJECT_STORE_BYTES: Final = 80 << 20


class TwoNodes:
    """The cluster, and the wire between its nodes.

    Attributes:
        launch: How keepers and callers are started that are to live on the node.
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._names = {part: f"raysaga-{os.getpid()}-{part}" for part in (HEAD, NODE, ROUTER)}
        # Short, for the paths of unix sockets are (unix(7): 108 bytes).
        self._folder = Path(tempfile.mkdtemp(prefix="rs-", dir="/tmp"))
        (self._folder / _RAYS).mkdir()
        for part in (HEAD, NODE):
            (self._folder / part / "nothing").mkdir(parents=True)
            (self._folder / part / _HIDDEN).touch()
        self._node_count = self._lost_before = 0
        self.launch = Launch(
            environment=_ENVIRONMENT,
            address=f"{ADDRESSES[HEAD]}:{_PORT}",
            prefix=self._inside(NODE),
        )

    def _inside(self, part: str) -> tuple[str, ...]:
        """Return what runs a command on the head, or on the node.

        In its network, with a folder for Ray of its own; and on the node without sight of the
        head's raylet, for a driver takes the first that it finds among the machine's processes.
        Mounts of `ip netns exec` are seen by nobody else (ip-netns(8)).
        """
        places = (str(self._folder / part), str(self._folder / _RAYS))
        return ("ip", "netns", "exec", self._names[part], "sh", "-c", _ENTER, *places)

    # -- the wire ----------------------------------------------------------------

    def lay(self) -> None:
        """Make the networks.

        Raises:
            NeverHappenedError: If that is not possible.
        """
        names = self._names
        router = names[ROUTER]
        for name in names.values():
            _run("ip", "netns", "add", name)
            _run("ip", "-n", name, "link", "set", "lo", "up")
        for part, address in ADDRESSES.items():
            name, gate, inner = names[part], _GATES[part], f"to-{part}"
            link = ("link", "add", "wire", "netns", name, "type", "veth")
            _run("ip", "-n", name, *link, "peer", "name", inner, "netns", router)
            _run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "wire")
            _run("ip", "-n", router, "addr", "add", f"{gate}/24", "dev", inner)
            _run("ip", "-n", name, "link", "set", "wire", "up")
            _run("ip", "-n", router, "link", "set", inner, "up")
            _run("ip", "-n", name, "route", "add", "default", "via", gate)
        _run("ip", "netns", "exec", router, "sysctl", "-qw", "net.ipv4.ip_forward=1")

    def cut(self, towards: str) -> None:
        """Let no packet through to `HEAD`, or to `NODE`."""
        self._route("add", towards)

    def mend(self) -> None:
        """Let everything through again."""
        for part in ADDRESSES:
            with suppress(NeverHappenedError):
                self._route("del", part)

    def _route(self, verb: str, towards: str) -> None:
        target = f"{ADDRESSES[towards]}/32"
        _run("ip", "-n", self._names[ROUTER], "route", verb, "blackhole", target)

    async def is_heard(self, within_s: float = 1.0) -> bool:
        """Return whether the head can connect to the node's raylet."""
        connect = f"exec 3<>/dev/tcp/{ADDRESSES[NODE]}/{_RAYLET_PORT}"
        again = f"until ({connect}) 2> /dev/null; do sleep 0.2; done"
        command = ["timeout", str(within_s), "bash", "-c", again]
        head = ["ip", "netns", "exec", self._names[HEAD], *command]
        return not await asyncio.to_thread(flaw_of, head)

    # -- the nodes ---------------------------------------------------------------

    async def start(self, part: str) -> None:
        """Start Ray on the head, or on the node, once the head has given up the one before.

        Raises:
            NeverHappenedError: If it does not start.
        """
        if part == HEAD:
            # Who is started anew remembers nothing.
            self._node_count, self._lost_before = 0, self.lost_count()
        else:
            await self._stage.until(
                lambda: self.lost_count() - self._lost_before >= self._node_count,
                "the head gives up the node that was",  # a driver would find that one
                END_S_MAX,
            )
            self._node_count += 1
        command = [*self._inside(part), sys.executable, "-m", "ray.scripts.scripts"]
        command += ["start", "--disable-usage-stats"]
        command += ["--node-ip-address", ADDRESSES[part]]
        command += ["--node-manager-port", str(_RAYLET_PORT)]
        command += ["--object-store-memory", str(_OBJECT_STORE_BYTES)]
        if part == HEAD:
            command += ["--head", "--port", str(_PORT), "--temp-dir", str(self._folder / _RAYS)]
            command += ["--include-dashboard", "false", "--num-cpus", "1"]
        else:
            command += ["--address", f"{ADDRESSES[HEAD]}:{_PORT}", "--num-cpus", "4"]
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            env={**os.environ, **_ENVIRONMENT},
        )
        assert process.stdout is not None
        told = b""
        with suppress(TimeoutError):
            async with asyncio.timeout(START_S_MAX):
                # Not until its end: what Ray starts keeps the pipe open.
                while b"Ray runtime started" not in told:
                    line = await process.stdout.readline()
                    if not line:
                        break
                    told += line
                await process.wait()
        if process.returncode != 0:
            with suppress(ProcessLookupError):
                process.kill()
            last = told.decode(errors="replace").strip()[-300:]
            raise NeverHappenedError(f"Ray starts on the {part}: {last}", START_S_MAX)
        if part == HEAD:
            (self._folder / NODE / _HIDDEN).write_text(f"{self.raylet(HEAD)}\n", encoding="ascii")

    def pids(self, part: str) -> list[int]:
        """Return all processes of the head, or of the node."""
        return list(_processes_in(self._names[part]))

    def raylet(self, part: str) -> int:
        """Return the process id of a raylet.

        Raises:
            NeverHappenedError: If there is none.
        """
        for pid in self.pids(part):
            with suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip() == "raylet":
                    return pid
        raise NeverHappenedError(f"the {part} has a raylet", 0.0)

    def lost_count(self) -> int:
        """Return how many nodes the head has given up, as its log tells."""
        logs = self._folder.glob(f"{HEAD}/session_2*/logs/gcs_server.out")
        return sum(log.read_text(errors="replace").count(_LOST) for log in logs)

    async def end(self, part: str) -> None:
        """SIGKILL all processes of the head, or of the node, and wait until they are gone."""
        async with asyncio.timeout(END_S_MAX):
            while pids := self.pids(part):
                kill_all(pids)
                await asyncio.sleep(0.1)

    async def bring_back(self) -> None:
        """Start the node anew, whatever is left of it, and the engine and the callers there."""
        for child in (self._stage.keeper, self._stage.callers):
            if child is not None:
                child.expected = True
        for left in reversed(range(STARTS_MAX)):
            await self.end(NODE)
            await self.start(NODE)
            try:
                await self._stage.rejoin()
                return
            except NeverHappenedError:
                # After a cut the head may ask the new node by its connection to the old one,
                # whose packets TCP repeats ever more rarely, and give that node up as well.
                if not left:
                    raise

    def close(self) -> None:
        """Remove everything."""
        for name in self._names.values():
            kill_all(_processes_in(name))
            flaw_of(["ip", "netns", "del", name])
        shutil.rmtree(self._folder, ignore_errors=True)


@asynccontextmanager
async def on_two_nodes(stage: Stage) -> AsyncIterator[TwoNodes]:
    """Stop the engine, and start it on a cluster of two nodes; at the end, as before."""
    before, ran = stage.launch, stage.keeper is not None
    await stage.stop()
    nodes = TwoNodes(stage)
    try:
        nodes.lay()
        await nodes.start(HEAD)
        await nodes.start(NODE)
        await stage.start(nodes.launch)
        yield nodes
        nodes.mend()
        await stage.stop()
    finally:
        await stage.kill()
        nodes.close()
        if ran:
            await stage.start(before)


def _processes_in(name: str) -> Iterator[int]:
    """Yield the processes of a network namespace."""
    try:
        wanted = os.stat(f"/run/netns/{name}").st_ino
    except FileNotFoundError:
        return
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with suppress(OSError):
                if os.stat(f"/proc/{entry.name}/ns/net").st_ino == wanted:
                    yield int(entry.name)


def _run(*command: str) -> None:
    flaw = flaw_of(command)
    if flaw:
        raise NeverHappenedError(f"{' '.join(command)}: {flaw}", 0.0)
