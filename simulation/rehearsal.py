"""Plays sagas of yours with participants of yours, for their tests: without Ray, in virtual time.

The host with its rules, the participants' servers and their ledgers are the real ones. The
journal is in memory, nobody waits for a real second, and the order of things is the same in
every run; so a time-out of an hour takes no time, and a test never fails by chance.

Refuses: to be used within a running event loop; and guards or providers that use threads or
sockets, which virtual time does not wait for.
Costs: about twenty milliseconds a saga, most of them the ledgers' flushes.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from raysaga.actors.desk import Desk
from raysaga.actors.errors import IdempotencyConflictError
from raysaga.actors.host import SagaHost
from raysaga.actors.lane import Landing
from raysaga.actors.participant import Participant
from raysaga.actors.participant_server import ParticipantServer
from raysaga.actors.placement import shard_scope
from raysaga.actors.reconciler import Reconciler
from raysaga.actors.settings import EngineSettings
from raysaga.api.outcome import Outcome
from raysaga.simulation.callers import Caller, Request
from raysaga.simulation.virtual_time import Life, VirtualClock, VirtualLoop
from raysaga.statemachines.calls import ACTION, COMPENSATION, StepCall, StepReply
from raysaga.statemachines.definition import SagaDefinition
from raysaga.statemachines.errors import ValidationError
from raysaga.statemachines.ids import is_key, saga_id_of
from raysaga.storage.journal import JournalIdentity
from raysaga.storage.ledger import Ledger
from raysaga.storage.ledger_batch import Handlers
from raysaga.storage.ledger_reader import LedgerReader
from raysaga.storage.memory_journal import MemoryJournal

UUID = "4e4ea45a-0000-4000-8000-000000000001"

COMMIT_MS = 1
"""Virtual time of a commit of the journal."""

RESTART_MS = 200
"""Virtual time until an engine that was killed has a successor."""


class Rehearsal:
    """An engine in this process, with participants that keep what they have from play to play.

    Calls are named as they are told in `calls`: `book_hotel` for the action of the step of
    that name, `undo book_hotel` for its compensation.

    Attributes:
        calls: Each call that arrived at a participant, repeats included, in their order.
    """

    def __init__(
        self,
        folder: str | Path,
        *participants: Participant,
        settings: EngineSettings | None = None,
    ) -> None:
        """Make one.

        Args:
            folder: Where the ledgers will be; a fresh one for each test, such as `tmp_path`.
            participants: Whoever the definitions name.
            settings: Of the engine; None for the defaults.
        """
        self.calls: list[str] = []
        self._folder = Path(folder)
        self._participants = {participant.name: participant for participant in participants}
        self._settings = settings or EngineSettings()
        self._journal = MemoryJournal(JournalIdentity(uuid=UUID, shard=0, shard_count=1))
        self._instant_s = 0.0
        self._lost: Counter[str] = Counter()
        self._deadly: set[str] = set()

    def lose_answers(self, call: str, times: int = 1) -> None:
        """Have the next answers to `call` lost, though what it asks for is done.

        Times beyond the step's `attempts_max` mean that nobody learns what became of it.
        """
        self._lost[call] += times

    def kill_engine_at(self, call: str) -> None:
        """Kill the engine once, when `call` has taken effect and before it hears of that.

        A successor takes the sagas up from the journal, as after a crash.
        """
        self._deadly.add(call)

    def play(
        self,
        definition: SagaDefinition,
        request: Mapping[str, Any],
        *,
        key: str = "1",
    ) -> Outcome:
        """Submit a saga, and return how it ended, or that it is parked.

        The same key with the same request is the same saga, as with an engine. What a handler
        raises, and neither is a `Refusal` nor a `TryLater`, is raised here, at the end.

        Raises:
            ValidationError: If the key or the request is no such thing, or nobody plays a step.
            IdempotencyConflictError: If the key is in use for another request.
        """
        if not is_key(key):
            raise ValidationError("must match [A-Za-z0-9._:-]{1,100}", "key")
        definition.check_input(request)
        for step in definition.steps:
            if step.participant not in self._participants:
                raise ValidationError(
                    f"was not given to the rehearsal; {step.name!r} needs it", step.participant
                )
        loop = VirtualLoop()
        loop.instant = self._instant_s
        play = _Play(self, loop)
        try:
            data = loop.run(play.play(definition, key, dict(request)))
        finally:
            play.close()
            self._instant_s = loop.instant
        if play.defects:
            raise play.defects[0]
        return Outcome.from_data(data)

    def table(self, participant: str, table: str) -> dict[str, Any]:
        """Return what is on disk of one of a participant's own tables."""
        tables = self._participants[participant].tables
        reader = LedgerReader.open(self._folder / participant, tables=tables)
        try:
            return dict(reader.scan(table))
        finally:
            reader.close()

    def _take_fault(self, call: str) -> tuple[bool, bool]:
        """Return whether the engine dies now, and whether this answer is lost; once each."""
        is_deadly = call in self._deadly
        self._deadly.discard(call)
        is_lost = self._lost[call] > 0
        self._lost[call] -= is_lost
        return is_deadly, is_lost


class _Service:
    """One participant at work."""

    def __init__(self, participant: Participant, ledger: Ledger, server: ParticipantServer) -> None:
        self.participant = participant
        self.ledger = ledger
        self.server = server
        self.landing: Landing


class _Engine:
    """One incarnation of the host, with what stands before it and beside it."""

    def __init__(self, host: SagaHost, life: Life, clock: VirtualClock) -> None:
        self.life = life
        self.host = host
        self.desk = Desk(host, launcher=None, stats=dict)
        self.reconciler = Reconciler(
            host, clock=clock, run_blocking=_in_a_while, launcher=None, watch=self.desk.adopted
        )

    async def start(self) -> None:
        await self.life.ask(self.host.start())
        await self.life.ask(self.reconciler.start())

    async def stop(self) -> None:
        await self.life.ask(self.reconciler.stop())
        await self.life.ask(self.host.stop())
        self.life.end()


class _Play:
    """What lives for one play.

    Attributes:
        defects: What handlers raised that they must not.
    """

    def __init__(self, rehearsal: Rehearsal, loop: VirtualLoop) -> None:
        self.defects: list[BaseException] = []
        self._rehearsal = rehearsal
        self._clock = VirtualClock(loop)
        self._house = Life("participants")
        self._services = {
            name: self._serve(participant, rehearsal._folder / name)
            for name, participant in rehearsal._participants.items()
        }
        self._engine: _Engine | None = None

    # -- participants ----------------------------------------------------------

    def _serve(self, participant: Participant, path: Path) -> _Service:
        ledger = Ledger.open_at(
            path,
            handlers=Handlers(
                operations=participant.operations,
                settle=participant.settle,
                codes=participant.codes,
            ),
            tables=participant.tables,
            now_ms=self._clock.now_ms,
            on_defect=lambda _call, error: self.defects.append(error),
        )
        participant.prepare(ledger)
        server = ParticipantServer(
            participant=participant,
            ledger=ledger,
            clock=self._clock,
            on_fatal=self.defects.append,
            inline=True,
        )
        service = _Service(participant, ledger, server)
        service.landing = Landing(
            lambda sender, messages: self._received(service, sender, messages),
            self._rehearsal._settings,
        )
        return service

    def _received(self, service: _Service, sender: str, messages: list[list[Any]]) -> None:
        for call in map(StepCall._make, messages):
            name = {ACTION: call.step, COMPENSATION: f"undo {call.step}"}.get(call.verb, "")
            if name:
                self._rehearsal.calls.append(name)

            def answered(reply: StepReply, name: str = name) -> None:
                is_deadly, is_lost = self._rehearsal._take_fault(name)
                if is_deadly:
                    self._kill_engine()
                elif not is_lost:
                    service.landing.push(sender, reply)

            service.server.deliver([call], answered)

    # -- the engine ------------------------------------------------------------

    def _connect(self, name: str) -> Callable[[bytes], Awaitable[bytes]] | None:
        service = self._services.get(name)
        if service is None:
            return None

        async def exchange(batch: bytes) -> bytes:
            answer: bytes = await self._house.ask(service.landing.exchange(batch))
            return answer

        return exchange

    async def _start_engine(self) -> None:
        journal, settings = self._rehearsal._journal, self._rehearsal._settings
        life = Life("engine")

        def failed(error: BaseException) -> None:
            # What is left of one that was killed is closed at the end, and is no failure.
            if not life.is_over:
                self.defects.append(error)

        host = SagaHost(
            journal=journal,
            scope=shard_scope(UUID, 0),
            owner="rehearsal",
            connect=self._connect,
            clock=self._clock,
            settings=settings,
            chance=random.Random(0),
            run_blocking=_in_a_while,
            fatal=failed,
        )
        engine = _Engine(host, life, self._clock)
        await engine.start()
        self._engine = engine

    def _kill_engine(self) -> None:
        assert self._engine is not None
        self._engine.life.end()
        self._engine = None
        self._house.task(self._restart())

    async def _restart(self) -> None:
        await self._clock.sleep_ms(RESTART_MS)
        await self._start_engine()

    async def _exchange(self, batch: bytes) -> bytes:
        if self._engine is None:
            raise ConnectionError("there is no engine just now")
        answer: bytes = await self._engine.life.ask(self._engine.desk.landing.exchange(batch))
        return answer

    # -- a play ----------------------------------------------------------------

    async def play(
        self, definition: SagaDefinition, key: str, request: dict[str, Any]
    ) -> Mapping[str, Any]:
        """Return the outcome as plain data."""
        for service in self._services.values():
            await service.server.start()
        await self._start_engine()
        self._news = asyncio.Event()
        caller = Caller("test", self._exchange, self._clock, self._rehearsal._settings, self._heard)
        defined = caller.send("define", definition.to_data())
        await self._until(lambda: defined.is_answered)
        saga_id = saga_id_of(definition.name, key)
        fingerprint = json.dumps([definition.name, request], sort_keys=True)
        body = [saga_id, defined.ok, key, fingerprint, request, None, False, True]
        submitted = caller.send("submit", body)
        await self._until(lambda: submitted.ended is not None or submitted.error is not None)
        if self._engine is not None:
            await self._engine.stop()
        if submitted.error == IdempotencyConflictError.code:
            raise IdempotencyConflictError(saga_id)
        if submitted.ended is None:
            raise ValidationError(f"was refused: {submitted.told}", "request")
        return submitted.ended

    def _heard(self, _request: Request, _kind: str, _body: Any) -> None:
        self._news.set()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._news.wait()
            self._news.clear()

    def close(self) -> None:
        """Let go of the ledgers; what is on disk stays."""
        self._house.end()
        if self._engine is not None:
            self._engine.life.end()
        for service in self._services.values():
            service.ledger.close()


async def _in_a_while(call: Callable[[], Any]) -> Any:
    """Do as the thread of a journal does: a little later, and not at all if the engine died."""
    await asyncio.sleep(COMMIT_MS / 1_000)
    return call()
