"""Reads ids, quantities and prices from the cells of a file, strictly.

Guarantees: money never passes through a binary fraction; a Parquet double is read as the
shortest decimal that stands for it, which is what its writer meant (Python's `repr`).
Refuses: what is not plainly the thing it should be (`CellRejected`). White space around a
value is ignored; thousands separators, currency signs and digits of other scripts are not
understood, and refused.
"""

from __future__ import annotations

import decimal
import re
from decimal import Decimal
from typing import Final

from raysaga.api.order_schema import AMOUNT_MINOR_MAX, ID_PATTERN, QUANTITY_MAX
from raysaga.statemachines.card_numbers import has_card_number

# ISO 4217, "Minor unit": the currencies that do not have two decimal places.
_WITHOUT_DECIMALS: Final = re.compile(
    "BIF|CLP|DJF|GNF|ISK|JPY|KMF|KRW|PYG|RWF|UGX|UYI|VND|VUV|XAF|XOF|XPF"
)
_WITH_THREE_DECIMALS: Final = re.compile("BHD|IQD|JOD|KWD|LYD|OMR|TND")
_WITH_FOUR_DECIMALS: Final = re.compile("CLF|UYW")

# Exact for sums of such prices down to the 60th decimal place, which no currency has.
MONEY: Final = decimal.Context(prec=80, rounding=decimal.ROUND_HALF_EVEN)

_ID: Final = re.compile(ID_PATTERN)
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_NUMBER_CHARACTERS_MAX: Final = 40
# Longer text is no id anyway, and is not worth a search.
_ID_SEARCH_CHARACTERS_MAX: Final = 1000
# Above it a double skips whole numbers, so that two ids would become one.
_DOUBLE_WHOLE_MAX: Final = 2**53


class CellRejected(Exception):  # noqa: N818 - it reads as the sentence it is
    """A cell cannot be part of an order; caught by the import, never by its users.

    Attributes:
        code: Stable name of the kind of fault.
        reason: What is wrong, in one sentence, without the value.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


def decimals_of(currency: str) -> int:
    """Return how many decimal places the currency's minor unit has: cents have 2."""
    if _WITHOUT_DECIMALS.fullmatch(currency):
        return 0
    if _WITH_THREE_DECIMALS.fullmatch(currency):
        return 3
    return 4 if _WITH_FOUR_DECIMALS.fullmatch(currency) else 2


def read_id(value: object, name: str) -> str:
    """Return an id as text; whole numbers are written out.

    Raises:
        CellRejected: `ID_MISSING`, `ID_INVALID` or `CARD_NUMBER`.
    """
    text = _id_text(value)
    if text == "":
        raise CellRejected("ID_MISSING", f"{name} is missing")
    if text is not None and has_card_number(text[:_ID_SEARCH_CHARACTERS_MAX]):
        raise CellRejected("CARD_NUMBER", f"{name} contains a card number")
    if text is None or not _ID.fullmatch(text):
        reason = f"{name} must be 1 to 100 characters of A-Z a-z 0-9 . _ : -"
        raise CellRejected("ID_INVALID", reason)
    return text


def read_quantity(value: object) -> int:
    """Return a quantity; whole numbers written as fractions, such as 2.0, are whole.

    Raises:
        CellRejected: `QUANTITY_INVALID`: no number, not whole, or not 1 to 10,000.
    """
    number = _number(value)
    if number is None:
        raise CellRejected("QUANTITY_INVALID", "quantity is not a number")
    if not 1 <= number <= QUANTITY_MAX:
        reason = f"quantity must be between 1 and {QUANTITY_MAX}"
        raise CellRejected("QUANTITY_INVALID", reason)
    if number != int(number):
        raise CellRejected("QUANTITY_INVALID", "quantity must be a whole number")
    return int(number)


def read_price(value: object) -> Decimal:
    """Return a price, exactly as it is written.

    Raises:
        CellRejected: `PRICE_INVALID`: no number, negative, or above 10**12.
    """
    number = _number(value)
    if number is None:
        raise CellRejected("PRICE_INVALID", "price is not a number")
    if not 0 <= number <= AMOUNT_MINOR_MAX:
        raise CellRejected("PRICE_INVALID", f"price must be between 0 and {AMOUNT_MINOR_MAX}")
    return Decimal(number)


def _id_text(value: object) -> str | None:
    """Return the text of an id, "" for a missing one, None for what cannot be an id."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return str(value)
    if value is None:
        return ""
    if isinstance(value, float | Decimal):
        if Decimal(value).is_nan():
            # Where pandas has only floats, what is missing becomes "not a number".
            return ""
        # A column of whole numbers with gaps becomes one of floats in pandas.
        whole = -_DOUBLE_WHOLE_MAX < value < _DOUBLE_WHOLE_MAX and value == int(value)
        return str(int(value)) if whole else None
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace").strip()
    return None


def _number(value: object) -> int | Decimal | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    text = value.strip() if isinstance(value, str) else repr(value)
    if isinstance(value, Decimal):
        text = str(value)
    if len(text) > _NUMBER_CHARACTERS_MAX or not _NUMBER.fullmatch(text):
        return None
    return Decimal(text)
