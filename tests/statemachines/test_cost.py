"""What a step costs does not grow with the length of its saga.

Method: count the bytecodes that deciding and evolving execute, not seconds.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from raysaga.statemachines.calls import Outcome
from raysaga.statemachines.decide import decide
from raysaga.statemachines.definition import STEPS_MAX, SagaDefinition
from raysaga.statemachines.ids import SagaId
from raysaga.statemachines.inputs import (
    CancelRequested,
    Input,
    StepAnswered,
    Submitted,
    TimeReached,
)
from raysaga.statemachines.saga import Saga, evolve
from raysaga.statemachines.tables import Phase

from .shapes import saga_of, undoable

LONG = 1_000

OURS = re.compile(r"statemachines/\w+\.py|/transitions/")
"""Code that a step is charged with."""


def opcodes_of(call: Callable[[], Any]) -> int:
    """Return how many bytecodes `call` executes, in all that it calls."""
    count = 0

    def trace(frame: FrameType, event: str, _arg: object) -> Any:
        nonlocal count
        if not OURS.search(frame.f_code.co_filename):
            # Such as what other tests have hung on the garbage collector.
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


class Run:
    """A saga that is given inputs, each of which costs something."""

    def __init__(self, definition: SagaDefinition) -> None:
        self.saga = Saga(SagaId("example:1"), definition)
        self.now_ms = 0
        self.give(Submitted("1", "f", "s", {"id": 1}, None))

    def give(self, given: Input) -> None:
        decision = decide(self.saga, given, self.now_ms)
        for event in decision.events:
            evolve(self.saga, event)
        for command in decision.commands:
            # The host builds a request for each call.
            self.saga.request_of(command.step)  # type: ignore[union-attr]
        self.saga.due_at_ms()

    def cost(self, given: Input) -> int:
        return opcodes_of(lambda: self.give(given))


def answer(step: int, *, undo: bool = False, outcome: Outcome = Outcome.SUCCEEDED) -> StepAnswered:
    result = {"value": 1} if outcome is Outcome.SUCCEEDED else None
    return StepAnswered(step, undo, 1, outcome, True, result, "", "", 0, 0.5)


def chain(length: int) -> SagaDefinition:
    """Return steps in a row; each but the first uses the result of the one before."""
    return saga_of(
        undoable("s0"),
        *(
            undoable(f"s{i}", request={"id": "input.id", "x": f"results.s{i - 1}.value"})
            for i in range(1, length)
        ),
    )


def fan(width: int) -> SagaDefinition:
    """Return one step, many side by side, and one that waits for them all."""
    names = tuple(f"s{i}" for i in range(1, width + 1))
    return saga_of(
        undoable("s0", after=()),
        *(undoable(name, after=("s0",)) for name in names),
        undoable("end", after=names),
    )


def test_step_one_thousand_of_a_row_costs_what_step_ten_costs() -> None:
    run = Run(chain(LONG + 2))
    costs = [run.cost(answer(i)) for i in range(LONG + 1)]
    assert costs[10] == costs[LONG] > 0
    assert len(set(costs[1:])) == 1


def test_undoing_step_ten_of_a_row_costs_what_undoing_step_one_thousand_costs() -> None:
    run = Run(chain(LONG + 2))
    for i in range(LONG + 1):
        run.give(answer(i))
    run.give(CancelRequested("somebody", ""))
    run.give(answer(LONG + 1, outcome=Outcome.REFUSED))
    assert run.saga.phase is Phase.COMPENSATING
    costs = {i: run.cost(answer(i, undo=True)) for i in range(LONG + 1, -1, -1)}
    assert costs[10] == costs[LONG] > 0
    assert run.saga.phase is Phase.COMPENSATED


def test_a_retry_late_in_a_row_costs_what_an_early_one_costs() -> None:
    costs = {}
    run = Run(chain(LONG + 2))
    for i in range(LONG + 1):
        if i in (10, LONG):
            failed = run.cost(answer(i, outcome=Outcome.UNKNOWN))
            run.now_ms = run.saga.due_at_ms() or 0
            costs[i] = (failed, run.cost(TimeReached()))
            run.give(answer(i)._replace(attempt=2))
        else:
            run.give(answer(i))
    assert costs[10] == costs[LONG]


def test_the_last_of_a_thousand_branches_costs_what_the_tenth_costs() -> None:
    run = Run(fan(LONG))
    run.give(answer(0))
    costs = {i: run.cost(answer(i)) for i in range(1, LONG)}
    assert costs[10] == costs[LONG - 1] > 0
    run.give(answer(LONG))
    assert run.saga.in_flight.bit_count() == 1
    run.give(answer(LONG + 1, outcome=Outcome.REFUSED))
    run.give(answer(LONG + 1, undo=True))
    costs = {i: run.cost(answer(i, undo=True)) for i in range(LONG, 1, -1)}
    assert costs[10] == costs[LONG - 10] > 0
    run.give(answer(1, undo=True))
    run.give(answer(0, undo=True))
    assert run.saga.phase is Phase.COMPENSATED


def test_branches_that_answer_while_a_saga_turns_back_cost_the_same() -> None:
    run = Run(fan(LONG))
    run.give(answer(0))
    run.give(CancelRequested("somebody", ""))
    costs = {i: run.cost(answer(i)) for i in range(1, LONG)}
    assert costs[10] == costs[LONG - 1] > 0


def test_making_a_definition_costs_each_step_about_the_same() -> None:
    """The longest allowed: in a row, and in two layers in which each waits for all before."""
    short = opcodes_of(lambda: chain(100)) / 100
    long = opcodes_of(lambda: chain(STEPS_MAX)) / STEPS_MAX
    assert long < 1.5 * short


def test_a_definition_with_a_million_dependencies_is_made() -> None:
    half = STEPS_MAX // 2
    first = [undoable(f"a{i}", after=()) for i in range(half)]
    names = tuple(step.name for step in first)
    second = [undoable(f"b{i}", after=names) for i in range(half)]
    definition = saga_of(*first, *second)
    assert sum(map(len, definition.dependencies)) == half * half
    assert len(definition.topological) == STEPS_MAX
