"""The alert rules and the dashboard ask for metrics that a server tells, with labels they have."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from promtool import PROMTOOL, needs_promtool
from serving_within import an_order, served, stuck_services

FOLDER = Path(__file__).parents[3] / "docs" / "monitoring"
NAME = re.compile(
    r"\b(?:saga|shard|journal|outbox|clock|participant|breaker|admission|engine|build)_[a-z_]+\b"
)
SELECTED = re.compile(r"\b([a-z_]+)\{([^}]*)\}")
GROUPED = re.compile(r"by \(([^)]*)\)")


def expressions() -> list[str]:
    """Return every expression of the rules and of the dashboard."""
    rules = yaml.safe_load((FOLDER / "alerts.yml").read_text())
    board = json.loads((FOLDER / "dashboard.json").read_text())
    return [rule["expr"] for group in rules["groups"] for rule in group["rules"]] + [
        target["expr"] for panel in board["panels"] for target in panel["targets"]
    ]


def wrong(expression: str, labels_of: dict[str, set[str]]) -> list[str]:
    """Return the names and labels of an expression that no sample has."""
    names = NAME.findall(expression)
    found = [name for name in names if name not in labels_of]
    for name, selectors in SELECTED.findall(expression):
        labels = set(re.findall(r"(\w+)\s*[=!]", selectors))
        found += [f"{name}{{{label}}}" for label in labels - labels_of.get(name, set())]
    there_are = set[str]().union(*(labels_of.get(name, set()) for name in names))
    for group in GROUPED.findall(expression):
        found += [f"by {label}" for label in re.split(r",\s*", group) if label not in there_are]
    return found


@pytest.fixture
async def labels_of(tmp_path: Path) -> dict[str, set[str]]:
    """The labels of each metric of a server on which everything has happened once."""
    found: dict[str, set[str]] = {}
    async with served(tmp_path / "data", services=stuck_services()) as server:
        headers: dict[str, Any] = {"Idempotency-Key": "o-1"}
        await server.client.post("/sagas/hasty?wait=10s", json=an_order("o-1"), headers=headers)
        text = (await server.client.get("/metrics")).text
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


@needs_promtool
def test_prometheus_own_tool_takes_the_rules() -> None:
    command = [PROMTOOL, "check", "rules", str(FOLDER / "alerts.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_prometheus_own_tool_takes_what_the_dashboard_asks(tmp_path: Path) -> None:
    """Method: have the tool read the expressions as if each were a rule."""
    rules = [{"record": f"panel:{n}", "expr": expr} for n, expr in enumerate(expressions())]
    (tmp_path / "rules.json").write_text(json.dumps({"groups": [{"name": "x", "rules": rules}]}))
    command = [PROMTOOL, "check", "rules", str(tmp_path / "rules.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


async def test_every_name_and_label_exists(labels_of: dict[str, set[str]]) -> None:
    asked = expressions()
    assert len(asked) > 15
    assert {one: found for one in asked if (found := wrong(one, labels_of))} == {}


async def test_a_name_or_a_label_that_is_gone_is_found(labels_of: dict[str, set[str]]) -> None:
    assert wrong("sum(saga_gone_total)", labels_of) == ["saga_gone_total"]
    assert wrong('saga_parked{why="x"}', labels_of) == ["saga_parked{why}"]
    assert wrong("sum by (customer) (saga_parked)", labels_of) == ["by customer"]
