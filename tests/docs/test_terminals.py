"""What types a page's commands notices what is missing, and what does not end well."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from blocks import Block
from terminals import Terminals, check_installed, commands_of


def sh(code: str) -> Block:
    return Block(page="p", line=1, language="sh", title="", code=code)


def test_what_listens_or_installs_is_a_command_of_its_own() -> None:
    code = "A=1\nB=2\npip install x\nraysaga serve \\\n  --traces\nraysaga traces o-1\n"
    assert [command for command, _ in commands_of(sh(code))] == [
        "A=1\nB=2",
        "pip install x",
        "raysaga serve    --traces",
        "raysaga traces o-1",
    ]


def test_what_is_not_installed_is_found() -> None:
    check_installed("pip install './raysaga[http,tracing]' pytest  # as pages have it")
    with pytest.raises(AssertionError, match="gone"):
        check_installed("pip install 'raysaga[gone]'")
    with pytest.raises(AssertionError, match="pytest"):
        check_installed("pip install 'pytest>=10000'")
    with pytest.raises(PackageNotFoundError):
        check_installed("pip install nobody-has-made-this")


def test_what_a_line_sets_holds_to_the_end_of_its_block(tmp_path: Path) -> None:
    terminals = Terminals(tmp_path, GIVEN="given")
    terminals.type(sh('NAME=$GIVEN\npip install pytest\ntest "$NAME" = given\n'))
    with pytest.raises(AssertionError):
        terminals.type(sh('test "$NAME" = given\n'))


def test_what_does_not_listen_is_found(tmp_path: Path) -> None:
    terminals = Terminals(tmp_path)
    with pytest.raises(AssertionError, match="DATA_FOLDER_UNUSABLE"):
        terminals.type(sh("raysaga traces --follow --data nowhere\n"))
    with pytest.raises(AssertionError, match="traces --follow"):
        terminals.close()
