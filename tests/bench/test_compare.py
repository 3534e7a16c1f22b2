"""A change is told only beyond noise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from raysaga.bench.compare import compare, judged, lines_of
from raysaga.bench.report import behind, page
from raysaga.bench.results_file import identity, read_lines
from raysaga.statemachines.errors import ValidationError


def line(commit: str, rates: list[float], **facts: Any) -> dict[str, Any]:
    rates = sorted(rates)
    middle = rates[len(rates) // 2]
    return {"workload": "happy", "in_flight": 64, "commit": commit, "at": commit,
            "sagas_per_s": middle, "sagas_per_s_each": rates, "p99_ms": 5.0, **facts}  # fmt: skip


@pytest.mark.parametrize(
    ("was", "now", "verdict"),
    [
        ([100, 104, 108], [120, 125, 130], "better"),
        ([120, 125, 130], [100, 104, 108], "worse"),
        ([100, 104, 121], [120, 125, 130], "same"),
        ([100, 101, 102], [103, 104, 105], "same"),
        ([100], [200, 210, 220], "once"),
    ],
)
def test_a_change_is_one_whose_ranges_do_not_overlap_and_that_matters(
    was: list[float], now: list[float], verdict: str
) -> None:
    assert judged(was, now, more_is_better=True) == verdict
    turned = {"better": "worse", "worse": "better"}
    assert judged(was, now, more_is_better=False) == turned.get(verdict, verdict)


def test_only_what_measured_the_same_is_compared() -> None:
    before = [line("a", [100, 101, 102]), line("a", [10, 11, 12], in_flight=1)]
    after = [line("b", [200, 201, 202]), line("b", [1, 2, 3], durability="strict")]
    found = [change for change in compare(before, after) if change.figure == "sagas_per_s"]
    assert [(change.before, change.after, change.verdict) for change in found] == [
        (101, 201, "better")
    ]
    assert identity(before[0]) == identity(after[0])


def test_results_are_found_by_file_and_by_commit(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps(line(c, [1, 2, 3])) + "\n" for c in ("aa1", "bb2")))
    assert len(lines_of(str(path), tmp_path)) == 2
    assert [found["commit"] for found in lines_of("bb", tmp_path)] == ["bb2"]
    with pytest.raises(ValidationError, match="no commit with results"):
        lines_of("cc", tmp_path)
    path.write_text("{")
    with pytest.raises(ValidationError, match="no JSON"):
        read_lines([path])


def test_a_report_says_first_where_a_peer_is_ahead() -> None:
    facts = {"workload": "peers", "durable": "all", "processes": "one"}
    lines = [
        line("a", [100, 101, 102], peer="raysaga", **facts),
        line("a", [300, 310, 320], peer="sqlite-group", **facts),
        line("a", [10, 11, 12], peer="dbos-sqlite", **facts),
    ]
    told = behind(lines)
    assert [sentence.split(":")[0] for sentence in told] == ["sqlite-group at 64 in flight"]
    text = page(lines)
    assert text.index("Where a peer is ahead") < text.index("<svg")
    assert "<script" not in text
    assert "http://" not in text.replace("http://www.w3.org/", "")


def test_the_results_that_are_kept_can_be_read(root_results: list[Path]) -> None:
    lines = read_lines(root_results)
    assert lines
    assert page(lines).endswith("</html>")
