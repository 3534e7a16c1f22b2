"""The commands of the page on brokers do what it says, beside a broker."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

import pytest

from .rabbit_process import RabbitProcess

sys.path.append(str(Path(__file__).parents[2] / "docs"))

from blocks import blocks_of
from terminals import LISTENS, Terminals


@pytest.mark.cluster
def test_what_listens_at_a_broker_does_so_and_ends_well(
    rabbit: RabbitProcess, tmp_path: Path
) -> None:
    (tmp_path / "stock.json").write_text('{"default": 100}')
    listening = [
        block
        for block in blocks_of("docs/BROKERS.md")
        if block.language == "sh" and LISTENS.match(block.code)
    ]
    assert len(listening) == 3
    with closing(Terminals(tmp_path, BROKER=f"{rabbit.url}/")) as terminals:
        for block in listening:
            terminals.type(block)
    assert (tmp_path / "inventory-data").exists() and (tmp_path / "raysaga-data").exists()
