"""Finds card numbers in plain data, so that nothing stores or logs one.

Guarantees: what `has_card_number` says of a text depends on the text alone, so that every
door of the system draws the line in the same place.
Refuses: nothing; it answers a question, and never repeats what it was asked about.
Costs: one search for a digit in a text without any; linear in the length of other texts.

What counts as a card number. Take a run of decimal digits of any script in which groups are
divided by at most one space or one dash. If some of its groups, whole and next to each other,
have 13 to 19 digits together, begin as cards do and pass the Luhn check (ISO/IEC 7812-1,
annex B), the text holds a card number. Groups count as a whole: a number of 20 digits or more
is no card number, though a part of it may pass. A whole number outside a text counts as its
digits. No bank's card begins with 0 or 1 (the same standard's industry identifiers); an
airline's does with 1, and has 15 digits (UATP).

So times in milliseconds, microseconds and nanoseconds, which begin with 1, are no card numbers
until May 2033. One in ten of the other numbers of 13 to 19 digits passes by accident, barcodes
(GTIN-13) among them; a letter between the digits of an id keeps it clear of this.
Digits that are spread over several texts, or divided by anything else, are not found.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from typing import Final

CARD_DIGITS_MIN: Final = 13
CARD_DIGITS_MAX: Final = 19
AIRLINE_DIGITS: Final = 15
"""Of the only cards that begin with 1."""

# Spaces and dashes as people and word processors write them, each at most once.
_DIVIDER: Final = r"[ \t\u00a0\u2007\u2009\u202f\-\u2010-\u2015\u2212]"
_RUN: Final = re.compile(rf"\d(?:{_DIVIDER}?\d)+")
_GROUP: Final = re.compile(r"\d+")
# Value of a digit at an even place, counted from the right: doubled, and its digits added.
_DOUBLED: Final = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)


def passes_luhn(digits: str) -> bool:
    """Return whether a text of decimal digits alone passes the Luhn check."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        # `int` reads the decimal digits of every script, as the pattern does.
        value = int(digit)
        total += _DOUBLED[value] if place % 2 else value
    return total % 10 == 0


def has_card_number(text: str) -> bool:
    """Return whether the text holds a card number, as the head of this module defines it."""
    if len(text) < CARD_DIGITS_MIN:
        return False
    return any(_run_has_card(_GROUP.findall(run.group())) for run in _RUN.finditer(text))


def contains_card_number(value: object) -> bool:
    """Return whether plain data holds a card number anywhere, names of fields included.

    Walks mappings, sequences and sets to any depth, without recursion; bytes are read as
    Latin-1, which keeps every ASCII digit.
    """
    pending: list[object] = [value]
    while pending:
        current = pending.pop()
        if isinstance(current, str):
            if has_card_number(current):
                return True
        elif isinstance(current, bytes | bytearray | memoryview):
            if has_card_number(bytes(current).decode("latin-1")):
                return True
        elif isinstance(current, int | float):
            if _number_is_card(current):
                return True
        elif isinstance(current, Mapping):
            pending.extend(current.keys())
            pending.extend(current.values())
        elif isinstance(current, Sequence | Set):
            pending.extend(current)
    return False


def _run_has_card(groups: Sequence[str]) -> bool:
    for first in range(len(groups)):
        digits = ""
        for group in groups[first:]:
            digits += group
            if len(digits) > CARD_DIGITS_MAX:
                break
            if len(digits) >= CARD_DIGITS_MIN and _is_card(digits):
                return True
    return False


def _is_card(digits: str) -> bool:
    """Return whether 13 to 19 digits are a card number."""
    first = int(digits[0])
    if first == 0 or (first == 1 and len(digits) != AIRLINE_DIGITS):
        return False
    return passes_luhn(digits)


def _number_is_card(number: int | float) -> bool:
    magnitude = abs(number)
    # Comparing first keeps infinities, fractions and huge numbers from being spelled out.
    if not 10 ** (CARD_DIGITS_MIN - 1) <= magnitude < 10**CARD_DIGITS_MAX:
        return False
    return magnitude == int(magnitude) and _is_card(str(int(magnitude)))
