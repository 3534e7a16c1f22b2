"""Lets chance choose what happens in a world: answers, orders, time, crashes, restores."""

from __future__ import annotations

from collections.abc import Callable

from raysaga.statemachines.calls import Code, Outcome
from raysaga.statemachines.inputs import (
    CancelRequested,
    CompensationForced,
    RetryOrdered,
    SkipOrdered,
    StepAnswered,
    TimeReached,
)

from .model_ledger import PromiseBrokenError, Reply, unknown
from .recipes import Chance, one_in, random_definition
from .world import Host, World

Move = Callable[[World, Chance], None]


def _pick_call(host: Host, chance: Chance) -> int:
    return chance.below(len(host.waited))


def _reply(world: World, chance: Chance) -> None:
    host = world.host
    if host is not None and host.waited:
        call = host.waited[_pick_call(host, chance)]
        world.reply(call, refuse=one_in(chance, 6))


def _time_out(world: World, chance: Chance) -> None:
    host = world.host
    if host is not None and host.waited:
        call = host.waited[_pick_call(host, chance)]
        if chance.below(2):
            world.arrive_late(call, refuse=one_in(chance, 4))
        world.time_out(call)


def _answer_for_one_attempt(world: World, chance: Chance) -> None:
    """An answer that no ledger row stands behind."""
    host = world.host
    if host is not None and host.waited:
        call = host.waited[_pick_call(host, chance)]
        reply = (
            unknown(Code.OVERLOADED),
            unknown(Code.EXPIRED),
            Reply(Outcome.REFUSED, code="BAD_GATEWAY"),
        )[chance.below(3)]
        if not (call.undo and reply.outcome == Outcome.REFUSED):
            world.hand_over(call, reply)


def _wrong_attempt(world: World, chance: Chance) -> None:
    host = world.host
    if host is None or host.asking:
        return
    i = chance.below(len(host.saga.steps))
    undo = bool(chance.below(2))
    step = host.saga.steps[i]
    attempt = (step.undo_attempt if undo else step.attempt) + 1 + chance.below(2)
    outcome = 1 + chance.below(3)
    decision = world.give(StepAnswered(i, undo, attempt, outcome, True, None, "X", "", 0, 0.0))
    assert not decision.events, "an answer to an attempt that was never made counts"


def _arrive_late(world: World, chance: Chance) -> None:
    if world.network:
        call = world.network[chance.below(len(world.network))]
        world.arrive_late(call, refuse=one_in(chance, 4), again=bool(chance.below(2)))


def _reply_late(world: World, chance: Chance) -> None:
    host = world.host
    if host is not None and host.given_up and not host.asking:
        world.note("late answer")
        call = host.given_up[chance.below(len(host.given_up))]
        world.reply_late(call, refuse=one_in(chance, 4))


def _drop(world: World, chance: Chance) -> None:
    """Lose a message that nobody waits for any more, or that will time out."""
    if world.network:
        del world.network[chance.below(len(world.network))]


def _provider(world: World, chance: Chance) -> None:
    world.ledgers.provider_answers(chance.below(len(world.definition.steps)), chance.below(4))


def _time(world: World, chance: Chance) -> None:
    host = world.host
    if host is None:
        return
    due_at_ms = host.saga.due_at_ms()
    if due_at_ms is not None and chance.below(4):
        world.now_ms = max(world.now_ms, due_at_ms)
    else:
        world.now_ms += chance.below(40)
    world.give(TimeReached())


def _people(world: World, chance: Chance) -> None:
    host = world.host
    if host is None:
        return
    if host.saga.is_parked:
        order = (RetryOrdered, SkipOrdered, CompensationForced, CancelRequested)[chance.below(4)]
    else:
        order = (CancelRequested, CompensationForced, RetryOrdered, SkipOrdered)[
            0 if chance.below(4) else chance.below(4)
        ]
    world.give(order("somebody", ""))


def _flush(world: World, chance: Chance) -> None:
    if world.host is not None:
        world.flush()


def _crash(world: World, chance: Chance) -> None:
    host = world.host
    if host is None:
        return
    world.torn = chance.below(3)
    world.note("crash")
    if chance.below(2):
        world.crash_at_barrier = chance.below(len(host.pending) + 2)
    else:
        zombie = bool(chance.below(2))
        world.note("zombie" if zombie else "clean crash")
        world.crash(keep=chance.below(len(host.pending) + 1), zombie=zombie)


def _lose_whole(world: World, chance: Chance) -> None:
    """A relaxed saga may be gone without a trace, while its host still drives it."""
    host = world.host
    if host is not None and not world.journal and host.pending:
        world.note("lost whole")
        world.torn = 0
        world.crash(keep=0, zombie=True)
        world.restart()
        world.submit()


def _restart(world: World, chance: Chance) -> None:
    if world.host is None:
        if world.journal:
            world.restart()
        else:
            world.restart()
            world.submit()


def _zombie(world: World, chance: Chance) -> None:
    if not world.zombies:
        return
    zombie = world.zombies[chance.below(len(world.zombies))]
    if zombie.waited and chance.below(4):
        call = zombie.waited[_pick_call(zombie, chance)]
        world.note("zombie acts")
        if chance.below(4):
            world.reply(call, refuse=one_in(chance, 4), host=zombie)
        else:
            world.time_out(call, host=zombie)
    else:
        world.give(TimeReached(), zombie)


def _questions(world: World, chance: Chance) -> None:
    host = world.host
    if host is not None and host.asking:
        world.note("ledgers answered")
        world.answer_questions(only_final=bool(chance.below(2)))


def _restore(world: World, chance: Chance) -> None:
    if world.marks and not one_in(chance, 2):
        return
    if world.host is not None and world.marks:
        world.note("restored")
        world.crash(keep=0)
        world.restore(world.marks[chance.below(len(world.marks))])


MOVES: tuple[tuple[int, Move], ...] = (
    (40, _reply),
    (10, _time_out),
    (4, _answer_for_one_attempt),
    (2, _wrong_attempt),
    (5, _arrive_late),
    (4, _reply_late),
    (2, _drop),
    (4, _provider),
    (10, _time),
    (4, _people),
    (4, _flush),
    (6, _crash),
    (3, _lose_whole),
    (14, _restart),
    (5, _zombie),
    (10, _questions),
)
"""How often each thing happens, of all that happens."""

CALM: tuple[tuple[int, Move], ...] = tuple(
    (weight, move) for weight, move in MOVES if move not in (_crash, _people, _time_out, _provider)
)
"""The same without trouble, so that long sagas are seen to their end."""

WITH_RESTORES: tuple[tuple[int, Move], ...] = (*MOVES, (3, _restore))
"""The same, and now and then the journal is put back to an earlier state."""


def wander(world: World, chance: Chance, moves: tuple[tuple[int, Move], ...], count: int) -> None:
    """Let `count` things happen."""
    bag = [move for weight, move in moves for _ in range(weight)]
    world.submit()
    for _ in range(count):
        bag[chance.below(len(bag))](world, chance)


def random_world(chance: Chance) -> World:
    """Return a world around a random definition."""
    definition = random_definition(chance)
    providers = frozenset(i for i in range(len(definition.steps)) if one_in(chance, 6))
    return World(
        definition,
        providers=providers,
        recoveries_max=(100, 1, 3)[chance.below(3)],
        remembers_restore=bool(chance.below(2)),
    )


def come_to_rest(world: World, chance: Chance) -> None:
    """Heal everything, let operators do what they can, and judge.

    There always is a way on: whatever parks, a retry or a skip ends it in the end, even
    where undos are refused for ever.
    """
    undo_works = not one_in(chance, 4)
    world.heal(undo_works=undo_works)
    world.let_everything_arrive()
    world.promises.judge_rest()
    turns = 0
    while not world.saga.is_terminal:
        if turns > 4 + 2 * len(world.definition.steps):
            raise PromiseBrokenError(f"no way on for an operator: {world.saga.parked}")
        world.note("an operator sends it on")
        world.give((RetryOrdered, SkipOrdered)[turns % 2]("somebody", "a reason"))
        world.heal(undo_works=undo_works)
        world.let_everything_arrive()
        world.promises.judge_rest()
        turns += 1
    world.note(f"rest {world.saga.phase}")
    world.flush()
