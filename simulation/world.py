"""One simulated world: shards, participants, callers and wires, and what is done to them.

Everything is real but time, disks and wires. First everything is troubled, then
all is mended, then whatever was accepted must come to rest in a bounded time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

from raysaga.actors.placement import shard_of
from raysaga.actors.settings import EngineSettings
from raysaga.simulation.callers import Caller, Request
from raysaga.simulation.draws import Draws
from raysaga.simulation.history import Asked, Line, Told, Trouble
from raysaga.simulation.hosts import House
from raysaga.simulation.recipe import Deed, Recipe
from raysaga.simulation.stations import Station
from raysaga.simulation.virtual_time import Life, VirtualLoop
from raysaga.simulation.wires import Wires
from raysaga.statemachines.definition import SagaDefinition
from raysaga.statemachines.ids import SagaId, saga_id_of
from raysaga.storage.errors import StorageError

CALLERS = 2
"""Callers; each has a lane to each shard."""

CLOCK_SKEW_MS = 60_000
"""More than the deeds move clocks apart."""


class World:
    """See the head of this module.

    Attributes:
        recipe: What it is made of.
        loop: Its time.
        draws: Its chance.
        lines: What was seen from outside.
        settings: The engine's.
        houses: The shards.
        stations: The participants, by name.
        wires: Between all of them.
        poison: Sagas that kill whoever drives them.
        defects: What nobody should ever see.
        held_until_s: When the last of what is held on its way arrives.
        skew_ms: How far the clocks may be apart.
        kept_ms: How long participants keep what may be forgotten: longer than an action lives.
    """

    def __init__(self, recipe: Recipe, loop: VirtualLoop) -> None:
        self.recipe = recipe
        self.loop = loop
        self.draws = Draws(recipe.seed, recipe.rates)
        self.lines: list[Line] = []
        self.settings = EngineSettings(**recipe.settings)
        self.poison: set[str] = set()
        self.defects: list[str] = []
        self.held_until_s = 0.0
        is_skewed = any(deed.what == "move_clock" for deed in recipe.deeds)
        self.skew_ms = CLOCK_SKEW_MS if is_skewed else 100
        self.kept_ms = self.settings.action_life_ms + 1_000 + self.skew_ms
        self.wires = Wires(self)
        self.houses = [House(shard, self) for shard in range(recipe.shards)]
        self.stations: dict[str, Station] = {}
        for definition in recipe.definitions:
            for step in definition.steps:
                station = self.stations.setdefault(
                    step.participant, Station(step.participant, self)
                )
                station.service.learn(step.action, step.compensation)
        self._callers = [
            [self._caller(f"caller-{number}", house) for house in self.houses]
            for number in range(CALLERS)
        ]
        self._paused: list[Life] = []

    # -- what everything in it needs -----------------------------------------

    def now_ms(self) -> int:
        """Return milliseconds since the beginning."""
        return int(self.loop.instant * 1_000)

    def note(self, what: str, target: str) -> None:
        """Note a trouble."""
        self.lines.append(Trouble(self.now_ms(), what, target))

    def later(self, delay_ms: float, call: Callable[[], Any]) -> None:
        """Call after a while, whoever is alive by then."""
        self.loop.call_later(delay_ms / 1_000, call, context=_nobody())

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine that belongs to no process."""
        return self.loop.create_task(coroutine, context=_nobody())

    def hold(self, key: tuple[Any, ...], arrive: Callable[[], Any]) -> None:
        """Hold something on its way, for as long as chance has it."""
        turn = self.draws.turn("held", *key)
        delay_ms = self.draws.draw("held_ms", *key, turn) ** 2 * self.recipe.options["held_ms"]
        self.expect_arrival(delay_ms)
        self.later(delay_ms, arrive)

    def expect_arrival(self, after_ms: float) -> None:
        """Note that something is on its way for so long."""
        self.held_until_s = max(self.held_until_s, self.loop.instant + after_ms / 1_000)

    def stopped(self, life: Life, error: BaseException) -> None:
        """Note that a process has stopped by itself, and end it."""
        if not isinstance(error, StorageError):
            self.defects.append(f"{life.name} stopped: {error!r}")
        self.note(f"stopped: {getattr(error, 'code', type(error).__name__)}", life.name)
        self.loop.expected.append(error)
        life.end()

    # -- callers ---------------------------------------------------------------

    def _caller(self, name: str, house: House) -> Caller:
        async def deliver(batch: bytes) -> bytes:
            if house.front is None:
                raise ConnectionError(f"shard {house.shard} never came up")
            return await house.front.exchange(batch)

        async def exchange(batch: bytes) -> bytes:
            return await self.wires.carry(name, f"shard-{house.shard}", batch, deliver)

        def heard(request: Request, kind: str, body: Any) -> None:
            self.lines.append(
                Told(
                    self.now_ms(),
                    name,
                    request.operation,
                    _saga_of(request.operation, request.body),
                    kind,
                    _facts(request, kind, body),
                )
            )

        # No two callers have the same name at one responder.
        return Caller(name, exchange, house.clock, self.settings, heard)

    def ask(self, caller: int, shard: int, operation: str, body: Any) -> Request:
        """Have a caller ask a shard something."""
        facts: dict[str, Any] = {}
        if operation == "submit":
            facts = {"fingerprint": body[3], "dedicated": body[6]}
        saga_id = _saga_of(operation, body)
        self.lines.append(Asked(self.now_ms(), f"caller-{caller}", operation, saga_id, facts))
        return self._callers[caller][shard].send(operation, body)

    def ask_about(self, caller: int, saga_id: str, operation: str, **body: Any) -> Request:
        """Have a caller ask something about a saga, or order something for it."""
        shard = shard_of(SagaId(saga_id), self.recipe.shards)
        return self.ask(caller, shard, operation, {"saga_id": saga_id, **body})

    def open_requests(self) -> list[Request]:
        """Return what callers still wait for."""
        return [r for lanes in self._callers for caller in lanes for r in caller.open_requests]

    async def begin(self) -> None:
        """Start everything, and have the definitions known, in peace."""
        self.draws.is_calm = True
        for station in self.stations.values():
            station.start()
        for house in self.houses:
            await house.start()
        known = [
            self.ask(0, house.shard, "define", definition.to_data())
            for house in self.houses
            for definition in self.recipe.definitions
        ]
        while not all(request.ok for request in known):  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)
        self.draws.is_calm = False

    # -- deeds -----------------------------------------------------------------

    def submission(self, number: int) -> tuple[str, SagaDefinition, Deed] | None:
        """Return saga `number` with its definition and the deed that submits it."""
        for deed in self.recipe.deeds:
            if deed.what == "submit" and deed.facts["saga"] == number:
                definition = self.recipe.definitions[deed.facts["definition"]]
                return saga_id_of(definition.name, f"o{number}"), definition, deed
        return None

    def submit(self, number: int, *, caller: int | None = None, fingerprint: str = "f") -> None:
        """Submit saga `number`; a repeat is the same request again."""
        found = self.submission(number)
        if found is None:
            return
        saga_id, definition, deed = found
        facts = deed.facts
        if facts["poison"]:
            self.poison.add(saga_id)
        key = saga_id.partition(":")[2]
        body = [
            saga_id,
            definition.content_hash,
            key,
            fingerprint,
            {"order_id": key, "amount": 1 + number % 3},
            facts["deadline_ms"],
            facts["dedicated"],
            facts["watch"],
        ]
        shard = shard_of(SagaId(saga_id), self.recipe.shards)
        self.ask(facts["caller"] if caller is None else caller, shard, "submit", body)

    def pause(self, life: Life, for_ms: float) -> None:
        """Let a process stand still for a while."""
        life.pause()
        self.note("pause", life.name)
        self._paused.append(life)
        self.later(for_ms, life.wake)

    def mend(self) -> None:
        """Let nothing strike any more, and everything be up."""
        self.draws.is_calm = True
        self.note("mended", "")
        self.wires.cut.clear()
        for life in self._paused:
            life.wake()
        for house in self.houses:
            house.full = 0
            house.front = house.host
        for station in self.stations.values():
            station.disk.is_full = False

    def end(self) -> None:
        """End every process at once."""
        for station in self.stations.values():
            station.end()
        for house in self.houses:
            house.end()


def _nobody() -> Any:
    """Return a context that belongs to no life."""
    return _OUTSIDE.copy()


def _saga_of(operation: str, body: Any) -> str:
    if operation == "submit":
        return str(body[0])
    return str(body.get("saga_id", "")) if isinstance(body, dict) else ""


def _facts(request: Request, kind: str, body: Any) -> dict[str, Any]:
    """Return what counts of an answer, as plain data that is no heap."""
    operation = request.operation
    if kind == "error":
        return {"code": body[0]}
    if kind == "ended" or (kind == "ok" and operation == "status"):
        return {name: body[name] for name in ("phase", "code", "step", "remaining")}
    if operation == "submit":
        return {"answer": body, "fingerprint": request.body[3]}
    if operation in ("cancel", "force", "retry", "skip"):
        return {"answer": body}
    return {}


_OUTSIDE = Context()
