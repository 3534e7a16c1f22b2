"""Proves where the services' settings come from, and what they are when nothing is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from raysaga.api.order_setup import services_of, usual_services
from raysaga.statemachines.errors import ValidationError
from raysaga.storage.data_folder import DataFolder

STOCK = {"items": {"milk": 3}, "default": 100}


@pytest.fixture
def stock(tmp_path: Path) -> Path:
    """A stock file."""
    path = tmp_path / "stock.json"
    path.write_text(json.dumps(STOCK))
    return path


def written(folder: Path, document: dict[str, Any]) -> str:
    path = folder / "services.json"
    path.write_text(json.dumps(document))
    return str(path)


@pytest.mark.parametrize("preset", ["calm", "lively"])
def test_letters_go_to_a_maildir_in_the_data_folder_if_nothing_is_said(
    preset: str, stock: Path, tmp_path: Path
) -> None:
    services = services_of(preset, stock, tmp_path / "data")
    assert services["notification"]["maildir"] == "mail"
    assert services["inventory"]["stock"] == STOCK


@pytest.mark.parametrize(
    ("notification", "maildir"),
    [({}, "mail"), ({"maildir": "letters"}, "letters"), ({"maildir": None}, None)],
)
def test_a_file_says_where_letters_go(
    notification: dict[str, Any], maildir: str | None, stock: Path, tmp_path: Path
) -> None:
    path = written(tmp_path, {"notification": notification})
    services = services_of(path, stock, tmp_path / "data")
    assert services["notification"]["maildir"] == maildir


def test_letters_for_a_mail_server_go_to_no_maildir(stock: Path, tmp_path: Path) -> None:
    path = written(tmp_path, {"notification": {"smtp": {"host": "mail.example"}}})
    services = services_of(path, stock, tmp_path / "data")
    assert services["notification"]["maildir"] is None
    assert services["notification"]["smtp"]["host"] == "mail.example"


def test_a_stock_changes_nothing_else_that_a_file_says(stock: Path, tmp_path: Path) -> None:
    path = written(tmp_path, {"seed": 11, "inventory": {"strategy": "escrow"}})
    services = services_of(path, stock, tmp_path / "data")
    assert services["seed"] == 11
    assert services["inventory"]["strategy"] == "escrow"
    assert services["inventory"]["stock"] == STOCK


@pytest.mark.parametrize("there_is_a_folder", [True, False])
def test_no_stock_at_all_is_refused(tmp_path: Path, there_is_a_folder: bool) -> None:
    if there_is_a_folder:
        (tmp_path / "data").mkdir()
    with pytest.raises(ValidationError, match="no stock yet"):
        services_of("calm", None, tmp_path / "data")


def test_a_stock_is_usual_only_where_there_is_none(tmp_path: Path) -> None:
    """A folder that was stocked would refuse another stock, and so whoever joins it."""
    assert "stock" in usual_services(tmp_path / "new")["inventory"]
    DataFolder.open(tmp_path / "old", shard_count=1, create=True)
    assert "stock" in usual_services(tmp_path / "old")["inventory"]
    inventory = tmp_path / "old" / "services" / "inventory"
    inventory.mkdir(parents=True)
    (inventory / "data.mdb").touch()
    assert "stock" not in usual_services(tmp_path / "old")["inventory"]


def test_a_folder_of_a_newer_version_is_not_taken_for_one_without_stock(tmp_path: Path) -> None:
    """Else the sentence about the stock would hide the one about the version."""
    (tmp_path / "raysaga.json").write_text('{"format_version": 99}')
    assert services_of("calm", None, tmp_path)["inventory"]["stock"] is None
