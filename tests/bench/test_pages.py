"""The tables of the documentation are what the lines of results say, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from raysaga.bench.pages import TABLES, filled
from raysaga.bench.results_file import read_lines

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", ["BENCHMARKS.md", "CONTENTION.md", "CONSISTENCY.md"])
def test_every_figure_of_a_page_has_its_line(page: str, root_results: list[Path]) -> None:
    """Method: fill the page anew from the lines that are kept, and look for a difference."""
    text = (DOCS / page).read_text(encoding="utf-8")
    assert "<!-- bench:" in text
    is_filled = filled(text, read_lines(root_results)) == text
    assert is_filled, "run: raysaga bench report report.html --pictures docs/bench --pages docs"


def test_what_is_between_the_markers_is_replaced_and_nothing_else(
    root_results: list[Path],
) -> None:
    page = "before\n<!-- bench: contention -->\nmade up: 9,999\n<!-- end -->\nafter"
    text = filled(page, read_lines(root_results))
    assert text.startswith("before\n<!-- bench: contention -->\n")
    assert text.endswith("<!-- end -->\nafter")
    assert "made up" not in text
    assert filled(text, read_lines(root_results)) == text


def test_a_page_can_name_each_table() -> None:
    named = {
        name
        for name in TABLES
        for page in DOCS.glob("*.md")
        if f"bench: {name} " in page.read_text()
    }
    assert named == set(TABLES)
