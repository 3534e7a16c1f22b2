"""Times read off a histogram lie where they were put in."""

from __future__ import annotations

from raysaga.api.http.quantiles import grown, quantile_ms, summed

BOUNDS_MS = [10, 20, 40]


def test_a_quantile_lies_in_the_bucket_of_its_rank() -> None:
    assert quantile_ms(BOUNDS_MS, [0, 0, 0, 0], 0.5) is None
    assert quantile_ms(BOUNDS_MS, [10, 0, 0, 0], 0.5) == 5.0
    assert quantile_ms(BOUNDS_MS, [1, 0, 1, 0], 0.95) == 38.0
    assert quantile_ms(BOUNDS_MS, [0, 0, 0, 3], 0.5) == 40.0


def test_what_was_counted_meanwhile_is_the_difference_or_all_after_a_restart() -> None:
    assert grown({"a": (3, 2)}, {"a": (1, 2)}) == {"a": (2, 0)}
    assert grown({"a": (1, 0)}, {"a": (5, 5)}) == {"a": (1, 0)}
    assert grown({"a": (1, 0)}, {}) == {"a": (1, 0)}


def test_rows_are_added_up_by_name() -> None:
    rows = [{"of": "a", "counts": [1, 0]}, {"of": "a", "counts": [2, 2]}]
    assert summed(rows, "of") == {"a": (3, 2)}
