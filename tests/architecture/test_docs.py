"""What the README and the guide show is run, or is part of what is run elsewhere."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

import raysaga
from raysaga.statemachines.errors import SagaError

PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
ERROR_ROW = re.compile(r"^\| `([A-Z_]+)` \| `(\w+)` \| (yes|no) \|", re.MULTILINE)
GUIDE = "docs/GUIDE.md"
PAGES = ("README.md", GUIDE)


def blocks(text: str) -> list[str]:
    """Return the Python blocks of a page."""
    return PYTHON_BLOCK.findall(text)


def is_excerpt(block: str, files: dict[str, str]) -> bool:
    """Return whether `block` stands in one of `files` as it is, but for its indentation."""
    wanted = textwrap.dedent(block).strip("\n").splitlines()
    for text in files.values():
        lines = text.splitlines()
        for start in range(len(lines) - len(wanted) + 1):
            found = textwrap.dedent("\n".join(lines[start : start + len(wanted)])).splitlines()
            if found == wanted:
                return True
    return False


@pytest.fixture(scope="module")
def examples(texts: dict[str, str]) -> dict[str, str]:
    """The example programs; tests/cluster/test_examples.py runs them."""
    return {
        path: text
        for path, text in texts.items()
        if path.startswith("examples/") and path.endswith(".py")
    }


@pytest.mark.parametrize("page", PAGES)
def test_a_block_of_python_runs_or_is_part_of_an_example(
    page: str, texts: dict[str, str], examples: dict[str, str]
) -> None:
    """What is no excerpt must run by itself, without an engine: a definition, for instance."""
    found = blocks(texts[page])
    assert found, f"{page} shows no Python"
    for block in found:
        if not is_excerpt(block, examples):
            namespace: dict[str, Any] = {}
            exec(compile(block, page, "exec"), namespace)
            made = [v for v in namespace.values() if isinstance(v, raysaga.SagaDefinition)]
            assert made, f"{page}: a block that proves nothing:\n{block}"


def test_a_block_that_was_changed_is_no_excerpt(examples: dict[str, str]) -> None:
    assert is_excerpt("    trip_saga = SagaDefinition(\n        name='trip'", examples) is False
    assert is_excerpt('  name = "bookings"\n  tables = ("rooms",)\n', examples)


def test_every_example_is_run(texts: dict[str, str], examples: dict[str, str]) -> None:
    tests = texts["tests/cluster/test_examples.py"]
    tests += texts["tests/actors/brokers/test_other_languages.py"]
    assert examples
    for path in examples:
        assert f'"{Path(path).name}"' in tests, path


def test_the_table_of_errors_is_that_of_the_classes(texts: dict[str, str]) -> None:
    """Each public error has its row, with its own code and its own word on retries."""
    rows = {name: (code, told == "yes") for code, name, told in ERROR_ROW.findall(texts[GUIDE])}
    public = {
        name: getattr(raysaga, name)
        for name in raysaga.__all__
        if isinstance(getattr(raysaga, name), type)
        and issubclass(getattr(raysaga, name), SagaError)
    }
    roots = {"SagaError", "NotCompletedError"}
    classes = {name: (cls.code, cls.retryable) for name, cls in public.items()}
    assert rows == {name: facts for name, facts in classes.items() if name not in roots}
