"""Definitions: what is refused and which step is named, and that data keeps them whole."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Mapping
from dataclasses import fields, replace
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysaga.statemachines.definition import (
    STEPS_MAX,
    TIMEOUT_MS_MAX,
    CompensationPolicy,
    Durability,
    SagaDefinition,
    Step,
    StepKind,
)
from raysaga.statemachines.errors import DefinitionError, ValidationError
from raysaga.statemachines.order import order_saga
from raysaga.statemachines.retry import (
    ACTION_RETRY,
    COMPENSATION_RETRY,
    RETRIABLE_RETRY,
    RetryPolicy,
)

from .recipes import Seeded, random_definition
from .shapes import final, order_of, pivot_of, saga_of, undoable

PIVOT = StepKind.PIVOT
RETRIABLE = StepKind.RETRIABLE


def retrying(**numbers: Any) -> RetryPolicy:
    return RetryPolicy(**{"attempts_max": 1, "delay_ms_first": 1, "delay_ms_max": 1, **numbers})


# -- the shape (rule 1), and every other rule -------------------------------------

# (what breaks a rule, the step it names, a piece of the sentence)
SHAPES: list[tuple[str, tuple[Step, ...], str, str]] = [
    (
        "two pivots on two branches: one done and one refused leave no end to go to",
        (final("a", PIVOT, after=()), final("b", PIVOT, after=())),
        "b",
        "there is a pivot already",
    ),
    (
        "two pivots in a row",
        (final("a", PIVOT), final("b", PIVOT)),
        "b",
        "there is a pivot already",
    ),
    (
        "a step without undo beside one that can still refuse",
        (undoable("a", after=()), final("mail", after=())),
        "mail",
        "must come after 'a'",
    ),
    (
        "a compensatable step after the pivot",
        (final("pay", PIVOT), undoable("ship")),
        "pay",
        "must come after 'ship'",
    ),
    (
        "a compensatable step beside the pivot",
        (undoable("a", after=()), undoable("b", after=()), final("pay", PIVOT, after=("a",))),
        "pay",
        "must come after 'b'",
    ),
    (
        "a retriable step before the pivot",
        (final("mail"), final("pay", PIVOT)),
        "mail",
        "must come after the pivot",
    ),
    (
        "a retriable step beside the pivot",
        (undoable("a"), final("pay", PIVOT, after=("a",)), final("mail", after=("a",))),
        "mail",
        "must come after the pivot",
    ),
    (
        "a best-effort step without undo beside a compensatable one",
        (undoable("a", after=()), final("mail", after=(), best_effort=True)),
        "mail",
        "must come after 'a'",
    ),
    ("a step that waits for itself", (undoable("a", after=("a",)),), "a", "waits for itself"),
    (
        "a cycle; what only follows it is not to blame",
        (
            undoable("after", after=("b",)),
            undoable("a", after=("b",)),
            undoable("b", after=("a",)),
        ),
        "b",
        "waits for itself",
    ),
    (
        "a step that waits for none that exists",
        (undoable("a", after=("ghost",)),),
        "a",
        "'ghost', which is no step",
    ),
    ("a name twice", (undoable("a"), undoable("a")), "a", "used twice"),
    (
        "a result of a step that does not come before",
        (
            undoable("a", after=()),
            undoable("b", after=(), request={"x": "results.a.value"}),
        ),
        "b",
        "'a', which does not come before it",
    ),
    (
        "a result of no step",
        (undoable("a", request={"x": "results.ghost.value"}),),
        "a",
        "'ghost', which does not come before it",
    ),
    (
        "its own result",
        (undoable("a", request={"x": "results.a.value"}),),
        "a",
        "does not come before it",
    ),
    (
        "a result that there may not be",
        (undoable("a", best_effort=True), undoable("b", request={"x": "results.a.value"})),
        "b",
        "best effort and may have no result",
    ),
]

STEP_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"participant": ""}, "participant and action must match"),
    ({"participant": 7}, "participant and action must match"),
    ({"action": "do it"}, "participant and action must match"),
    ({"action": "x" * 101}, "participant and action must match"),
    ({"compensation": "undo\n"}, "compensation must match"),
    ({"compensation": 7}, "compensation must match"),
    ({"compensation": None}, "needs a compensation"),
    ({"kind": PIVOT}, "pivot step is never undone"),
    ({"kind": RETRIABLE}, "retriable step is never undone"),
    ({"kind": PIVOT, "compensation": None, "best_effort": True}, "cannot be best effort"),
    ({"kind": "optional"}, "kind must be 'compensatable' or 'pivot' or 'retriable'"),
    ({"best_effort": 1}, "best_effort must be true or false"),
    ({"after": "abc"}, "after must be a tuple of names"),
    ({"after": (1,)}, "after must be a tuple of names"),
    ({"request": "input.id"}, "request must map"),
    ({"request": {"x": 1}}, "request must map"),
    ({"request": {1: "input.id"}}, "request must map"),
    ({"request": {"x": "input"}}, "neither input.… nor results.STEP.…"),
    ({"request": {"x": "input..id"}}, "neither input.… nor results.STEP.…"),
    ({"request": {"x": "input."}}, "neither input.… nor results.STEP.…"),
    ({"request": {"x": "output.id"}}, "neither input.… nor results.STEP.…"),
    ({"request": {"x": "results.a"}}, "neither input.… nor results.STEP.…"),
    ({"request": {"x": "results..value"}}, "neither input.… nor results.STEP.…"),
    ({"timeout_ms": 0}, "timeout_ms must be between"),
    ({"timeout_ms": TIMEOUT_MS_MAX + 1}, "timeout_ms must be between"),
    ({"timeout_ms": 1.5}, "timeout_ms must be between"),
    ({"timeout_ms": True}, "timeout_ms must be between"),
    ({"retry": retrying(attempts_max=0)}, "attempts_max must be at least 1"),
    ({"retry": retrying(delay_ms_first=0)}, "delays must satisfy"),
    ({"retry": retrying(delay_ms_first=2)}, "delays must satisfy"),
    ({"retry": retrying(attempts_max="3")}, "must be whole numbers"),
    ({"retry": retrying(delay_ms_max=1.5)}, "must be whole numbers"),
    ({"retry": {"attempts_max": 1}}, "must be retry policies"),
    ({"compensation_retry": retrying(attempts_max=-1)}, "attempts_max must be at least 1"),
    ({"compensation_retry": None}, "must be retry policies"),
]

WHOLE: list[tuple[dict[str, Any], str]] = [
    ({"name": ""}, "the name must match"),
    ({"name": "a:b"}, "the name must match"),
    ({"name": "a/b"}, "the name must match"),
    ({"name": 7}, "the name must match"),
    ({"version": 0}, "version must be"),
    ({"version": "1"}, "version must be"),
    ({"steps": ()}, f"there must be 1 to {STEPS_MAX} steps"),
    ({"deadline_ms": 0}, "deadline_ms must be"),
    ({"deadline_ms": 1.5}, "deadline_ms must be"),
    ({"compensation_policy": "stop"}, "compensation_policy must be 'halt' or 'continue'"),
    ({"durability": "often"}, "durability must be 'strict' or 'pipelined' or 'relaxed'"),
]


@pytest.mark.parametrize(("_why", "steps", "named", "piece"), SHAPES, ids=[s[0] for s in SHAPES])
def test_a_shape_that_could_leave_no_end_is_refused_by_the_name_of_the_step(
    _why: str, steps: tuple[Step, ...], named: str, piece: str
) -> None:
    with pytest.raises(DefinitionError) as raised:
        saga_of(*steps)
    assert raised.value.step == named
    assert piece in raised.value.message
    assert named in str(raised.value)


@pytest.mark.parametrize(("wrong", "piece"), STEP_FIELDS, ids=lambda value: str(value)[:60])
def test_a_step_that_breaks_a_rule_is_refused_by_its_name(
    wrong: dict[str, Any], piece: str
) -> None:
    with pytest.raises(DefinitionError) as raised:
        saga_of(undoable("fine"), undoable("broken", **wrong))
    assert raised.value.step == "broken"
    assert piece in raised.value.message


@pytest.mark.parametrize("name", ["", "a.b", "a b", "é", "x" * 101, 7, None])
def test_a_step_needs_a_name_that_paths_can_name(name: Any) -> None:
    with pytest.raises(DefinitionError) as raised:
        saga_of(undoable(name))
    assert raised.value.step == str(name)


def test_what_is_no_step_is_refused() -> None:
    with pytest.raises(DefinitionError, match="it is no Step"):
        saga_of("reserve")  # type: ignore[arg-type]


@pytest.mark.parametrize(("wrong", "piece"), WHOLE, ids=lambda value: str(value)[:60])
def test_a_definition_that_breaks_a_rule_is_refused(wrong: dict[str, Any], piece: str) -> None:
    with pytest.raises(DefinitionError) as raised:
        SagaDefinition(**{"name": "example", "steps": (undoable("a"),), **wrong})
    assert raised.value.step is None
    assert piece in raised.value.message


def test_too_many_steps_are_refused() -> None:
    with pytest.raises(DefinitionError, match="there must be"):
        saga_of(*(undoable(f"s{i}") for i in range(STEPS_MAX + 1)))


def test_every_random_valid_shape_is_accepted_and_ordered() -> None:
    for seed in range(200):
        definition = random_definition(Seeded(seed))
        place = {i: n for n, i in enumerate(definition.topological)}
        for i, before in enumerate(definition.dependencies):
            assert all(place[j] < place[i] for j in before)
            assert all(i in definition.dependents[j] for j in before)


def test_choices_may_be_written_as_text() -> None:
    """Data and impatient people write them so; they are compared by identity later."""
    definition = saga_of(
        undoable("a", kind="compensatable"), durability="strict", compensation_policy="continue"
    )
    assert definition.durability is Durability.STRICT
    assert definition.compensation_policy is CompensationPolicy.CONTINUE
    assert definition.steps[0].kind is StepKind.COMPENSATABLE


def test_what_the_caller_changes_afterwards_changes_no_definition() -> None:
    request, steps = {"x": "input.id"}, [undoable("a", after=[])]
    steps[0] = replace(steps[0], request=request)
    definition = SagaDefinition(name="example", steps=steps)  # type: ignore[arg-type]
    request["x"] = "input.other"
    steps.clear()
    assert definition.steps[0].request == {"x": "input.id"}
    assert definition.content_hash == SagaDefinition.from_data(definition.to_data()).content_hash


def test_any_mapping_is_a_request() -> None:
    read_only = MappingProxyType({"x": "input.id"})
    assert saga_of(undoable("a", request=read_only)).to_data()["steps"][0]["request"] == {
        "x": "input.id"
    }


# -- data ---------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1 << 30))
def test_data_and_back_is_the_same_definition(seed: int) -> None:
    definition = random_definition(Seeded(seed))
    data = json.loads(json.dumps(definition.to_data()))
    again = SagaDefinition.from_data(data)
    assert again == definition
    assert again.content_hash == definition.content_hash
    assert again.to_data() == definition.to_data()


def test_a_definition_survives_pickling_and_copying() -> None:
    for again in (pickle.loads(pickle.dumps(order_saga)), copy.deepcopy(order_saga)):
        assert again == order_saga
        assert again.content_hash == order_saga.content_hash


def test_the_order_saga_has_the_content_hash_it_always_had() -> None:
    """Journals hold it: a change here parks every order that is under way."""
    assert order_saga.content_hash == "48e4884e905cd84a4ebfea3343907ee5"


def changed(definition: SagaDefinition) -> list[tuple[str, SagaDefinition]]:
    """Return the definition with each field changed, one at a time."""
    first, *others = definition.steps
    steps = {
        "name": "other",
        "participant": "other",
        "action": "other",
        "compensation": "other",
        "kind": None,
        "after": (),
        "request": {"id": "input.other"},
        "retry": retrying(attempts_max=9),
        "compensation_retry": retrying(attempts_max=9),
        "timeout_ms": 1,
        "best_effort": True,
    }
    assert set(steps) == {f.name for f in fields(Step)}
    steps.pop("kind")
    found = [
        (f"step.{name}", replace(definition, steps=(replace(first, **{name: value}), *others)))
        for name, value in steps.items()
    ]
    whole = {
        "name": "other",
        "version": 2,
        "deadline_ms": 5,
        "compensation_policy": CompensationPolicy.CONTINUE,
        "durability": Durability.STRICT,
        "steps": (first,),
    }
    assert set(whole) == {f.name for f in fields(SagaDefinition) if f.init}
    found += [(name, replace(definition, **{name: value})) for name, value in whole.items()]
    for name in fields(RetryPolicy):
        policy = retrying(delay_ms_max=8, attempts_max=8, delay_ms_first=2)
        policy = replace(policy, **{name.name: 7})
        found.append(
            (
                f"retry.{name.name}",
                replace(definition, steps=(replace(first, retry=policy), *others)),
            )
        )
    return found


def test_every_field_changes_the_content_hash() -> None:
    definition = order_of()
    variants = [("as it is", definition), *changed(definition)]
    # The kind goes with the compensation, so it is changed on a step that can have another.
    variants.append(("kind", saga_of(*definition.steps[:-1], final("notify"))))
    variants.append(("kind too", saga_of(*definition.steps[:-1], final("notify", PIVOT))))
    hashes = {definition.content_hash for _, definition in variants}
    assert len(hashes) == len(variants)


def test_the_content_hash_does_not_depend_on_the_order_of_a_requests_fields() -> None:
    one = saga_of(undoable("a", request={"x": "input.x", "y": "input.y"}))
    other = saga_of(undoable("a", request={"y": "input.y", "x": "input.x"}))
    assert one.content_hash == other.content_hash


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data.pop("name"),
        lambda data: data.pop("steps"),
        lambda data: data.update(steps=[7]),
        lambda data: data.update(steps=7),
        lambda data: data["steps"][0].pop("name"),
        lambda data: data["steps"][0].pop("compensation"),
        lambda data: data.update(colour="red"),
        lambda data: data["steps"][0].update(kind="optional"),
        lambda data: data["steps"][0].update(after=7),
        lambda data: data["steps"][0].update(colour="red"),
        lambda data: data["steps"][0].update(retry={"attempts_max": 1}),
        lambda data: data["steps"][0].update(retry=7),
        lambda data: data["steps"][0].update(compensation_retry=None),
        lambda data: data.update(durability="often"),
        lambda data: data.update(compensation_policy=7),
        lambda data: data.update(deadline_ms="soon"),
    ],
)
def test_data_that_is_no_definition_is_refused_as_one(spoil: Any) -> None:
    data = order_of().to_data()
    spoil(data)
    with pytest.raises(DefinitionError):
        SagaDefinition.from_data(data)


def test_what_data_leaves_out_takes_its_default() -> None:
    step = {"name": "a", "participant": "p", "action": "do", "compensation": "undo"}
    read = SagaDefinition.from_data({"name": "example", "steps": [step]})
    assert read == saga_of(Step(**step))


@pytest.mark.parametrize("data", [None, 7, [], "order"])
def test_what_is_no_mapping_is_no_definition(data: Any) -> None:
    with pytest.raises(DefinitionError):
        SagaDefinition.from_data(data)


# -- requests -------------------------------------------------------------------------


def test_a_request_is_made_of_paths_into_the_input_and_declared_results() -> None:
    definition = saga_of(
        undoable("a", request=None),
        undoable("b", request={}),
        undoable(
            "c",
            request={
                "id": "input.order.id",
                "value": "results.a.value",
                "deep": "results.a.more.deep",
                "lost": "results.a.nothing",
                "through": "results.a.value.further",
            },
        ),
    )
    saga_input = {"order": {"id": 7}}
    results: list[Mapping[str, Any] | None] = [{"value": 1, "more": {"deep": 2}}, None, None]
    assert definition.request_of(0, saga_input, results) is saga_input
    assert definition.request_of(1, saga_input, results) == {}
    assert definition.request_of(2, saga_input, results) == {
        "id": 7,
        "value": 1,
        "deep": 2,
        # What a participant leaves out cannot stop a saga half way.
        "lost": None,
        "through": None,
    }
    assert definition.uses == ((), (), (0,))


def test_a_result_may_come_from_any_step_before_not_only_the_last() -> None:
    definition = saga_of(
        undoable("a"), undoable("b"), undoable("c", request={"x": "results.a.value"})
    )
    assert definition.uses == ((), (), (0,))


def test_an_input_that_a_request_cannot_be_built_from_is_refused_by_its_path() -> None:
    definition = saga_of(undoable("a", request={"x": "input.order.id"}))
    definition.check_input({"order": {"id": None}})
    for wrong in ({}, {"order": {}}, {"order": 7}):
        with pytest.raises(ValidationError) as raised:
            definition.check_input(wrong)
        assert raised.value.field == "input.order.id"
        assert "'a'" in raised.value.message
    for no_mapping in (None, [], "order"):
        with pytest.raises(ValidationError) as raised:
            definition.check_input(no_mapping)
        assert raised.value.field == "input"


def test_each_kind_has_its_own_retry_policy_unless_told_otherwise() -> None:
    assert undoable("a", retry=None).action_retry is ACTION_RETRY
    assert final("a", retry=None).action_retry is RETRIABLE_RETRY
    assert final("a", PIVOT, retry=None).action_retry is RETRIABLE_RETRY
    assert Step(name="a", participant="p", action="x").compensation_retry is COMPENSATION_RETRY
    own = retrying()
    assert undoable("a", retry=own).action_retry is own


def test_the_dependencies_of_the_pivot_example_are_what_after_says() -> None:
    definition = pivot_of()
    assert definition.dependencies == ((), (0,), (1,), (1,))
    assert definition.dependents == ((1,), (2, 3), (), ())
    assert saga_of(undoable("a"), undoable("b", after=("a", "a"))).dependencies == ((), (0,))
