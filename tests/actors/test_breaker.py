"""A circuit opens after a run of unanswered calls, probes, and closes; retries have a budget."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from raysaga.actors.breaker import CircuitBreaker, CircuitState, RetryBudget
from raysaga.actors.settings import EngineSettings

SETTINGS = EngineSettings(
    breaker_failures_min=3, breaker_open_ms_first=100, breaker_open_ms_max=350, breaker_probes=2
)


def opened(at_ms: float = 0.0) -> CircuitBreaker:
    breaker = CircuitBreaker(SETTINGS)
    for _ in range(3):
        breaker.unanswered(at_ms)
    return breaker


def test_it_opens_after_a_run_of_failures_and_not_before() -> None:
    breaker = CircuitBreaker(SETTINGS)
    breaker.unanswered(0)
    breaker.unanswered(0)
    assert (breaker.state, breaker.wait_ms(0)) == (CircuitState.CLOSED, 0)
    breaker.unanswered(0)
    assert breaker.state is CircuitState.OPEN
    assert breaker.wait_ms(40) == 61


def test_an_answer_of_any_kind_ends_the_run() -> None:
    breaker = CircuitBreaker(SETTINGS)
    for _ in range(10):
        breaker.unanswered(0)
        breaker.unanswered(0)
        breaker.answered()
    assert breaker.state is CircuitState.CLOSED


def test_when_the_time_is_up_as_many_probes_pass_as_the_bound_says() -> None:
    breaker = opened()
    assert [breaker.wait_ms(100) for _ in range(3)] == [0, 0, 100]
    assert breaker.state is CircuitState.HALF_OPEN


def test_an_answered_probe_closes_it() -> None:
    breaker = opened()
    assert breaker.wait_ms(100) == 0
    breaker.answered()
    assert breaker.state is CircuitState.CLOSED
    assert [breaker.wait_ms(101) for _ in range(10)] == [0] * 10


def test_each_failed_probe_doubles_the_wait_up_to_a_bound_and_an_answer_resets_it() -> None:
    breaker = opened()
    now_ms = 0.0
    waits = []
    for _ in range(4):
        wait_ms = breaker.wait_ms(now_ms)
        waits.append(wait_ms)
        now_ms += wait_ms
        assert breaker.wait_ms(now_ms) == 0
        breaker.unanswered(now_ms)
    assert waits == [101, 201, 351, 351]
    breaker.answered()
    for _ in range(3):
        breaker.unanswered(now_ms)
    assert breaker.wait_ms(now_ms) == 101


def test_a_late_answer_closes_even_an_open_circuit() -> None:
    breaker = opened()
    breaker.answered()
    assert breaker.wait_ms(1) == 0


def test_a_probe_that_could_not_be_sent_is_not_waited_for() -> None:
    breaker = opened()
    for _ in range(10):
        assert breaker.wait_ms(100) == 0
        breaker.not_sent()
    assert breaker.wait_ms(100) == 0
    breaker.answered()
    assert breaker.state is CircuitState.CLOSED


def test_probes_that_come_to_nothing_do_not_count_as_a_run_of_their_own() -> None:
    """The second probe's failure comes when the circuit is open again: it must not reopen it."""
    breaker = opened()
    assert [breaker.wait_ms(100), breaker.wait_ms(100)] == [0, 0]
    breaker.unanswered(110)
    first = breaker.wait_ms(110)
    breaker.unanswered(110)
    assert breaker.wait_ms(110) == first


def test_an_unused_budget_holds_its_bound_and_no_more() -> None:
    settings = EngineSettings(retry_budget_max=4, retry_budget_per_s=1, retry_budget_ratio=0.5)
    budget = RetryBudget(settings, 0)
    for _ in range(100):
        budget.earn()
    assert [budget.spend(0) for _ in range(5)] == [True] * 4 + [False]


def test_first_tries_and_time_earn_retries() -> None:
    settings = EngineSettings(retry_budget_max=2, retry_budget_per_s=10, retry_budget_ratio=0.25)
    budget = RetryBudget(settings, 0)
    assert [budget.spend(0) for _ in range(3)] == [True, True, False]
    for _ in range(4):
        budget.earn()
    assert [budget.spend(0), budget.spend(0)] == [True, False]
    assert [budget.spend(100), budget.spend(100)] == [True, False]


@given(st.lists(st.tuples(st.sampled_from(["first", "retry"]), st.integers(0, 50)), max_size=300))
def test_no_history_spends_more_than_was_saved_and_earned(steps: list[tuple[str, int]]) -> None:
    settings = EngineSettings(retry_budget_max=5, retry_budget_per_s=20, retry_budget_ratio=0.1)
    budget = RetryBudget(settings, 0)
    now_ms, first, retries = 0, 0, 0
    for what, pause_ms in steps:
        now_ms += pause_ms
        if what == "first":
            first += 1
            budget.earn()
        else:
            retries += budget.spend(now_ms)
    assert retries <= 5 + 0.1 * first + 20 * now_ms / 1_000 + 1e-6
