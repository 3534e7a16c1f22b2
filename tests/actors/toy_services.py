"""Participants to be talked to: toy services on real ledgers, behind real landings.

What they do is one row in a table of their own, so that what stands in the
world can be read without believing anybody. What they refuse, and what becomes
of a call on its way, is up to the test.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from enum import Enum, auto
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from raysaga.actors.lane import Landing
from raysaga.actors.participant import Effects, Participant, Refusal, TryLater
from raysaga.actors.participant_server import ParticipantServer, open_ledger
from raysaga.actors.settings import EngineSettings
from raysaga.statemachines.calls import ACTION, COMPENSATION, StepCall, StepReply
from raysaga.statemachines.definition import SagaDefinition
from raysaga.storage.effects import Operation
from raysaga.storage.ledger import LedgerSettings

from .virtual_time import Life, VirtualClock

LEDGER = LedgerSettings(map_bytes_max=1 << 30, reserve_bytes=0)


class Fate(Enum):
    """What becomes of one call on its way to a participant and back."""

    ARRIVES = auto()
    TWICE = auto()
    """Arrives, and once more behind everything that is under way."""
    LOST = auto()
    """Never arrives; nobody says so."""
    UNANSWERED = auto()
    """Arrives and is done; the reply is lost."""
    HELD = auto()
    """Arrives when the test lets it go."""
    HELD_BACK = auto()
    """Arrives and is done; the reply leaves when the test lets it go."""


class Said(NamedTuple):
    """A reply as it left a participant, in the order in which they did."""

    participant: str
    call: StepCall
    reply: StepReply


class Script:
    """What the toy services do beside what they are asked for; by name of the step.

    Attributes:
        refuses: Steps whose action is refused.
        refuses_undo: Steps whose undo is refused.
        later: Steps whose calls are put off, with the number of times left.
        results: What an action gives, if not the usual.
        defects: What the services were asked that they never should be.
    """

    def __init__(self) -> None:
        self.refuses: dict[str, str] = {}
        self.refuses_undo: set[str] = set()
        self.later: dict[str, int] = {}
        self.results: dict[str, Any] = {}
        self.defects: list[str] = []

    def play(self, call: StepCall) -> None:
        """Raise what the script says of this call."""
        left = self.later.get(call.step, 0)
        if left:
            self.later[call.step] = left - 1
            raise TryLater("BUSY", "not now")
        if call.verb == ACTION and call.step in self.refuses:
            raise Refusal(self.refuses[call.step], "the test says no")
        if call.verb == COMPENSATION and call.step in self.refuses_undo:
            raise Refusal("CANNOT_UNDO", "the test says no")


class ToyService(Participant):
    """Performs each action by a row, and undoes it by deleting the row."""

    tables = ("standing",)

    def __init__(self, name: str, operations: Mapping[str, str | None], script: Script) -> None:
        self.name = name
        self._script = script
        self.operations = {
            action: Operation(
                apply=self._apply, undo_name=undo, undo=None if undo is None else self._undo
            )
            for action, undo in operations.items()
        }

    def _apply(self, effects: Effects, call: StepCall, _context: Any) -> Mapping[str, Any]:
        self._script.play(call)
        key = f"{call.saga_id}/{call.step}"
        if effects.get("standing", key) is not None:
            self._script.defects.append(f"{key} takes effect a second time")
        effects.put("standing", key, dict(call.request))
        given: Mapping[str, Any] = self._script.results.get(call.step, {"made": call.step})
        return given

    def _undo(
        self, effects: Effects, call: StepCall, _applied: Any, _context: Any
    ) -> Mapping[str, Any]:
        self._script.play(call)
        key = f"{call.saga_id}/{call.step}"
        if effects.get("standing", key) != dict(call.request):
            self._script.defects.append(f"{key} is undone, and is not what was done")
        effects.delete("standing", key)
        return {"undone": call.step}


class Station:
    """One participant: its ledger on disk, and the process that serves it, if it lives."""

    def __init__(
        self,
        name: str,
        operations: Mapping[str, str | None],
        path: Path,
        clock: VirtualClock,
        settings: EngineSettings,
        services: Services,
    ) -> None:
        self.name = name
        self._service = ToyService(name, operations, services.script)
        self._path = path
        self._clock = clock
        self._settings = settings
        self._services = services
        self.life = Life(name)

    async def start(self) -> None:
        """Open the ledger and take calls."""
        self.life = Life(self.name)
        self.ledger = open_ledger(self._service, self._path, clock=self._clock, settings=LEDGER)
        self._server = ParticipantServer(
            participant=self._service,
            ledger=self.ledger,
            clock=self._clock,
            on_fatal=self._failed,
            inline=True,
        )
        self._landing = Landing(self._received, self._settings)
        await self._server.start()

    def learn(self, operations: Mapping[str, str | None]) -> None:
        """Offer these operations as well."""
        more = ToyService(self.name, operations, self._services.script)
        self._service.operations |= more.operations

    def kill(self) -> None:
        """Stop in the middle of everything, as by SIGKILL."""
        self.life.end()
        self.ledger.close()

    async def exchange(self, batch: bytes) -> bytes:
        """Take an exchange into this participant's process."""
        answer: bytes = await self.life.ask(self._landing.exchange(batch))
        return answer

    def _failed(self, error: BaseException) -> None:
        raise AssertionError(f"{self.name} failed: {error!r}")

    def _received(self, sender: str, messages: list[list[Any]]) -> None:
        for fields in messages:
            call = StepCall._make(fields)
            self._services.calls.append((self.name, call))
            fate = self._services.fate(call)
            deliver = partial(self._deliver, self._landing, sender, call, fate)
            if fate is Fate.HELD:
                self._services.held.append((call, deliver))
            elif fate is not Fate.LOST:
                deliver()
                if fate is Fate.TWICE:
                    asyncio.get_running_loop().call_later(0.5, deliver)

    def _deliver(self, landing: Landing, sender: str, call: StepCall, fate: Fate) -> None:
        def answered(reply: StepReply) -> None:
            self._services.said.append(Said(self.name, call, reply))
            reply = self._services.twist(reply)
            self._services.moment("said", call)
            if fate is Fate.HELD_BACK:
                push = partial(landing.push, sender, reply)
                self._services.held.append((call, push))
            elif fate is not Fate.UNANSWERED:
                landing.push(sender, reply)

        self._server.deliver([call], answered)


class Services:
    """All participants of a world.

    Attributes:
        script: What they refuse.
        fate: What becomes of a call; asked when it arrives.
        calls: Every call that has arrived, with the participant's name.
        said: Every reply, in the order in which they were given; only what is durable is said.
        held: Calls and replies that wait for `let_go`.
        twist: Changes replies on their way, as a participant of another make might.
        moment: Told of each reply, once what it says is durable.
    """

    def __init__(self, folder: Path, clock: VirtualClock, settings: EngineSettings) -> None:
        self.script = Script()
        self.fate: Callable[[StepCall], Fate] = lambda _call: Fate.ARRIVES
        self.calls: list[tuple[str, StepCall]] = []
        self.said: list[Said] = []
        self.held: list[tuple[StepCall, Callable[[], None]]] = []
        self.twist: Callable[[StepReply], StepReply] = lambda reply: reply
        self.moment: Callable[[str, StepCall], None] = lambda _what, _call: None
        self.stations: dict[str, Station] = {}
        self._folder = folder
        self._clock = clock
        self._settings = settings

    async def serve(self, definition: SagaDefinition) -> None:
        """Have a participant for each that the definition names."""
        wanted: dict[str, dict[str, str | None]] = {}
        for step in definition.steps:
            wanted.setdefault(step.participant, {})[step.action] = step.compensation
        for name, operations in wanted.items():
            known = self.stations.get(name)
            if known is not None:
                known.learn(operations)
                continue
            station = self.stations[name] = Station(
                name, operations, self._folder / name, self._clock, self._settings, self
            )
            await station.start()

    def let_go(self, wanted: Callable[[StepCall], bool] = lambda _call: True) -> int:
        """Let what is held go on, in order; return how many."""
        going = [item for item in self.held if wanted(item[0])]
        self.held = [item for item in self.held if not wanted(item[0])]
        for call, go in going:
            self._station_of(call).life.run(go)
        return len(going)

    def _station_of(self, call: StepCall) -> Station:
        name = next(name for name, other in self.calls if other is call or other == call)
        return self.stations[name]

    def actions(self, step: str | None = None) -> list[StepCall]:
        """Return the actions that have arrived."""
        return [c for _, c in self.calls if c.verb == ACTION and step in (None, c.step)]

    def undos(self, step: str | None = None) -> list[StepCall]:
        """Return the compensations that have arrived."""
        return [c for _, c in self.calls if c.verb == COMPENSATION and step in (None, c.step)]

    def standing(self, saga_id: str) -> set[str]:
        """Return the steps of a saga whose effect stands in the world."""
        prefix = f"{saga_id}/"
        return {
            key.removeprefix(prefix)
            for station in self.stations.values()
            for key, _ in station.ledger.scan("standing", prefix)
        }

    def close(self) -> None:
        """Let go of the files."""
        for station in self.stations.values():
            station.ledger.close()


def is_step(*names: str) -> Callable[[StepCall], bool]:
    """Return a question: is the call one of these steps'?"""
    return lambda call: call.step in names


def fates(plan: Mapping[tuple[str, int], Fate | Iterable[Fate]]) -> Callable[[StepCall], Fate]:
    """Return fates by step and verb; of several, each goes to one call, then all arrive."""
    left = {key: iter([]) if isinstance(fate, Fate) else iter(fate) for key, fate in plan.items()}

    def fate(call: StepCall) -> Fate:
        planned = plan.get((call.step, call.verb))
        if planned is None:
            return Fate.ARRIVES
        if isinstance(planned, Fate):
            return planned
        return next(left[call.step, call.verb], Fate.ARRIVES)

    return fate
