"""Sizes and names: what a reader can hold at once, and what tells him where to look."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

MODULE_LINES_MAX = 500
FUNCTION_LINES_MAX = 60
DRAWERS = {"utils", "util", "helpers", "helper", "common", "misc", "shared"}
"""Names under which anything can be put, so that nothing is found."""

TESTS_WITHOUT_A_FOLDER = {"architecture", "golden", "simulation", "chaos", "cluster", "examples"}
"""Folders of tests that are about the whole, not about one folder of the source."""


def long_functions(tree: ast.Module) -> Iterator[str]:
    """Yield the functions of more than `FUNCTION_LINES_MAX` lines, docstring included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                yield f"{node.name} has {lines} lines"


def asserts_or_raises(function: ast.AST) -> bool:
    """Return whether a test can fail: it asserts, or calls what says that it checks."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).rpartition(".")[2]
            if re.search(r"raises|assert|check|verify|expect|fail|warns|wait", name):
                return True
    return False


def test_the_scan_finds_the_project(python_files: list[Any], sources: list[Any]) -> None:
    """Every rule below would hold for an empty list."""
    paths = {source.path for source in sources}
    assert {"statemachines/decide.py", "storage/journal.py", "raysaga/__init__.py"} <= paths
    assert len(sources) >= 40
    assert len(python_files) > len(sources)
    assert not any(path.startswith("raysaga/storage") for path in paths)


def test_no_module_is_too_long(python_files: list[Any]) -> None:
    lines = {source.path: source.text.count("\n") for source in python_files}
    found = [f"{path}: {count}" for path, count in lines.items() if count > MODULE_LINES_MAX]
    assert not found, "\n".join(found)


def test_no_function_is_too_long(python_files: list[Any]) -> None:
    found = [f"{s.path}: {what}" for s in python_files for what in long_functions(s.tree)]
    assert not found, "\n".join(found)


def test_a_function_of_sixty_one_lines_is_found() -> None:
    body = "    x = 1\n" * FUNCTION_LINES_MAX
    assert list(long_functions(ast.parse(f"def long():\n{body}"))) == ["long has 61 lines"]


def test_no_module_is_a_drawer(python_files: list[Any]) -> None:
    found = [
        source.path
        for source in python_files
        if DRAWERS & set(Path(source.path).with_suffix("").parts)
    ]
    assert not found, "\n".join(found)


def test_every_installed_module_opens_with_its_purpose(sources: list[Any]) -> None:
    assert [source.path for source in sources if not ast.get_docstring(source.tree)] == []


def test_tests_mirror_the_tree(python_files: list[Any], root: Path) -> None:
    strays = []
    for source in python_files:
        top, *inner, name = Path(source.path).parts
        if top == "tests" and name.startswith("test_"):
            folder = Path(*inner)
            about_all = inner and inner[0] in TESTS_WITHOUT_A_FOLDER
            if not inner or not (about_all or (root / folder).is_dir()):
                strays.append(source.path)
    assert not strays, "\n".join(strays)


def test_tests_are_not_packages(root: Path) -> None:
    """Two files called alike in two folders would otherwise be one module to an import."""
    assert list((root / "tests").rglob("__init__.py")) == []


def test_each_test_can_fail(python_files: list[Any]) -> None:
    blind = [
        f"{source.path}:{node.lineno} {node.name}"
        for source in python_files
        if Path(source.path).name.startswith("test_")
        for node in ast.walk(source.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not asserts_or_raises(node)
    ]
    assert not blind, "\n".join(blind)


def test_a_test_without_an_assertion_is_found() -> None:
    assert not asserts_or_raises(ast.parse("def test_nothing():\n    order = 1\n"))


@pytest.mark.parametrize("name", ["time.sleep", "sleep"])
def test_tests_wait_on_conditions_and_never_sleep(python_files: list[Any], name: str) -> None:
    """A sleep is too long on a fast machine and too short on a slow one."""
    found = [
        f"{source.path}:{node.lineno}"
        for source in python_files
        if source.path.startswith("tests/")
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == name
    ]
    assert not found, "\n".join(found)
