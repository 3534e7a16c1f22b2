"""What counts as a card number, and that data is searched everywhere."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysaga.statemachines.card_numbers import (
    contains_card_number,
    has_card_number,
    passes_luhn,
)

# Numbers that the card schemes publish for tests; no account is behind them.
TEST_CARDS = (
    "4111111111111111",
    "4222222222222",
    "5555555555554444",
    "378282246310005",
    "6011111111111117",
    "6304000000000000",
    # An airline's.
    "135410014004955",
)

FIRST = "23456789"
"""What a bank's card may begin with."""


def with_check_digit(payload: str) -> str:
    return next(payload + last for last in "0123456789" if passes_luhn(payload + last))


def spelled(number: str, divider: str) -> str:
    return divider.join(number[i : i + 4] for i in range(0, len(number), 4))


@pytest.mark.parametrize("number", TEST_CARDS)
@pytest.mark.parametrize("divider", ["", " ", "-", "\u00a0", "\u2013"])
def test_a_card_number_is_found_however_it_is_divided(number: str, divider: str) -> None:
    assert has_card_number(f"card: {spelled(number, divider)}, thanks")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tok_abc",
        "4111111111111112",
        "411111111111",
        "o-1",
        "2026-11-23",
        "4111 1111  1111 1111",
        "4111.1111.1111.1111",
        # Twenty digits are no card number, whatever a part of them says.
        "41111111111111110000",
        "00004111111111111111",
        "4111111a11111111",
        # Instants in milliseconds, microseconds and nanoseconds, as parts of ids.
        "order-1795476454594",
        "dedicated-1-1795476454594",
        "1795476454594002",
        "1795476454594000000",
        # No card begins with a zero.
        "00000000000018",
    ],
)
def test_what_is_no_card_number_passes(text: str) -> None:
    assert not has_card_number(text)


def test_groups_before_and_after_the_number_do_not_hide_it() -> None:
    assert has_card_number("12 4111 1111 1111 1111 99")
    assert has_card_number("order 7-4111-1111-1111-1111-3")


def test_digits_of_other_scripts_count_as_digits() -> None:
    fullwidth = "".join(chr(ord("\uff10") + int(digit)) for digit in TEST_CARDS[0])
    assert has_card_number(fullwidth)


@given(
    st.sampled_from(FIRST),
    st.text("0123456789", min_size=11, max_size=17),
    st.sampled_from(["", " ", "-"]),
)
def test_every_number_with_a_right_check_digit_is_found(
    first: str, payload: str, divider: str
) -> None:
    assert has_card_number(f"x{spelled(with_check_digit(first + payload), divider)}y")


@given(st.sampled_from(FIRST), st.text("0123456789", min_size=12, max_size=18))
def test_a_lone_number_is_found_exactly_when_it_passes_luhn(first: str, digits: str) -> None:
    assert has_card_number(first + digits) == passes_luhn(first + digits)


@given(st.integers(10**12, 2 * 10**12 - 1), st.sampled_from(["", "000", "000000"]))
def test_no_instant_is_taken_for_a_card_number(at_ms: int, finer: str) -> None:
    assert not has_card_number(f"order-{at_ms}{finer}")
    assert not contains_card_number(int(f"{at_ms}{finer}"))


@given(st.text("0123456789", min_size=13, max_size=19), st.integers(0, 18), st.integers(1, 9))
def test_luhn_catches_every_wrong_digit(digits: str, place: int, change: int) -> None:
    number = with_check_digit(digits)
    place %= len(number)
    wrong = str((int(number[place]) + change) % 10)
    assert not passes_luhn(number[:place] + wrong + number[place + 1 :])


@pytest.mark.parametrize(
    "value",
    [
        {"payment": {"note": TEST_CARDS[0]}},
        {"payment": {TEST_CARDS[0]: "note"}},
        [{"a": [1, (2, [TEST_CARDS[0]])]}],
        {TEST_CARDS[0]},
        4111111111111111,
        -4111111111111111,
        4111111111111111.0,
        b"4111111111111111",
        bytearray(b"4111 1111 1111 1111"),
    ],
)
def test_data_is_searched_everywhere(value: object) -> None:
    assert contains_card_number(value)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        10**12,
        10**400,
        float("nan"),
        float("inf"),
        -float("inf"),
        4111111111111111.5,
        {"token": "tok_abc", "amount_minor": 378, "currency": "USD"},
        b"tok_abc",
        [],
        {},
    ],
)
def test_plain_data_without_a_card_number_passes(value: object) -> None:
    assert not contains_card_number(value)


def test_depth_is_no_hiding_place() -> None:
    nested: Any = TEST_CARDS[0]
    for _ in range(50_000):
        nested = [nested]
    assert contains_card_number(nested)
    # Taken apart from outside in, since freeing a deep list in one go recurses in C.
    while isinstance(nested, list):
        nested = nested.pop()
