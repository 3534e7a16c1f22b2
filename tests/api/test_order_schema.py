"""Proves that an order is exactly what the schema says, and that errors keep secrets."""

from __future__ import annotations

import json
import pickle
import time
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysaga.api.order_schema import (
    AMOUNT_MINOR_MAX,
    ORDER_BYTES_MAX,
    ORDER_DEPTH_MAX,
    ORDER_ITEMS_MAX,
    QUANTITY_MAX,
    Order,
    OrderInvalid,
    parse_order,
    parse_order_line,
)
from raysaga.statemachines.errors import ValidationError

# Test numbers that card schemes publish; 13, 14, 15, 16 and 19 digits.
CARDS = [
    "4222222222222",
    "30569309025904",
    "378282246310005",
    "4111111111111111",
    "5555-5555-5555-4444",
    "6011 1111 1111 1117",
    "3782-822463-10005",
    "4111 1111-1111 1111",
    "4000000000000000006",
]


def an_order(**changes: Any) -> dict[str, Any]:
    order: dict[str, Any] = {
        "order_id": "o-1",
        "customer_id": "c:7",
        "items": [{"item_id": "milk", "quantity": 2}, {"item_id": "bread_1.5", "quantity": 1}],
        "payment": {"token": "tok_abc", "amount_minor": 378, "currency": "USD"},
    }
    return order | changes


def paid_with(**changes: Any) -> dict[str, Any]:
    return an_order(payment=an_order()["payment"] | changes)


def with_item(**changes: Any) -> dict[str, Any]:
    return an_order(items=[{"item_id": "milk", "quantity": 2} | changes])


def without(field: str) -> dict[str, Any]:
    return {name: value for name, value in an_order().items() if name != field}


def refusal(value: object) -> str:
    with pytest.raises(OrderInvalid) as caught:
        parse_order(value)
    assert caught.value.__context__ is None
    return str(caught.value)


def line_refusal(line: bytes | str) -> str:
    with pytest.raises(OrderInvalid) as caught:
        parse_order_line(line)
    assert caught.value.__context__ is None
    return str(caught.value)


def test_a_valid_order_comes_back_as_it_went_in() -> None:
    value = an_order()
    for line in (json.dumps(value), json.dumps(value).encode(), json.dumps(value, indent=2)):
        order = parse_order_line(line)
        assert order.to_request() == value
        assert msgpack.unpackb(msgpack.packb(order.to_request())) == value


def test_an_order_cannot_be_changed() -> None:
    order = parse_order(an_order())
    with pytest.raises(ValueError, match="frozen"):
        order.order_id = "o-2"


def test_the_bounds_themselves_are_allowed() -> None:
    items = [{"item_id": f"i{n}", "quantity": QUANTITY_MAX} for n in range(ORDER_ITEMS_MAX)]
    payment = {"token": "t" * 100, "amount_minor": AMOUNT_MINOR_MAX, "currency": "JPY"}
    assert len(parse_order(an_order(items=items, payment=payment)).items) == ORDER_ITEMS_MAX
    assert parse_order(paid_with(amount_minor=0)).payment.amount_minor == 0


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (7, "an order must be an object"),
        (None, "an order must be an object"),
        ([], "an order must be an object"),
        (without("order_id"), "order_id: is missing"),
        (without("payment"), "payment: is missing"),
        (an_order(note="x"), "note: is not a field of an order"),
        (paid_with(cvv="123"), "payment.cvv: is not a field of an order"),
        (with_item(price=1), "items[0].price: is not a field of an order"),
        (an_order(order_id=""), "order_id: must be 1 to 100 characters of A-Z a-z 0-9 . _ : -"),
        (an_order(order_id="a" * 101), "order_id: must be 1 to 100 characters"),
        (an_order(order_id="a\n"), "order_id: must be 1 to 100 characters"),
        (an_order(order_id="a b"), "order_id: must be 1 to 100 characters"),
        (an_order(order_id="\u0663"), "order_id: must be 1 to 100 characters"),
        (an_order(order_id="\x00"), "order_id: must be 1 to 100 characters"),
        (an_order(order_id=5), "order_id: must be a string"),
        (an_order(order_id="\ud800"), "order_id: must be valid UTF-8"),
        (an_order(items=[]), "items: must hold between 1 and 500 items"),
        (an_order(items={}), "items: must be a list"),
        (an_order(items="milk"), "items: must be a list"),
        (an_order(items=[1]), "items[0]: must be an object"),
        (with_item(quantity=0), "items[0].quantity: must be between 1 and 10000"),
        (with_item(quantity=10_001), "items[0].quantity: must be between 1 and 10000"),
        (with_item(quantity=10**400), "items[0].quantity: must be between 1 and 10000"),
        (with_item(quantity=-1), "items[0].quantity: must be between 1 and 10000"),
        (with_item(quantity=True), "items[0].quantity: must be a whole number"),
        (with_item(quantity=1.0), "items[0].quantity: must be a whole number"),
        (with_item(quantity="1"), "items[0].quantity: must be a whole number"),
        (with_item(quantity=None), "items[0].quantity: must be a whole number"),
        (paid_with(amount_minor=-1), f"payment.amount_minor: must be between 0 and {10**12}"),
        (paid_with(amount_minor=10**12 + 1), "payment.amount_minor: must be between 0"),
        (paid_with(amount_minor=3.78), "payment.amount_minor: must be a whole number"),
        (paid_with(currency="usd"), "payment.currency: must be three capital letters"),
        (paid_with(currency="USD\n"), "payment.currency: must be three capital letters"),
        (paid_with(token=""), "payment.token: must be 1 to 100 characters"),
        (an_order(payment=None), "payment: must be an object"),
    ],
)
def test_an_invalid_order_is_refused_with_its_path(value: object, sentence: str) -> None:
    assert refusal(value).startswith(sentence)


def test_an_item_named_twice_is_refused_with_both_places() -> None:
    items = [{"item_id": name, "quantity": 1} for name in ("a", "b", "a")]
    sentence = "items[2].item_id: is the same as items[0].item_id; make them one item"
    assert refusal(an_order(items=items)) == sentence


def test_too_many_items_are_refused_before_they_are_compared() -> None:
    items = [{"item_id": "a", "quantity": 1}] * (ORDER_ITEMS_MAX + 1)
    assert refusal(an_order(items=items)) == "items: must hold between 1 and 500 items"


@pytest.mark.parametrize("card", CARDS)
def test_a_card_number_is_refused_wherever_it_stands(card: str) -> None:
    digits = card.replace(" ", "").replace("-", "")
    values: list[tuple[str, object]] = [
        ("order_id: ", an_order(order_id=card)),
        ("customer_id: ", an_order(customer_id=f"c:{card}")),
        ("items[0].item_id: ", with_item(item_id=card)),
        ("items[0].quantity: ", with_item(quantity=card)),
        ("payment.token: ", paid_with(token=f"tok_{card}")),
        ("payment.token: ", paid_with(token=f"12-{card}-9")),
        ("payment.currency: ", paid_with(currency=card)),
        ("note: ", an_order(note=f"pay with {card}, please")),
        ("note.deep[1]: ", an_order(note={"deep": [1, card]})),
        ("payment: ", paid_with(**{card: 1})),
        ("an order ", {card: 1}),
        ("an order ", card),
    ]
    for path, value in values:
        for sentence in (refusal(value), line_refusal(json.dumps(value))):
            assert card not in sentence
            assert digits not in sentence
            if isinstance(value, dict) or sentence != "an order must be a JSON object":
                assert sentence.startswith(path)
                assert "contains a card number" in sentence


def test_an_escaped_card_number_is_still_a_card_number() -> None:
    line = json.dumps(paid_with(token="tok_CARD")).replace("CARD", "\\u0034" + "1" * 15)
    assert "payment.token: contains a card number" in line_refusal(line)


@pytest.mark.parametrize("order_id", ["4111111111111112", "4111111111111111" * 2, "31198570044"])
def test_an_id_that_only_looks_like_a_card_number_is_allowed(order_id: str) -> None:
    assert parse_order(an_order(order_id=order_id)).order_id == order_id


@pytest.mark.parametrize("text", ["0-1" * 80_000, "1 " * 120_000, "7" * 250_000])
def test_a_refusal_costs_little_whatever_digits_it_holds(text: str) -> None:
    began_s = time.process_time()
    assert line_refusal(json.dumps({"note": text}))
    assert time.process_time() - began_s < 2


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (b"", "an order must be valid JSON"),
        (b"{", "an order must be valid JSON"),
        (b"{} {}", "an order must be valid JSON; the mistake is near character 4"),
        (b"\xff", "an order must be valid UTF-8; byte 1 is not"),
        (b'{"a": "\xed\xa0\x80"}', "an order must be valid UTF-8"),
        ("\ud800", "an order must be valid UTF-8"),
        (b"[]", "an order must be a JSON object"),
        (b"null", "an order must be a JSON object"),
        (b'{"a": NaN}', "a number must be finite"),
        (b'{"a": -Infinity}', "a number must be finite"),
        (b'{"a": 1, "a": 1}', "a: is there twice in one object"),
        (b'{"payment": {"a": 1, "a": 2}}', "a: is there twice in one object"),
        (b'{"4111111111111111": 1, "4111111111111111": 1}', "is there twice in one object"),
        (b'{"a": ' + b"9" * 5000 + b"}", "a number has too many digits"),
        (b"\xef\xbb\xbf{}", "an order must not begin with a byte order mark"),
        (b" " * (ORDER_BYTES_MAX + 1), "an order must be at most 262144 bytes long"),
        ("\u00e9" * (ORDER_BYTES_MAX // 2 + 1), "an order must be at most 262144 bytes long"),
    ],
)
def test_a_broken_line_is_refused_with_one_sentence(line: bytes | str, sentence: str) -> None:
    assert line_refusal(line).startswith(sentence)


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"a":'])
def test_deep_nesting_is_refused_before_it_is_parsed(opening: str) -> None:
    sentence = "an order must be nested at most 16 levels deep"
    assert line_refusal(opening * 20_000) == sentence
    assert line_refusal("[" * (ORDER_DEPTH_MAX + 1) + "]" * (ORDER_DEPTH_MAX + 1)) == sentence
    assert line_refusal("[" * ORDER_DEPTH_MAX + "]" * ORDER_DEPTH_MAX) != sentence


def test_brackets_and_quotes_in_strings_are_not_nesting() -> None:
    for text in ("[" * 50, '\\"' + "{" * 50, "\\\\" + "[" * 50, '"' + "[" * 50 + '\\"'):
        line = json.dumps(an_order(note=text))
        assert line_refusal(line) == "note: is not a field of an order"


def test_an_error_survives_pickling() -> None:
    error = OrderInvalid("is missing", "order_id")
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, ValidationError)
    assert (str(copy), copy.code, copy.retryable) == ("order_id: is missing", "VALIDATION", False)


def test_an_order_built_directly_refuses_too_and_hides_what_it_was_given() -> None:
    with pytest.raises(ValueError, match="card number") as caught:
        Order(**paid_with(token="tok_4111111111111111"))
    assert "4111" not in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(CARDS),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=5) | st.sampled_from([*an_order()]), inner, max_size=5)
    ),
    max_leaves=12,
)
orders = st.fixed_dictionaries(
    {
        "order_id": st.from_regex(r"[A-Za-z._:-]{1,100}", fullmatch=True),
        "customer_id": st.from_regex(r"[A-Za-z0-9._:-]{1,12}", fullmatch=True),
        "items": st.lists(
            st.fixed_dictionaries(
                {
                    "item_id": st.from_regex(r"[A-Za-z0-9._:-]{1,12}", fullmatch=True),
                    "quantity": st.integers(1, QUANTITY_MAX),
                }
            ),
            min_size=1,
            max_size=8,
            unique_by=lambda item: item["item_id"],
        ),
        "payment": st.fixed_dictionaries(
            {
                "token": st.from_regex(r"tok_[a-z]{1,20}", fullmatch=True),
                "amount_minor": st.integers(0, AMOUNT_MINOR_MAX),
                "currency": st.from_regex(r"[A-Z]{3}", fullmatch=True),
            }
        ),
    }
)


@given(orders)
def test_every_order_within_the_rules_is_read_back_the_same(value: dict[str, Any]) -> None:
    assert parse_order_line(json.dumps(value)).to_request() == value


@given(json_values)
def test_any_json_value_is_an_order_or_refused(value: object) -> None:
    """Nothing but `OrderInvalid` ever leaves the parser, whether NaN or lone surrogates."""
    for parse in (lambda: parse_order(value), lambda: parse_order_line(json.dumps(value))):
        try:
            parse()
        except OrderInvalid as error:
            shown = str(error)
        else:
            shown = ""
        assert not any(card in shown for card in CARDS)


@given(orders, st.data())
def test_an_order_with_one_value_swapped_is_an_order_or_refused(
    value: dict[str, Any], data: st.DataObject
) -> None:
    part: Any = data.draw(st.sampled_from([value, value["payment"], value["items"][0]]))
    part[data.draw(st.sampled_from(sorted(part)))] = data.draw(json_values)
    shown = ""
    try:
        assert parse_order(value).to_request() == value
    except OrderInvalid as error:
        shown = str(error)
    assert not any(card in shown for card in CARDS)


@settings(max_examples=300)
@given(st.binary(max_size=200) | st.text(max_size=200) | st.text('[]{}":,\\1a', max_size=80))
def test_any_bytes_are_an_order_or_refused(line: bytes | str) -> None:
    with pytest.raises(OrderInvalid):
        parse_order_line(line)
