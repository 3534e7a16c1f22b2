"""What the pages say of examples and errors is so. Their blocks are run in tests/docs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import raysaga
from raysaga.statemachines.errors import SagaError

ERROR_ROW = re.compile(r"^\| `([A-Z_]+)` \| `(\w+)` \| (yes|no) \|", re.MULTILINE)
GUIDE = "docs/GUIDE.md"


@pytest.fixture(scope="module")
def examples(texts: dict[str, str]) -> dict[str, str]:
    """The example programs; tests/cluster/test_examples.py runs them."""
    return {
        path: text
        for path, text in texts.items()
        if path.startswith("examples/") and path.endswith(".py")
    }


def test_every_example_is_run(texts: dict[str, str], examples: dict[str, str]) -> None:
    tests = texts["tests/cluster/test_examples.py"]
    # Blocks of pages are run, too (tests/docs).
    told = re.findall(r"^\$ \S+/python examples/(\S+)", texts["README.md"], re.MULTILINE)
    tests += texts["tests/actors/brokers/test_other_languages.py"]
    assert examples
    for path in examples:
        # Those that are tests are collected (setup.cfg, testpaths).
        name = Path(path).name
        assert name.startswith("test_") or name in told or f'"{name}"' in tests, path


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
