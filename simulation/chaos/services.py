"""The four services as the engine of a run serves them: themselves, watched, and with trouble.

Each process of a service notes every call that reaches it and every answer that it gives, in
`calls/NAME-PID.jsonl` of the run's folder. A file `trouble/NAME.json` there makes it misbehave
until it is taken away; each time it does so it adds a line to `trouble/NAME.bites`. What is
noted survives the process: it is with the kernel when the call goes on.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import astuple

from raysaga.actors.services.behaviour import CALM, SeededBehaviour
from raysaga.actors.services.serve import serve as serve_calm
from raysaga.actors.services.service import Service
from raysaga.simulation.chaos.fault import now_ms
from raysaga.statemachines.calls import (
    ACTION,
    COMPENSATION,
    Code,
    Outcome,
    StepCall,
    StepReply,
    reply_to,
)
from raysaga.storage.data_folder import DataFolder, previous_owner

WHOLE_EVERY = 16
"""Of one saga in so many the whole call is noted, so that it can be sent again later."""

LOOK_AGAIN_S = 0.05


class Watched(SeededBehaviour):
    """Notes what passes, and does what the file of troubles says.

    The file holds `{"mode", "share", "ms", "saga_id", "verb"}`; all but the mode have defaults.
    Modes: `hang`, `slow`, `down`, `lose` (done, and not answered), `die` (killed after the
    effect and before the answer; once), `assassin` (kills the shard that sent the call).
    """

    def __init__(self, name: str, workplace: Path, data: Path) -> None:
        super().__init__(CALM)
        self._name = name
        self._data = data
        self._trouble = workplace / "trouble" / f"{name}.json"
        self._bites = _appended(workplace / "trouble" / f"{name}.bites")
        self._calls = _appended(workplace / "calls" / f"{name}-{os.getpid()}.jsonl")
        self._whole = _appended(workplace / "calls" / f"{name}-{os.getpid()}.whole")
        self._chance = random.Random(os.getpid())

    @property
    def is_calm(self) -> bool:
        """Never, so that every call passes here."""
        return False

    async def before(self, call: StepCall) -> StepReply | None:
        """Note the call; then let it pass, or not."""
        if call.verb not in (ACTION, COMPENSATION):
            return None
        _note(
            self._calls,
            [
                "call",
                now_ms(),
                call.verb,
                call.saga_id,
                call.step,
                call.scope,
                call.epoch,
                call.attempt,
            ],
        )
        if zlib.crc32(call.saga_id.encode()) % WHOLE_EVERY == 0:
            _note(self._whole, list(astuple(call)))
        trouble = self._met(call)
        match trouble.get("mode"):
            case "hang":
                self._bite(trouble, call)
                # Until the file is gone, or the server calls back what nobody waits for any more.
                while self._trouble.exists():  # noqa: ASYNC110 - another process takes it away
                    await asyncio.sleep(LOOK_AGAIN_S)
            case "slow":
                self._bite(trouble, call)
                await asyncio.sleep(self._chance.random() * trouble["ms"] / 1_000)
            case "down":
                self._bite(trouble, call)
                text = "out of order, as the nemesis wants it"
                return reply_to(call, Outcome.UNKNOWN, code=Code.SERVICE_UNAVAILABLE, message=text)
            case "assassin":
                self._kill_sender(trouble, call)
            case _:
                pass
        return None

    async def after(self, call: StepCall, reply: StepReply) -> StepReply | None:
        """Note the answer; then give it, or not."""
        if call.verb not in (ACTION, COMPENSATION):
            return reply
        trouble = self._met(call)
        if trouble.get("mode") == "die" and reply.stored and not reply.duplicate:
            # Once: whoever comes next must find the file gone.
            self._trouble.unlink(missing_ok=True)
            self._bite(trouble, call)
            os.kill(os.getpid(), signal.SIGKILL)
        _note(
            self._calls,
            [
                "reply",
                now_ms(),
                call.verb,
                call.saga_id,
                call.step,
                call.epoch,
                call.attempt,
                int(reply.outcome),
                str(reply.code),
                reply.stored,
                reply.duplicate,
            ],
        )
        if trouble.get("mode") == "lose":
            self._bite(trouble, call)
            return None
        return reply

    def _met(self, call: StepCall) -> dict[str, Any]:
        """Return the trouble that this call meets; empty if none."""
        try:
            trouble: dict[str, Any] = json.loads(self._trouble.read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        if trouble.get("verb", call.verb) != call.verb:
            return {}
        if trouble.get("saga_id", call.saga_id) != call.saga_id:
            return {}
        return trouble if self._chance.random() < trouble.get("share", 1.0) else {}

    def _bite(self, trouble: Mapping[str, Any], call: StepCall) -> None:
        line = [now_ms(), trouble["mode"], call.saga_id, call.step, call.verb, call.attempt]
        _note(self._bites, line)

    def _kill_sender(self, trouble: Mapping[str, Any], call: StepCall) -> None:
        """Do to the shard what an order would that crashes whoever drives it."""
        shard = call.scope.rpartition("/shard-")[2]
        folder = DataFolder.open(self._data, shard_count=None, create=False)
        pid = previous_owner(folder.journal_path(int(shard))) if shard.isdigit() else None
        if pid is not None:
            self._bite(trouble, call)
            os.kill(pid, signal.SIGKILL)


def _appended(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _note(file: int, line: list[Any]) -> None:
    # One write of an appended file is one line, whoever else writes to it (open(2), O_APPEND).
    os.write(file, json.dumps(line, separators=(",", ":")).encode() + b"\n")


def serve(name: str, settings: Mapping[str, Any]) -> Service:
    """Return the service `name`, watched."""
    service = serve_calm(name, settings)
    data = Path(settings["folder"])
    service.trouble = Watched(name, data.parent, data)
    return service
