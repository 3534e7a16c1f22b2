"""Proves that what is drawn is what the engine runs, and that a drawing is a function of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raysaga.api.diagrams import DiagramName, definition_graph, graph_of, mermaid, write_diagram
from raysaga.statemachines.definition import SagaDefinition, Step
from raysaga.statemachines.order import order_saga
from raysaga.statemachines.tables import PHASE_TRANSITIONS, STEP_TRANSITIONS

Cli = Callable[..., Any]


@pytest.mark.parametrize(
    ("name", "rows"),
    [(DiagramName.PHASES, PHASE_TRANSITIONS), (DiagramName.STEPS, STEP_TRANSITIONS)],
)
def test_every_row_of_a_table_is_an_arrow_and_no_arrow_is_invented(
    name: DiagramName, rows: tuple[tuple[str, str, str], ...]
) -> None:
    drawn = {
        (trigger, edge.source, edge.target)
        for edge in graph_of(name).edges
        for trigger in edge.label.split(", ")
    }
    assert drawn == {(trigger, str(source), str(target)) for trigger, source, target in rows}


@pytest.mark.parametrize("name", list(DiagramName))
def test_every_node_has_a_place_of_its_own(name: DiagramName) -> None:
    graph = graph_of(name)
    assert set(graph.places) == set(graph.nodes)
    assert len(set(graph.places.values())) == len(graph.nodes)
    assert {end for edge in graph.edges for end in edge[:2]} <= set(graph.nodes)


def test_the_order_saga_is_drawn_with_its_way_back() -> None:
    text = mermaid(graph_of(DiagramName.ORDER))
    for step in order_saga.steps:
        assert f"{step.participant}: {step.action}" in text
        assert f"{step.participant}: {step.compensation}" in text
    assert "undo_schedule_shipping -.-> undo_process_payment" in text


def test_a_step_without_an_undo_has_no_way_back() -> None:
    definition = SagaDefinition(
        name="mail",
        steps=(
            Step(name="book", participant="a", action="book", compensation="free"),
            Step(name="send", participant="b", action="send", kind="retriable"),
        ),
    )
    graph = definition_graph(definition)
    assert "undo book" in graph.nodes
    assert "undo send" not in graph.nodes


@pytest.mark.parametrize("ending", ["mmd", "svg", "png"])
def test_the_same_rows_give_the_same_file(cli: Cli, tmp_path: Path, ending: str) -> None:
    files = [tmp_path / f"{i}.{ending}" for i in range(2)]
    for file in files:
        result = cli("diagram", "phases", "--out", file)
        assert (result.exit_code, result.stdout) == (0, "")
    assert files[0].read_bytes() == files[1].read_bytes()
    if ending != "png":
        assert "parked_backward" in files[0].read_text()


def test_without_a_file_it_is_text_for_people_and_json_for_programs(cli: Cli) -> None:
    assert cli("diagram").stdout == mermaid(graph_of(DiagramName.ORDER))
    told = json.loads(cli("diagram", "steps", "--json").stdout)
    assert set(told["nodes"]) >= {"pending", "undone"}


def test_another_ending_is_refused(cli: Cli, tmp_path: Path) -> None:
    result = cli("diagram", "--out", tmp_path / "order.gif")
    assert result.exit_code == 2
    assert "must end in .mmd, .svg, .png" in result.stderr
    write_diagram(graph_of(DiagramName.ORDER), tmp_path / "order.mmd")
    assert [path.name for path in tmp_path.iterdir()] == ["order.mmd"]
