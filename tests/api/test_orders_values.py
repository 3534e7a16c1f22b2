"""Proves that a cell of a file is read as what it plainly is, or rejected."""

from __future__ import annotations

import re
from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysaga.api.order_schema import AMOUNT_MINOR_MAX, ID_PATTERN, QUANTITY_MAX
from raysaga.api.orders_values import (
    CellRejected,
    decimals_of,
    read_id,
    read_price,
    read_quantity,
)


@pytest.mark.parametrize("value", [True, 1.5, float("inf"), 2.0**53, object(), b"\xff", 1e300])
def test_what_is_no_id_is_rejected(value: object) -> None:
    with pytest.raises(CellRejected, match="ID_INVALID"):
        read_id(value, "order id")


@pytest.mark.parametrize("value", [None, "", "  ", float("nan"), Decimal("nan"), b" "])
def test_a_missing_id_is_told_from_a_wrong_one(value: object) -> None:
    with pytest.raises(CellRejected, match="ID_MISSING"):
        read_id(value, "order id")


@given(st.text(max_size=30) | st.integers() | st.floats() | st.decimals() | st.none())
def test_any_cell_is_read_or_rejected(value: object) -> None:
    quantity, price, order_id = 1, Decimal(0), "a"
    with suppress(CellRejected):
        quantity = read_quantity(value)
    with suppress(CellRejected):
        price = read_price(value)
    with suppress(CellRejected):
        order_id = read_id(value, "order id")
    assert 1 <= quantity <= QUANTITY_MAX
    assert 0 <= price <= AMOUNT_MINOR_MAX
    assert re.fullmatch(ID_PATTERN, order_id)


@pytest.mark.parametrize("text", ["1_000", "1,000", "\u0661", "0x10", "1e", ".", "+-1", "9" * 41])
def test_numbers_that_only_python_or_people_understand_are_rejected(text: str) -> None:
    with pytest.raises(CellRejected):
        read_price(text)


@pytest.mark.parametrize(("currency", "decimals"), [("USD", 2), ("JPY", 0), ("KWD", 3), ("CLF", 4)])
def test_minor_units_are_those_of_iso_4217(currency: str, decimals: int) -> None:
    assert decimals_of(currency) == decimals


@given(st.floats(0, 10**12))
def test_a_double_is_the_shortest_decimal_that_stands_for_it(price: float) -> None:
    assert read_price(price) == Decimal(repr(price))
