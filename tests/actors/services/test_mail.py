"""What a letter says, to whom, and that nobody can write into its headers."""

from __future__ import annotations

import email
import email.policy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysaga.actors.services.mail import (
    Letter,
    LetterKind,
    customer_address,
    parse_address,
    write_letter,
)

AT_MS = 1_790_000_000_123
ids = st.text("abcXYZ019._:-", min_size=1, max_size=100)


def letter(kind: LetterKind = LetterKind.CONFIRMATION, **changed: str) -> Letter:
    facts = {"notice_id": "msg_1", "order_id": "o-1", "recipient": "c-7@customers.invalid"}
    return Letter(kind=kind, at_ms=AT_MS, **{**facts, **changed})


@given(order_id=ids, customer_id=ids, kind=st.sampled_from(list(LetterKind)))
def test_every_letter_can_be_read_back(order_id: str, customer_id: str, kind: LetterKind) -> None:
    recipient = customer_address(customer_id)
    data = write_letter(
        letter(kind, order_id=order_id, recipient=recipient), "shop@shop.invalid"
    ).as_bytes()
    assert b"\n" not in data.replace(b"\r\n", b"")
    read = email.message_from_bytes(data, policy=email.policy.default)
    assert not read.defects
    assert order_id in read["Subject"]
    assert order_id in read.get_content()
    [address] = read["To"].addresses
    assert address.addr_spec == recipient
    assert read["Message-ID"] == f"<msg_1-{kind.value}@raysaga.invalid>"
    assert int(read["Date"].datetime.timestamp()) == AT_MS // 1000


def test_the_second_letter_names_the_first() -> None:
    first = write_letter(letter(), "shop@shop.invalid")
    second = write_letter(letter(LetterKind.TAKE_BACK), "shop@shop.invalid")
    assert second["In-Reply-To"] == first["Message-ID"]
    assert second["References"] == first["Message-ID"]
    assert second["Message-ID"] != first["Message-ID"]


def test_a_letter_is_a_function_of_its_facts() -> None:
    written = {write_letter(letter(), "shop@shop.invalid").as_bytes() for _ in range(3)}
    assert len(written) == 1


@given(st.lists(ids, min_size=2, max_size=2, unique=True))
def test_two_customers_have_two_addresses(pair: list[str]) -> None:
    assert customer_address(pair[0]) != customer_address(pair[1])


@given(ids)
def test_an_address_has_a_mailbox_name_that_servers_take(customer_id: str) -> None:
    address = parse_address(customer_address(customer_id))
    assert len(address.addr_spec.rpartition("@")[0]) <= 64


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nobody",
        "@nowhere",
        "a@b\r\nBcc: all@shop.invalid",
        "a@b\nX: y",
        "a@b, c@d",
        "a b@c",
        " a@b",
        "ä@b",
        "a@",
        "A <a@b>",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="address"):
        parse_address(text)


@pytest.mark.parametrize("field", ["order_id", "recipient"])
def test_line_ends_never_reach_a_header(field: str) -> None:
    """Ids cannot hold them; should one ever do, the letter is not written at all."""
    with pytest.raises(ValueError, match=r"address|header|linefeed"):
        write_letter(letter(**{field: "o-1\r\nBcc: all@shop.invalid"}), "shop@shop.invalid")
