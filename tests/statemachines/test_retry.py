"""Retry policies: bounded exponential backoff with full jitter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysaga.statemachines.retry import (
    ACTION_RETRY,
    COMPENSATION_RETRY,
    RETRIABLE_RETRY,
    RetryPolicy,
)

POLICY = RetryPolicy(attempts_max=5, delay_ms_first=100, delay_ms_max=500)


@pytest.mark.parametrize(
    ("attempt", "ceiling_ms"), [(1, 100), (2, 200), (3, 400), (4, 500), (5, None), (6, None)]
)
def test_the_ceiling_doubles_up_to_its_bound_and_then_the_policy_gives_up(
    attempt: int, ceiling_ms: int | None
) -> None:
    assert POLICY.delay_ms(attempt, 0.0) == (None if ceiling_ms is None else 1)
    nearly = POLICY.delay_ms(attempt, 0.999_999)
    assert nearly == (None if ceiling_ms is None else ceiling_ms - 1)


def test_one_attempt_means_no_retry() -> None:
    once = RetryPolicy(attempts_max=1, delay_ms_first=1, delay_ms_max=1)
    assert once.delay_ms(1, 0.5) is None


def test_a_participants_wish_is_heard_within_the_bound() -> None:
    assert POLICY.delay_ms(1, 0.5, at_least_ms=300) == 300
    assert POLICY.delay_ms(1, 0.5, at_least_ms=20) == 50
    assert POLICY.delay_ms(1, 0.5, at_least_ms=60_000) == 500


def test_a_great_number_of_attempts_overflows_nothing() -> None:
    patient = RetryPolicy(attempts_max=10**9, delay_ms_first=1, delay_ms_max=30_000)
    assert patient.delay_ms(10**6, 0.5) == 15_000


@given(
    attempt=st.integers(1, 100),
    jitter=st.floats(0, 1, exclude_max=True),
    at_least_ms=st.integers(0, 10**6),
    policy=st.sampled_from([ACTION_RETRY, RETRIABLE_RETRY, COMPENSATION_RETRY, POLICY]),
)
def test_a_wait_is_never_nothing_and_never_beyond_the_bound(
    attempt: int, jitter: float, at_least_ms: int, policy: RetryPolicy
) -> None:
    delay_ms = policy.delay_ms(attempt, jitter, at_least_ms)
    if attempt >= policy.attempts_max:
        assert delay_ms is None
    else:
        assert delay_ms is not None
        assert 1 <= delay_ms <= policy.delay_ms_max


@pytest.mark.parametrize(("attempt", "jitter"), [(0, 0.5), (1, 1.0), (1, -0.1)])
def test_what_no_host_passes_is_our_own_mistake(attempt: int, jitter: float) -> None:
    with pytest.raises(AssertionError):
        POLICY.delay_ms(attempt, jitter)


def test_the_policies_in_force_have_no_flaw() -> None:
    for policy in (ACTION_RETRY, RETRIABLE_RETRY, COMPENSATION_RETRY):
        assert policy.flaw() is None
