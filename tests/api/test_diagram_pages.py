"""The diagrams in the docs are those that the engine's rows give today."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from raysaga.api.diagrams import DiagramName, definition_graph, graph_of, mermaid, write_pages
from raysaga.statemachines.definition import SagaDefinition, Step, StepKind

DOCS = Path(__file__).parents[2] / "docs" / "diagrams"

AGAIN = "out of date: run `python -m raysaga.api.diagrams docs/diagrams`"


def texts_of(svg: str) -> list[str]:
    """Return what is written in a picture, and how often something is drawn."""
    return [*re.findall(r"<text[^>]*>([^<]*)", svg), f"{svg.count('<path')} paths"]


def test_the_pages_of_the_docs_are_up_to_date(tmp_path: Path) -> None:
    """Text byte for byte; pictures by what they say, since fonts and versions may differ."""
    pytest.importorskip("matplotlib")
    write_pages(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in DOCS.iterdir()}
    assert (tmp_path / "README.md").read_text() == (DOCS / "README.md").read_text(), AGAIN
    for name in DiagramName:
        file = f"{name.value}.svg"
        fresh, kept = (folder / file for folder in (tmp_path, DOCS))
        assert texts_of(fresh.read_text()) == texts_of(kept.read_text()), AGAIN


def test_the_page_holds_each_diagram_as_text() -> None:
    page = (DOCS / "README.md").read_text()
    for name in DiagramName:
        assert mermaid(graph_of(name)) in page


def step(name: str, kind: StepKind = StepKind.COMPENSATABLE, **more: object) -> Step:
    undo = "undo" if kind is StepKind.COMPENSATABLE else None
    return Step(name=name, participant="p", action="do", compensation=undo, kind=kind, **more)  # type: ignore[arg-type]


BRANCHES = SagaDefinition(
    name="branches",
    steps=(
        step("a", after=()),
        step("b", after=(), best_effort=True),
        step("pay", StepKind.PIVOT, after=("a", "b")),
        step("mail", StepKind.RETRIABLE, best_effort=True),
    ),
)


def test_a_picture_of_a_definition_says_the_kind_of_each_step_and_who_turns_back() -> None:
    graph = definition_graph(BRANCHES)
    assert graph.nodes["a"] == "a\np: do"
    assert graph.nodes["b"].endswith("(best effort)")
    assert graph.nodes["pay"].endswith("(pivot)")
    assert graph.nodes["mail"].endswith("(retriable, best effort)")
    back = {(edge.source, edge.target) for edge in graph.edges if edge.is_back}
    assert {("pay", "undo a"), ("pay", "undo b")} <= back
    assert not [edge for edge in back if edge[0] == "mail"]


def test_a_refused_pivot_with_nothing_to_undo_ends_the_saga() -> None:
    alone = SagaDefinition(name="alone", steps=(step("pay", StepKind.PIVOT),))
    back = [edge[:2] for edge in definition_graph(alone).edges if edge.is_back]
    assert back == [("pay", "compensated")]


def test_no_two_steps_side_by_side_share_a_place() -> None:
    places = definition_graph(BRANCHES).places
    assert len(set(places.values())) == len(places)


def test_names_that_mermaid_does_not_take_are_written_otherwise() -> None:
    """It reads `end` as a keyword, and a colon as a class."""
    text = mermaid(
        definition_graph(
            SagaDefinition(name="odd", steps=(step("end"), step("a:b"), step("a-b"), step("class")))
        )
    )
    assert '    end_["end<br/>p: do"]' in text
    assert '    a_b["a:b<br/>p: do"]' in text
    assert '    a_b_["a-b<br/>p: do"]' in text
    assert "    end_ --> a_b\n" in text
    assert "    a_b --> a_b_\n" in text
    assert "    a_b_ --> class_\n" in text
