"""The four services, with trouble that a test orders by leaving a note in a folder.

A note is a file `SAGA~STEP~VERB~WHEN` with the word for what is to happen; it
works once, in whatever process meets it first, and survives that process. A
note with the word `always …` stays until the test takes it away. While there is a note
`SERVICE~down`, that service does not start; a note `SERVICE~exit` ends its process once,
while it starts.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raysaga.actors.services.behaviour import CALM, SeededBehaviour
from raysaga.actors.services.serve import serve as serve_calm
from raysaga.actors.services.service import Service
from raysaga.statemachines.calls import ACTION, Code, Outcome, StepCall, StepReply, reply_to

EXIT_STATUS = 71


class Trouble(SeededBehaviour):
    """What the notes in a folder say."""

    def __init__(self, folder: Path) -> None:
        super().__init__(CALM)
        self._folder = folder

    @property
    def is_calm(self) -> bool:
        return False

    def _note(self, call: StepCall, when: str) -> str:
        verb = "action" if call.verb == ACTION else "undo"
        path = self._folder / f"{call.saga_id}~{call.step}~{verb}~{when}"
        try:
            word = path.read_text()
            if not word.startswith("always "):
                path.unlink()
        except FileNotFoundError:
            return ""
        return word.removeprefix("always ")

    async def before(self, call: StepCall) -> StepReply | None:
        word = self._note(call, "before")
        if word == "exit":
            os._exit(EXIT_STATUS)
        if word == "unavailable":
            return reply_to(
                call, Outcome.UNKNOWN, code=Code.SERVICE_UNAVAILABLE, message="out of order"
            )
        if word == "hang":
            await asyncio.sleep(3_600)
        return None

    async def after(self, call: StepCall, reply: StepReply) -> StepReply | None:
        word = self._note(call, "after")
        if word == "exit":
            os._exit(EXIT_STATUS)
        return None if word == "lose" else reply


def serve(name: str, settings: Mapping[str, Any]) -> Service:
    """Return the service `name`, which reads notes in `trouble` in the data folder."""
    notes = Path(settings["folder"]) / "trouble"
    if (notes / f"{name}~down").exists():
        raise RuntimeError(f"{name} is kept down")
    if (notes / f"{name}~exit").exists():
        (notes / f"{name}~exit").unlink()
        os._exit(EXIT_STATUS)
    service = serve_calm(name, settings)
    service.trouble = Trouble(notes)
    return service


def serve_depot(_name: str, settings: Mapping[str, Any]) -> Service:
    """Return the shipping service, whatever it is to be called."""
    return serve("shipping", settings)
