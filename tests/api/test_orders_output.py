"""Proves that results are put only where they belong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from raysaga.api.orders_output import StagedFiles, check_places
from raysaga.api.orders_sources import OrdersFileError


def test_nothing_is_seen_before_the_commit_and_everything_after(tmp_path: Path) -> None:
    with StagedFiles() as files:
        files.open(tmp_path / "a").write("new a")
        files.open(tmp_path / "b").write("new b")
        assert not {"a", "b"} & {entry.name for entry in tmp_path.iterdir()}
        files.commit()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "a": "new a",
        "b": "new b",
    }


def test_what_is_not_committed_leaves_no_trace(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with StagedFiles() as files:
        files.open(tmp_path / "a").write("new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "old")]


def test_results_replace_what_a_link_leads_to_and_keep_the_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "orders").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real" / "orders")
    with StagedFiles() as files:
        files.open(tmp_path / "link").write("new")
        files.commit()
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "orders").read_text() == "new"


def test_results_are_as_readable_as_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    with StagedFiles() as files:
        files.open(tmp_path / "a")
        files.commit()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("nowhere/orders", "its folder does not exist"),
        ("folder", "exists and is not a plain file"),
        ("pipe", "exists and is not a plain file"),
        ("stock", "is named twice"),
        ("source", "is named twice, or is the file to import"),
        ("link", "is named twice, or is the file to import"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused(
    tmp_path: Path, place: str, sentence: str
) -> None:
    (tmp_path / "source").write_text("")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "source")
    with pytest.raises(OrdersFileError, match=sentence):
        check_places([tmp_path / "stock", tmp_path / place], tmp_path / "source")
