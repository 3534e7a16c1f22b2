"""Writes the letters that customers get, and addresses them.

Guarantees: a letter is a function of its facts, so that writing it again gives the same
bytes; a header holds what it was given and nothing more, since facts are ids without
control characters and the message is built by `email`, which refuses line ends in headers.
Refuses: addresses that are not plain ASCII (`ValueError`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from enum import StrEnum
from typing import Final, NamedTuple

SENDER_DEFAULT: Final = "orders@shop.invalid"
"""Nobody can answer it: names under `.invalid` never resolve (RFC 6761, section 6.4)."""

CUSTOMER_DOMAIN: Final = "customers.invalid"

# Short, since `email` would encode an identifier that does not fit into one line.
_MESSAGE_DOMAIN: Final = "raysaga.invalid"

_LOCAL_PART_BYTES_MAX: Final = 64  # RFC 5321, section 4.5.3.1.1


class LetterKind(StrEnum):
    """What a letter says."""

    CONFIRMATION = "confirmation"
    TAKE_BACK = "take-back"


_SUBJECTS: Final[Mapping[LetterKind, str]] = {
    LetterKind.CONFIRMATION: "Your order {order_id} is on its way",
    LetterKind.TAKE_BACK: "Your order {order_id} was cancelled",
}
_TEXTS: Final[Mapping[LetterKind, str]] = {
    LetterKind.CONFIRMATION: (
        "Thank you for your order {order_id}.\nIt is paid for, and will be with you soon.\n"
    ),
    LetterKind.TAKE_BACK: (
        "We could not complete your order {order_id} and have cancelled it.\n"
        "Please disregard the letter that said it was on its way.\n"
        "What you paid is given back.\n"
    ),
}


class Letter(NamedTuple):
    """The facts of one letter; kept as they are in the table of messages.

    Attributes:
        notice_id: Made from the step's key; both letters of a step share it.
        kind: What it says.
        order_id: Which order it is about.
        recipient: An address.
        at_ms: When it was decided, Unix time.
    """

    notice_id: str
    kind: LetterKind
    order_id: str
    recipient: str
    at_ms: int

    @property
    def name(self) -> str:
        """Names the letter, for ever, among all letters; can be the name of a file."""
        return f"{self.notice_id}-{self.kind.value}"

    @property
    def message_id(self) -> str:
        """The letter's `Message-ID`, by which mail readers know it again (RFC 5322, 3.6.4)."""
        return f"<{self.name}@{_MESSAGE_DOMAIN}>"


def write_letter(letter: Letter, sender: str) -> EmailMessage:
    """Return the letter as a message, with the line ends that SMTP wants."""
    message = EmailMessage(policy=SMTP)
    message["From"] = parse_address(sender)
    message["To"] = parse_address(letter.recipient)
    message["Date"] = datetime.fromtimestamp(letter.at_ms / 1000, UTC)
    message["Message-ID"] = letter.message_id
    message["Subject"] = _SUBJECTS[letter.kind].format(order_id=letter.order_id)
    message["Auto-Submitted"] = "auto-generated"
    if letter.kind is LetterKind.TAKE_BACK:
        taken_back = letter._replace(kind=LetterKind.CONFIRMATION)
        message["In-Reply-To"] = taken_back.message_id
        message["References"] = taken_back.message_id
    message.set_content(_TEXTS[letter.kind].format(order_id=letter.order_id))
    return message


def parse_address(text: str) -> Address:
    """Return an address of the form `name@domain`.

    Raises:
        ValueError: If it is none, or not plain ASCII.
    """
    if not text.isascii() or not text.isprintable() or text.strip() != text:
        raise ValueError("an address is printable ASCII")
    try:
        address = Address(addr_spec=text)
    except (MessageError, ValueError, IndexError) as error:
        # In words of our own: the parser's would quote what it was given.
        raise ValueError("not an address of the form name@domain") from error
    if not address.username or not address.domain:
        raise ValueError("an address has a name and a domain")
    return address


def customer_address(customer_id: str) -> str:
    """Return the address of a customer of whom nothing but the id is known."""
    parts = customer_id.split(".")
    if all(parts) and len(customer_id) + 2 <= _LOCAL_PART_BYTES_MAX:
        return Address(username=customer_id, domain=CUSTOMER_DOMAIN).addr_spec
    # What cannot be the name of a mailbox as it is; two ids still get two addresses.
    digest = hashlib.blake2b(customer_id.encode(), digest_size=16).hexdigest()
    return f"customer-{digest}@{CUSTOMER_DOMAIN}"
