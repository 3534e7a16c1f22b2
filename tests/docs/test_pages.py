"""Every block of code in every page is run, or is named here with the reason why not."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from blocks import (
    ROOT,
    Block,
    blocks_of,
    commands_named,
    excerpt_of,
    is_as_shown,
    is_understood,
    run_python,
)
from cluster_engine import Engine, start_engine, swift
from otlp_collector import Collector
from terminals import Terminals

from raysaga import SagaDefinition, Step, StepKind
from raysaga.api.diagrams import definition_graph, write_diagram

pytestmark = pytest.mark.cluster

PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "api/**/*.md", "docs/**/*.md", "examples/**/*.md")
    for path in ROOT.glob(pattern)
)

EXAMPLES = {
    path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "examples").glob("*.py"))
}
"""Programs that are run as they stand: `test_every_example_is_run`."""

ON_THE_ENGINE = {
    "docs/HTTP.md",
    "docs/OPERATING.md",
    "docs/TRACES.md",
    "docs/how-to/one-machine.md",
    "docs/how-to/recover.md",
    "docs/how-to/secure.md",
    "docs/how-to/upgrade.md",
}
"""Pages whose commands are run beside one engine that has driven some orders."""

NOT_RUN = {
    "$ .venv/bin/raysaga": "shows the thousand orders of the demo; tests/api/test_cli_read.py",
    "$ make demo": "kills what runs; tests/cluster/test_faults.py and test_engines.py do",
    "make": "is the run that this test is part of, or a thousand orders of it",
    "raysaga bench": "measures for minutes; tests/bench has its parts",
    "RAY_SERVE_HTTP": "needs Ray Serve; tests/cluster/test_ray_serve.py deploys what it names",
    "raysaga chaos": "breaks things for minutes; tests/simulation and tests/cluster do for seconds",
    "raysaga compile": "takes ten minutes; `make compiled` does it",
    "raysaga egress": "needs a broker; tests/actors/brokers/test_page.py runs it beside one",
    "raysaga ingress": "needs a broker; tests/actors/brokers/test_page.py runs it beside one",
    "raysaga participant": "needs a broker; tests/actors/brokers/test_page.py runs it beside one",
    "raysaga simulate": "takes minutes to hours; tests/simulation plays some seeds",
}
"""Beginning of a line to why a block with such a line is not run."""

DONE = {"console", "ini", "json", "python", "sh"}
"""Languages of what is run, or read as a program would."""

SHOWN = {"", "text", "mermaid"}
"""Languages of what is only looked at."""

COMMAND = re.compile(r"\$ |raysaga |make |pip |python |curl |ray ")
"""What a line of a block that is only looked at must not begin with."""


def why_not(block: Block) -> set[str]:
    """Return the entries of `NOT_RUN` that hold for a block."""
    lines = block.code.splitlines() if block.language in ("sh", "console") else ()
    return {how for how in NOT_RUN for line in lines if line.startswith(how)}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine that has driven some orders, on `raysaga-data` in the working folder."""
    with pytest.MonkeyPatch.context() as patched:
        # Where the troubled services are, for the engine's processes.
        patched.setenv("PYTHONPATH", str(ROOT / "tests" / "cluster"), prepend=os.pathsep)
        patched.chdir(tmp_path_factory.mktemp("shop"))
        connection, engine = start_engine(Path("raysaga-data"), "page")
        try:
            for number, token in enumerate(("tok_1", "tok_2", "tok_declined")):
                assert submit(engine, f"o-{number}", token) != "parked"
            yield engine
        finally:
            connection.__exit__(None, None, None)


def submit(engine: Engine, order_id: str, token: str) -> str:
    """Submit an order, and return how it ended."""
    order = {**engine.order(item="tea", token=token), "order_id": order_id}
    return engine.sagas.submit(swift("order"), order, key=order_id).result(timeout_s=60).status


def surroundings(page: str, folder: Path, request: pytest.FixtureRequest) -> None:
    """Put into a folder, or have happen on the engine, what a page takes for given."""
    if page.startswith("docs/examples/"):
        shutil.copytree(ROOT / "examples", folder, dirs_exist_ok=True)
    if page == "api/sample/ATTRIBUTION.md":
        (folder / "api" / "sample").mkdir(parents=True)
    if page == "README.md":
        (folder / ".venv").symlink_to(sys.prefix)
        (folder / "examples").symlink_to(ROOT / "examples")
    if page == "docs/HTTP.md":
        if shutil.which("curl") is None:
            pytest.skip("curl, which the page uses, is not installed")
        for block in blocks_of("docs/tutorial.md"):
            if block.title:
                (folder / block.title).write_text(block.code, encoding="utf-8")
    if page == "docs/TRACES.md":
        request.getfixturevalue("collector")
    if page == "docs/how-to/recover.md":
        engine = request.getfixturevalue("engine")
        for order_id in ("o-17", "o-18"):
            undo = (f"order:{order_id}", "process_payment", "undo", "before")
            note = engine.trouble(*undo, "always unavailable")
            assert submit(engine, order_id, "tok_declined") == "parked"
            # The bank is back.
            note.unlink()


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Who takes traces, at the usual port; it must have been told of some."""
    with Collector(4_318) as found:
        yield found
        found.wait_for("order", 1)


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_do_what_it_says(
    page: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In their order, in one folder, with the names and files of those before."""
    if page in ON_THE_ENGINE:
        request.getfixturevalue("engine")
        tmp_path = Path.cwd()
    surroundings(page, tmp_path, request)
    names: dict[str, Any] = {"__name__": "page"}
    monkeypatch.syspath_prepend(str(tmp_path))
    with closing(Terminals(tmp_path)) as terminals:
        for block in blocks_of(page):
            if not why_not(block):
                assert block.language in DONE | SHOWN, f"{block.where}: of no known language"
                do_as_told(block, tmp_path, names, terminals)


def do_as_told(block: Block, folder: Path, names: dict[str, Any], terminals: Terminals) -> None:
    """Do with a block what its reader would."""
    if block.title:
        (folder / block.title).write_text(block.code, encoding="utf-8")
    elif block.language == "python":
        if excerpt_of(block, EXAMPLES) is None:
            run_python(block, names)
    elif block.language in ("console", "sh"):
        terminals.type(block)
    elif block.language == "json":
        json.loads(block.code)
    elif block.language == "ini":
        configparser.ConfigParser(strict=False).read_string(block.code)
    else:
        commands = [line for line in block.code.splitlines() if COMMAND.match(line)]
        assert not commands, f"{block.where}: commands belong in a block of sh or console"


def test_what_is_not_run_is_there() -> None:
    """A reason that no block needs is a block that was changed and is run, or is gone."""
    used = {how for page in PAGES for block in blocks_of(page) for how in why_not(block)}
    assert used == set(NOT_RUN)


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_is_understood_run_or_not(page: str) -> None:
    """Every command, option and number of arguments is one that the command line knows."""
    named = [words for block in blocks_of(page) for words in commands_named("raysaga", block)]
    assert all(map(is_understood, named))


def test_an_option_that_is_gone_is_found() -> None:
    block = Block(
        page="p", line=1, language="sh", title="", code="raysaga serve \\\n  --gone  # x\n"
    )
    (words,) = commands_named("raysaga", block)
    assert words == ["serve", "--gone"]
    for wrong in (words, ["gone"], ["show", "a", "b"], ["bench", "compare", "A", "B", "C"]):
        with pytest.raises(Exception, match=r"(?i)no such|missing|unexpected"):
            is_understood(wrong)


def test_the_pages_are_all_there() -> None:
    assert {"README.md", "docs/GUIDE.md", "docs/tutorial.md"} <= set(PAGES)
    languages = {block.language for page in PAGES for block in blocks_of(page)}
    assert {"python", "console", "sh"} <= languages


@pytest.mark.parametrize(
    ("said", "shown", "expected"),
    [
        ("a 1 b", "a … b", True),
        ("a 1 c", "a … b", False),
        ("a\nb\nc", "a\n…", True),
        ("a\nb\nc", "…\nc", True),
        ("a\nb\nc", "a\nc", False),
        ("a (x) [y]", "a (x) [y]", True),
    ],
)
def test_only_what_is_left_open_may_differ(said: str, shown: str, expected: bool) -> None:
    assert is_as_shown(said.splitlines(), shown.splitlines()) is expected


@pytest.mark.parametrize(
    ("page", "begin", "picture"),
    [
        ("docs/tutorial.md", "sale_saga = ", "docs/tutorial/sale.svg"),
        ("docs/examples/trip.md", "trip_saga = ", "docs/examples/trip.svg"),
    ],
)
def test_a_picture_shows_the_definition_of_its_page(
    page: str, begin: str, picture: str, tmp_path: Path
) -> None:
    names: dict[str, Any] = {"SagaDefinition": SagaDefinition, "Step": Step, "StepKind": StepKind}
    block = next(found for found in blocks_of(page) if begin in found.code)
    run_python(block, names)
    fresh = tmp_path / "fresh.svg"
    write_diagram(definition_graph(names[begin.removesuffix(" = ")]), fresh)
    texts = re.compile(r"<text[^>]*>([^<]*)")
    assert texts.findall(fresh.read_text()) == texts.findall((ROOT / picture).read_text())


def test_an_excerpt_is_found_only_where_it_stands() -> None:
    block = Block(
        page="p",
        line=1,
        language="python",
        title="",
        code='name = "bank"\ntables = ("balances",)\n',
    )
    assert excerpt_of(block, EXAMPLES) == "trip.py"
    assert excerpt_of(block, {"other.py": "name = 1"}) is None
