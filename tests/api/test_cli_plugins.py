"""Commands of packages beside this one, and of extras that may not be installed."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]


def test_a_package_beside_this_one_adds_a_command(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry point is enough; its module is imported when its name is typed."""
    (tmp_path / "pony.py").write_text(
        "import typer\n"
        "app = typer.Typer()\n"
        "@app.command(help='Ride.')\n"
        "def ride(far: bool = False) -> None:\n"
        "    typer.echo('far' if far else 'near')\n"
    )
    facts = tmp_path / "pony-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: pony\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[raysaga.commands]\nride = pony:app\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert cli("ride", "--far").stdout == "far\n"
    assert "ride" in cli("--help").stdout


def test_a_command_whose_packages_are_missing_says_how_to_get_them_and_harms_no_other(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in an installation without extras, where not even the help was told."""
    (tmp_path / "mule.py").write_text("import saddle\n")
    facts = tmp_path / "mule-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: mule\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[raysaga.commands]\nplod = mule:app [http]\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "plod" in cli("--help").stdout
    asked = "this needs saddle: pip install 'raysaga[http]'"
    result = cli("plod", "--far", "away")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"error: {asked} (PACKAGE_MISSING)\n"
    ours = {point.name: point.extras for point in entry_points(group="raysaga.commands")}
    assert (ours["serve"], ours["token"]) == (["http"], ["http"])
