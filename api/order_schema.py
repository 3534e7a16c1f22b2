"""Says what an order is, and refuses everything else with one sentence.

Guarantees: whatever bytes come in, `parse_order_line` and `parse_order` return a valid
`Order` or raise `OrderInvalid`, and an error never repeats a value that it was given.
Refuses: fields nobody knows, numbers in strings, and card numbers in any string.
Costs: one pass over the bytes for the depth, one for JSON, one for the rules.

An order as JSON, all money in the currency's minor unit (cents):

    {"order_id": "o-1", "customer_id": "c-7",
     "items": [{"item_id": "milk", "quantity": 2}],
     "payment": {"token": "tok_abc", "amount_minor": 378, "currency": "USD"}}

What counts as a card number is defined in `raysaga.statemachines.card_numbers`; it is
searched for in every string, before any other rule is looked at. One in ten of the ids of
13 to 19 digits passes its check by accident and is refused, barcodes (GTIN-13) among
them; a letter between the digits of an id keeps it clear of this.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Final, NoReturn, cast

import pydantic
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import ErrorDetails, PydanticCustomError

from raysaga.statemachines.card_numbers import has_card_number
from raysaga.statemachines.errors import ValidationError

# An order of 500 items with the longest ids needs 70 KiB; the rest is room for spaces.
ORDER_BYTES_MAX: Final = 256 * 1024
# An order is three levels deep. The bound keeps the parser's recursion far from its end.
ORDER_DEPTH_MAX: Final = 16
ORDER_ITEMS_MAX: Final = 500
QUANTITY_MAX: Final = 10_000
AMOUNT_MINOR_MAX: Final = 10**12
ID_CHARACTERS_MAX: Final = 100

# How much text of a refused order is searched for a card number, to name that fault before
# the others. It bounds what a refusal costs; no text beyond it could be accepted.
CARD_SEARCH_CHARACTERS_MAX: Final = 16 * 1024

ID_PATTERN: Final = rf"^[A-Za-z0-9._:-]{{1,{ID_CHARACTERS_MAX}}}$"
CURRENCY_PATTERN: Final = r"^[A-Z]{3}$"

_CARD_SENTENCE: Final = "contains a card number; send a payment token instead"


class OrderInvalid(ValidationError):  # noqa: N818 - it reads as the sentence it is
    """An order breaks a rule of the schema; the same order fails for ever.

    Raised by `parse_order` and `parse_order_line`, before anything is written. Neither
    the message nor the field path holds a value of the order.
    """


def _refuse_card(value: object) -> object:
    # A longer text fails the pattern, and is not worth a search here.
    if isinstance(value, str) and has_card_number(value[: ID_CHARACTERS_MAX + 1]):
        raise PydanticCustomError("card_number", _CARD_SENTENCE)
    return value


def _refuse_repeated_items(items: tuple[OrderItem, ...]) -> tuple[OrderItem, ...]:
    first_index: dict[str, int] = {}
    for index, item in enumerate(items):
        first = first_index.setdefault(item.item_id, index)
        if first != index:
            facts = {"first": first, "index": index}
            raise PydanticCustomError("item_repeated", "item {index} repeats item {first}", facts)
    return items


_Id = Annotated[str, Field(strict=True, pattern=ID_PATTERN), BeforeValidator(_refuse_card)]
_Currency = Annotated[
    str, Field(strict=True, pattern=CURRENCY_PATTERN), BeforeValidator(_refuse_card)
]


class _OrderModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class OrderItem(_OrderModel):
    """One line of an order.

    Attributes:
        item_id: What is ordered; 1 to 100 characters of `A-Z a-z 0-9 . _ : -`.
        quantity: How many of it, 1 to 10,000.
    """

    item_id: _Id
    quantity: Annotated[int, Field(strict=True, ge=1, le=QUANTITY_MAX)]


class Payment(_OrderModel):
    """What is to be paid, and with what.

    Attributes:
        token: Stands for the means of payment; never a card number.
        amount_minor: Total in the currency's minor unit (cents), 0 to 10**12.
        currency: Three capital letters, as in ISO 4217.
    """

    token: _Id
    amount_minor: Annotated[int, Field(strict=True, ge=0, le=AMOUNT_MINOR_MAX)]
    currency: _Currency


class Order(_OrderModel):
    """A customer's order: what is wanted, and how it is paid for.

    Building one directly raises pydantic's own error; `parse_order` raises `OrderInvalid`.

    Attributes:
        order_id: The client's name for the order, and its idempotency key.
        customer_id: Who ordered.
        items: 1 to 500 items; no two have the same `item_id`.
        payment: What is to be paid.
    """

    order_id: _Id
    customer_id: _Id
    items: Annotated[
        tuple[OrderItem, ...],
        Field(min_length=1, max_length=ORDER_ITEMS_MAX),
        AfterValidator(_refuse_repeated_items),
    ]
    payment: Payment

    def to_request(self) -> dict[str, Any]:
        """Return the order as plain dicts, lists, strings and integers, for msgpack."""
        payment = self.payment
        return {
            "order_id": self.order_id,
            "customer_id": self.customer_id,
            "items": [{"item_id": i.item_id, "quantity": i.quantity} for i in self.items],
            "payment": {
                "token": payment.token,
                "amount_minor": payment.amount_minor,
                "currency": payment.currency,
            },
        }


def parse_order(value: object) -> Order:
    """Return the order that a decoded JSON value describes.

    Raises:
        OrderInvalid: The value breaks a rule; the first one found is named, a card
            number before all others.
    """
    try:
        return Order.model_validate(value)
    except pydantic.ValidationError as error:
        faults = error.errors(include_input=False, include_url=False)
    # Raised outside the except block: the error that pydantic raised holds the input.
    card_path = _card_path(value)
    if card_path is not None:
        raise _at(card_path, _CARD_SENTENCE)
    raise _invalid(faults[0])


def parse_order_line(line: bytes | str) -> Order:
    """Return the order that one line of JSON describes.

    Args:
        line: The line, at most `ORDER_BYTES_MAX` bytes of UTF-8, white space around it
            allowed.

    Raises:
        OrderInvalid: The line is too long, not UTF-8, nested too deeply, not JSON, has a
            key twice or a number that JSON does not know, or is no valid order.
    """
    return parse_order(_json_object(_utf8(line)))


def _utf8(line: bytes | str) -> bytes:
    if len(line) <= ORDER_BYTES_MAX:
        raw = _encoded(line) if isinstance(line, str) else bytes(line)
        if len(raw) <= ORDER_BYTES_MAX:
            return raw
    raise OrderInvalid(f"an order must be at most {ORDER_BYTES_MAX} bytes long")


def _encoded(line: str) -> bytes:
    try:
        return line.encode()
    except UnicodeEncodeError:
        pass
    raise OrderInvalid("an order must be valid UTF-8")


def _json_object(raw: bytes) -> dict[str, object]:
    if raw.startswith(b"\xef\xbb\xbf"):
        raise OrderInvalid("an order must not begin with a byte order mark")
    if _is_deeper_than(raw, ORDER_DEPTH_MAX):
        raise OrderInvalid(f"an order must be nested at most {ORDER_DEPTH_MAX} levels deep")
    # Each error is raised after its except block: a decoding error holds the whole line.
    try:
        value = json.loads(
            raw.decode(), object_pairs_hook=_without_repeated_keys, parse_constant=_no_constant
        )
    except OrderInvalid:
        raise
    except UnicodeDecodeError as error:
        sentence = f"an order must be valid UTF-8; byte {error.start + 1} is not"
    except json.JSONDecodeError as error:
        sentence = f"an order must be valid JSON; the mistake is near character {error.pos + 1}"
    except ValueError:
        # Python refuses to convert integers of more than 4,300 digits.
        sentence = "a number has too many digits"
    else:
        if isinstance(value, dict):
            return cast(dict[str, object], value)
        sentence = "an order must be a JSON object"
    raise OrderInvalid(sentence)


def _is_deeper_than(raw: bytes, depth_max: int) -> bool:
    """Count brackets outside strings, before a recursive parser meets them."""
    unescaped = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    structure = unescaped.translate(None, delete=_NOT_STRUCTURE)
    depth = 0
    for outside in structure.split(b'"')[::2]:
        for byte in outside:
            depth += 1 if byte in b"[{" else -1
            if depth > depth_max:
                return True
    return False


def _without_repeated_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) == len(pairs):
        return fields
    keys = [key for key, _ in pairs]
    repeated = next(key for key in keys if keys.count(key) > 1)
    raise OrderInvalid("is there twice in one object", _printable(repeated))


def _no_constant(_name: str) -> NoReturn:
    raise OrderInvalid("a number must be finite; NaN and Infinity are not JSON")


def _card_path(value: object) -> str | None:
    """Return the path of the first text with a card number, "" for the value itself."""
    pending: list[tuple[str, int, object]] = [("", 0, value)]
    characters_left = CARD_SEARCH_CHARACTERS_MAX
    while pending and characters_left > 0:
        path, depth, found = pending.pop()
        texts: list[object] = [found]
        children: list[tuple[str, int, object]] = []
        if isinstance(found, dict):
            texts = list(found)
            children = [(_joined(path, key), depth + 1, found[key]) for key in found]
        elif isinstance(found, list | tuple):
            children = [(f"{path}[{i}]", depth + 1, item) for i, item in enumerate(found)]
        for text in texts:
            if isinstance(text, str):
                if has_card_number(text[:characters_left]):
                    return path
                characters_left -= len(text)
        if depth < ORDER_DEPTH_MAX:
            pending.extend(reversed(children))
    return None


def _invalid(fault: ErrorDetails) -> OrderInvalid:
    path = ""
    for part in fault["loc"]:
        path = f"{path}[{part}]" if isinstance(part, int) else _joined(path, part)
    kind = fault["type"]
    if kind == "item_repeated":
        facts = fault["ctx"]
        sentence = f"is the same as items[{facts['first']}].item_id; make them one item"
        return _at(f"{path}[{facts['index']}].item_id", sentence)
    name = str(fault["loc"][-1]) if fault["loc"] else ""
    sentence = _SENTENCE_BY_KIND.get(kind) or _SENTENCE_BY_FIELD.get(name, "is not valid")
    return _at(path, sentence)


def _at(path: str, sentence: str) -> OrderInvalid:
    return OrderInvalid(sentence, path) if path else OrderInvalid(f"an order {sentence}")


def _joined(path: str, key: object) -> str:
    # A key nobody knows may hold anything, so only one that looks like a name is shown.
    name = _printable(key) or "(another field)"
    return f"{path}.{name}" if path else name


def _printable(key: object) -> str | None:
    return key if isinstance(key, str) and _FIELD_NAME.fullmatch(key) else None


_FIELD_NAME: Final = re.compile("[A-Za-z_]{1,40}")
_NOT_STRUCTURE: Final = bytes(sorted(set(range(256)) - set(b'[]{}"')))

_SENTENCE_BY_KIND: Final = {
    "card_number": _CARD_SENTENCE,
    "extra_forbidden": "is not a field of an order",
    "int_type": "must be a whole number, not in quotes",
    "missing": "is missing",
    "model_attributes_type": "must be an object",
    "model_type": "must be an object",
    "string_type": "must be a string",
    "string_unicode": "must be valid UTF-8",
    "tuple_type": "must be a list",
}

_ID_SENTENCE: Final = f"must be 1 to {ID_CHARACTERS_MAX} characters of A-Z a-z 0-9 . _ : -"
_SENTENCE_BY_FIELD: Final = {
    "order_id": _ID_SENTENCE,
    "customer_id": _ID_SENTENCE,
    "item_id": _ID_SENTENCE,
    "token": _ID_SENTENCE,
    "items": f"must hold between 1 and {ORDER_ITEMS_MAX} items",
    "quantity": f"must be between 1 and {QUANTITY_MAX}",
    "amount_minor": f"must be between 0 and {AMOUNT_MINOR_MAX}",
    "currency": "must be three capital letters, such as USD",
}
