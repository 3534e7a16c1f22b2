"""Finds the code blocks of a page, as a reader's renderer does, and runs them."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from typer.main import get_command

from raysaga.api.cli import app

ROOT = Path(__file__).parents[2]
TITLE = re.compile(r'title="([^"]+)"')
ELLIPSIS = "…"


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block of code in a page.

    Attributes:
        page: Path from the root of the repository.
        line: Of the page, counted from 1.
        language: First word behind the fence; empty if none.
        title: Name of the file that its reader is to make of it; empty if none.
        code: Its text.
    """

    page: str
    line: int
    language: str
    title: str
    code: str

    @property
    def where(self) -> str:
        """Say where it is."""
        return f"{self.page}:{self.line}"

    @property
    def first(self) -> str:
        """Its first line, by which lists of blocks name it."""
        return self.code.strip().partition("\n")[0]


def blocks_of(page: str) -> Iterator[Block]:
    """Yield the blocks of a page, those of a list or a quotation included."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for token in MarkdownIt().parse(text):
        if token.type in ("fence", "code_block"):
            assert token.map is not None
            title = TITLE.search(token.info)
            yield Block(
                page=page,
                line=token.map[0] + 1,
                language=(token.info.split() or [""])[0] if token.type == "fence" else "indented",
                title=title.group(1) if title else "",
                code=token.content,
            )


def excerpt_of(block: Block, files: dict[str, str]) -> str | None:
    """Return the name of the file in which a block stands, but for its indentation."""
    wanted = textwrap.dedent(block.code).strip("\n").splitlines()
    for name, text in files.items():
        lines = text.splitlines()
        for start in range(len(lines) - len(wanted) + 1):
            found = textwrap.dedent("\n".join(lines[start : start + len(wanted)])).splitlines()
            if found == wanted:
                return name
    return None


def run_python(block: Block, names: dict[str, Any]) -> None:
    """Run a block among the names that the blocks before it have made."""
    exec(compile("\n" * block.line + block.code, block.page, "exec"), names)


def commands_named(name: str, block: Block) -> Iterator[list[str]]:
    """Yield the words behind `name` of each line that calls the program of this name."""
    if block.language not in ("sh", "console"):
        return
    for line in block.code.replace("\\\n", " ").splitlines():
        command = line.removeprefix("$ ")
        if command.strip() and Path(command.split()[0]).name == name:
            yield shlex.split(command, comments=True)[1:]


def is_understood(words: list[str]) -> bool:
    """Return true for a command of ours; it is parsed and not run.

    Raises:
        Exception: The parser's own, if there is no such command or option.
    """
    command: Any = get_command(app)
    while hasattr(command, "list_commands") and words and not words[0].startswith("-"):
        # What it does not know it says by itself.
        _, command, words = command.resolve_command(command.context_class(command), words)
    return command.make_context("raysaga", words) is not None


def is_as_shown(said: list[str], shown: list[str]) -> bool:
    """Return whether lines are as a page shows them, with `…` for what may differ."""
    text = "\n".join(line.rstrip() for line in said).strip("\n")
    wanted = "\n".join(line.rstrip() for line in shown).strip("\n")
    # A line of its own stands for any number of lines, within a line for any characters.
    pattern = re.escape(wanted)
    pattern = re.sub(rf"(?:(?<=\A)|(?<=\n)){ELLIPSIS}(?=\\?\n|\Z)", r"(?s:.*)", pattern)
    return re.fullmatch(pattern.replace(ELLIPSIS, ".*"), text) is not None
