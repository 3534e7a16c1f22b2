"""What is written about the code is true of the code, and of no one machine."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

MARKDOWN_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
BACKTICKED = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*(?:\(\))?")
HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
PATH = re.compile(r"(?:[A-Za-z0-9_.-]+/)+(?:[A-Za-z0-9_-]+\.[a-z]+)?")

MACHINE_PATH = re.compile(r"(?<![\w.$}])/" + r"(?:work|root|home|Users|farm)/[\w.]")
REGISTRY_HOST = re.compile(
    r"\b(?:[\w-]+\.)*(?:pypi|pythonhosted|npmjs|crates|debian|artifactory)\.(?:org|io|com)\b"
)

FOREIGN = {
    # Of libraries and the operating system: cited, not used by name in our code.
    "CAP_SYS_PTRACE",
    "add_model",
    "get_data",
    "mdb_env_write_meta",
    "mdb_page_flush",
    "mdb_txn_commit",
}
"""Names that prose may mention although our code does not use them."""


def names_in(text: str) -> Iterator[str]:
    """Yield the names in backticks that look like ours: two words joined, or two humps."""
    for quoted in BACKTICKED.findall(text):
        if NAME.fullmatch(quoted):
            for part in quoted.removesuffix("()").split("."):
                if "_" in part.strip("_") or re.fullmatch(r"(?:[A-Z][a-z0-9]+){2,}", part):
                    yield part


def prose_of(source: Any) -> Iterator[tuple[int, str]]:
    """Yield the docstrings and the comments of a Python file, each with its line."""
    for node in ast.walk(source.tree):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield node.lineno, text
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def words_of_code(python_files: list[Any], texts: dict[str, str]) -> set[str]:
    """Return every name that the code uses, says in a string, or is configured with."""
    known: set[str] = set()
    for source in python_files:
        known |= set(Path(source.path).with_suffix("").parts)
        nodes = list(ast.walk(source.tree))
        # A docstring proves nothing about the code.
        docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            match node:
                case ast.Constant(value=str(text)) if id(node) not in docstrings:
                    known |= set(WORD.findall(text))
        for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
            if token.type == tokenize.NAME:
                known.add(token.string)
    for path in ("setup.cfg", "pyproject.toml", "Makefile", "constraints.txt"):
        known |= set(WORD.findall(texts[path]))
    # Logs and histories tell `StepSucceeded` as `step_succeeded`.
    return known | {HUMP.sub("_", word).lower() for word in known}


def headings(markdown: str) -> set[str]:
    """Return the anchors that a page offers, as its readers' renderers make them."""
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", markdown), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", title.lower()) for title in titles)
    return {title.strip().replace(" ", "-") for title in plain}


def broken_links(pages: dict[str, str], root: Path) -> list[str]:
    """Return the relative links of Markdown pages that lead nowhere."""
    broken = []
    for page, text in pages.items():
        for link in MARKDOWN_LINK.findall(FENCE.sub("", text)):
            if re.match(r"[a-z]+:", link):
                continue
            path, _, anchor = link.partition("#")
            target = (root / page).parent / path if path else root / page
            lost = not target.exists() or (
                anchor and anchor not in headings(target.read_text(encoding="utf-8"))
            )
            if lost:
                broken.append(f"{page}: {link}")
    return broken


def test_names_in_prose_exist(python_files: list[Any], texts: dict[str, str]) -> None:
    """A docstring, comment or page names only what a search in the code finds.

    Method: take what stands in backticks and looks like a name of ours, and look for
    it among the names and strings of the code, docstrings left out.
    """
    prose = [
        (f"{source.path}:{line}", text)
        for source in python_files
        if not source.path.startswith("tests/architecture")
        for line, text in prose_of(source)
    ]
    prose += [(path, text) for path, text in texts.items() if path.endswith(".md")]
    known = words_of_code(python_files, texts) | FOREIGN
    orphans = [f"{where}: {name}" for where, text in prose for name in names_in(text)]
    assert len(orphans) > 20, "the scan found next to nothing"
    # What begins with an underscore may be the end of names, such as `_at_ms`.
    known |= {word[word.index("_", 1) :] for word in known if "_" in word[1:]}
    orphans = [orphan for orphan in orphans if orphan.rpartition(" ")[2] not in known]
    assert not orphans, "\n".join(orphans)


def test_a_name_that_is_gone_is_found() -> None:
    assert list(
        names_in("See `StaleTokenError` and `Saga.undo_list()`; `x` and `raise` pass.")
    ) == [
        "StaleTokenError",
        "undo_list",
    ]


def test_paths_in_pages_exist(texts: dict[str, str], root: Path) -> None:
    """A page that sends its reader to `actors/host.py` finds that file there."""
    missing = [
        f"{page}: {quoted}"
        for page, text in texts.items()
        if page.endswith(".md") and page != "CHANGELOG.md"
        for quoted in BACKTICKED.findall(text)
        if PATH.fullmatch(quoted)
        and not quoted.startswith("raysaga-data")
        and not (root / quoted).exists()
        and not ((root / page).parent / quoted).exists()
    ]
    assert not missing, "\n".join(missing)


def test_relative_links_in_pages_lead_somewhere(texts: dict[str, str], root: Path) -> None:
    pages = {path: text for path, text in texts.items() if path.endswith(".md")}
    assert {"README.md", "CONTRIBUTING.md", "docs/ARCHITECTURE.md"} <= set(pages)
    broken = broken_links(pages, root)
    assert not broken, "\n".join(broken)


def test_a_link_to_nowhere_is_found(root: Path) -> None:
    page = {"README.md": "[a](docs/NONE.md) [b](LICENSE) [c](#none) [d](https://example.org/x)"}
    assert broken_links(page, root) == ["README.md: docs/NONE.md", "README.md: #none"]


def test_no_text_names_a_path_of_one_machine(texts: dict[str, str]) -> None:
    found = [
        f"{path}:{number}: {line.strip()[:80]}"
        for path, text in texts.items()
        for number, line in enumerate(text.splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]
    assert not found, "\n".join(found)


def test_no_text_names_the_host_of_a_package_registry(texts: dict[str, str]) -> None:
    """Where packages come from is the installer's setting, not ours."""
    found = [
        f"{path}: {match.group()}"
        for path, text in texts.items()
        for match in REGISTRY_HOST.finditer(text)
    ]
    assert not found, "\n".join(found)


def test_paths_and_hosts_are_found_where_they_stand() -> None:
    assert MACHINE_PATH.search("see /" + "home/ann/raysaga")
    assert not MACHINE_PATH.search("tests/root/x and $HOME/work/x")
    assert REGISTRY_HOST.search("https://files.python" + "hosted.org/x")
    assert not REGISTRY_HOST.search("https://docs.ray.io")


def test_targets_that_pages_name_are_in_the_makefile(texts: dict[str, str]) -> None:
    targets = set(re.findall(r"^([a-z]+):", texts["Makefile"], re.MULTILINE))
    named = {
        target
        for path, text in texts.items()
        if path.endswith(".md")
        for target in re.findall(r"(?:`|^ *\$? *)make ([a-z]+)", text, re.MULTILINE)
    }
    assert {"demo", "test", "check"} <= named
    assert named <= targets


def test_decisions_are_numbered_without_a_gap(texts: dict[str, str]) -> None:
    records = sorted(path for path in texts if path.startswith("docs/decisions/"))
    numbers = [int(PurePosixPath(path).name[:4]) for path in records]
    assert numbers == list(range(1, len(records) + 1))
    assert len(records) >= 6
    for path in records:
        assert {"context", "decision", "consequences", "considered"} <= headings(texts[path]), path


def test_ci_runs_the_command_that_the_readme_tells(texts: dict[str, str]) -> None:
    assert texts[".ci/run"].rstrip().endswith("make test")
    assert "make test" in texts["README.md"]
    assert re.search(r"^set -euo pipefail$", texts[".ci/run"], re.MULTILINE)
