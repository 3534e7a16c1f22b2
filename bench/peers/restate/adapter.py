"""Restate: its server, a deployment of one Python process, and a client for each saga.

Durable: each invocation and each journaled step or call, in the server's replicated log with
one replica, which syncs and commits in groups. The client posts an order with an idempotency
key, and waits for its answer. Telemetry is off, since nothing leaves this machine.
Not durable: the participants, which live in the deployment's process.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp  # type: ignore[import-not-found]

from raysaga.bench.peers.participants import order_of

UP_S_MAX = 60.0
"""Longest wait for the server and its deployment."""

LOOK_S = 0.1

STOP_S_MAX = 5.0
"""How long a process may take to end before it is killed."""


class RestatePeer:
    """One server, one deployment, one client session."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self._refused_every = plan["refused_every"]
        self._handler = "call" if plan["variant"] == "services" else "run"
        self._partitions = plan.get("partitions")
        self._server = plan["server"]
        self._processes: list[asyncio.subprocess.Process] = []
        self._session: aiohttp.ClientSession | None = None
        self._ingress = ""

    async def start(self, folder: Path) -> None:
        """Start the processes, and make them known to each other."""
        ingress, admin, node, deployment = _free_ports(4)
        self._ingress = f"http://127.0.0.1:{ingress}"
        environment = {
            **os.environ,
            "DO_NOT_TRACK": "1",
            "RESTATE_BASE_DIR": str(folder),
            "RESTATE_LISTEN_MODE": "tcp",
            "RESTATE_BIND_ADDRESS": f"127.0.0.1:{node}",
            "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress}",
            "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin}",
            "RESTATE_LOG_FILTER": "error",
        }
        if self._partitions is not None:
            environment["RESTATE_DEFAULT_NUM_PARTITIONS"] = str(self._partitions)
        await self._spawn(folder, "server.log", [self._server, "--no-logo"], environment)
        serve = [sys.executable, "-m", "granian", "--interface", "asgi", "--http", "2"]
        serve += ["--host", "127.0.0.1", "--port", str(deployment), "--no-log"]
        serve.append("raysaga.bench.peers.restate.deployment:app")
        await self._spawn(folder, "deployment.log", serve, dict(os.environ))
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=None)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        await self._register(f"http://127.0.0.1:{admin}", f"http://127.0.0.1:{deployment}")

    async def _spawn(
        self, folder: Path, log: str, command: list[str], environment: dict[str, str]
    ) -> None:
        with (folder / log).open("wb") as file:
            self._processes.append(
                await asyncio.create_subprocess_exec(
                    *command,
                    stdout=file,
                    stderr=file,
                    env=environment,
                    cwd=folder,
                    start_new_session=True,
                )
            )

    async def _register(self, admin: str, deployment: str) -> None:
        assert self._session is not None
        loop = asyncio.get_running_loop()
        until = loop.time() + UP_S_MAX
        while True:
            try:
                body = {"uri": deployment}
                async with self._session.post(f"{admin}/deployments", json=body) as answer:
                    if answer.status < 300:
                        return
                    told = await answer.text()
            except aiohttp.ClientError as error:
                told = repr(error)
            if loop.time() > until:
                raise RuntimeError(f"the deployment is not taken: {told}")
            await asyncio.sleep(LOOK_S)

    async def order(self, number: int) -> str:
        """Post one order, and return what the saga answers."""
        order = order_of(number, "o", self._refused_every)
        headers = {"idempotency-key": order["order_id"]}
        return str(await self._post(f"order/{self._handler}", order, headers))

    async def _post(self, path: str, body: Any, headers: dict[str, str]) -> Any:
        assert self._session is not None
        url = f"{self._ingress}/{path}"
        async with self._session.post(url, json=body, headers=headers) as answer:
            text = await answer.text()
            if answer.status != 200:
                raise RuntimeError(f"{path}: {answer.status} {text}")
            return json.loads(text)

    async def counts(self) -> dict[str, int]:
        """Return the participants' counts, from the deployment's process."""
        found: dict[str, int] = await self._post("audit/counts", {}, {})
        return found

    async def close(self) -> None:
        """End the client, the deployment and the server."""
        if self._session is not None:
            await self._session.close()
        # The server first: the deployment waits for the connections that it keeps open.
        for process in self._processes:
            if process.returncode is None:
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_S_MAX)
            except TimeoutError:
                process.kill()
                await process.wait()
            # A deployment that had to be killed has left its worker behind.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(s.getsockname()[1]) for s in sockets]
    for s in sockets:
        s.close()
    return ports


async def open_peer(folder: Path, plan: dict[str, Any]) -> RestatePeer:
    """Return the peer with a fresh store in `folder`."""
    peer = RestatePeer(plan)
    try:
        await peer.start(folder)
    except BaseException:
        await peer.close()
        raise
    return peer
