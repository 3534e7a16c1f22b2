"""Proves that files become valid orders, that nothing is lost silently, nor half-written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raysaga.api import orders_import
from raysaga.api.order_schema import parse_order_line
from raysaga.api.orders_import import (
    ImportPlaces,
    ImportSettings,
    ImportSummary,
    PriceIs,
    PriceUnit,
    import_orders,
    payment_token,
    stock_levels,
)
from raysaga.api.orders_sources import (
    COMPLETEJOURNEY_COLUMNS,
    OrderColumns,
    OrdersFileError,
    completejourney_path,
    open_source,
)

COLUMNS = OrderColumns(
    order_id="order", customer_id="who", item_id="sku", quantity="n", price="price"
)
HEADER = "order,who,sku,n,price"
CARD = "4111111111111111"


@dataclass(frozen=True)
class Result:
    summary: ImportSummary
    orders: list[dict[str, Any]]
    rejects: list[dict[str, Any]]
    stock: dict[str, Any]


def places_in(folder: Path) -> ImportPlaces:
    return ImportPlaces(
        orders=folder / "orders.jsonl",
        rejects=folder / "rejects.jsonl",
        stock=folder / "stock.json",
    )


def import_file(path: Path, **changes: Any) -> Result:
    places = places_in(path.parent)
    summary = import_orders(open_source(path, COLUMNS), places, ImportSettings(**changes))
    lines = places.orders.read_text().splitlines()
    for line in lines:
        parse_order_line(line)
    return Result(
        summary=summary,
        orders=[json.loads(line) for line in lines],
        rejects=[json.loads(line) for line in places.rejects.read_text().splitlines()],
        stock=json.loads(places.stock.read_text()),
    )


def import_rows(folder: Path, rows: Sequence[str], **changes: Any) -> Result:
    path = folder / "lines.csv"
    path.write_text("\n".join([HEADER, *rows]) + "\n", encoding="utf-8")
    return import_file(path, **changes)


def faults(result: Result) -> list[tuple[int, str | None, str]]:
    return [(reject["line"], reject["order_id"], reject["code"]) for reject in result.rejects]


def test_rows_with_the_same_order_id_are_one_order_wherever_they_stand(tmp_path: Path) -> None:
    rows = ["a,c1,milk,1,1.50", "b,c2,milk,2,3.00", "a,c1,bread,3,2.25", "a,c1,milk,4,6.00"]
    result = import_rows(tmp_path, rows)
    assert result.orders == [
        {
            "order_id": "b",
            "customer_id": "c2",
            "items": [{"item_id": "milk", "quantity": 2}],
            "payment": {"token": payment_token("c2"), "amount_minor": 300, "currency": "USD"},
        },
        {
            "order_id": "a",
            "customer_id": "c1",
            "items": [{"item_id": "milk", "quantity": 5}, {"item_id": "bread", "quantity": 3}],
            "payment": {"token": payment_token("c1"), "amount_minor": 975, "currency": "USD"},
        },
    ]
    assert result.rejects == []
    assert (result.summary.units, result.summary.amount_minor) == (10, 1275)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_csv_file_may_have_a_mark_quotes_and_its_own_delimiter(
    tmp_path: Path, delimiter: str
) -> None:
    cells = [
        ["note, or; more", "price", " order ", "n", "sku", "who"],
        ['say "hi"', "1.10", "a", "1", "milk", "c1"],
        ["two\nlines", " 2.20 ", " a ", "2", "bread", "c1"],
        ["", "x", "b", "1", "milk", "c1"],
    ]
    quoted = [delimiter.join('"' + c.replace('"', '""') + '"' for c in row) for row in cells]
    path = tmp_path / "lines.csv"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(quoted).encode())
    result = import_file(path)
    assert [item["item_id"] for item in result.orders[0]["items"]] == ["milk", "bread"]
    assert result.orders[0]["payment"]["amount_minor"] == 330
    # The third row begins on line 5, since the second one takes two lines.
    assert faults(result) == [(5, "b", "PRICE_INVALID"), (5, "b", "ORDER_EMPTY")]


def test_a_bad_row_is_rejected_alone_and_its_order_goes_on(tmp_path: Path) -> None:
    rows = [
        "a,c1,milk,1,1.00",  # line 2
        ",c1,milk,1,1.00",
        "a,,milk,1,1.00",
        "a,c1,,1,1.00",
        "a,c1,milk,0,1.00",  # 6
        "a,c1,milk,1.5,1.00",
        "a,c1,milk,-1,1.00",
        "a,c1,milk,one,1.00",
        "a,c1,milk,10001,1.00",  # 10
        "a,c1,milk,1,-1.00",
        "a,c1,milk,1,$1.00",
        "a,c1,milk,1,",
        "a,c1,milk,1,nan",
        "a,c1,milk,1,1e99",  # 15
        "a,c2,milk,1,1.00",
        "a b,c1,milk,1,1.00",
        f"{CARD},c1,milk,1,1.00",
        f"a,c1,{CARD},1,1.00",
        "a,c1,milk,1",  # 20
        'a,c1,"mi"lk,1,1.00',
        "",
        "a,c1,\x07,1,1.00",
        f"a,c1,milk,{CARD},1.00",
        "a,c1,bread,2.0,2.00",  # 25
    ]
    result = import_rows(tmp_path, rows)
    assert faults(result) == [
        (3, None, "ID_MISSING"),
        (4, "a", "ID_MISSING"),
        (5, "a", "ID_MISSING"),
        *[(line, "a", "QUANTITY_INVALID") for line in range(6, 11)],
        *[(line, "a", "PRICE_INVALID") for line in range(11, 16)],
        (16, "a", "CUSTOMER_DIFFERS"),
        (17, None, "ID_INVALID"),
        (18, None, "CARD_NUMBER"),
        (19, "a", "CARD_NUMBER"),
        (20, None, "ROW_UNREADABLE"),
        (21, None, "ROW_UNREADABLE"),
        (23, "a", "ID_INVALID"),
        (24, "a", "QUANTITY_INVALID"),
    ]
    (order,) = result.orders
    assert order["payment"]["amount_minor"] == 300
    assert [item["quantity"] for item in order["items"]] == [1, 2]
    assert CARD not in json.dumps(result.rejects)
    assert result.summary.lines_rejected == len(result.rejects)


def test_an_order_that_breaks_a_rule_as_a_whole_is_rejected_at_its_first_row(
    tmp_path: Path,
) -> None:
    rows = [
        "small,c,milk,1,1.00",
        *[f"wide,c,i{n},1,1.00" for n in range(600)],
        "deep,c,milk,9999,1.00",
        "deep,c,milk,2,1.00",
        "dear,c,milk,1,9999999999",
        "dear,c,milk,1,9999999999",
    ]
    result = import_rows(tmp_path, rows)
    assert [order["order_id"] for order in result.orders] == ["small"]
    assert [(r["line"], r["order_id"], r["reason"]) for r in result.rejects] == [
        (3, "wide", "items: must hold between 1 and 500 items"),
        (603, "deep", "items[0].quantity: must be between 1 and 10000"),
        (605, "dear", "payment.amount_minor: must be between 0 and 1000000000000"),
    ]
    assert result.summary.orders_rejected == 3
    assert result.stock["items"] == {"milk": 0}


def test_an_order_of_which_nothing_is_left_is_rejected_too(tmp_path: Path) -> None:
    result = import_rows(tmp_path, ["a,c1,milk,0,1", "b,c1,milk,1,1", "a,c1,milk,0,1"])
    assert faults(result) == [
        (2, "a", "QUANTITY_INVALID"),
        (4, "a", "QUANTITY_INVALID"),
        (4, "a", "ORDER_EMPTY"),
    ]
    assert [order["order_id"] for order in result.orders] == ["b"]


@pytest.mark.parametrize(
    ("changes", "amount_minor"),
    [
        ({}, 60),
        ({"price_is": PriceIs.EACH}, 180),
        ({"price_unit": PriceUnit.MINOR}, 1),
        ({"price_unit": PriceUnit.MINOR, "price_is": PriceIs.EACH}, 2),
        ({"currency": "JPY"}, 1),
        ({"currency": "KWD"}, 600),
    ],
)
def test_money_is_exact_and_rounded_once(
    tmp_path: Path, changes: dict[str, Any], amount_minor: int
) -> None:
    """Ten dimes and twenty: 0.1 + 0.2 and the like never show a binary fraction."""
    rows = ["a,c,milk,3,0.1", "a,c,bread,3,0.2", "a,c,eggs,3,.3"]
    (order,) = import_rows(tmp_path, rows, **changes).orders
    assert order["payment"]["amount_minor"] == amount_minor


@pytest.mark.parametrize(
    ("price", "amount_minor"), [("0.005", 0), ("0.015", 2), ("0.025", 2), ("1.7763568e-15", 0)]
)
def test_half_a_cent_goes_to_the_even_cent(tmp_path: Path, price: str, amount_minor: int) -> None:
    (order,) = import_rows(tmp_path, [f"a,c,milk,1,{price}"]).orders
    assert order["payment"]["amount_minor"] == amount_minor


def test_parquet_gives_the_same_orders_as_csv(tmp_path: Path) -> None:
    table = pa.table(
        {
            "order": pa.array([1, 1, 2, None, 3], pa.int64()),
            "who": pa.array([7.0, 7.0, 8.0, 8.0, float("nan")], pa.float64()),
            "sku": pa.array(["milk", "bread", "milk", "milk", "milk"]).dictionary_encode(),
            "n": pa.array([1.0, 2.0, 3.0, 1.0, 1.0], pa.float64()),
            "price": pa.array([0.1, 0.2, 1.005, 1.0, 1.0], pa.float64()),
            "unused": pa.array([b"x"] * 5),
        }
    )
    (tmp_path / "p").mkdir()
    pq.write_table(table, tmp_path / "p" / "lines.parquet", row_group_size=2)
    from_parquet = import_file(tmp_path / "p" / "lines.parquet")
    rows = ["1,7,milk,1,0.1", "1,7,bread,2,0.2", "2,8,milk,3,1.005", ",8,milk,1,1", "3,,milk,1,1"]
    from_csv = import_rows(tmp_path, rows)
    assert from_parquet.orders == from_csv.orders
    assert from_parquet.stock == from_csv.stock
    # Parquet has no header, so that its rows are counted from 1.
    codes = [(None, "ID_MISSING"), ("3", "ID_MISSING"), ("3", "ORDER_EMPTY")]
    assert faults(from_parquet) == [(n, *c) for n, c in zip((4, 5, 5), codes, strict=True)]
    assert faults(from_csv) == [(n, *c) for n, c in zip((5, 6, 6), codes, strict=True)]


def test_parquet_decimals_and_bytes_are_understood(tmp_path: Path) -> None:
    table = pa.table(
        {
            "order": pa.array([Decimal(12), Decimal(12)], pa.decimal128(20, 0)),
            "who": pa.array([b"c", b"c"]),
            "sku": ["milk", "milk"],
            "n": pa.array([1, 2], pa.int8()),
            "price": pa.array([Decimal("0.10"), Decimal("0.20")], pa.decimal128(20, 2)),
        }
    )
    pq.write_table(table, tmp_path / "lines.parquet")
    (order,) = import_file(tmp_path / "lines.parquet").orders
    assert (order["order_id"], order["customer_id"]) == ("12", "c")
    assert order["payment"]["amount_minor"] == 30


row_cells = st.tuples(
    st.sampled_from(["a", "b", "c", ""]),
    st.sampled_from(["c1", "c1", "c2"]),
    st.sampled_from(["milk", "bread", "x y"]),
    st.sampled_from(["1", "2", "0", "9999"]),
    st.decimals(0, 100, places=2).map(str) | st.just("?"),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(row_cells, max_size=12))
def test_every_row_is_in_an_order_or_in_the_rejects(
    tmp_path: Path, rows: list[tuple[str, ...]]
) -> None:
    result = import_rows(tmp_path, [",".join(row) for row in rows])
    rejected = {r["line"] for r in result.rejects if not r["code"].startswith("ORDER_")}
    gone = {r["order_id"] for r in result.rejects if r["code"].startswith("ORDER_")}
    units = {row[0]: 0 for row in rows}
    amounts = {row[0]: Decimal() for row in rows}
    for line, (order_id, _, _, quantity, price) in enumerate(rows, 2):
        if line not in rejected:
            units[order_id] += int(quantity)
            amounts[order_id] += Decimal(price)
    written = {order["order_id"]: order for order in result.orders}
    assert set(written) | gone == {row[0] for row in rows if row[0]}
    assert not set(written) & gone
    for order_id, order in written.items():
        assert sum(item["quantity"] for item in order["items"]) == units[order_id]
        assert order["payment"]["amount_minor"] == amounts[order_id] * 100


def test_the_most_wanted_items_are_short() -> None:
    demand = {"a": 10, "b": 30, "c": 30, "d": 1, "e": 7}
    assert stock_levels(demand, Decimal(0)) == (dict(sorted(demand.items())), 0)
    assert stock_levels(demand, Decimal("0.01")) == (demand | {"b": 24}, 1)
    assert stock_levels(demand, Decimal("0.6")) == (demand | {"b": 24, "c": 24, "a": 8}, 3)
    assert stock_levels(demand, Decimal(1))[0] == {"a": 8, "b": 24, "c": 24, "d": 0, "e": 5}
    assert stock_levels({}, Decimal(1)) == ({}, 0)


def test_the_stock_names_every_item_that_is_ordered(tmp_path: Path) -> None:
    result = import_rows(tmp_path, ["a,c,milk,10,1", "b,c,bread,2,1", "b,c,eggs,0,1"])
    assert result.stock == {"items": {"bread": 2, "milk": 8}, "default": 0}


def test_payment_tokens_are_stable_and_never_look_like_cards() -> None:
    tokens = {payment_token(f"c{n}") for n in range(5000)}
    assert len(tokens) == 5000
    assert payment_token("900") == "tok_madjnjfldfoimamffhmf"
    assert not any(character.isdigit() for token in tokens for character in token)


def test_the_import_stops_after_the_orders_asked_for(tmp_path: Path) -> None:
    rows = ["a,c,milk,1,1", "b,c,milk,1,1", "a,c,milk,1,1", "c,c,milk,1,1", "d,c,milk,0,1"]
    result = import_rows(tmp_path, rows, orders_max=2)
    assert [order["order_id"] for order in result.orders] == ["b", "a"]
    assert (result.summary.lines_read, result.rejects) == (3, [])


def test_progress_is_told_for_both_readings(tmp_path: Path) -> None:
    path = tmp_path / "lines.csv"
    rows = (f"o{n},c,milk,1,1" for n in range(10_000))
    path.write_text("\n".join([HEADER, *rows]))
    told: list[tuple[str, float]] = []
    import_orders(
        open_source(path, COLUMNS),
        places_in(tmp_path),
        ImportSettings(),
        lambda stage, share: told.append((stage, share)),
    )
    assert [stage for stage, share in told if share == 1.0] == ["finding orders", "writing orders"]
    assert all(0 <= share <= 1 for _, share in told)
    assert len(told) == 6


def test_a_failure_leaves_the_old_files_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {}
    for place in ("orders.jsonl", "rejects.jsonl", "stock.json"):
        (tmp_path / place).write_text("old")
        before[place] = b"old"

    def fail(demand: object, shortage: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(orders_import, "stock_levels", fail)
    with pytest.raises(OSError, match="No space left"):
        import_rows(tmp_path, ["a,c,milk,1,1"])
    (tmp_path / "lines.csv").unlink()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_file_that_changes_between_the_readings_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lines.csv"
    path.write_text(f"{HEADER}\na,c,milk,1,1\n")

    def grow(stage: str, share: float) -> None:
        if stage == "finding orders":
            with path.open("a") as file:
                file.write("a,c,milk,1,1\n")

    with pytest.raises(OrdersFileError, match="changed while it was read"):
        import_orders(open_source(path, COLUMNS), places_in(tmp_path), ImportSettings(), grow)
    assert [entry.name for entry in tmp_path.iterdir()] == ["lines.csv"]


def test_bytes_that_are_not_utf8_spoil_only_their_own_cell(tmp_path: Path) -> None:
    path = tmp_path / "lines.csv"
    rows = [b"order,who,sku,n,price,text", b"a,c,milk,1,1,caf\xe9", b"b,c,caf\xe9,1,1,"]
    path.write_bytes(b"\n".join(rows))
    result = import_file(path)
    assert [order["order_id"] for order in result.orders] == ["a"]
    assert faults(result) == [(3, "b", "ID_INVALID"), (3, "b", "ORDER_EMPTY")]


def test_an_unclosed_quote_is_a_fault_and_not_silence(tmp_path: Path) -> None:
    result = import_rows(tmp_path, ["a,c,milk,1,1", 'b,c,"milk,1,1', "c,c,milk,1,1"])
    assert [order["order_id"] for order in result.orders] == ["a"]
    assert faults(result) == [(3, None, "ROW_UNREADABLE")]


def test_completejourney_agrees_with_its_own_way_to_read_it(tmp_path: Path) -> None:
    """The first 300 orders, against pandas' sums over the same baskets."""
    places = places_in(tmp_path)
    source = open_source(completejourney_path(), COMPLETEJOURNEY_COLUMNS)
    summary = import_orders(source, places, ImportSettings(orders_max=300))
    rows = pq.read_table(source.path, columns=list(COMPLETEJOURNEY_COLUMNS.names()))
    frame = rows.slice(0, summary.lines_read).to_pandas()
    good = frame[(frame.quantity >= 1) & (frame.quantity <= 10_000)]
    orders = [parse_order_line(line) for line in places.orders.read_bytes().splitlines()]
    assert len(orders) == 300 == good.basket_id.nunique()
    assert summary.lines_rejected == len(frame) - len(good)
    sums = good.groupby("basket_id").sales_value.sum()
    for order in orders:
        assert order.payment.amount_minor == round(sums[int(order.order_id)] * 100)
