"""Participants of a simulated world: real servers on real ledgers, with calls that go astray.

What a service does is one row and a count of stock in tables of its own, so that
the books can be checked without believing anybody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from raysaga.actors.lane import Landing
from raysaga.actors.participant import Effects, Participant, Refusal, TryLater
from raysaga.actors.participant_server import ParticipantLimits, ParticipantServer
from raysaga.simulation.disks import KEPT, LOST, LedgerDisk
from raysaga.simulation.history import Effect, Replied
from raysaga.simulation.virtual_time import Life, VirtualClock
from raysaga.statemachines.calls import RELEASE, StepCall, StepReply
from raysaga.storage.effects import Operation
from raysaga.storage.errors import StorageError
from raysaga.storage.ledger import Ledger, LedgerSettings
from raysaga.storage.ledger_batch import Handlers
from raysaga.storage.ledger_reader import LedgerReader, all_tables
from raysaga.storage.ledger_row import EffectEntry

if TYPE_CHECKING:
    from raysaga.simulation.world import World

STANDING, BOOKS = "standing", "books"
"""Tables of a service: what stands, by saga and step; and how much is left."""

BUSY_MS = (5, 60, 400, 2_500)
"""How long a service takes over a call when it is busy; the last outlasts every time-out."""


class Service(Participant):
    """Takes an amount from its stock for each action, and gives it back for each undo."""

    tables = (STANDING, BOOKS)

    def __init__(self, name: str, world: World) -> None:
        self.name = name
        self.operations: Mapping[str, Operation] = {}
        self._world = world

    def learn(self, action: str, compensation: str | None) -> None:
        """Offer an operation."""
        made = Operation(
            apply=self._apply,
            undo_name=compensation,
            undo=None if compensation is None else self._undo,
        )
        self.operations = {**self.operations, action: made}

    def left(self, effects: Any) -> int:
        """Return how much of the stock is left."""
        left = effects.get(BOOKS, "left")
        return self._world.recipe.options["stock"] if left is None else int(left)

    def _apply(self, effects: Effects, call: StepCall, _context: Any) -> Mapping[str, Any]:
        amount = int(call.request["amount"])
        left = self.left(effects) - amount
        # Written first: what is refused below must leave nothing of it.
        effects.put(BOOKS, "left", left)
        effects.put(STANDING, f"{call.saga_id}/{call.step}", amount)
        self._stumble(call)
        if left < 0:
            raise Refusal("OUT_OF_STOCK", "there is not enough left")
        if self._world.draws.strikes("refusal", self.name, call.saga_id, call.step):
            raise Refusal("NOT_WANTED", "the service says no")
        return {"made": call.step, "amount": amount, "left": left}

    def _undo(
        self, effects: Effects, call: StepCall, _applied: Any, _context: Any
    ) -> Mapping[str, Any]:
        amount = int(call.request["amount"])
        left = self.left(effects) + amount
        effects.put(BOOKS, "left", left)
        effects.delete(STANDING, f"{call.saga_id}/{call.step}")
        self._stumble(call)
        key = (self.name, call.saga_id, call.step, call.epoch, call.attempt)
        if self._world.draws.strikes("undo_refusal", *key):
            raise Refusal("CANNOT_UNDO", "the service says no for now")
        return {"undone": call.step, "amount": amount, "left": left}

    def _stumble(self, call: StepCall) -> None:
        key = (self.name, call.verb, call.saga_id, call.step, call.epoch, call.attempt)
        if self._world.draws.strikes("later", *key):
            raise TryLater("BUSY", "not now", retry_after_ms=20)
        if self._world.draws.strikes("defect", *key):
            raise ValueError("a bug of the service")


class Slowness:
    """The behaviour of a service that takes its time, or never answers."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def before(self, call: StepCall) -> StepReply | None:
        """Take some time."""
        key = (call.verb, call.saga_id, call.step, call.epoch, call.attempt)
        if self._world.draws.strikes("busy", *key):
            choice = int(self._world.draws.draw("busy_ms", *key) * len(BUSY_MS))
            await asyncio.sleep(BUSY_MS[choice] / 1_000)
        return None

    async def after(self, _call: StepCall, reply: StepReply) -> StepReply | None:
        """Answer."""
        return reply


class _Process:
    """One process of a participant."""

    __slots__ = ("landing", "life", "server")

    def __init__(self, life: Life, server: ParticipantServer, landing: Landing) -> None:
        self.life = life
        self.server = server
        self.landing = landing


class Station:
    """One participant: its disk, and the process that serves it, if one lives.

    Attributes:
        name: As steps call it.
        disk: What is left when a process has died.
        clock: Of the machine that it is on.
    """

    def __init__(self, name: str, world: World) -> None:
        self.name = name
        self._world = world
        self.service = Service(name, world)
        self.clock = VirtualClock(world.loop)
        self.disk = LedgerDisk(all_tables(Service.tables), fault=self._fault, wrote=self._wrote)
        self._scopes: dict[str, str] = {}
        # The newest; earlier ones may still be about.
        self._process: _Process | None = None
        self._starts = 0

    # -- life ------------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        """Whether there is a process that takes calls."""
        return self._process is not None and not self._process.life.is_over

    def start(self) -> None:
        """Start a process, beside one that may still be about."""
        self._starts += 1
        life = Life(f"{self.name}#{self._starts}")
        try:
            self._process = life.run(lambda: self._open(life))
        except StorageError as error:
            # The new one has died of its disk; an earlier one is no newest any more.
            if self._process is not None:
                self._process.life.end()
            self._failed(life, error)

    def _open(self, life: Life) -> _Process:
        world = self._world
        ledger = Ledger(
            cast("Any", self.disk),
            handlers=Handlers(
                operations=self.service.operations,
                settle=self.service.settle,
                codes=self.service.codes,
            ),
            tables=Service.tables,
            now_ms=self.clock.now_ms,
            settings=LedgerSettings(reserve_bytes=0, clock_skew_ms=world.skew_ms),
        )
        options = world.recipe.options
        server = ParticipantServer(
            participant=self.service,
            ledger=ledger,
            clock=self.clock,
            on_fatal=lambda error: self._failed(life, error),
            behaviour=Slowness(world) if "busy" in world.recipe.rates else None,
            limits=ParticipantLimits(
                in_flight_max=options["participant_slots"],
                queued_max=options["participant_queue"],
            ),
            inline=True,
        )
        landing = Landing(
            lambda sender, messages: self._received(process, sender, messages), world.settings
        )
        process = _Process(life, server, landing)
        life.task(server.start())
        if options["prune_ms"]:
            life.task(self._forget_for_ever(process))
        return process

    async def _forget_for_ever(self, process: _Process) -> None:
        while True:
            await asyncio.sleep(self._world.recipe.options["prune_ms"] / 1_000)
            try:
                await process.server.prune(self._world.kept_ms)
            except StorageError as error:
                self._failed(process.life, error)

    def crash(self, for_ms: float) -> None:
        """Stop in the middle of everything, and be back after a while."""
        if self._process is not None and not self._process.life.is_over:
            self._process.life.end()
            self._world.note("crash", self._process.life.name)
            self._world.later(for_ms, self._come_back)

    def pause(self, for_ms: float) -> None:
        """Stand still, while another process takes over; then go on beside it."""
        if self._process is not None:
            life = self._process.life
            life.pause()
            self._world.note("pause", life.name)
            self._world.later(for_ms / 2, self.start)
            self._world.later(for_ms, life.wake)

    def _come_back(self) -> None:
        if not self.is_up:
            self.start()

    def _failed(self, life: Life, error: BaseException) -> None:
        if not life.is_over:
            self._world.stopped(life, error)
            self._world.later(100, self._come_back)

    def end(self) -> None:
        """End the newest process for good."""
        if self._process is not None:
            self._process.life.end()

    def left(self) -> int:
        """Return how much of its stock the disk says is left."""
        return self.service.left(LedgerReader(cast("Any", self.disk), Service.tables))

    def unanswered(self) -> float:
        """Return how many calls this still owes an answer."""
        return 0 if self._process is None else self._process.server.stats()["unanswered"]

    # -- calls -----------------------------------------------------------------

    async def exchange(self, batch: bytes) -> bytes:
        """Take an exchange into the newest process.

        Raises:
            ConnectionError: If there is none.
        """
        process = self._process
        if process is None:
            raise ConnectionError(f"{self.name} never came up")
        answer: bytes = await process.life.ask(process.landing.exchange(batch))
        return answer

    def _received(self, process: _Process, sender: str, messages: list[list[Any]]) -> None:
        draws = self._world.draws
        for fields in messages:
            call = StepCall._make(fields)
            key = _key(self.name, call)

            def arrive_late(call: StepCall = call) -> None:
                self._arrive_late(sender, call)

            if call.verb != RELEASE and draws.strikes_anew("call_lost", *key):
                continue
            if draws.strikes_anew("call_held", *key):
                self._world.hold(key, arrive_late)
                continue
            self._deliver(process, sender, call)
            if draws.strikes_anew("call_doubled", *key):
                self._world.hold(key, arrive_late)

    def _arrive_late(self, sender: str, call: StepCall) -> None:
        """Let a call arrive at whatever process is there by now."""
        process = self._process
        if process is not None and not process.life.is_over:
            process.life.soon(self._deliver, process, sender, call)

    def _deliver(self, process: _Process, sender: str, call: StepCall) -> None:
        world = self._world
        self._scopes[call.saga_id] = call.scope
        key = _key(self.name, call)

        def answered(reply: StepReply) -> None:
            self._replied(call, reply)
            if world.draws.strikes_anew("crash_at_reply", *key):
                if process is self._process:
                    self.crash(100)
            elif world.draws.strikes_anew("reply_held", *key):
                push = process.landing.push
                world.hold(key, lambda: process.life.soon(push, sender, reply))
            elif not world.draws.strikes_anew("reply_lost", *key):
                process.landing.push(sender, reply)

        process.server.deliver([call], answered)

    def _replied(self, call: StepCall, reply: StepReply) -> None:
        self._world.lines.append(
            Replied(
                self._world.now_ms(),
                self.name,
                call.verb,
                call.saga_id,
                call.step,
                call.epoch,
                call.attempt,
                reply.outcome,
                str(reply.code),
                reply.stored,
                reply.duplicate,
            )
        )

    # -- disk ------------------------------------------------------------------

    def _fault(self) -> str | None:
        if self._world.draws.strikes_anew("ledger_kept", self.name):
            return KEPT
        return LOST if self._world.draws.strikes_anew("ledger_lost", self.name) else None

    def _wrote(self, effects: list[EffectEntry]) -> None:
        now_ms = self._world.now_ms()
        for line in effects:
            saga_id, step = line.key.saga_id, line.key.step
            scope = self._scopes.get(saga_id, "")
            self._world.lines.append(
                Effect(
                    now_ms,
                    self.name,
                    line.seq,
                    line.kind.value,
                    saga_id,
                    step,
                    scope,
                    line.epoch,
                    line.summary,
                )
            )


def _key(participant: str, call: StepCall) -> tuple[Any, ...]:
    return (participant, call.verb, call.saga_id, call.step, call.epoch, call.attempt)
