"""Ids, errors and calls: small things that everything else relies on."""

from __future__ import annotations

import pickle

import pytest
from msgspec.structs import astuple

from raysaga.statemachines.calls import ACTION, Outcome, StepCall, reply_to
from raysaga.statemachines.errors import DefinitionError, SagaError, ValidationError
from raysaga.statemachines.ids import StepKey, is_key, saga_id_of
from raysaga.statemachines.inputs import CompensationForced, RetryOrdered, SkipOrdered


@pytest.mark.parametrize("text", ["a", "A-1", "a.b_c:d", "x" * 100])
def test_a_key_is_made_of_plain_characters(text: str) -> None:
    assert is_key(text)


@pytest.mark.parametrize("text", ["", "a b", "a/b", "a\n", "é", "x" * 101, "\x00"])
def test_anything_else_is_no_key(text: str) -> None:
    assert not is_key(text)


def test_a_saga_id_is_a_function_of_definition_and_key() -> None:
    assert saga_id_of("order", "o-1") == "order:o-1"
    for wrong in (("or der", "1"), ("order", "")):
        with pytest.raises(AssertionError):
            saga_id_of(*wrong)


def test_two_sagas_never_share_an_id() -> None:
    """A definition's name holds no colon, so the first one ends it."""
    assert saga_id_of("a", "b:c").split(":", 1) == ["a", "b:c"]


def test_a_step_key_names_journal_saga_and_step() -> None:
    assert str(StepKey("uuid", "order:1", "pay")) == "uuid/order:1/pay"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (SagaError(), ""),
        (ValidationError("is missing", "input.id"), "input.id: is missing"),
        (ValidationError("is missing"), "is missing"),
        (DefinitionError("order", "pay", "no"), "definition 'order': step 'pay': no"),
        (DefinitionError("order", None, "no"), "definition 'order': no"),
    ],
)
def test_an_error_survives_pickling_with_its_facts(error: SagaError, sentence: str) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error) == sentence
    assert (again.code, again.retryable) == (error.code, False)
    assert vars(again) == vars(error)


def test_a_reply_echoes_what_identifies_its_call() -> None:
    call = StepCall(7, ACTION, "uuid", "order:1", "pay", "charge", {}, "scope", 3, 2, 99, 100)
    reply = reply_to(call, Outcome.REFUSED, code="NO", message="no", stored=True, duplicate=True)
    assert astuple(reply)[:6] == (7, ACTION, "order:1", "pay", 3, 2)
    assert (reply.outcome, reply.code, reply.stored, reply.duplicate) == (2, "NO", True, True)
    given = reply_to(call, Outcome.SUCCEEDED, result={"a": 1}, retry_after_ms=5)
    assert astuple(given)[7:] == (
        {"a": 1},
        "",
        "",
        False,
        5,
        False,
    )


def test_inputs_of_different_kinds_are_different_whatever_they_hold() -> None:
    """Who remembers by what was given must not take one order of an operator for another."""
    orders = [kind("operator", "note") for kind in (RetryOrdered, SkipOrdered, CompensationForced)]
    assert len(set(orders)) == len(orders)
