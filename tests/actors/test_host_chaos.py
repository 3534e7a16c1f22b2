"""Many sagas of random shapes through random trouble; then quiet, and the ledgers are read.

Each seed is one history: calls and replies are lost, doubled, held and let go late;
participants, hosts and wires fail; zombies go on; disks fill up; clocks jump; people
cancel, retry, skip and force. Everything is drawn from the seed, so that a history
that breaks a promise can be told again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from raysaga.statemachines.calls import RELEASE, StepCall
from raysaga.statemachines.definition import (
    CompensationPolicy,
    Durability,
    SagaDefinition,
    Step,
    StepKind,
)
from raysaga.statemachines.tables import PARKED
from raysaga.storage.errors import StorageFullError
from raysaga.storage.journal import HeadFilter

from .callers import Request
from .dedicated import DedicatedHosts
from .recipes import step
from .toy_services import Fate
from .virtual_time import virtual_loop
from .world import World

FULL = StorageFullError("journal", "no room")
PARTICIPANTS = 3
SAGAS = 25


def shape(chance: random.Random, number: int) -> SagaDefinition:
    """Return a valid definition: a row or branches, with or without a pivot and what follows."""
    steps: list[Step] = []

    def add(
        name: str, kind: StepKind, after: tuple[str, ...], *, best_effort: bool = False
    ) -> None:
        known = [s.name for s in steps if not s.best_effort]
        uses = tuple(n for n in known if n in after and chance.random() < 0.3)
        steps.append(
            step(
                name,
                after=after,
                kind=kind,
                uses=uses,
                best_effort=best_effort,
                participant=f"p{chance.randrange(PARTICIPANTS)}",
                timeout_ms=chance.choice([200, 1_000]),
            )
        )

    for i in range(1 + chance.randrange(4)):
        names = [s.name for s in steps]
        after = (
            tuple(names[-1:])
            if chance.random() < 0.6
            else tuple(chance.sample(names, k=min(len(names), 2)))
        )
        add(f"d{number}c{i}", StepKind.COMPENSATABLE, after)
    followed = {name for s in steps for name in s.after or ()}
    ends = tuple(s.name for s in steps if s.name not in followed)
    if chance.random() < 0.5:
        add(f"d{number}p", StepKind.PIVOT, ends)
        ends = (steps[-1].name,)
    if chance.random() < 0.5:
        for i in range(1 + chance.randrange(2)):
            add(f"d{number}r{i}", StepKind.RETRIABLE, ends, best_effort=chance.random() < 0.3)
    return SagaDefinition(
        name=f"d{number}",
        steps=tuple(steps),
        deadline_ms=chance.choice([None, 3_000, 60_000]),
        compensation_policy=chance.choice(list(CompensationPolicy)),
        durability=chance.choice([Durability.PIPELINED, *Durability]),
    )


class Chaos:
    """One history."""

    def __init__(self, world: World, chance: random.Random, definitions: list[SagaDefinition]):
        self.world = world
        self.chance = chance
        self.definitions = definitions
        self.requests: list[Request] = []
        self.trouble = 0.0
        world.may_stop = True
        world.services.fate = self._fate

    def _fate(self, call: StepCall) -> Fate:
        if call.verb == RELEASE or self.chance.random() >= self.trouble:
            return Fate.ARRIVES
        return self.chance.choice(
            [Fate.LOST, Fate.UNANSWERED, Fate.TWICE, Fate.HELD, Fate.HELD_BACK]
        )

    async def run(self) -> None:
        """Submit sagas and make trouble, in turns."""
        chance = self.chance
        deeds: list[tuple[float, Callable[[], Awaitable[None]]]] = [
            (6, self._submit),
            (3, self._let_go),
            (3, self._order),
            (1, self._crash),
            (0.7, self._zombie),
            (0.7, self._kill_participant),
            (0.7, self._cut),
            (0.7, self._fill_the_disk),
            (0.7, self._change_minds),
            (0.3, self._jump),
            (1, self._lose_answers),
        ]
        while len(self.requests) < SAGAS:
            self.trouble = chance.choice([0.0, 0.1, 0.3, 0.6])
            (deed,) = chance.choices([d for _, d in deeds], [w for w, _ in deeds])
            await deed()
            await asyncio.sleep(chance.choice([0.0, 0.001, 0.01, 0.1, 0.7]))
            await self._alive()

    async def _alive(self) -> None:
        while self.world.engine.life.is_over:
            with contextlib.suppress(ConnectionError):
                await self.world.restart()

    async def _submit(self) -> None:
        definition = self.chance.choice(self.definitions)
        key = str(self.chance.randrange(1_000))
        if self.chance.random() < 0.3:
            self.world.crash_at = len(self.world.moments) + self.chance.randrange(20)
        dedicated = self.world.launcher is not None and self.chance.random() < 0.4
        self.requests.append(self.world.send_order(key, definition, dedicated=dedicated))

    async def _let_go(self) -> None:
        self.world.services.let_go(lambda _call: self.chance.random() < 0.6)

    async def _order(self) -> None:
        if self.requests:
            saga_id = self.chance.choice(self.requests).body[0]
            operation = self.chance.choice(["cancel", "force", "retry", "skip"])
            body = {"saga_id": saga_id, "by": "op", "note": "by chance"}
            self.world.caller.send(operation, body)

    async def _crash(self) -> None:
        launcher = self.world.launcher
        if launcher is not None and launcher.lives and self.chance.random() < 0.7:
            launcher.kill(self.chance.choice(list(launcher.lives)))
        else:
            self.world.engine.kill()

    async def _zombie(self) -> None:
        with contextlib.suppress(ConnectionError):
            await self.world.restart(beside=True)

    async def _kill_participant(self) -> None:
        station = self.chance.choice(list(self.world.services.stations.values()))
        station.kill()
        await asyncio.sleep(self.chance.choice([0.01, 0.5]))
        await station.start()

    async def _cut(self) -> None:
        name = self.chance.choice([*self.world.services.stations, "desk"])
        self.world.cut ^= {name}

    async def _fill_the_disk(self) -> None:
        is_full = self.chance.random() < 0.5
        self.world.engine.disk.is_full = lambda _e, reserve: (
            FULL if is_full and not reserve else None
        )

    async def _change_minds(self) -> None:
        script = self.world.services.script
        steps = [s.name for d in self.definitions for s in d.steps]
        script.refuses = {name: "NO" for name in steps if self.chance.random() < 0.15}
        script.refuses_undo = {name for name in steps if self.chance.random() < 0.1}
        script.later = {name: 2 for name in steps if self.chance.random() < 0.1}

    async def _jump(self) -> None:
        self.world.clock.wall_offset_ms += self.chance.choice([-4_000, 4_000, 20_000])

    async def _lose_answers(self) -> None:
        name = self.chance.choice([*self.world.services.stations, "desk"])
        self.world.lose_answers[name] = 1

    async def heal(self) -> None:
        """Mend everything; send on what is parked, until nothing is."""
        world = self.world
        self.trouble = 0.0
        world.crash_at = None
        world.cut.clear()
        world.lose_answers.clear()
        world.services.script.refuses.clear()
        world.services.script.refuses_undo.clear()
        world.services.script.later.clear()
        await self._alive()
        world.engine.disk.is_full = lambda _entries, _reserve: None
        for turn in range(30):
            world.services.let_go()
            await self._alive()
            heads = world.journal.heads(HeadFilter(), limit=1_000)
            await world.rests(*[head.saga_id for head in heads], within_s=900)
            parked = [
                h for h in world.journal.heads(HeadFilter(), limit=1_000) if h.phase in PARKED
            ]
            if not parked and all(request.told for request in self.requests):
                return
            for head in parked:
                # What was refused for good stays so; only a person can go on without it.
                operation = "skip" if turn > 10 else self.chance.choice(["retry", "skip"])
                await world.order(operation, head.saga_id, "mended")
            await asyncio.sleep(1.0)
        raise AssertionError(f"after all was mended: {parked}")


async def history(
    folder: Path, seed: int, *, own_hosts: bool = False, in_memory: bool = False
) -> None:
    chance = random.Random(seed)
    definitions = [shape(chance, i) for i in range(3)]
    world = World(
        folder,
        in_memory=in_memory,
        exchange_hold_ms=300,
        exchange_grace_ms=300,
        reconcile_ms=500,
        breaker_open_ms_max=500,
        recoveries_max=100,
        # In half of the histories sagas are forgotten as soon as they can be.
        retention_ms=0 if seed % 2 else 3_600_000,
    )
    if own_hosts:
        world.launcher = DedicatedHosts(world)
        # Other processes have the journal open as well, so it stays when the shard dies.
        world.keeps_journal = True
    await world.start(*definitions)
    chaos = Chaos(world, chance, definitions)
    await chaos.run()
    await chaos.heal()
    await world.finish()


@pytest.mark.parametrize("seed", range(24))
def test_whatever_happens_each_saga_is_done_or_undone_exactly_once(
    world_folder: Path, seed: int
) -> None:
    with virtual_loop() as loop:
        loop.run(history(world_folder, seed))
    assert list(world_folder.iterdir())


@pytest.mark.parametrize("seed", range(100, 112))
def test_so_it_is_when_some_sagas_have_hosts_of_their_own(world_folder: Path, seed: int) -> None:
    with virtual_loop() as loop:
        loop.run(history(world_folder, seed, own_hosts=True))
    assert list(world_folder.iterdir())


@pytest.mark.parametrize("seed", range(200, 212))
def test_so_it_is_on_a_journal_in_memory(world_folder: Path, seed: int) -> None:
    with virtual_loop() as loop:
        loop.run(history(world_folder, seed, in_memory=True))
    assert list(world_folder.iterdir()) == [world_folder / "services"]
