"""What a host counts is what its sagas' histories tell."""

from __future__ import annotations

from raysaga.actors.measures import BOUNDS_MS, Histogram, Measures
from raysaga.statemachines.events import (
    Accepted,
    AttemptFailed,
    SagaCompleted,
    StepCalled,
    StepRefused,
    StepSucceeded,
    StepUndone,
)
from raysaga.statemachines.ids import SagaId
from raysaga.statemachines.order import order_saga
from raysaga.statemachines.saga import Saga, evolve


def test_a_time_falls_into_the_bucket_whose_bound_it_does_not_exceed() -> None:
    histogram = Histogram()
    for took_ms in (0, 1, 2, 3, BOUNDS_MS[-1], BOUNDS_MS[-1] + 1):
        histogram.note(took_ms)
    assert histogram.counts[:3] == [2, 1, 1]
    assert histogram.counts[-2:] == [1, 1]
    assert sum(histogram.counts) == 6


def test_an_old_snapshot_ages_from_when_it_was_first_seen() -> None:
    measures = Measures()
    assert measures.snapshot_age_ms(None, 1_000) == 0
    assert measures.snapshot_age_ms(7, 2_000) == 0
    assert measures.snapshot_age_ms(7, 5_500) == 3_500
    assert measures.snapshot_age_ms(9, 6_000) == 0, "the reader has let go, another is the oldest"
    assert measures.snapshot_age_ms(None, 7_000) == 0


def test_attempts_and_ends_are_counted_with_how_long_they_took() -> None:
    saga, measures = Saga(SagaId("order:1"), order_saga), Measures()
    for event in (
        Accepted("order", order_saga.content_hash, "1", "f", "s", {}, 100, None),
        StepCalled(0, False, 1, 100),
        AttemptFailed(0, False, 1, 160, "TIMEOUT", "", 170),
        StepCalled(0, False, 2, 170),
        StepSucceeded(0, 2, 180, None),
    ):
        evolve(saga, event)
        measures.note(saga, (event,))
    told = measures.told()
    rows = {(row["step"], row["direction"], row["result"]): row for row in told["steps"]}
    assert rows["reserve_inventory", "action", "failed"]["sum_ms"] == 60
    assert rows["reserve_inventory", "action", "succeeded"]["sum_ms"] == 10
    assert {row["participant"] for row in told["steps"]} == {"inventory"}
    measures.note(saga, (SagaCompleted(350),))
    (end,) = measures.told()["sagas"]
    assert (end["outcome"], end["sum_ms"], sum(end["counts"])) == ("completed", 250, 1)


def test_what_is_undone_and_refused_is_counted_by_its_direction() -> None:
    saga, measures = Saga(SagaId("order:1"), order_saga), Measures()
    measures.note(saga, (StepRefused(1, 1, 5, "NO", ""), StepUndone(0, 1, 7, None)))
    found = {(row["step"], row["direction"], row["result"]) for row in measures.told()["steps"]}
    assert found == {
        ("process_payment", "action", "refused"),
        ("reserve_inventory", "compensation", "undone"),
    }
