"""How the end of a saga is raised: what the error tells of trying again."""

from __future__ import annotations

import pickle

import pytest

from raysaga.api.errors import NotCompletedError, RolledBackError, ServiceUnavailableError
from raysaga.api.outcome import Outcome


def raised(code: str, status: str = "compensated") -> NotCompletedError:
    outcome = Outcome(
        saga_id="order:1",
        status=status,
        code=code,
        message="no answer",
        step="process_payment",
        results={},
        remaining=(),
    )
    with pytest.raises(NotCompletedError) as error:
        outcome.raise_if_not_completed()
    return error.value


@pytest.mark.parametrize("code", ["SERVICE_UNAVAILABLE", "TIMEOUT", "OVERLOADED"])
def test_a_rollback_for_want_of_a_participant_is_tried_again_under_a_new_key_only(
    code: str,
) -> None:
    """A program that repeats what is retryable would repeat the same key for ever."""
    error = raised(code)
    assert type(error) is ServiceUnavailableError
    assert (error.retryable, error.helps_under_new_key) == (False, True)
    assert "under a new key" in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize("code", ["INSUFFICIENT_STOCK", "PAYMENT_DECLINED", "CANCELLED", "NO_ROOM"])
def test_no_other_rollback_can_be_helped_by_trying_again(code: str) -> None:
    error = raised(code)
    assert isinstance(error, RolledBackError)
    assert (error.retryable, error.helps_under_new_key) == (False, False)


def test_a_parked_saga_is_not_tried_again_by_its_caller() -> None:
    error = raised("COMPENSATION_STUCK", "parked")
    assert (error.code, error.retryable, error.helps_under_new_key) == ("PARKED", False, False)
