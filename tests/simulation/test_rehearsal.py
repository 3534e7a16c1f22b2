"""Sagas are rehearsed on the real host and the real ledger kit, with faults, without Ray."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from raysaga import (
    Effects,
    IdempotencyConflictError,
    Operation,
    Participant,
    Refusal,
    RetryPolicy,
    SagaDefinition,
    Step,
    StepCall,
    ValidationError,
)
from raysaga.testing import Rehearsal

FEW = RetryPolicy(attempts_max=2, delay_ms_first=100, delay_ms_max=1_000)


class Shelf(Participant):
    """Has two of everything; what it is asked to break, it breaks."""

    name = "shelf"
    tables = ("taken",)

    def __init__(self) -> None:
        self.operations = {"take": Operation(apply=self.take, undo_name="put", undo=self.put)}

    def take(self, effects: Effects, call: StepCall, context: Any) -> Mapping[str, Any]:
        what = call.request["what"]
        taken = effects.get("taken", what) or 0
        if what == "bug":
            raise LookupError("a bug of the shelf")
        if taken == 2:
            raise Refusal("NONE_LEFT", "there are two")
        effects.put("taken", what, taken + 1)
        return {}

    def put(self, effects: Effects, call: StepCall, applied: Any, context: Any) -> dict[str, Any]:
        what = call.request["what"]
        effects.put("taken", what, effects.get("taken", what) - 1)
        return {}


def fetch(*whats: str) -> SagaDefinition:
    return SagaDefinition(
        name="fetch",
        steps=tuple(
            Step(
                name=what,
                participant="shelf",
                action="take",
                compensation="put",
                request={"what": f"input.{what}"},
                retry=FEW,
                compensation_retry=FEW,
            )
            for what in whats
        ),
    )


TWO = fetch("first", "second")
TEA_AND_CUP = {"first": "tea", "second": "cup"}


@pytest.fixture
def rehearsal(tmp_path: Path) -> Rehearsal:
    return Rehearsal(tmp_path, Shelf())


def test_the_same_key_is_the_same_saga_and_another_request_is_refused(rehearsal: Rehearsal) -> None:
    first = rehearsal.play(TWO, TEA_AND_CUP, key="a")
    assert rehearsal.play(TWO, TEA_AND_CUP, key="a") == first
    assert rehearsal.calls == ["first", "second"]
    assert rehearsal.table("shelf", "taken") == {"cup": 1, "tea": 1}
    with pytest.raises(IdempotencyConflictError):
        rehearsal.play(TWO, {"first": "tea", "second": "tea"}, key="a")


def test_an_old_request_finds_its_old_saga_under_a_newer_definition_of_the_name(
    rehearsal: Rehearsal,
) -> None:
    first = rehearsal.play(TWO, TEA_AND_CUP, key="a")
    newer = fetch("second", "first")
    assert rehearsal.play(newer, TEA_AND_CUP, key="a") == first
    assert rehearsal.play(newer, TEA_AND_CUP, key="b").is_completed
    assert rehearsal.calls == ["first", "second", "second", "first"]


def test_a_refusal_undoes_in_reverse_what_came_before(rehearsal: Rehearsal) -> None:
    for key in "ab":
        rehearsal.play(TWO, TEA_AND_CUP, key=key)
    rehearsal.calls.clear()
    outcome = rehearsal.play(TWO, {"first": "milk", "second": "cup"}, key="c")
    assert (outcome.status, outcome.code, outcome.step) == ("compensated", "NONE_LEFT", "second")
    assert rehearsal.calls == ["first", "second", "undo second", "undo first"]
    assert rehearsal.table("shelf", "taken") == {"cup": 2, "milk": 0, "tea": 2}


def test_what_nobody_ever_answers_is_undone_without_anybody_waiting(rehearsal: Rehearsal) -> None:
    rehearsal.lose_answers("second", times=2)
    outcome = rehearsal.play(TWO, TEA_AND_CUP)
    assert (outcome.status, outcome.code) == ("compensated", "TIMEOUT")
    assert rehearsal.table("shelf", "taken") == {"cup": 0, "tea": 0}


def test_an_undo_that_is_never_heard_of_parks_the_saga(rehearsal: Rehearsal) -> None:
    rehearsal.lose_answers("second", times=2)
    rehearsal.lose_answers("undo first", times=2)
    outcome = rehearsal.play(TWO, TEA_AND_CUP)
    assert (outcome.status, outcome.code) == ("parked", "COMPENSATION_STUCK")
    assert outcome.remaining == ("first",)


def test_the_engine_may_die_at_every_call_forward_and_back(tmp_path: Path) -> None:
    for number, call in enumerate(("first", "second", "undo second", "undo first")):
        rehearsal = Rehearsal(tmp_path / str(number), Shelf())
        rehearsal.lose_answers("second", times=4)
        rehearsal.kill_engine_at(call)
        assert rehearsal.play(TWO, TEA_AND_CUP).status == "compensated"
        assert rehearsal.table("shelf", "taken") == {"cup": 0, "tea": 0}


def test_a_bug_of_a_handler_is_raised_where_the_test_can_see_it(rehearsal: Rehearsal) -> None:
    with pytest.raises(LookupError, match="a bug of the shelf"):
        rehearsal.play(TWO, {"first": "tea", "second": "bug"})


def test_what_could_not_be_played_is_refused_by_name(rehearsal: Rehearsal) -> None:
    elsewhere = SagaDefinition(
        name="elsewhere",
        steps=(Step(name="a", participant="attic", action="take", compensation="put"),),
    )
    with pytest.raises(ValidationError, match="attic"):
        rehearsal.play(elsewhere, {})
    with pytest.raises(ValidationError, match=r"input\.second"):
        rehearsal.play(TWO, {"first": "tea"})
    with pytest.raises(ValidationError, match="key"):
        rehearsal.play(TWO, TEA_AND_CUP, key="not a key")


def test_a_rehearsal_does_not_need_ray() -> None:
    program = "import sys, raysaga.testing; sys.exit('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=False)
    assert done.returncode == 0
