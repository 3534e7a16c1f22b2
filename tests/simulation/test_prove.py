"""Every definition that we ship, and every shape that the tests use, is proved."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from raysaga.api.cli import app
from raysaga.api.cli_terminal import ExitCode
from raysaga.api.cli_values import load_definition
from raysaga.simulation import prove_moves
from raysaga.simulation.prove import Proof, prove
from raysaga.simulation.prove_moves import Bounds, with_durability
from raysaga.simulation.prove_search import TooManyStatesError
from raysaga.statemachines.commands import Decision
from raysaga.statemachines.decide import decide
from raysaga.statemachines.definition import CompensationPolicy, Durability, SagaDefinition
from raysaga.statemachines.errors import ValidationError
from raysaga.statemachines.events import CompensationStarted
from raysaga.statemachines.inputs import Input
from raysaga.statemachines.order import order_saga
from raysaga.statemachines.saga import Saga

from .proof_recipes import chain_saga, diamond_saga, mail_saga, pivot_saga

EXAMPLES = Path(__file__).parents[2] / "examples"

CALM = Bounds(crashes_max=0, orders_max=0)

NARROW = {
    "a crash": Bounds(attempts_max=1, orders_max=0),
    "an order": Bounds(attempts_max=1, crashes_max=0),
    "two attempts": CALM,
}
"""One kind of trouble at a time beside losses and refusals: branches are through in a second."""


STEADY = Bounds(attempts_max=1, crashes_max=0, orders_max=0)
"""For three branches at once, which take half a minute with a crash (they hold)."""


def expect_proved(proof: Proof, *ends: str) -> None:
    """Fail unless every promise holds, and the proof has met these ends."""
    assert proof.holds, "\n".join(proof.story)
    assert proof.ends >= set(ends), proof.ends


@pytest.mark.parametrize("durability", Durability)
def test_the_order_saga_is_proved(durability: Durability) -> None:
    bounds = Bounds(orders_max=0) if durability is Durability.RELAXED else Bounds()
    proof = prove(with_durability(order_saga, durability), bounds)
    expect_proved(proof, "completed", "compensated", "parked")
    # A bound on what it takes, that a slower machine does not change.
    assert proof.state_count < 60_000


def test_a_proof_meets_whatever_can_happen() -> None:
    """A proof in which nothing goes wrong would hold of anything."""
    counts = prove(chain_saga(2, deadline_ms=1_000), Bounds(crashes_max=2)).move_counts
    assert counts.pop("submit") >= 1
    assert min(counts.values()) >= 20, counts


def test_eight_steps_in_a_row_are_proved() -> None:
    expect_proved(prove(chain_saga(8), Bounds(orders_max=0)), "completed", "compensated")


@pytest.mark.parametrize("durability", Durability)
def test_two_crashes_are_survived(durability: Durability) -> None:
    """The second comes while the first is being recovered from."""
    definition = with_durability(chain_saga(2, deadline_ms=1_000), durability)
    bounds = Bounds(crashes_max=2, orders_max=0)
    expect_proved(prove(definition, bounds), "completed", "compensated", "parked")


@pytest.mark.parametrize("trouble", NARROW)
@pytest.mark.parametrize(
    "definition",
    [
        diamond_saga(),
        diamond_saga(CompensationPolicy.CONTINUE),
        pivot_saga(),
        pivot_saga(best_effort=True),
        mail_saga(),
    ],
    ids=lambda definition: definition.name,
)
def test_every_shape_is_proved(definition: SagaDefinition, trouble: str) -> None:
    expect_proved(prove(definition, NARROW[trouble]))


def test_every_example_is_proved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    definitions: list[SagaDefinition] = []
    for path in sorted(EXAMPLES.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "SagaDefinition(" in text:
            name = next(line.split(" =")[0] for line in text.splitlines() if "= SagaDefi" in line)
            definitions.append(load_definition(f"{path.stem}:{name}"))
            del sys.modules[path.stem]
    assert definitions
    for definition in definitions:
        expect_proved(prove(definition, STEADY), "completed", "compensated", "parked")


def test_the_definition_of_the_guide_is_proved() -> None:
    """Branches with a result that is used, a pivot, and steps after it, one of them best effort."""
    text = (EXAMPLES.parent / "docs" / "GUIDE.md").read_text(encoding="utf-8")
    begin = text.index("from raysaga import CompensationPolicy")
    names: dict[str, object] = {}
    exec(text[begin : text.index("```", begin)], names)
    definition = names["trip_saga"]
    assert isinstance(definition, SagaDefinition)
    expect_proved(prove(definition, NARROW["a crash"]), "completed", "compensated", "parked")


def unlatched(saga: Saga, given: Input, now_ms: int) -> Decision:
    """Decide as the engine does, but never wait for the latch."""
    decision = decide(saga, given, now_ms)
    latched = any(isinstance(event, CompensationStarted) for event in decision.events)
    return decision._replace(durable_first=False) if latched else decision


def test_a_counterexample_is_told_as_a_story(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the shortest there is: accepted, the first step given up or refused, undone."""
    monkeypatch.setattr(prove_moves, "decide", unlatched)
    done = CliRunner().invoke(app, ["prove", "raysaga.orders:order_saga"])
    assert done.exit_code == ExitCode.PROBLEM
    story = done.stdout
    assert "1. the caller submits the saga" in story
    assert "CompensationStarted, to undo: reserve_inventory" in story
    assert "broken: durable_first" in story
    assert "a promise does not hold" in done.stderr


def test_the_command_prints_the_crash_matrix() -> None:
    done = CliRunner().invoke(app, ["prove", "raysaga.orders:order_saga", "--attempts", "1"])
    assert done.exit_code == ExitCode.OK, done.stderr
    assert "proved: 13 promises hold" in done.stdout
    lines = {line.split("  ")[0].strip() for line in done.stdout.splitlines()}
    assert {"accepted", "process_payment", "undo process_payment", "ended"} <= lines


def test_its_report_can_be_read_by_a_program() -> None:
    arguments = ["raysaga.orders:order_saga", "--crashes", "0", "--orders", "0", "--json"]
    done = CliRunner().invoke(app, ["prove", *arguments])
    report = json.loads(done.stdout)
    assert report["holds"] is True
    assert report["definition_hash"] == order_saga.content_hash
    assert report["bounds"] == {"attempts_max": 2, "crashes_max": 0, "orders_max": 0}


def test_a_definition_without_a_crash_has_no_crash_matrix() -> None:
    assert prove(chain_saga(1), CALM).matrix == ()


@pytest.mark.parametrize("name", ["trip", "no_such_module:saga", "json:dumps", "json:nothing"])
def test_what_is_no_definition_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        load_definition(name)


def test_a_definition_with_too_many_states_is_refused_in_good_time() -> None:
    with pytest.raises(TooManyStatesError):
        prove(diamond_saga(), states_max=1_000)
