"""What is kept as bytes comes back as it was."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from raysaga.statemachines.events import Accepted, StepCalled, StepSucceeded
from raysaga.statemachines.folding import fold, unfold
from raysaga.statemachines.ids import SagaId
from raysaga.statemachines.order import order_saga
from raysaga.statemachines.saga import Saga, replay, steps_in

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"])) | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab.é"), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), PLAIN))
def test_plain_data_comes_back_as_it_was(value: dict[str, Any]) -> None:
    packed = fold(value)
    assert isinstance(packed, bytes)
    assert unfold(packed) == value
    assert fold(packed) is packed


def test_nothing_stays_nothing() -> None:
    assert fold(None) is None


def waiting() -> Saga:
    order = {
        "order_id": "o-1",
        "customer_id": "c-1",
        "items": [{"item_id": "milk", "quantity": 2}],
        "payment": {"token": "tok", "amount_minor": 199, "currency": "EUR"},
    }
    history = [
        Accepted(order_saga.name, order_saga.content_hash, "o-1", "f", "scope", order, 0, None),
        StepCalled(0, False, 1, 0),
        StepSucceeded(0, 1, 0, {"reservation_id": "r-1", "taken": [["milk", 0, 2]]}),
        StepCalled(1, False, 1, 0),
    ]
    return replay(SagaId("order:o-1"), order_saga, history, taken_over=False)


def test_a_folded_saga_asks_for_the_same() -> None:
    saga, folded = waiting(), waiting()
    folded.fold()
    assert isinstance(folded._input, bytes)
    assert isinstance(folded.steps[0]._result, bytes)
    for step in range(4):
        assert folded.request_of(step) == saga.request_of(step)
    assert folded.input == saga.input
    assert [s.result for s in folded.steps] == [s.result for s in saga.steps]


@given(st.sets(st.integers(0, 1_100)))
def test_bits_stand_for_steps(steps: set[int]) -> None:
    assert steps_in(sum(1 << i for i in steps)) == sorted(steps)
