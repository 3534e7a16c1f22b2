"""Plays one history: trouble, mending, rest, and the last look at everything.

Guarantees: the same recipe gives the same observation, byte for byte, in every
process.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from raysaga.simulation.callers import Request
from raysaga.simulation.history import Observation, Reading
from raysaga.simulation.recipe import Deed, Recipe
from raysaga.simulation.virtual_time import VirtualLoop
from raysaga.simulation.world import World
from raysaga.statemachines.tables import PARKED, TERMINAL
from raysaga.storage.journal import HeadFilter
from raysaga.storage.verify import verify_journal

REST_WITHIN_S = 120.0
"""After the mending, each saga must be over or parked within this time.

It is more than everything that may have to pass one after the other: what a lane needs to
notice a loss, all tries of all steps of the longest shape and of their undos, a
deadline, and the trials of the suspects; a saga that comes to rest later is stuck.
"""

OPERATED_TURNS = 6
"""How often an operator looks for what is parked, and sends it on."""

LAST_SUBMISSIONS = 5
"""Submissions after the mending, all of which must be accepted."""


def play(recipe: Recipe) -> Observation:
    """Return what was seen of one history."""
    silence()
    loop = VirtualLoop()
    # A collection in the middle would only cost time: what is made here dies with the loop.
    was_on = gc.isenabled()
    gc.disable()
    try:
        seen = Observation()
        try:
            loop.run(_history(recipe, loop, seen))
            seen.defects += loop.unheard()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this seed's finding
            seen.defects.append(f"the history could not be played to its end: {error!r}")
        return seen
    finally:
        loop.close()
        if was_on:
            gc.enable()


def silence() -> None:
    """Log nothing in this process: a history of trouble would say a great deal."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
        processors=[_drop],
        logger_factory=structlog.ReturnLoggerFactory(),
        cache_logger_on_first_use=False,
    )


async def _history(recipe: Recipe, loop: VirtualLoop, seen: Observation) -> None:
    world = World(recipe, loop)
    seen.definitions = {definition.name: definition for definition in recipe.definitions}
    seen.lines = world.lines
    seen.defects = world.defects
    await world.begin()
    began_ms = world.now_ms()
    for deed in recipe.deeds:
        wait_ms = began_ms + deed.at_ms - world.now_ms()
        if wait_ms > 0:
            await asyncio.sleep(wait_ms / 1_000)
        _DEEDS[deed.what](world, deed)
    await asyncio.sleep(0.3)
    world.mend()
    seen.healed_at_ms = world.now_ms()
    seen.poison = frozenset(world.poison)
    seen.late = await _come_to_rest(world)
    if not seen.late and recipe.options["is_operated"]:
        seen.late = await _operate(world)
    seen.unserved = await _submit_some_more(world)
    # What is still held on its way arrives now, and must change nothing.
    await asyncio.sleep(max(world.held_until_s - loop.instant, 0.0) + 1.5)
    await _look(world, seen)
    seen.ended_at_ms = world.now_ms()
    seen.struck = world.draws.struck
    world.end()


# -- deeds ---------------------------------------------------------------------


def _crash_host(world: World, deed: Deed) -> None:
    house = world.houses[deed.facts["shard"]]
    own = [own for own in house.own.values() if not own.life.is_over]
    if own and deed.facts["saga"] % 2:
        own[deed.facts["saga"] % len(own)].kill()
    elif house.host is not None:
        house.host.kill()


def _pause_host(world: World, deed: Deed) -> None:
    house = world.houses[deed.facts["shard"]]
    host = house.host
    if host is None or host.life.is_over:
        return
    world.pause(host.life, deed.facts["for_ms"])
    replaced_after_ms = deed.facts["replaced_after_ms"]
    if replaced_after_ms is not None:
        stay = deed.facts["callers_stay"]
        world.later(replaced_after_ms, lambda: _replace(world, house.shard, host, stay=stay))


def _replace_host(world: World, deed: Deed) -> None:
    house = world.houses[deed.facts["shard"]]
    if house.host is not None:
        _replace(world, house.shard, house.host, stay=bool(deed.facts["saga"] % 2))


def _replace(world: World, shard: int, host: Any, *, stay: bool) -> None:
    """Start another beside a host that may be alive; callers may go on talking to the first."""
    house = world.houses[shard]
    if house.host is not host or not house.is_up:
        return

    async def start() -> None:
        front = house.front
        await house.start()
        if stay and front is not None and not front.life.is_over:
            house.front = front
            world.later(1_000, lambda: setattr(house, "front", house.host))

    world.spawn(start())


def _stop_host(world: World, deed: Deed) -> None:
    house = world.houses[deed.facts["shard"]]
    if house.is_up and house.host is not None:
        world.spawn(house.host.stop())


def _station(world: World, deed: Deed) -> Any:
    stations = list(world.stations.values())
    return stations[deed.facts["participant"] % len(stations)]


def _crash_participant(world: World, deed: Deed) -> None:
    _station(world, deed).crash(deed.facts["for_ms"])


def _pause_participant(world: World, deed: Deed) -> None:
    _station(world, deed).pause(deed.facts["for_ms"])


def _cut(world: World, deed: Deed) -> None:
    shard = f"shard-{deed.facts['shard']}"
    pair = {
        "to_participant": (shard, _station(world, deed).name),
        "from_participant": (_station(world, deed).name, shard),
        "to_host": ("caller", shard),
        "from_host": (shard, "caller"),
    }[deed.facts["way"]]
    world.wires.cut.add(pair)
    world.note("cut", " to ".join(pair))
    world.later(deed.facts["for_ms"], lambda: world.wires.cut.discard(pair))


def _fill_journal(world: World, deed: Deed) -> None:
    house = world.houses[deed.facts["shard"]]
    house.full = deed.facts["full"]
    world.note("full", f"shard-{house.shard}")
    world.later(deed.facts["for_ms"], lambda: setattr(house, "full", 0))


def _fill_ledger(world: World, deed: Deed) -> None:
    station = _station(world, deed)
    station.disk.is_full = True
    world.note("full", station.name)
    world.later(deed.facts["for_ms"], lambda: setattr(station.disk, "is_full", False))


def _move_clock(world: World, deed: Deed) -> None:
    whose, by_ms = deed.facts["whose"], deed.facts["by_ms"]
    world.note("clock", whose)
    if whose in ("participant", "all"):
        _station(world, deed).clock.wall_offset_ms += by_ms
    if whose in ("host", "all"):
        for house in world.houses:
            house.clock.wall_offset_ms += by_ms


def _order(world: World, deed: Deed) -> None:
    found = world.submission(deed.facts["saga"])
    if found is not None:
        world.ask_about(deed.facts["caller"], found[0], deed.what, by="op", note="by chance")


def _look_at(world: World, deed: Deed) -> None:
    found = world.submission(deed.facts["saga"])
    if found is not None:
        operation = ("status", "history", "watch")[deed.facts["participant"] % 3]
        world.ask_about(deed.facts["caller"], found[0], operation)


_DEEDS: dict[str, Callable[[World, Deed], None]] = {
    "submit": lambda world, deed: world.submit(deed.facts["saga"]),
    "repeat": lambda world, deed: world.submit(deed.facts["saga"], caller=deed.facts["caller"]),
    "conflict": lambda world, deed: world.submit(
        deed.facts["saga"], caller=deed.facts["caller"], fingerprint="another"
    ),
    "crash_host": _crash_host,
    "pause_host": _pause_host,
    "replace_host": _replace_host,
    "stop_host": _stop_host,
    "crash_participant": _crash_participant,
    "pause_participant": _pause_participant,
    "cut": _cut,
    "fill_journal": _fill_journal,
    "fill_ledger": _fill_ledger,
    "move_clock": _move_clock,
    "cancel": _order,
    "force": _order,
    "retry": _order,
    "skip": _order,
    "look": _look_at,
}


# -- rest ------------------------------------------------------------------------


def _unrested(world: World) -> list[str]:
    """Return what is neither over nor parked, and who was not answered."""
    found = [
        f"{request.operation} {request.body} is not answered"
        for request in world.open_requests()
        if not request.is_answered or (request.watches and request.error is None)
    ]
    for house in world.houses:
        if not house.is_up:
            found.append(f"shard {house.shard} is not up")
        for phase, count in house.journal.counts().items():
            if count and phase not in TERMINAL | PARKED:
                found += [
                    f"{head.saga_id} is {head.phase.value}" for head in house.journal.active()
                ]
                break
    return found


async def _come_to_rest(world: World) -> list[str]:
    """Wait until everything is over or parked; return what is not in time."""
    limit = world.loop.instant + REST_WITHIN_S
    pause_s = 0.02
    while found := _unrested(world):
        if world.loop.instant > limit:
            return found
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 1.3, 1.0)
    return []


async def _operate(world: World) -> list[str]:
    """Send what is parked on, as a person would: first again, then without what is stuck."""
    for turn in range(OPERATED_TURNS):
        parked = [
            head.saga_id
            for house in world.houses
            for head in house.journal.heads(HeadFilter(phases=PARKED), limit=100)
            if head.saga_id not in world.poison
        ]
        if not parked:
            return []
        for saga_id in parked:
            order = "retry" if turn < 2 else "skip"
            world.ask_about(0, saga_id, order, by="op", note="mended")
            world.ask_about(1, saga_id, "watch")
        if found := await _come_to_rest(world):
            return found
        await asyncio.sleep(0.1)
    return [f"{saga_id} stays parked" for saga_id in parked]


async def _submit_some_more(world: World) -> list[str]:
    """Submit the first again, some times: whoever asks now must be served."""
    asked: list[Request] = []
    for house in world.houses:
        asked += [world.ask(0, house.shard, "stats", {}) for _ in range(LAST_SUBMISSIONS)]
    limit = world.loop.instant + 30.0
    while not all(request.is_answered for request in asked):
        if world.loop.instant > limit:
            return [request.operation for request in asked if not request.is_answered]
        await asyncio.sleep(0.01)
    return [str(request.error) for request in asked if request.ok is None]


# -- the last look -----------------------------------------------------------------


async def _look(world: World, seen: Observation) -> None:
    """Read every saga once more, as a caller does, and then the disks."""
    submitted = [world.submission(deed.facts["saga"]) for deed in world.recipe.deeds]
    saga_ids = list(dict.fromkeys(found[0] for found in submitted if found is not None))
    readings = {saga_id: world.ask_about(0, saga_id, "watch") for saga_id in saga_ids}
    await _until(world, lambda: all(r.ended or r.error for r in readings.values()))
    # Only now: a repeat of a submission that was refused may have arrived late, and its saga may
    # have been under way when the last look began.
    lists = [world.ask(0, house.shard, "list", {"limit": 1_000}) for house in world.houses]
    stats = [world.ask(0, house.shard, "stats", {}) for house in world.houses]
    await _until(world, lambda: all(r.told for r in (*lists, *stats)))
    for saga_id, request in readings.items():
        told = request.ended
        seen.readings[saga_id] = None if told is None else _reading(told)
    for request in lists:
        seen.listed.update({row["saga_id"]: row["phase"] for row in request.ok or ()})
    for request in stats:
        for phase, count in (request.ok or {"phases": {}})["phases"].items():
            seen.counted[phase] = seen.counted.get(phase, 0) + count
    seen.left_over = await _left_over(world)
    _look_at_disks(world, seen)


async def _until(world: World, condition: Callable[[], bool]) -> None:
    """Return when it is true, or after half a minute, which the checker will tell."""
    limit = world.loop.instant + 30.0
    while not condition():
        if world.loop.instant > limit:
            return
        await asyncio.sleep(0.01)


async def _left_over(world: World) -> list[str]:
    """Return what stays in memory; a release that is under way does not."""
    limit = world.loop.instant + 30.0
    while True:
        found = [line for house in world.houses if house.is_up for line in house.left_over()]
        for station in world.stations.values():
            if station.unanswered():
                found.append(f"{station.name} owes {station.unanswered()} answers")
        if not found or world.loop.instant > limit:
            return found
        # No multiple of any pause of the engine's.
        await asyncio.sleep(0.0137)


def _reading(told: Mapping[str, Any]) -> Reading:
    is_whole = bool(told["results"] or told["message"])
    return Reading(told["phase"], told["code"], tuple(told["remaining"]), is_whole)


def _look_at_disks(world: World, seen: Observation) -> None:
    for station in world.stations.values():
        seen.stock[station.name] = (world.recipe.options["stock"], station.left())
    for house in world.houses:
        report = verify_journal(house.journal)
        seen.flaws += [str(problem) for problem in report.problems]


def _drop(_logger: Any, _name: str, _event: Any) -> Any:
    """Drop a line."""
    raise structlog.DropEvent
