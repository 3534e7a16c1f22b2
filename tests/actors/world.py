"""An engine on a disk, participants on theirs, callers, and what can go wrong between them.

Everything is real but time and the wires: hosts, desks, journals, ledgers and
lanes. A crash abandons a host wherever it stands; the journal is closed and
opened again, so that what was not committed is lost. A zombie goes on beside
the new host.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from raysaga.actors.placement import shard_scope
from raysaga.actors.settings import EngineSettings
from raysaga.actors.wire import unpack_messages
from raysaga.statemachines.calls import StepCall
from raysaga.statemachines.definition import SagaDefinition
from raysaga.statemachines.ids import SagaId, saga_id_of
from raysaga.statemachines.order import order_saga
from raysaga.statemachines.tables import PARKED, TERMINAL, Phase
from raysaga.storage.journal import Head, JournalIdentity
from raysaga.storage.lmdb_journal import LmdbJournal
from raysaga.storage.memory_journal import MemoryJournal
from raysaga.storage.settings import JournalSettings
from raysaga.storage.verify import verify_journal

from .audit import judge
from .callers import Caller, Request, answered
from .engine import Disk, Engine
from .toy_services import Services
from .virtual_time import VirtualClock, VirtualLoop, turns, until

UUID = "5a6a0000-0000-4000-8000-000000000001"

IDENTITY = JournalIdentity(uuid=UUID, shard=0, shard_count=1)

JOURNAL = JournalSettings(map_bytes_max=1 << 30, reserve_ratio=0.0)
"""Without a reserve, since that would be a file of its size for each test."""

ORDER = {
    "order_id": "o-1",
    "customer_id": "c-1",
    "payment": {"token": "tok-1", "amount_minor": 100, "currency": "EUR"},
    "items": [{"sku": "sku-1", "quantity": 1, "unit_price_minor": 100}],
}


class World:
    """See the head of this module.

    Attributes:
        engine: The newest incarnation, alive or not.
        zombies: Earlier ones that still run.
        services: The participants.
        cut: Names of participants that cannot be reached; `desk` for the engine itself.
        unserved: Names of participants that the next incarnation is started without.
        lose_answers: How many of the next exchanges with a participant lose their answer
            on the way back, by name.
        moments: What has happened that a crash could come between, in order.
        crash_at: Index in `moments` at which the host dies; None for never.
        may_stop: Whether the newest host may stop by itself.
        keeps_journal: Whether a crash leaves the journal open, for there are other hosts.
    """

    def __init__(self, folder: Path, *, in_memory: bool = False, **settings: Any) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self._loop = loop
        self.clock = VirtualClock(loop)
        self.settings = EngineSettings(**settings)
        self.services = Services(folder / "services", self.clock, self.settings)
        self.services.moment = lambda what, call: self.moment(f"{what} {name_of(call)}")
        self.folder = folder
        self.launcher: Any = None
        self.scope = shard_scope(UUID, 0)
        self.cut: set[str] = set()
        self.unserved: set[str] = set()
        self.lose_answers: dict[str, int] = {}
        self.moments: list[str] = []
        self.crash_at: int | None = None
        self.may_stop = False
        # A journal in memory cannot be closed and opened again; it plays the disk itself.
        self.keeps_journal = in_memory
        self.zombies: list[Engine] = []
        self.callers: list[Caller] = []
        self._journal: LmdbJournal | MemoryJournal | None = None
        if in_memory:
            self._journal = MemoryJournal(IDENTITY)
        self._count = 0
        self.engine: Engine
        self.caller: Caller

    async def start(self, *definitions: SagaDefinition) -> World:
        """Start participants, an engine, and one caller who knows the definitions."""
        for definition in definitions or (order_saga,):
            await self.services.serve(definition)
        await self.restart()
        self.caller = self.call("caller")
        for definition in definitions or (order_saga,):
            request = self.caller.send("define", definition.to_data())
            assert (await answered(request)).ok == definition.content_hash
        return self

    # -- incarnations --------------------------------------------------------

    @property
    def journal(self) -> LmdbJournal | MemoryJournal:
        """What is on disk."""
        assert self._journal is not None
        return self._journal

    async def restart(self, *, beside: bool = False) -> Engine:
        """Start a new incarnation; `beside` the old one, if that does not know it is over."""
        if self._count and not beside:
            self.crash()
            # A process needs some time to start; who calls meanwhile finds nobody.
            await asyncio.sleep(0.3)
        elif self._count:
            self.zombies.append(self.engine)
        if self._journal is None:
            self._journal = LmdbJournal.open(self.folder / "journal", IDENTITY, JOURNAL)
        self._count += 1
        self.engine = Engine(self, Disk(self._journal), self._count, self.scope)
        await self.engine.start()
        return self.engine

    def crash(self) -> None:
        """End every incarnation in the middle of everything, and let go of the files."""
        for engine in (self.engine, *self.zombies):
            engine.kill()
        self.zombies.clear()
        if self._journal is not None and not self.keeps_journal:
            self._journal.close()
            self._journal = None

    def stopped(self, engine: Engine, error: BaseException) -> None:
        """Note that an incarnation has stopped by itself."""
        if engine in self.zombies:
            self.zombies.remove(engine)
        elif self.may_stop:
            self._loop.expected.append(error)
        else:
            raise AssertionError(f"the newest host stopped: {error!r}") from error

    def moment(self, what: str, engine: Engine | None = None) -> bool:
        """Note a moment; return whether the host has just died at it."""
        if engine is not None and engine is not self.engine:
            return False
        self.moments.append(what)
        if self.crash_at != len(self.moments) - 1:
            return False
        self.crash_at = None
        self.engine.kill()
        return True

    async def pass_moment(self, what: str, engine: Engine) -> None:
        """Note a moment of a host's; never return if it dies at it."""
        if self.moment(what, engine):
            await asyncio.get_running_loop().create_future()

    # -- wires ---------------------------------------------------------------

    async def carry(self, engine: Engine, participant: str, batch: bytes) -> bytes:
        """Carry one exchange from a host to a participant, and its answer back."""
        await asyncio.sleep(0.001)
        if participant in self.cut:
            raise ConnectionError(f"{participant} cannot be reached")
        calls = calls_of(batch)
        if calls:
            await self.pass_moment(f"leaves {calls}", engine)
        answer = await self.services.stations[participant].exchange(batch)
        await asyncio.sleep(0.001)
        if answer:
            await self.pass_moment(f"answer of {participant}", engine)
        if answer and self.lose_answers.get(participant):
            self.lose_answers[participant] -= 1
            raise ConnectionError("the answer is lost")
        if participant in self.cut:
            raise ConnectionError(f"{participant} cannot be reached")
        return answer

    def call(self, name: str, engine: Engine | None = None) -> Caller:
        """Return a caller of the newest incarnation, or for ever of one."""

        async def exchange(batch: bytes) -> bytes:
            await asyncio.sleep(0.001)
            if "desk" in self.cut:
                raise ConnectionError("the engine cannot be reached")
            answer = await (engine or self.engine).exchange(batch)
            await asyncio.sleep(0.001)
            if answer and self.lose_answers.get("desk"):
                self.lose_answers["desk"] -= 1
                raise ConnectionError("the answer is lost")
            return answer

        caller = Caller(name, exchange, self.clock, self.settings)
        self.callers.append(caller)
        return caller

    # -- what a caller does --------------------------------------------------

    def send_order(
        self,
        key: str = "1",
        definition: SagaDefinition = order_saga,
        *,
        caller: Caller | None = None,
        body: Mapping[str, Any] = ORDER,
        fingerprint: str = "f",
        deadline_ms: int | None = None,
        dedicated: bool = False,
        watch: bool = True,
    ) -> Request:
        """Submit, and return at once."""
        saga_id = saga_id_of(definition.name, key)
        what = [saga_id, definition.content_hash, key, fingerprint, dict(body)]
        return (caller or self.caller).send("submit", [*what, deadline_ms, dedicated, watch])

    async def submit(self, key: str = "1", *args: Any, **kwargs: Any) -> Request:
        """Submit, and return once it was answered."""
        return await answered(self.send_order(key, *args, **kwargs))

    async def order(self, operation: str, saga_id: str, note: str = "") -> Request:
        """Give an operator's order, and return once it was answered."""
        body = {"saga_id": saga_id, "by": "op", "note": note}
        return await answered(self.caller.send(operation, body))

    async def ask(self, operation: str, saga_id: str) -> Request:
        """Ask something about a saga."""
        return await answered(self.caller.send(operation, {"saga_id": saga_id}))

    async def outcome(self, request: Request, within_s: float = 600.0) -> Mapping[str, Any]:
        """Return how the saga of a submission or a watch has ended, as its caller was told."""
        found: Mapping[str, Any] = await until(lambda: request.ended, within_s=within_s)
        return found

    def head(self, saga_id: str) -> Head:
        """Return what the disk says of a saga."""
        head = self.journal.head(SagaId(saga_id))
        assert head is not None, f"{saga_id} is not on disk"
        return head

    def phase(self, saga_id: str) -> Phase:
        """Return where a saga stands on disk."""
        return self.head(saga_id).phase

    async def rests(self, *saga_ids: str, within_s: float = 600.0) -> None:
        """Return when the disk says that the sagas are over or parked, pruned or not."""

        def resting() -> bool:
            known = [self.journal.key_record(SagaId(saga_id)) for saga_id in saga_ids]
            return all(k is not None and k.phase in TERMINAL | PARKED for k in known)

        await until(resting, within_s=within_s)

    async def restarted_until(self, condition: Callable[[], Any]) -> None:
        """Wait for a condition; start the host again whenever it has died."""
        loop = asyncio.get_running_loop()
        limit = loop.time() + 900
        while not condition():
            assert loop.time() < limit, f"{condition} did not come true"
            if self.engine.life.is_over:
                # It may die while it starts, too.
                with contextlib.suppress(ConnectionError):
                    await self.restart()
            await asyncio.sleep(0.005 if loop.time() < limit - 890 else 0.2)

    # -- the end -------------------------------------------------------------

    async def quiet(self) -> None:
        """Let everything that is still under way arrive, and change what it can."""
        self.services.let_go()
        await asyncio.sleep(3.0)
        await turns()

    async def finish(self, *, is_sound: bool = True) -> None:
        """Let everything arrive; then judge it all, and let go of the files."""
        await self.quiet()
        requests = [r for caller in self.callers for r in caller.requests.values()]
        judge(self.journal, self.services, requests)
        self.close(is_sound=is_sound)

    def close(self, *, is_sound: bool = True) -> None:
        """Check the journal and let go of the files."""
        assert not self.services.script.defects, self.services.script.defects
        if self._journal is None:
            self._journal = LmdbJournal.open(self.folder / "journal", IDENTITY, JOURNAL)
        report = verify_journal(self._journal)
        self.keeps_journal = False
        self.crash()
        self.services.close()
        assert report.is_sound == is_sound, report.problems


def name_of(call: StepCall) -> str:
    """Return a call for people: step and verb."""
    return f"{call.step}/{['action', 'undo', 'question', 'release'][call.verb]}"


def calls_of(batch: bytes) -> str:
    """Return the calls of an exchange for people; empty if there are none."""
    return " ".join(name_of(StepCall._make(m)) for m in unpack_messages(batch)[1:])
